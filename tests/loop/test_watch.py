"""The watch: polls on schedule, when woken and on demand, none twice at once, and no perceiver's trouble stops another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from fakes.eyes import Balky, Eye
from sqlalchemy import select

from daemon.clock import ManualClock
from daemon.detect.detector import BLIND_AFTER, Detector
from daemon.errors import StoreFull
from daemon.incidents import correlate
from daemon.incidents.graph import Graph
from daemon.loop.ingest import Ingest, Placement
from daemon.loop.watch import Watch, Watched
from daemon.model.domain import Severity
from daemon.model.signals import SignalRule, parse_when
from daemon.store.tables import SIGNAL
from perceivers.base import Observation, PerceiverBlind

APP = "service:app"
RARELY = 3600.0


@pytest.fixture
def clock() -> ManualClock:
    """Where the wall clock really is: the scheduler has a clock of its own."""
    return ManualClock(wall=time.time())


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Balky]:
    opened = await Balky.at(tmp_path / "midwatch.db", clock)
    yield opened
    opened.trouble = None
    await opened.close()


class Crew:
    """A watch over some eyes, stopped at the end."""

    def __init__(
        self, store: Balky, clock: ManualClock, *eyes: Eye, every: float = RARELY, timeout: float = 5.0
    ) -> None:
        self.store = store
        rules = [
            SignalRule("service-down", eye.name, eye.resource, Severity.ERROR, when=parse_when("down"))
            for eye in eyes
        ]
        placement = Placement(Graph({}), correlate.Placement())
        ingest = Ingest(store, clock, Detector(rules, clock), placement, lambda incident: None)
        self.saw: list[Observation] = []
        self.trouble: Exception | None = None
        self.watch = Watch({eye.name: Watched(eye, every, timeout) for eye in eyes}, ingest, clock, self._see)

    async def _see(self, observations: Sequence[Observation]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.saw += observations

    async def __aenter__(self) -> Watch:
        self.watch.start()
        return self.watch

    async def __aexit__(self, *error: object) -> None:
        await self.watch.stop()

    async def firing(self) -> list[str]:
        query = select(SIGNAL.c.name).where(SIGNAL.c.state == "firing")
        return await self.store.read(lambda conn: list(conn.execute(query).scalars()))


# on schedule --------------------------------------------------------------------------------------------------------


async def test_every_perceiver_is_polled_again_and_again(store: Balky, clock: ManualClock) -> None:
    eyes = [Eye("one"), Eye("two")]
    async with Crew(store, clock, *eyes, every=0.02):
        for eye in eyes:
            for _ in range(3):
                await eye.polled.acquire()
    assert [eye.closed for eye in eyes] == [True, True]


async def test_a_slow_poll_is_not_begun_twice(store: Balky, clock: ManualClock) -> None:
    slow, quick = Eye("slow"), Eye("quick")
    slow.open.clear()
    async with Crew(store, clock, slow, quick, every=0.01) as watch:
        for _ in range(10):
            await quick.polled.acquire()
        assert not watch.watched["slow"].again, "what fell due meanwhile is left out, not made up for"
        looking = asyncio.ensure_future(watch.look_at([APP]))
        slow.open.set()
        await looking
    assert slow.most_at_once == 1


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_stepped_clock_has_the_polls_scheduled_anew(
    store: Balky, clock: ManualClock, step: float
) -> None:
    """The schedule was made when the clock said another time; nothing would be polled for an hour."""
    clock.step_wall(-step)
    eye = Eye()
    async with Crew(store, clock, eye, every=0.05) as watch:
        clock.step_wall(step)
        watch.heed_clock()
        for _ in range(3):
            await eye.polled.acquire()
    watch.heed_clock()


async def test_a_small_difference_is_no_step(
    store: Balky, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with Crew(store, clock, Eye()) as watch:
        clock.step_wall(1.5)
        watch.heed_clock()
    assert caplog.records == []


# woken --------------------------------------------------------------------------------------------------------------


async def test_many_wakes_are_one_poll_and_one_more_for_those_during_it(
    store: Balky, clock: ManualClock
) -> None:
    clock.step_wall(RARELY)
    eye = Eye()
    eye.open.clear()
    async with Crew(store, clock, eye):
        for _ in range(5):
            eye.wake()
        await eye.polled.acquire()
        for _ in range(5):
            eye.wake()
        eye.open.set()
        await eye.polled.acquire()
    assert eye.polls == 2


async def test_after_the_end_nothing_wakes_it(store: Balky, clock: ManualClock) -> None:
    clock.step_wall(RARELY)
    eye = Eye()
    async with Crew(store, clock, eye):
        pass
    eye.wake()
    await asyncio.sleep(0)
    assert eye.polls == 0


async def test_the_end_waits_for_the_poll_under_way_and_its_commit(
    store: Balky, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    eye = Eye()
    eye.values = {"up": False}
    eye.open.clear()
    crew = Crew(store, clock, eye, every=0.02)
    async with crew:
        await eye.polled.acquire()
        asyncio.get_running_loop().call_soon(eye.open.set)
    assert await crew.firing() == ["service-down"]
    assert (eye.closed, caplog.records) == (True, [])


# on demand ----------------------------------------------------------------------------------------------------------


async def test_who_looks_gets_what_is_seen_now_of_what_was_asked_for(
    store: Balky, clock: ManualClock
) -> None:
    http, tcp, other = Eye("http"), Eye("tcp", kind="tcp"), Eye("other", "service:other")
    watch = Crew(store, clock, http, tcp, other).watch
    assert [seen.perceiver for seen in await watch.look_at([APP])] == ["http", "tcp"]
    assert [seen.perceiver for seen in await watch.look_at([APP], "tcp")] == ["tcp"]
    assert (http.polls, tcp.polls, other.polls) == (1, 2, 0)
    await watch.stop()


@pytest.mark.parametrize(
    "trouble", [OSError("no route"), PerceiverBlind("no such file"), KeyError("a fault of ours")]
)
async def test_who_looks_gets_the_others_when_one_cannot_look(
    store: Balky, clock: ManualClock, trouble: Exception
) -> None:
    broken, sound = Eye("broken"), Eye("sound")
    broken.trouble = trouble
    watch = Crew(store, clock, broken, sound).watch
    assert [seen.perceiver for seen in await watch.look_at([APP])] == ["sound"]
    assert list(watch.blind()) == ["broken"]
    await watch.stop()


async def test_what_was_seen_is_taken_in_before_a_look_returns(store: Balky, clock: ManualClock) -> None:
    eye = Eye()
    eye.values = {"up": False}
    crew = Crew(store, clock, eye)
    await crew.watch.look_at([APP])
    assert await crew.firing() == ["service-down"]
    assert [seen.values for seen in crew.saw] == [{"up": False}]
    await crew.watch.stop()


# blind --------------------------------------------------------------------------------------------------------------


async def test_no_answer_in_time_is_blindness_and_recovery_ends_it(store: Balky, clock: ManualClock) -> None:
    eye = Eye()
    eye.open.clear()
    crew = Crew(store, clock, eye, timeout=0.01)
    for _ in range(BLIND_AFTER):
        await crew.watch.poll("eye")
    assert crew.watch.blind() == {"eye": "no answer within 0.01s"}
    assert await crew.firing() == ["perceiver-blind"]

    eye.open.set()
    await crew.watch.poll("eye")
    assert (crew.watch.blind(), await crew.firing()) == ({}, [])
    await crew.watch.stop()


async def test_a_blind_perceiver_is_asked_less_and_less_often_and_then_as_before(
    store: Balky, clock: ManualClock
) -> None:
    eye = Eye()
    eye.trouble = OSError("no route")
    watch = Crew(store, clock, eye).watch
    skipped = []
    for _ in range(6):
        await watch.poll("eye")
        skipped.append(watch.watched["eye"].skip)
    assert skipped == [0, 1, 3, 7, 7, 7]
    eye.trouble = None
    await watch.poll("eye")
    assert watch.watched["eye"].skip == 0
    await watch.stop()


async def test_while_it_is_blind_the_schedule_skips(store: Balky, clock: ManualClock) -> None:
    blind, sound = Eye("blind"), Eye("sound")
    blind.trouble = OSError("no route")
    async with Crew(store, clock, blind, sound, every=0.01):
        for _ in range(30):
            await sound.polled.acquire()
    assert blind.polls < sound.polls / 2


async def test_a_fault_of_ours_in_one_perceiver_is_logged_once_and_stops_no_other(
    store: Balky, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = Eye("broken"), Eye("sound")
    broken.trouble = KeyError("x")
    with caplog.at_level(logging.ERROR):
        async with Crew(store, clock, broken, sound, every=0.01) as watch:
            while watch.watched["broken"].failures < 3:
                await sound.polled.acquire()
    assert [record.getMessage() for record in caplog.records] == ["perceiver broken failed"]
    assert watch.blind() == {"broken": "internal error: KeyError: 'x'"}


async def test_a_fault_of_ours_after_the_poll_is_logged_once_too(
    store: Balky, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    crew = Crew(store, clock, Eye())
    crew.trouble = KeyError("x")
    for _ in range(3):
        await crew.watch.look_at([APP])
    assert [record.getMessage() for record in caplog.records] == ["perceiver eye failed"]
    await crew.watch.stop()


@pytest.mark.parametrize("blind", [False, True])
async def test_when_the_journal_has_no_room_the_watch_goes_on(
    store: Balky, clock: ManualClock, blind: bool, caplog: pytest.LogCaptureFixture
) -> None:
    eye = Eye()
    eye.values = {"up": False}
    eye.trouble = OSError("no route") if blind else None
    crew = Crew(store, clock, eye)
    store.trouble = StoreFull("no space")
    for _ in range(BLIND_AFTER):
        await crew.watch.look_at([APP])
    assert {record.levelname for record in caplog.records} == {"ERROR"}
    assert all("waits for the journal: no space" in record.getMessage() for record in caplog.records)
    store.trouble = None
    await crew.watch.look_at([APP])
    assert await crew.firing() == ["perceiver-blind" if blind else "service-down"]
    await crew.watch.stop()
