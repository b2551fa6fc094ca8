"""Perceivers whose every answer the test decides, and a store that fails on order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from daemon.clock import Clock
from daemon.store.store import Store, Tx
from perceivers.base import Batch, Observation

T = TypeVar("T")


class Eye:
    """Sees what `values` says, or raises `trouble`; while `shut` is set a poll does not come back."""

    def __init__(self, name: str = "eye", resource: str = "service:app", kind: str = "http") -> None:
        self.name = name
        self.kind = kind
        self.resource = resource
        self.values: dict[str, Any] = {"up": True}
        self.trouble: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.polled = asyncio.Semaphore(0)
        self.polls = 0
        self.at_once = 0
        self.most_at_once = 0
        self.wake: Callable[[], None] = lambda: None
        self.closed = False

    async def poll(self) -> Batch:
        self.polls += 1
        self.polled.release()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        if self.trouble is not None:
            raise self.trouble
        return Batch([Observation(self.name, self.resource, 0.0, dict(self.values))])

    def restore(self, cursor: Mapping[str, Any]) -> None:
        raise AssertionError("it has no cursor")

    def wake_on(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    async def close(self) -> None:
        self.closed = True


class Tape:
    """A log: each poll gives the lines since the last one, each as a hit with a key of its own."""

    kind = "log"
    resource = "service:app"

    def __init__(self, clock: Clock, name: str = "tape") -> None:
        self.name = name
        self.lines: list[str] = []
        self.at = 0
        self._clock = clock

    async def poll(self) -> Batch:
        new, self.at = self.lines[self.at :], len(self.lines)
        return Batch([self._hit(line) for line in new if not line.startswith("#")], {"at": self.at})

    def _hit(self, line: str) -> Observation:
        now = self._clock.wall()
        return Observation(
            self.name, self.resource, now, key=line, rule="fault", count=1, first=now, last=now
        )

    def restore(self, cursor: Mapping[str, Any]) -> None:
        self.at = cursor["at"]

    def wake_on(self, wake: Callable[[], None]) -> None:
        return None

    async def close(self) -> None:
        return None


class Balky(Store):
    """A store whose writes fail while `trouble` is set. A gate makes one write wait: before it, or after it for its answer."""

    trouble: Exception | None
    before: list[asyncio.Event]
    after: list[asyncio.Event]
    writing: asyncio.Event
    """Set when a write has come to its gate."""

    @classmethod
    async def at(cls, path: Path, clock: Clock) -> Balky:
        store = cast(Balky, await cls.open(path, clock, ballast_size=0))
        store.trouble, store.before, store.after, store.writing = None, [], [], asyncio.Event()
        return store

    async def write(self, work: Callable[[Tx], T]) -> T:
        trouble = self.trouble
        await self._pass(self.before)
        if trouble is not None:
            raise trouble
        done = await super().write(work)
        await self._pass(self.after)
        return done

    async def _pass(self, gates: list[asyncio.Event]) -> None:
        if gates:
            gate = gates.pop(0)
            self.writing.set()
            await gate.wait()
