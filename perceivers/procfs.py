"""Reading /proc by hand: several times cheaper than a library, and one scan of the processes serves all who ask at about the same time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from perceivers.base import Tools

CHUNK = 16384
"""Bytes asked for at once."""
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
"""Seconds: the unit in which the kernel counts processor time."""
SHORTEST = 0.25
"""Seconds over which a share of processor time is taken at least: over less, a single tick would look like a burst."""
SHARED = 0.5
"""Seconds for which one scan serves those who poll."""
STRETCH = 200
"""Processes that are read before the loop may do something else."""
SETTLED = 10.0
"""Seconds of age after which a process is taken to have made its last exec: only then is its command line kept."""
LONGEST_COMMAND = 4096
"""Bytes of a command line that are looked at."""


class ProcFile:
    """A /proc file that is read again and again through one descriptor."""

    def __init__(self, path: str, open_: Callable[[str], int]) -> None:
        self.path = path
        self._open = open_
        self._fd: int | None = None

    def read(self) -> bytes:
        """All of it, as it is now. Raises OSError."""
        if self._fd is None:
            self._fd = self._open(self.path)
        data = os.pread(self._fd, CHUNK, 0)
        # The kernel gives long lists page by page: only an empty answer is the end.
        while more := os.pread(self._fd, CHUNK, len(data)):
            data += more
        return data

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def read_once(open_: Callable[[str], int], path: str, most: int = CHUNK) -> bytes:
    """The beginning of a file, at most `most` bytes. Raises OSError."""
    fd = open_(path)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


class Process(NamedTuple):
    """One process as /proc/PID/stat tells it; pid and start together never name another one until the next boot."""

    pid: int
    name: str
    """At most 15 characters: the kernel cuts it."""
    state: str
    ticks: int
    """Processor time used, in clock ticks."""
    threads: int
    start: int
    """Clock ticks after boot."""
    pages: int
    """Resident memory, in pages."""

    @property
    def zombie(self) -> bool:
        """Dead, but not yet reaped by its parent. A process whose first thread ended before the others looks alike, but lives."""
        return self.state in "ZX" and self.threads <= 1


def read_process(open_: Callable[[str], int], pid: int) -> Process:
    """Raises OSError (FileNotFoundError, ProcessLookupError: there is none)."""
    data = read_once(open_, f"/proc/{pid}/stat")
    # The name stands in parentheses and may contain anything, even `) R 1`: the last parenthesis is the kernel's.
    head, _, tail = data.rpartition(b")")
    fields = tail.split()
    return Process(
        pid,
        head.partition(b"(")[2].decode(errors="replace"),
        fields[0].decode(),
        int(fields[11]) + int(fields[12]),
        int(fields[17]),
        int(fields[19]),
        int(fields[21]),
    )


def read_uptime(open_: Callable[[str], int]) -> float:
    """Seconds since boot. Raises OSError."""
    return float(read_once(open_, "/proc/uptime").split()[0])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All processes at about one moment."""

    at: float
    """Monotonic seconds when the reading began."""
    uptime: float
    processes: Mapping[int, Process]

    @property
    def whole(self) -> bool:
        """Whether processes of other users are seen: pid 1 always exists, and a restricted /proc hides it first."""
        return 1 in self.processes


class Scan:
    """The scan of /proc that all perceivers with the same Tools share."""

    _shared: ClassVar[dict[Tools, Scan]] = {}

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._users = 0
        self._lock = asyncio.Lock()
        self._last: Snapshot | None = None
        self._commands: dict[tuple[int, int, str], str] = {}

    @classmethod
    def join(cls, tools: Tools) -> Scan:
        """The one scan of these Tools; `leave` it when done."""
        scan = cls._shared.setdefault(tools, cls(tools))
        scan._users += 1
        return scan

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            del self._shared[self._tools]

    async def snapshot(self, newer_than: float) -> Snapshot:
        """A snapshot that is at most `SHARED` seconds old and was begun after the moment `newer_than` (monotonic). Raises OSError."""
        async with self._lock:
            last = self._last
            if last is None or last.at <= newer_than or self._tools.monotonic() - last.at > SHARED:
                last = self._last = await self._read()
                self._forget(last)
            return last

    def command_line(self, process: Process, uptime: float) -> str:
        """The arguments, separated by blanks; of a zombie what was last seen, and empty for a kernel thread."""
        key = (process.pid, process.start, process.name)
        known = self._commands.get(key)
        # A young process may still be on its way from fork to exec, under its parent's command line.
        if known is not None and uptime - process.start * TICK > SETTLED:
            return known
        try:
            data = read_once(self._tools.open, f"/proc/{process.pid}/cmdline", LONGEST_COMMAND)
        except OSError:
            data = b""
        line = data.replace(b"\0", b" ").decode(errors="replace").strip() or known or ""
        if line or uptime - process.start * TICK > SETTLED:
            self._commands[key] = line
        return line

    async def _read(self) -> Snapshot:
        at, uptime = self._tools.monotonic(), read_uptime(self._tools.open)
        processes: dict[int, Process] = {}
        for number, pid in enumerate(self._pids(), 1):
            try:
                processes[pid] = read_process(self._tools.open, pid)
            except OSError:
                # It ended while we read, or it is hidden from us; `whole` tells the latter.
                continue
            if number % STRETCH == 0:
                await asyncio.sleep(0)
        return Snapshot(at, uptime, processes)

    def _pids(self) -> list[int]:
        fd = self._tools.open("/proc")
        try:
            return [int(name) for name in os.listdir(fd) if name.isdigit()]
        finally:
            os.close(fd)

    def _forget(self, snapshot: Snapshot) -> None:
        alive = snapshot.processes
        gone = [key for key in self._commands if key[0] not in alive or alive[key[0]].start != key[1]]
        for key in gone:
            del self._commands[key]
