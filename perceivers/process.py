"""Processes, found by a pid file, by their command line or by their name."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from perceivers.base import Batch, Kind, Observation, PerceiverBlind, Scalar, Spec, Tools
from perceivers.procfs import SHORTEST, TICK, Process, Scan, Snapshot, read_once, read_process, read_uptime

MOST_EACH = 100
"""Processes told of one by one; the busiest first."""
MOST_FOLLOWED = 32
"""Processes whose death wakes the poll at once."""
FAREWELL = 600.0
"""Seconds for which a process that is gone is still told of, so that what was found about it can clear."""
STALE_BY = 2.0
"""Seconds that a process may look younger than its own pid file: clocks are coarse."""
KERNEL_NAME = 15
"""Characters of a name that the kernel keeps."""
PAGE = os.sysconf("SC_PAGE_SIZE")
_LIMIT = re.compile(rb"^Max open files +(\d+)", re.MULTILINE)


class Expect(BaseModel):
    """How many processes there should be."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    min: int = Field(default=1, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Expect:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"`max` {self.max} is below `min` {self.min}")
        return self


class Settings(BaseModel):
    """What the operator may say about `process`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    pidfile: str | None = None
    """A file that holds the pid."""
    command: str | None = Field(default=None, json_schema_extra={"format": "regex"})
    """A regular expression that must match somewhere in the command line (arguments separated by blanks)."""
    name: str | None = None
    """The name of the program, as ps shows it."""
    expect: Expect = Expect()
    each: bool = False
    """One Observation for each process, besides the one for all of them."""

    @field_validator("command")
    @classmethod
    def _compiles(cls, command: str | None) -> str | None:
        try:
            re.compile(command or "")
        except re.error as exc:
            raise ValueError(f"{command!r} is no regular expression: {exc}") from None
        return command

    @field_validator("pidfile")
    @classmethod
    def _absolute(cls, pidfile: str | None) -> str | None:
        if pidfile is not None and not pidfile.startswith("/"):
            raise ValueError(f"{pidfile!r} is no absolute path")
        return pidfile

    @model_validator(mode="after")
    def _one_of(self) -> Settings:
        if sum(bool(way) for way in (self.pidfile, self.command, self.name)) != 1:
            raise ValueError("a process is found by exactly one of `pidfile`, `command`, `name`")
        return self


@dataclass(frozen=True, slots=True)
class _Found:
    """What was looked for, at one moment."""

    at: float
    """Monotonic seconds."""
    uptime: float
    alive: Sequence[Process]
    zombies: int
    error: str = ""


class _Shares:
    """The processor time that each process used since the last poll, or since the one before if that was a moment ago."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._ticks: dict[tuple[int, int], int] = {}
        self._shares: dict[tuple[int, int], float] = {}

    def update(self, found: _Found) -> dict[int, float]:
        """pid → share of one core; without those that are seen for the first time."""
        now = {(one.pid, one.start): one.ticks for one in found.alive}
        elapsed = found.at - self._at if self._at is not None else SHORTEST
        if elapsed >= SHORTEST:
            before, self._ticks, self._at = self._ticks, now, found.at
            self._shares = {
                one: max(0, ticks - before[one]) * TICK / elapsed
                for one, ticks in now.items()
                if one in before
            }
        return {one[0]: share for one, share in self._shares.items() if one in now}


class _Deaths:
    """Calls `died` as soon as one of the processes that it follows ends."""

    def __init__(self, died: Callable[[], None]) -> None:
        self._died = died
        self._followed: dict[tuple[int, int], int] = {}

    def follow(self, processes: Sequence[Process]) -> None:
        """Follow these and no others."""
        wanted = {(one.pid, one.start) for one in processes[:MOST_FOLLOWED]}
        for gone in self._followed.keys() - wanted:
            self._drop(gone)
        for new in wanted - self._followed.keys():
            self._take(new)

    def close(self) -> None:
        for followed in list(self._followed):
            self._drop(followed)

    def _take(self, process: tuple[int, int]) -> None:
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(process[0])
        except ProcessLookupError:
            loop.call_soon(self._died)
        except OSError:
            # Out of descriptors, or an old kernel: the schedule will see the death, only later.
            return
        else:
            self._followed[process] = fd
            loop.add_reader(fd, self._ended, process)

    def _ended(self, process: tuple[int, int]) -> None:
        self._drop(process)
        self._died()

    def _drop(self, process: tuple[int, int]) -> None:
        fd = self._followed.pop(process)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


