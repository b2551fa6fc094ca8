"""The schedule of polls. Event sources only wake a poll; whoever wants a fresh reading polls through the same way in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from zlib import crc32

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from daemon.clock import Clock
from daemon.errors import StoreError
from daemon.loop.ingest import Ingest
from perceivers.base import Observation, Perceiver, PerceiverBlind

log = logging.getLogger(__name__)
SLOWEST = 8
"""A blind perceiver is asked again after twice its interval, and so on up to this many times."""
CLOCK_STEP = 2.0
"""Seconds of difference between the wall clock and the boot clock that count as a step."""


@dataclass
class Watched:
    """A perceiver with its schedule (seconds)."""

    perceiver: Perceiver
    every: float
    timeout: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures: int = 0
    blind: str = ""
    skip: int = 0
    again: bool = False
    task: asyncio.Task[None] | None = None
    last: Sequence[Observation] = ()

    @property
    def polling(self) -> bool:
        return self.task is not None and not self.task.done()


class Watch:
    """Polls perceivers on schedule, when woken, and on demand; never one twice at once."""

    def __init__(
        self,
        watched: Mapping[str, Watched],
        ingest: Ingest,
        clock: Clock,
        saw: Callable[[Sequence[Observation]], Awaitable[None]],
    ) -> None:
        """`saw` is told every batch's observations after they were taken in."""
        self.watched = dict(watched)
        self._ingest = ingest
        self._clock = clock
        self._saw = saw
        # Memory store only: the configuration is the source of truth, and what must outlive us is a row.
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
        )
        self._stopping = False
        self._offset = clock.wall() - clock.boottime()

    def start(self) -> None:
        for name, watched in self.watched.items():
            every, first = IntervalTrigger(seconds=watched.every), self._first(name, watched)
            self._scheduler.add_job(self._due, every, args=[name], id=name, next_run_time=first)
            watched.perceiver.wake_on(partial(self._woken, name))
        self._scheduler.start()

    async def stop(self) -> None:
        """Let the polls under way end, then let the perceivers go."""
        self._stopping = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        tasks = [watched.task for watched in self.watched.values() if watched.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        for watched in self.watched.values():
            async with watched.lock:  # a lane may be looking
                await watched.perceiver.close()

    def heed_clock(self) -> None:
        """Set the schedule anew when the wall clock was stepped: the scheduler plans in wall time and would sleep through a step back."""
        offset = self._clock.wall() - self._clock.boottime()
        if not self._scheduler.running or abs(offset - self._offset) <= CLOCK_STEP:
            return
        log.warning("the wall clock was stepped by %.0f s; polls are scheduled anew", offset - self._offset)
        self._offset = offset
        for name, watched in self.watched.items():
            self._scheduler.modify_job(name, next_run_time=self._first(name, watched))

    def blind(self) -> dict[str, str]:
        """Perceiver → why it cannot look, for those that cannot."""
        return {name: watched.blind for name, watched in self.watched.items() if watched.blind}

    async def look_at(self, resources: Sequence[str], kind: str | None = None) -> list[Observation]:
        """Poll everything that watches one of the Resources (of one perceiver kind, if given), now, and give what it saw."""
        names = [
            name
            for name, watched in self.watched.items()
            if watched.perceiver.resource in resources and kind in (None, watched.perceiver.kind)
        ]
        # One that cannot look is blind, which is no reason for whoever asks to go without the others.
        await asyncio.gather(*(self._safely(name) for name in names))
        return [seen for name in names for seen in self.watched[name].last]

    def brewing(self, resources: Sequence[str]) -> bool:
        """Whether something abnormal was seen on one of them that has not lasted long enough yet to be a Signal."""
        return any(
            self._ingest.brewing(name)
            for name, watched in self.watched.items()
            if watched.perceiver.resource in resources
        )

    async def poll(self, name: str) -> None:
        """One poll, taken in before it returns. Trouble of the watched thing is in the observations; our own blindness is a Signal."""
        watched = self.watched[name]
        async with watched.lock:
            try:
                async with asyncio.timeout(watched.timeout):
                    batch = await watched.perceiver.poll()
            except TimeoutError:
                await self._failed(name, watched, f"no answer within {watched.timeout:g}s")
            except (OSError, PerceiverBlind) as exc:
                await self._failed(name, watched, str(exc))
            else:
                watched.last = batch.observations
                await self._ingest.take(watched.perceiver, batch)
                await self._saw(batch.observations)
                watched.failures, watched.skip, watched.blind = 0, 0, ""

    async def _failed(self, name: str, watched: Watched, reason: str) -> None:
        watched.failures += 1
        watched.skip = min(SLOWEST, 2 ** min(watched.failures - 1, 10)) - 1
        watched.blind, watched.last = reason, ()
        try:
            await self._ingest.blind(name, reason)
        except StoreError as exc:
            log.error("that %s is blind waits for the journal: %s", name, exc)

    async def _safely(self, name: str) -> None:
        try:
            await self.poll(name)
        except StoreError as exc:
            log.error("what %s saw waits for the journal: %s", name, exc)
        except Exception as exc:
            # The edge of the watch: a fault in one perceiver is that perceiver's blindness, not the end of the watch.
            watched = self.watched[name]
            reason = f"internal error: {type(exc).__name__}: {exc}"
            if watched.blind != reason:
                log.exception("perceiver %s failed", name)
            await self._failed(name, watched, reason)

    async def _due(self, name: str) -> None:
        watched = self.watched[name]
        if watched.skip > 0:
            watched.skip -= 1
        elif not watched.polling:
            self._woken(name)

    def _woken(self, name: str) -> None:
        """Poll soon. What comes while a poll is under way is looked at right after it, once."""
        watched = self.watched[name]
        watched.again = True
        if not watched.polling and not self._stopping:
            watched.task = asyncio.create_task(self._drain(name), name=f"poll {name}")

    async def _drain(self, name: str) -> None:
        watched = self.watched[name]
        while watched.again and not self._stopping:
            watched.again = False
            await self._safely(name)

    def _first(self, name: str, watched: Watched) -> datetime:
        """A fixed phase for each name, so that polls do not all fall together; the first comes within two seconds at most."""
        phase = crc32(name.encode()) / 2**32
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        return now + timedelta(seconds=phase * min(watched.every, 2.0))
