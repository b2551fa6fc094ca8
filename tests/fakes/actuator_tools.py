"""Real tools for actuators: real files and processes below a directory of the test's own, and a clock that stands."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actuators import safefs
from actuators.base import Tools
from actuators.runner import Runner

NOW = 1_700_000_000.0
DAY = 86400.0
PATIENCE = 20.0


def tools(
    home: Path,
    *,
    commands: Mapping[str, Any] | None = None,
    directories: Mapping[str, Any] | None = None,
    calls: Mapping[str, Any] | None = None,
    files: tuple[Path, ...] = (),
    last_good: Mapping[str, str] | None = None,
    secret: Callable[[Mapping[str, Any]], str] = lambda source: str(source["env"]),
) -> Tools:
    for name in ("copies", "scratch"):
        (home / name).mkdir(exist_ok=True)
    return Tools(
        run=Runner(),
        files=safefs,
        settings={"commands": commands or {}, "directories": directories or {}, "calls": calls or {}},
        wall=lambda: NOW,
        copies=str(home / "copies"),
        last_good=(last_good or {}).get,
        services={"api": {"files": [str(path) for path in files]}},
        scratch=str(home / "scratch"),
        secret=secret,
    )


def aged(path: Path, days: float, content: bytes = b"x") -> Path:
    """A file that was last written so many days before NOW."""
    path.write_bytes(content)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return path


def running(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not taken note of does not."""
    try:
        return safefs.load(f"/proc/{pid}/stat").data.rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


def await_true(condition: Callable[[], bool]) -> None:
    """Look until it is so. For what another process does in its own time; an assertion after PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)