class ProcessPerceiver:
    """Perceives processes: one Observation for all that match (key ""), and with `each` one for every single one (key = pid)."""

    kind = "process"

    def __init__(self, spec: Spec, tools: Tools) -> None:
        assert isinstance(spec.settings, Settings)
        self.name, self.resource = spec.name, spec.resource
        self._settings = spec.settings
        self._tools = tools
        self._command = re.compile(spec.settings.command) if spec.settings.command else None
        self._scan: Scan | None = None
        self._newer_than = float("-inf")
        self._shares = _Shares()
        self._deaths: _Deaths | None = None
        self._trusted: tuple[int, int, int] | None = None
        self._told: dict[int, tuple[int, float]] = {}
        """Pid → its start and when it was found to be gone (unix seconds; 0: it is not)."""

    async def poll(self) -> Batch:
        found = self._by_pidfile(self._settings.pidfile) if self._settings.pidfile else await self._by_scan()
        shares = self._shares.update(found)
        # The busiest leads; among the idle the oldest.
        ranked = sorted(found.alive, key=lambda one: (-shares.get(one.pid, 0.0), one.start, one.pid))
        if self._deaths is not None:
            self._deaths.follow(sorted(found.alive, key=lambda one: one.start))
        if not self._settings.each:
            return Batch([self._all(found, ranked, shares)], self._cursor())
        # Who was among the busiest is told of once more when others are busier.
        singles = [*ranked[:MOST_EACH], *(one for one in ranked[MOST_EACH:] if one.pid in self._told)]
        seen = [self._one(one, found.uptime, shares) for one in singles]
        gone = self._farewells(ranked)
        return Batch([self._all(found, ranked, shares), *seen, *gone], self._cursor())

    def _cursor(self) -> dict[str, Any] | None:
        """What outlives a restart: whom the pid file is believed to mean, and who was told of. It changes with the processes only."""
        told = {str(pid): [start, since] for pid, (start, since) in self._told.items()}
        if self._trusted is None and not told:
            return None
        return {"trusted": list(self._trusted or ()), "told": told}

    def restore(self, cursor: Mapping[str, Any]) -> None:
        trusted = cursor.get("trusted", ())
        self._trusted = (trusted[0], trusted[1], trusted[2]) if trusted else None
        self._told = {
            int(pid): (int(start), float(since)) for pid, (start, since) in cursor.get("told", {}).items()
        }

    def wake_on(self, wake: Callable[[], None]) -> None:
        """The death of a process that was found wakes."""

        def died() -> None:
            # A scan from before the death must not be taken for the state after it.
            self._newer_than = self._tools.monotonic()
            wake()

        if self._deaths is not None:
            self._deaths.close()
        self._deaths = _Deaths(died)

    async def close(self) -> None:
        if self._deaths is not None:
            self._deaths.close()
        scan, self._scan = self._scan, None
        if scan is not None:
            scan.leave()

    # finding -------------------------------------------------------------------------------------------------------------

    async def _by_scan(self) -> _Found:
        if self._scan is None:
            self._scan = Scan.join(self._tools)
        snapshot = await self._scan.snapshot(self._newer_than)
        # Never the same snapshot twice: a share needs time to have passed, and who asks again wants to know what is now.
        self._newer_than = snapshot.at
        matching = [one for one in snapshot.processes.values() if self._matches(one, snapshot, self._scan)]
        alive = [one for one in matching if not one.zombie]
        if len(alive) < self._settings.expect.min and not snapshot.whole:
            raise PerceiverBlind(
                "processes of other users are hidden (/proc is mounted with hidepid, or ProtectProc= is set): "
                "let the daemon's user see them, or find the process by `pidfile`"
            )
        return _Found(snapshot.at, snapshot.uptime, alive, len(matching) - len(alive))

    def _matches(self, process: Process, snapshot: Snapshot, scan: Scan) -> bool:
        if self._command is None:
            return self._is_named(process, self._settings.name or "", snapshot, scan)
        # Our own command line may well hold the pattern.
        return process.pid != os.getpid() and bool(
            self._command.search(scan.command_line(process, snapshot.uptime))
        )

    def _is_named(self, process: Process, name: str, snapshot: Snapshot, scan: Scan) -> bool:
        if len(name) <= KERNEL_NAME or process.name != name[:KERNEL_NAME]:
            return process.name == name
        program = scan.command_line(process, snapshot.uptime).partition(" ")[0]
        return os.path.basename(program) == name

    def _by_pidfile(self, path: str) -> _Found:
        at, uptime = self._tools.monotonic(), read_uptime(self._tools.open)
        try:
            pid, written = self._pid(path)
            process = self._named_by(path, pid, written, uptime)
        except _NotThere as exc:
            return _Found(at, uptime, (), 0, str(exc))
        if process.zombie:
            return _Found(at, uptime, (), 1, f"process {pid} is dead, and its parent has not reaped it")
        return _Found(at, uptime, (process,), 0)

    def _pid(self, path: str) -> tuple[int, int]:
        """The pid in the file, and when the file was written (unix nanoseconds)."""
        try:
            fd = self._tools.open(path)
        except (FileNotFoundError, NotADirectoryError):
            raise _NotThere(f"there is no pid file {path}") from None
        except PermissionError as exc:
            raise PerceiverBlind(
                f"the pid file {path} may not be read: let the daemon's user read it"
            ) from exc
        try:
            data, written = os.read(fd, 64), os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
        # Some write more lines than one (PostgreSQL); the pid is the first.
        first = data.split(b"\n", 1)[0].strip()
        if not re.fullmatch(rb"[1-9][0-9]{0,9}", first):
            raise _NotThere(f"the pid file {path} holds no pid")
        return int(first), written

    def _named_by(self, path: str, pid: int, written: int, uptime: float) -> Process:
        try:
            process = read_process(self._tools.open, pid)
        except (FileNotFoundError, ProcessLookupError):
            _refuse_hidden(pid)
            raise _NotThere(f"the pid file {path} is stale: process {pid} is gone") from None
        identity = (pid, process.start, written)
        if identity != self._trusted:
            began = self._tools.wall() - (uptime - process.start * TICK)
            if began > written / 1e9 + STALE_BY:
                raise _NotThere(f"the pid file {path} is stale: process {pid} is younger than the file")
            # Once believed, always believed: a step of the clock must not make a living process a dead one.
            self._trusted = identity
        return process

    # telling -------------------------------------------------------------------------------------------------------------

    def _all(self, found: _Found, ranked: Sequence[Process], shares: Mapping[int, float]) -> Observation:
        count, expect = len(found.alive), self._settings.expect
        values: dict[str, Scalar] = {
            "up": count >= expect.min,
            "count": count,
            "excess": max(0, count - expect.max) if expect.max is not None else 0,
            "zombies": found.zombies,
            "error": found.error or self._miscount(count),
        }
        if self._settings.each:
            trouble = f"{count} match, only the busiest {MOST_EACH} are told of" if count > MOST_EACH else ""
            return self._observation("", values, trouble)
        own, trouble = self._together(found, ranked, shares)
        return self._observation("", {**values, **own}, trouble)

    def _miscount(self, count: int) -> str:
        expect, settings = self._settings.expect, self._settings
        if count < expect.min:
            what = (
                f"named {settings.name}" if settings.name else f"with a command line like {settings.command}"
            )
            return f"{count} processes {what}, at least {expect.min} expected"
        if expect.max is not None and count > expect.max:
            return f"{count} processes, at most {expect.max} expected"
        return ""

    def _together(
        self, found: _Found, ranked: Sequence[Process], shares: Mapping[int, float]
    ) -> tuple[dict[str, Scalar], str]:
        """What all use together, and who leads; nobody uses nothing."""
        handles, share, trouble = self._handles(ranked)
        values: dict[str, Scalar] = {
            "pid": None,
            "start": None,
            "state": None,
            "age": None,
            "cpu": 0.0,
            "cpu_total": sum(shares.values()),
            "rss_bytes": sum(one.pages for one in ranked) * PAGE,
            "threads": sum(one.threads for one in ranked),
            "handles": handles,
            "handles_used": share,
        }
        if not ranked:
            return values, ""
        lead = ranked[0]
        values |= _identity(lead, found.uptime)
        values["cpu"] = shares.get(lead.pid)
        if not shares:
            values["cpu_total"] = None
            trouble = "; ".join(filter(None, ("cpu: needs a second reading", trouble)))
        return values, trouble

    def _one(self, process: Process, uptime: float, shares: Mapping[int, float]) -> Observation:
        handles, share, trouble = self._handles([process])
        values: dict[str, Scalar] = {
            **_identity(process, uptime),
            "cpu": shares.get(process.pid),
            "rss_bytes": process.pages * PAGE,
            "threads": process.threads,
            "handles": handles,
            "handles_used": share,
        }
        if process.pid not in shares:
            trouble = "; ".join(filter(None, ("cpu: needs a second reading", trouble)))
        return self._observation(str(process.pid), values, trouble)

    def _farewells(self, ranked: Sequence[Process]) -> list[Observation]:
        """One Observation for each that was told of and is gone: it uses nothing any more, which clears what it was found guilty of."""
        now, pids = self._tools.wall(), {one.pid for one in ranked}
        gone = {
            pid: (start, since or now)
            for pid, (start, since) in self._told.items()
            if pid not in pids and abs(now - (since or now)) < FAREWELL
        }
        latest = dict(sorted(gone.items(), key=lambda one: one[1][1])[-MOST_EACH:])
        self._told = {one.pid: (one.start, 0.0) for one in ranked[:MOST_EACH]} | latest
        nothing = {"cpu": 0.0, "rss_bytes": 0, "threads": 0, "handles": 0, "handles_used": 0.0}
        return [
            self._observation(
                str(pid), {"pid": pid, "start": start, "state": "X", "age": None, **nothing}, ""
            )
            for pid, (start, _) in latest.items()
        ]

    def _handles(self, processes: Sequence[Process]) -> tuple[int | None, float | None, str]:
        """The open handles of all, the highest share of its own limit that one uses, and why they cannot be read."""
        total, highest = 0, 0.0
        for process in processes:
            try:
                handles = _count_handles(self._tools.open, process.pid)
                limits = read_once(self._tools.open, f"/proc/{process.pid}/limits")
            except (FileNotFoundError, ProcessLookupError):
                # It ended since it was found.
                continue
            except OSError as exc:
                return None, None, f"handles: {exc.strerror}"
            total += handles
            if limit := _LIMIT.search(limits):
                highest = max(highest, handles / max(1, int(limit[1])))
        return total, highest, ""

    def _observation(self, key: str, values: Mapping[str, Scalar], trouble: str) -> Observation:
        return Observation(self.name, self.resource, self._tools.wall(), values, key=key, unreadable=trouble)


