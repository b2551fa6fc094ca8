"""Reads log files: what each rule hit since the last poll, each line exactly once."""

from __future__ import annotations

import asyncio
import fnmatch
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from perceivers.base import Batch, Bytes, Kind, Observation, Perceiver, PerceiverBlind, Scalar, Spec, Tools
from perceivers.inotify import Inotify
from perceivers.matcher import Hit, LiteralMatcher
from perceivers.tail import BLOCK, GRACE, Step, Tail, Tails, step, why

MOST_KEYS = 1000
"""Keys told apart in one poll; further ones are counted together under `*`."""
SAMPLES = 3
LONGEST_SAMPLE = 512
"""Characters."""
LONGEST_KEY = 200
"""Characters of a key or a capture."""
QUIET = 30.0
"""Seconds after which a line without its newline is taken as it stands."""
LONGEST_POLL = 1.0
"""Seconds after which a poll gives what it has, so that slow patterns never run into its timeout."""
PAUSE = 0.02
"""Seconds between two wake-ups: at most 50 polls a second, however busy the writer."""
MOST_REASONS = 3


class LogSettings(BaseModel):
    """Which files, and how much of them at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: str
    """An absolute path, or a glob of them (`/var/log/app/*.log`)."""
    from_start: bool = False
    """Read what is already there at the very first poll; else only what comes."""
    most_files: int = Field(default=100, ge=1, le=1000)
    """So many files of a glob are followed."""
    budget: Bytes = Field(default=16 * 2**20, ge=BLOCK)
    """Bytes read in one poll; more of them make the next poll follow at once."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/") or "\0" in path:
            raise ValueError("`path` must be absolute, as /var/log/app.log or /var/log/app/*.log")
        return path


@dataclass(slots=True)
class _Found:
    """One rule's hits of one key."""

    first: float
    last: float
    captures: Mapping[str, str]
    count: int = 0
    samples: list[str] = field(default_factory=list)


class _Tally:
    """What one poll found."""

    def __init__(self) -> None:
        self.lines = 0
        self._found: dict[tuple[str, str], _Found] = {}

    def add(self, hit: Hit, at: float) -> None:
        key = printable(hit.match[hit.rule.key] or "", LONGEST_KEY) if hit.rule.key else ""
        place = (hit.rule.name, key)
        if place not in self._found and len(self._found) >= MOST_KEYS and key:
            place = (hit.rule.name, "*")
        found = self._found.get(place)
        if found is None:
            found = self._found[place] = _Found(at, at, _captures(hit))
        found.count += 1
        found.last = at
        if len(found.samples) < SAMPLES:
            found.samples.append(printable(hit.match.string, LONGEST_SAMPLE))

    def observations(self, perceiver: str, resource: str, at: float) -> list[Observation]:
        return [
            Observation(
                perceiver,
                resource,
                at,
                key=key,
                rule=rule,
                count=found.count,
                first=found.first,
                last=found.last,
                samples=tuple(found.samples),
                captures=found.captures,
            )
            for (rule, key), found in self._found.items()
        ]


class _Reading:
    """One poll under way. Nothing of it counts until it is done, so a cancelled poll has read nothing."""

    def __init__(self, now: float, share: int) -> None:
        self.now = now
        self.share = share
        """Bytes that one file may have."""
        self.tally = _Tally()
        self.reached: list[tuple[Tail, Step]] = []
        self.failed: dict[str, str] = {}

    @property
    def behind(self) -> bool:
        return any(not last.at_end for _, last in self.reached)


_BUFFER = bytearray(BLOCK)
"""One for all logs: what was read is copied out before anything else runs."""


