"""What keeps midwatch's hands still: a pause, a person's hold, a hold file, a fresh boot, a shutdown. Signals go on all the same."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from daemon.clock import Clock, deadline, remaining
from daemon.model.deadline import Deadline
from daemon.model.units import seconds, spell_seconds
from daemon.store.store import Tx
from daemon.store.tables import CONTROL

PAUSE = "pause"
_CONTROLS = select(CONTROL)


class Holds:
    """Answers one question: is anything holding right now, and what?"""

    def __init__(self, conditions: Sequence[str], clock: Clock) -> None:
        """`conditions` as configured in `[hold] while`: `path:/FILE`, `boot < 10m`, `shutdown`."""
        self._conditions = tuple(conditions)
        self._clock = clock

    def outside(self) -> str:
        """The first configured condition that is true, as a sentence; empty when none is. Reads files, so not for a transaction."""
        for condition in self._conditions:
            try:
                if self._true(condition):
                    return f"held: {condition}"
            except OSError as exc:
                # Somebody may hold us there: not being able to look is no leave to act.
                return f"held: {condition} cannot be read: {exc.strerror}"
        return ""

    def switched(self, conn: Connection) -> str:
        """What people switched on: the pause first, then holds that have not run out."""
        rows = conn.execute(_CONTROLS).all()
        for row in sorted(rows, key=lambda row: row.name != PAUSE):
            if row.due is None or remaining(self._clock, Deadline.from_text(row.due)) > 0:
                what = "paused" if row.name == PAUSE else f"held ({row.name.removeprefix('hold:')})"
                return f"{what} by {row.by}" + (f": {row.reason}" if row.reason else "")
        return ""

    def _true(self, condition: str) -> bool:
        kind, _, name = condition.partition(":")
        if kind == "path":
            return _there(name)
        if condition.startswith("boot"):
            return self._clock.boottime() < seconds(condition.partition("<")[2].strip())
        if condition == "shutdown":
            return os.path.exists("/run/systemd/shutdown/scheduled") or os.path.exists("/run/nologin")
        return False


def _there(path: str) -> bool:
    """A hold file holds while it exists, a hold directory while something lies in it. Raises OSError when nobody can tell."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return bool(os.listdir(path)) if os.path.isdir(path) else True


def switch_on(tx: Tx, clock: Clock, name: str, by: str, reason: str, lasts: float | None) -> None:
    """Set a pause or a hold; `lasts` in seconds, None until it is taken away."""
    tx.conn.execute(delete(CONTROL).where(CONTROL.c.name == name))
    due = None if lasts is None else deadline(clock, lasts).to_text()
    tx.conn.execute(insert(CONTROL).values(name=name, by=by, reason=reason, at=tx.now, due=due))
    tx.record(
        "control.set", {"name": name, "by": by, "reason": reason, "for": lasts and spell_seconds(lasts)}
    )


def switch_off(tx: Tx, name: str, by: str) -> bool:
    """Take a pause or hold away; False when there was none."""
    gone = tx.conn.execute(delete(CONTROL).where(CONTROL.c.name == name)).rowcount > 0
    if gone:
        tx.record("control.cleared", {"name": name, "by": by})
    return gone