class _NotThere(Exception):
    """The pid file leads to no process; the text says why."""


def _refuse_hidden(pid: int) -> None:
    """Raises PerceiverBlind when the process is there and only /proc does not show it."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    os.close(fd)
    raise PerceiverBlind(
        f"process {pid} is there but hidden (/proc is mounted with hidepid, or ProtectProc= is set)"
    )


def _identity(process: Process, uptime: float) -> dict[str, Scalar]:
    return {
        "pid": process.pid,
        "start": process.start,
        "state": process.state,
        "age": max(0.0, uptime - process.start * TICK),
    }


def _count_handles(open_: Callable[[str], int], pid: int) -> int:
    path = f"/proc/{pid}/fd"
    # Since Linux 6.2 the directory's size is the number, even where it may not be listed.
    if size := os.stat(path).st_size:
        return size
    fd = open_(path)
    try:
        return len(os.listdir(fd))
    finally:
        os.close(fd)


KIND = Kind(
    name="process",
    settings=Settings,
    build=ProcessPerceiver,
    values={
        "up": "whether at least `expect.min` processes run",
        "count": "processes that run",
        "excess": "processes above `expect.max`",
        "zombies": "matching processes that are dead and not reaped by their parent",
        "error": "what is wrong, in words; empty when nothing is",
        "pid": "of the busiest process",
        "start": "when it started, in clock ticks after boot; process:PID@START names it for good",
        "state": "its state: R running, S sleeping, D waiting for a disk, T stopped, ...; X: gone (with `each`)",
        "age": "seconds since its start",
        "cpu": "share of one core that the busiest process used since the last poll",
        "cpu_total": "the same of all together; above 1 when they use more than one core",
        "rss_bytes": "bytes of resident memory, all together",
        "threads": "threads, all together",
        "handles": "open file handles, all together",
        "handles_used": "the highest share of its own handle limit that one of them uses",
    },
)
