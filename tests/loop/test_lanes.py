"""Lanes: one step at a time for one incident, no wake-up lost, no failure final."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest

from daemon.errors import StoreFull
from daemon.loop.lanes import Lanes


class Steps:
    """Stands for the loop: each step waits to be let go, and answers what the test says."""

    def __init__(self, *answers: float | Exception | None) -> None:
        self.answers = list(answers)
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Semaphore(0)
        self.at_once: dict[str, int] = {}
        self.done = 0

    async def advance(self, incident: str) -> float | None:
        self.at_once[incident] = self.at_once.get(incident, 0) + 1
        assert self.at_once[incident] == 1, "two steps at once for one incident"
        self.begun.put_nowait(incident)
        try:
            await self.go_on.acquire()
        finally:
            self.at_once[incident] -= 1
        self.done += 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


async def until_idle(lanes: Lanes) -> None:
    while lanes.busy:
        await asyncio.sleep(0)


async def test_a_lane_steps_until_nothing_is_due(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(0, 0.001, None)
    lanes = Lanes(steps.advance)
    steps.go_on = asyncio.Semaphore(9)
    lanes.wake("i-1")
    await until_idle(lanes)
    assert steps.done == 3
    assert caplog.records == []


async def test_a_wake_during_a_step_is_not_lost() -> None:
    steps = Steps()
    lanes = Lanes(steps.advance)
    lanes.wake("i-1")
    await steps.begun.get()
    lanes.wake("i-1")
    lanes.wake("i-1")
    steps.go_on.release()
    assert await steps.begun.get() == "i-1"
    steps.go_on.release()
    await until_idle(lanes)
    assert steps.done == 2


async def test_a_wake_ends_the_wait() -> None:
    steps = Steps(3600.0)
    lanes = Lanes(steps.advance)
    steps.go_on = asyncio.Semaphore(9)
    lanes.wake("i-1")
    await steps.begun.get()
    lanes.wake("i-1")
    await until_idle(lanes)
    assert steps.done == 2


async def test_incidents_do_not_wait_for_each_other() -> None:
    steps = Steps()
    lanes = Lanes(steps.advance)
    lanes.wake("i-1")
    lanes.wake("i-2")
    assert {await steps.begun.get(), await steps.begun.get()} == {"i-1", "i-2"}
    await lanes.stop(grace=0)


async def test_a_lane_that_is_always_due_lets_others_have_their_turn() -> None:
    seen: list[str] = []

    async def advance(incident: str) -> float | None:
        seen.append(incident)
        return 0 if len(seen) < 100 else None

    lanes = Lanes(advance)
    lanes.wake("i-1")
    lanes.wake("i-2")
    await until_idle(lanes)
    assert set(seen[:4]) == {"i-1", "i-2"}


@pytest.mark.parametrize("failure", [StoreFull("no space"), KeyError("x")])
async def test_a_step_that_fails_backs_off_and_goes_on(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Steps(failure, failure, None)
    steps.go_on = asyncio.Semaphore(9)
    lanes = Lanes(steps.advance, retry=0)
    with caplog.at_level(logging.ERROR):
        lanes.wake("i-1")
        await until_idle(lanes)
    assert steps.done == 3
    assert len(caplog.records) == 2
    assert bool(caplog.records[0].exc_info) == isinstance(failure, KeyError)


async def test_the_wait_doubles_with_each_failure_in_a_row() -> None:
    moments: list[float] = []

    async def advance(incident: str) -> float | None:
        moments.append(asyncio.get_running_loop().time())
        if len(moments) in (1, 2, 3, 5):
            raise KeyError("x")
        return None if len(moments) == 6 else 0

    lanes = Lanes(advance, retry=0.02)
    lanes.wake("i-1")
    await until_idle(lanes)
    waited = [later - earlier for earlier, later in pairwise(moments)]
    least = (0.02, 0.04, 0.08, 0.0, 0.02)
    assert all(real >= wanted - 0.001 for real, wanted in zip(waited, least, strict=True))


async def test_people_hear_once_of_a_fault_of_our_own() -> None:
    heard: list[tuple[str, str]] = []

    async def stumbled(incident: str, reason: str) -> None:
        heard.append((incident, reason))

    fault = KeyError("x")
    steps = Steps(fault, fault, fault, fault, fault, 0, fault, None)
    steps.go_on = asyncio.Semaphore(99)
    lanes = Lanes(steps.advance, stumbled=stumbled, retry=0)
    lanes.wake("i-1")
    await until_idle(lanes)
    assert heard == [("i-1", "KeyError: 'x'")]


async def test_the_journals_troubles_are_not_told_as_ours() -> None:
    heard: list[str] = []

    async def stumbled(incident: str, reason: str) -> None:
        heard.append(reason)

    steps = Steps(*[StoreFull("no space")] * 5, None)
    steps.go_on = asyncio.Semaphore(99)
    lanes = Lanes(steps.advance, stumbled=stumbled, retry=0)
    lanes.wake("i-1")
    await until_idle(lanes)
    assert heard == []


async def test_after_each_step_it_is_said_that_there_may_be_something_to_send() -> None:
    said: list[int] = []
    steps = Steps(0, None)
    steps.go_on = asyncio.Semaphore(9)
    lanes = Lanes(steps.advance, stepped=lambda: said.append(1))
    lanes.wake("i-1")
    await until_idle(lanes)
    assert len(said) == 2


async def test_stopping_lets_the_step_under_way_end_and_begins_no_other() -> None:
    steps = Steps(0, 0, 0)
    lanes = Lanes(steps.advance)
    lanes.wake("i-1")
    await steps.begun.get()
    stopping = asyncio.ensure_future(lanes.stop())
    await asyncio.sleep(0)
    lanes.wake("i-2")
    steps.go_on.release()
    await stopping
    assert (steps.done, steps.begun.qsize()) == (1, 0)


async def test_what_does_not_end_in_time_is_cancelled() -> None:
    steps = Steps()
    lanes = Lanes(steps.advance)
    lanes.wake("i-1")
    await steps.begun.get()
    await lanes.stop(grace=0.01)
    assert (steps.done, steps.at_once) == (0, {"i-1": 0})