class LogPerceiver:
    """Follows the files and matches their lines; see `Tails` for what it takes to lose none."""

    kind = "log"

    def __init__(self, spec: Spec, tools: Tools) -> None:
        assert isinstance(spec.settings, LogSettings)
        self.name = spec.name
        self.resource = spec.resource
        self._settings = spec.settings
        self._tools = tools
        self._matcher = LiteralMatcher(spec.rules)
        self._tails = Tails(
            spec.settings.path, spec.settings.most_files, tools.open, spec.settings.from_start
        )
        self._turn = 0
        self._names: tuple[str, ...] = ()
        self._wake: Callable[[], None] | None = None
        self._inotify: Inotify | None = None
        self._later: asyncio.TimerHandle | None = None

    async def poll(self) -> Batch:
        now = self._tools.monotonic()
        self._tails.look(now)
        self._watch_directories()
        tails = [tail for tail in self._tails.followed if tail.fd is not None]
        reading = _Reading(now, max(BLOCK, self._settings.budget // max(1, len(tails))))
        turn = self._turn % max(1, len(tails))
        for tail in tails[turn:] + tails[:turn]:
            await self._read(tail, reading)
        self._raise_if_blind(tails, reading)
        self._settle(reading)
        observations = reading.tally.observations(self.name, self.resource, self._tools.wall())
        return Batch([self._reading_of(reading), *observations], self._tails.cursor())

    def restore(self, cursor: Mapping[str, Any]) -> None:
        self._tails.restore(cursor)

    def wake_on(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._inotify = Inotify(wake, self._is_of_interest, PAUSE)
        self._watch_directories()

    async def close(self) -> None:
        self._wake = None
        if self._inotify is not None:
            self._inotify.close()
        if self._later is not None:
            self._later.cancel()
        self._tails.close()

    async def _read(self, tail: Tail, reading: _Reading) -> None:
        """Read one file on to its end, or until its share or the time is used up."""
        assert tail.fd is not None
        last, left = Step(b"", tail.place), reading.share
        while left > 0 and not last.at_end and (left == reading.share or self._in_time(reading)):
            try:
                last = step(tail.fd, last.place, _BUFFER)
            except OSError as exc:
                reading.failed[tail.path] = why(tail.path, exc)
                self._tails.reopen(tail)
                return
            left -= max(len(last.lines), 1024)
            if last.partial and self._is_whole(tail, last, reading.now):
                last = Step(last.partial + b"\n", last.place.after(last.partial, skipping=True), at_end=True)
            self._match(last.lines, reading.tally)
            # The loop has others to serve; a block takes some milliseconds.
            await asyncio.sleep(0)
        reading.reached.append((tail, last))

    def _in_time(self, reading: _Reading) -> bool:
        return self._tools.monotonic() - reading.now < LONGEST_POLL

    def _match(self, lines: bytes, tally: _Tally) -> None:
        at = self._tools.wall()
        tally.lines += lines.count(b"\n")
        for hit in self._matcher.hits(lines):
            tally.add(hit, at)

    def _is_whole(self, tail: Tail, last: Step, now: float) -> bool:
        """Whether the newline of a partial line is not waited for any longer."""
        end = last.place.offset + len(last.partial)
        if tail.quiet[0] != end:
            tail.quiet = (end, now)
        return now - tail.quiet[1] >= QUIET or self._tails.finishing(tail, now)

    def _raise_if_blind(self, tails: list[Tail], reading: _Reading) -> None:
        reasons = [*self._tails.unreadable.values(), *reading.failed.values()]
        if reasons and len(reading.failed) == len(tails):
            raise PerceiverBlind("; ".join(reasons[:MOST_REASONS]))

    def _settle(self, reading: _Reading) -> None:
        """Everything was read that this poll reads: now it counts."""
        for tail, last in reading.reached:
            tail.place = last.place
            if last.at_end and self._tails.finishing(tail, reading.now):
                self._tails.retire(tail)
        self._tails.begun = True
        if reading.behind:
            self._turn += 1
            if self._wake is not None:
                self._wake()
        else:
            self._come_back(reading)

    def _come_back(self, reading: _Reading) -> None:
        """Wake once time alone makes a difference: a rotated file may be closed, a partial line taken."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        waits = [GRACE for tail in self._tails.followed if tail.left is not None and tail.fd is not None]
        waits += [QUIET for _, last in reading.reached if last.partial]
        if waits and self._wake is not None:
            self._later = asyncio.get_running_loop().call_later(min(waits), self._wake)

    def _reading_of(self, reading: _Reading) -> Observation:
        wall, written = self._tools.wall(), self._tails.written
        values: dict[str, Scalar] = {
            "exists": written is not None,
            "lines": reading.tally.lines,
            "idle": None if written is None else max(0.0, wall - written),
        }
        reasons = [*self._tails.unreadable.values(), *reading.failed.values()]
        if written is None and not reasons:
            reasons = [f"{self._settings.path}: there is no such file yet"]
        return Observation(
            self.name, self.resource, wall, values, unreadable="; ".join(reasons[:MOST_REASONS])
        )

    def _is_of_interest(self, name: str) -> bool:
        """The files' own names, and those that they get when they are rotated."""
        return name.startswith(self._names) or fnmatch.fnmatchcase(
            name, os.path.basename(self._settings.path)
        )

    def _watch_directories(self) -> None:
        if self._inotify is None:
            return
        paths = {self._settings.path, *(tail.path for tail in self._tails.followed)}
        # Writing through a symbolic link is told of where the file itself is.
        paths |= {os.path.realpath(path) for path in paths if os.path.islink(path)}
        self._names = tuple(os.path.basename(path) for path in paths)
        self._inotify.watch({os.path.dirname(path) for path in paths})


def _captures(hit: Hit) -> dict[str, str]:
    return {
        name: printable(text, LONGEST_KEY) for name, text in hit.match.groupdict().items() if text is not None
    }


def printable(text: str, longest: int) -> str:
    """The text's beginning, fit for a terminal and for any other sink: no control, format or bidirectional characters."""
    text = text[:longest]
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


def build(spec: Spec, tools: Tools) -> Perceiver:
    return LogPerceiver(spec, tools)


KIND = Kind(
    name="log",
    settings=LogSettings,
    build=build,
    values={
        "exists": "whether a file is there",
        "lines": "lines read since the last poll",
        "idle": "seconds since a file was last written",
    },
    rules=True,
)
