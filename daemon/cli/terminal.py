"""What a person sees: headed, aligned, calm; coloured on a terminal only; and nothing that an outsider wrote can move the cursor."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Literal

WIDEST = 120
"""Columns used of a terminal: longer lines are hard to read."""
UNBOUND = 100_000
"""Columns where there is no terminal: whoever greps wants one line per thing."""
STYLES = {
    "critical": "bold red",
    "error": "red",
    "warning": "yellow",
    "good": "green",
    "title": "bold",
    "quiet": "dim",
    "": "",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with one of STYLES."""

    text: str
    style: str = ""


Row = Sequence[str | Cell]


def clean(text: str) -> str:
    """The text with everything that does not print (escapes, line ends, writing directions) spelled out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@dataclass
class Page:
    """Lines and aligned rows, put together first and shown in one go."""

    parts: list[Cell | list[Row]] = field(default_factory=list)

    def line(self, text: str = "", style: str = "") -> None:
        self.parts.append(Cell(text, style))

    def rows(self, rows: Sequence[Row]) -> None:
        """Rows of as many cells each, which stand under each other."""
        if rows:
            self.parts.append(list(rows))

    def section(self, title: str, rows: Sequence[Row]) -> None:
        """A heading with rows; nothing at all when there are none."""
        if rows:
            if self.parts:
                self.line()
            self.line(title, "title")
            self.rows([["", *row] for row in rows])

    def show(self, out: IO[str] | None = None) -> None:
        """Print. Colours and the width of the terminal only where `out` (stdout) is one."""
        from rich.console import Console

        out = out or sys.stdout
        colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
        console = Console(file=out, color_system=colours, highlight=False, markup=False, emoji=False)
        if console.is_terminal:
            console.width = min(console.width, WIDEST)
            self._print(console)
            return
        console.width = UNBOUND
        with console.capture() as taken:
            self._print(console)
        out.write("".join(f"{line.rstrip()}\n" for line in taken.get().splitlines()))

    def _print(self, console: Any) -> None:
        for part in self.parts:
            console.print(_text(part) if isinstance(part, Cell) else _grid(part))


def _text(cell: str | Cell) -> Any:
    from rich.text import Text

    shown = cell if isinstance(cell, Cell) else Cell(cell)
    return Text(clean(shown.text), STYLES[shown.style], overflow="fold")


def _grid(rows: list[Row]) -> Any:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    for column in range(len(rows[0])):
        # Only the last column is broken over lines: ids and names are copied from the others.
        grid.add_column(no_wrap=column < len(rows[0]) - 1, overflow="fold")
    for row in rows:
        grid.add_row(*(_text(cell) for cell in row))
    return grid


def show_json(value: Any) -> None:
    """ASCII, so that nothing in it can move a terminal either."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def complain(text: str) -> None:
    """Say on stderr what went wrong."""
    for line in text.splitlines() or [""]:
        print(clean(line), file=sys.stderr)


def moment(at: float) -> str:
    """Unix seconds as the operator's own clock shows them."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lasting(seconds: float) -> str:
    """A duration in two units at most: `3h 12m`."""
    left = max(0, round(seconds))
    spelled = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size:
            spelled.append(f"{left // size}{unit}")
            left %= size
    return " ".join(spelled[:2]) or "0s"
