"""The one place that reads time. Everything else is handed a Clock.

Two time scales are needed: wall time is for people and records; boot time (CLOCK_BOOTTIME) goes on while the machine sleeps,
never steps, and starts again at every boot, so durations are measured on it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from daemon.model.deadline import Deadline


class Clock(Protocol):
    """Time as the daemon sees it. `wall` and `boottime` are seconds; `boot_id` changes with every boot."""

    @property
    def boot_id(self) -> str: ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; may step."""
        ...

    def boottime(self) -> float:
        """Seconds since boot, sleep included; never steps."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def wall(self) -> float:
        return time.time()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class ManualClock:
    """A clock that moves only when told to: for tests, and for judging recorded decisions at their own time."""

    def __init__(
        self, wall: float = 1_700_000_000.0, boottime: float = 10_000.0, boot_id: str = "boot-1"
    ) -> None:
        self.boot_id = boot_id
        self._wall = wall
        self._boottime = boottime

    def wall(self) -> float:
        return self._wall

    def boottime(self) -> float:
        return self._boottime

    def advance(self, seconds: float) -> None:
        self._wall += seconds
        self._boottime += seconds

    def step_wall(self, seconds: float) -> None:
        """Move the wall clock alone, as NTP or a person would."""
        self._wall += seconds

    def reboot(self, boot_id: str, downtime: float = 60.0) -> None:
        self.boot_id = boot_id
        self._wall += downtime
        self._boottime = 5.0


def monotonic_usec() -> int:
    """CLOCK_MONOTONIC in microseconds: the scale in which systemd wants to hear when a reload began."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def deadline(clock: Clock, seconds: float) -> Deadline:
    """The moment `seconds` from now, in a form that survives a restart and a clock step."""
    return Deadline(clock.boot_id, clock.boottime() + seconds, clock.wall() + seconds)


def remaining(clock: Clock, due: Deadline) -> float:
    """Seconds until `due`; zero or less once it is reached."""
    return due.remaining(clock.boot_id, clock.boottime(), clock.wall())
