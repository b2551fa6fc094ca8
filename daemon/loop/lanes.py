"""One lane per incident: it advances step by step, sleeps until it is due, and is woken by rows that people or perceivers wrote."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from daemon.errors import StoreError

log = logging.getLogger(__name__)
RETRY = 2.0
"""Seconds before a lane whose step failed tries again; doubled each time, up to LONGEST_RETRY."""
LONGEST_RETRY = 60.0
TOLD_AFTER = 3
"""Failed steps in a row after which people hear of it."""


async def _nobody(incident: str, reason: str) -> None:
    return None


@dataclass
class _Lane:
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    failures: int = 0
    trouble: str = ""
    """The fault of ours in the last failed step."""
    told: bool = False


class Lanes:
    """Runs `advance` for each incident, never two at once for one."""

    def __init__(
        self,
        advance: Callable[[str], Awaitable[float | None]],
        stepped: Callable[[], None] = lambda: None,
        stumbled: Callable[[str, str], Awaitable[None]] = _nobody,
        retry: float = RETRY,
    ) -> None:
        """`stepped` is called after each step: it may have left something to send. `stumbled` (incident, why) is called once when
        steps fail again and again by a fault of ours."""
        self._advance = advance
        self._stepped = stepped
        self._stumbled = stumbled
        self._retry = retry
        self._lanes: dict[str, _Lane] = {}
        self._stopping = False

    def wake(self, incident: str) -> None:
        """Have the incident looked at now."""
        if self._stopping:
            return
        lane = self._lanes.setdefault(incident, _Lane())
        lane.woken.set()
        if lane.task is None or lane.task.done():
            lane.task = asyncio.create_task(self._run(incident, lane), name=f"lane {incident}")

    @property
    def busy(self) -> int:
        return len(self._lanes)

    async def stop(self, grace: float = 10.0) -> None:
        """Let the steps under way end; what is left after `grace` seconds is cancelled and taken up at the next start."""
        self._stopping = True
        for lane in self._lanes.values():
            lane.woken.set()
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, incident: str, lane: _Lane) -> None:
        while not self._stopping:
            lane.woken.clear()
            if not await self._rest(lane, await self._step(incident, lane)):
                break
        if not lane.woken.is_set():
            self._lanes.pop(incident, None)

    async def _step(self, incident: str, lane: _Lane) -> float | None:
        """One step; gives the seconds until the next one."""
        try:
            if lane.trouble and lane.failures >= TOLD_AFTER and not lane.told:
                await self._stumbled(incident, lane.trouble)
                lane.told = True
            wait = await self._advance(incident)
            self._stepped()
        except StoreError as exc:
            log.error("incident %s waits: %s", incident, exc)
        except Exception as exc:
            # The edge of the loop: a fault of ours must cost this step, not the watch.
            log.exception("a step of incident %s failed", incident)
            lane.trouble = f"{type(exc).__name__}: {exc}"
        else:
            lane.failures, lane.trouble, lane.told = 0, "", False
            return wait
        lane.failures += 1
        return float(min(LONGEST_RETRY, self._retry * 2 ** min(lane.failures - 1, 10)))

    async def _rest(self, lane: _Lane, wait: float | None) -> bool:
        """Sleep until due or woken; False when nothing is due and nobody woke us, so that the task can end."""
        if self._stopping:
            return False
        if wait is None:
            return lane.woken.is_set()
        if wait <= 0:
            await asyncio.sleep(0)  # others get their turn between two steps
            return True
        try:
            await asyncio.wait_for(lane.woken.wait(), wait)
        except TimeoutError:
            pass
        return True
