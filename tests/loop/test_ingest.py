"""From Observations to rows: each finding exactly once, whatever fails in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes.escalations import message
from fakes.eyes import Balky, Eye, Tape
from sqlalchemy import select

from daemon.clock import ManualClock
from daemon.detect.detector import BLIND_AFTER, Detector
from daemon.errors import StoreFull
from daemon.escalate.outbox import enqueue
from daemon.incidents import correlate
from daemon.incidents.graph import Graph
from daemon.loop.ingest import CURSOR_EVERY, MOST_OWED, Ingest, Placement
from daemon.model.domain import Severity, Signal
from daemon.model.signals import SignalRule, parse_when
from daemon.store.tables import CURSOR, INCIDENT, JOURNAL, SIGNAL
from perceivers.base import Batch, Observation

APP = "service:app"
EACH = SignalRule("fault", "tape", APP, Severity.ERROR, match="fault (?P<id>.+)", key="id", clear_after=60)
DOWN = SignalRule("service-down", "eye", APP, Severity.ERROR, when=parse_when("down"))
FULL = StoreFull("no space")


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Balky]:
    opened = await Balky.at(tmp_path / "midwatch.db", clock)
    yield opened
    opened.trouble = None
    await opened.close()


class Watchman:
    """An ingest with its perceivers, and what it leaves on record."""

    def __init__(self, store: Balky, clock: ManualClock, *rules: SignalRule, **placement: Any) -> None:
        self.store = store
        self.clock = clock
        self.detector = Detector(list(rules) or [EACH, DOWN], clock)
        graph = Graph({"service:web": [APP], "service:jobs": [APP]})
        placed = Placement(graph, correlate.Placement(**placement))
        self.woken: list[str] = []
        self.ingest = Ingest(store, clock, self.detector, placed, self.woken.append)

    async def take(self, perceiver: Tape | Eye) -> None:
        await self.ingest.take(perceiver, await perceiver.poll())

    async def signals(self, name: str = "fault", state: str = "firing") -> list[str]:
        """The keys of the journaled findings, in order."""
        query = select(JOURNAL.c.payload).where(JOURNAL.c.kind == "signal").order_by(JOURNAL.c.seq)
        rows = await self.store.read(lambda conn: list(conn.execute(query).scalars()))
        found = [json.loads(text) for text in rows]
        return [row["key"] for row in found if (row["name"], row["state"]) == (name, state)]

    async def cursor(self) -> Any:
        return await self.store.read(lambda conn: conn.execute(select(CURSOR.c.cursor)).scalar())

    async def incidents(self) -> list[str]:
        return await self.store.read(lambda conn: list(conn.execute(select(INCIDENT.c.id)).scalars()))


async def test_a_finding_its_incident_and_the_cursor_are_one_commit(store: Balky, clock: ManualClock) -> None:
    man, tape = Watchman(store, clock), Tape(clock)
    tape.lines = ["a", "b"]
    await man.take(tape)
    assert (await man.signals(), await man.cursor()) == (["a", "b"], {"at": 2})
    (incident,) = await man.incidents()
    assert set(man.woken) == {incident}


@pytest.mark.parametrize("committed", [False, True])
async def test_when_the_commit_fails_each_hit_is_still_counted_once(
    store: Balky, clock: ManualClock, committed: bool
) -> None:
    """Before the first commit there is no cursor to be set back to; then what was found is owed."""
    man, tape = Watchman(store, clock), Tape(clock)
    if committed:
        tape.lines = ["zero"]
        await man.take(tape)
    tape.lines += ["a", "b"]
    store.trouble = FULL
    for _ in range(3):
        with pytest.raises(StoreFull):
            await man.take(tape)
        tape.lines += ["c"] * (len(tape.lines) < 4)
    store.trouble = None
    await man.take(tape)
    await man.take(tape)
    assert await man.signals() == ["zero"] * committed + ["a", "b", "c"]


async def test_hits_that_are_not_enough_yet_are_counted_once_over_a_failed_commit(
    store: Balky, clock: ManualClock
) -> None:
    many = SignalRule(
        "fault", "tape", APP, Severity.ERROR, match="fault", count=5, window=600, clear_after=60
    )
    man, tape = Watchman(store, clock, many), Tape(clock)
    tape.lines = ["x", "x"]
    await man.take(tape)
    tape.lines += ["x", "x"]
    store.trouble = FULL
    for _ in range(4):
        with pytest.raises(StoreFull):
            await man.take(tape)
    store.trouble = None
    await man.take(tape)
    assert await man.signals() == []
    tape.lines += ["x"]
    await man.take(tape)
    assert await man.signals() == ["x"]


@pytest.mark.parametrize("committed", [False, True])
async def test_a_poll_that_is_cancelled_while_it_is_written_down_is_written_down(
    store: Balky, clock: ManualClock, committed: bool
) -> None:
    man, tape = Watchman(store, clock), Tape(clock)
    if committed:
        await man.take(tape)
    tape.lines = ["a"]
    gate = asyncio.Event()
    store.after = [gate]
    taking = asyncio.ensure_future(man.take(tape))
    await store.writing.wait()
    taking.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await man.take(tape)
    assert (await man.signals(), tape.at) == (["a"], 1)


async def test_a_restart_goes_on_where_the_last_commit_stood(store: Balky, clock: ManualClock) -> None:
    man, tape = Watchman(store, clock), Tape(clock)
    tape.lines = ["a", "b"]
    await man.take(tape)
    tape.lines += ["c"]

    again, fresh = Watchman(store, clock), Tape(clock)
    fresh.lines = tape.lines
    await again.ingest.restore({"tape": fresh})
    await again.take(fresh)
    assert await again.signals() == ["a", "b", "c"]


async def test_a_cursor_that_moved_over_nothing_is_written_now_and_then(
    store: Balky, clock: ManualClock
) -> None:
    man, tape = Watchman(store, clock), Tape(clock)
    tape.lines = ["#"]
    await man.take(tape)
    assert await man.cursor() == {"at": 1}
    tape.lines += ["#"]
    await man.take(tape)
    assert await man.cursor() == {"at": 1}
    clock.advance(CURSOR_EVERY)
    await man.take(tape)
    assert await man.cursor() == {"at": 2}


# without a cursor ---------------------------------------------------------------------------------------------------


async def test_what_a_perceiver_without_cursor_found_is_owed_until_it_is_written(
    store: Balky, clock: ManualClock
) -> None:
    man, eye = Watchman(store, clock), Eye()
    eye.values = {"up": False}
    store.trouble = FULL
    with pytest.raises(StoreFull):
        await man.take(eye)
    with pytest.raises(StoreFull):
        await man.take(eye)
    store.trouble = None
    await man.ingest.tick()
    assert (await man.signals("service-down"), len(man.woken)) == ([""], 1)


async def test_findings_that_are_owed_keep_their_order(store: Balky, clock: ManualClock) -> None:
    man, eye = Watchman(store, clock), Eye()
    store.trouble = FULL
    for up in (False, True, False):
        eye.values = {"up": up}
        with pytest.raises(StoreFull):
            await man.take(eye)
    store.trouble = None
    await man.take(eye)
    assert len(await man.signals("service-down", "firing")) == 2
    assert len(await man.signals("service-down", "cleared")) == 1
    assert await store.read(lambda conn: conn.execute(select(SIGNAL.c.state)).scalar()) == "firing"


async def test_what_is_owed_is_bounded_and_the_newest_is_kept(store: Balky, clock: ManualClock) -> None:
    man, tape = Watchman(store, clock), Tape(clock)
    tape.lines = [str(number) for number in range(MOST_OWED + 5)]
    store.trouble = FULL
    with pytest.raises(StoreFull):
        await man.take(tape)
    store.trouble = None
    await man.ingest.tick()
    assert await man.signals() == tape.lines[5:]


async def test_blindness_that_could_not_be_written_is_owed(store: Balky, clock: ManualClock) -> None:
    man = Watchman(store, clock)
    store.trouble = FULL
    for _ in range(BLIND_AFTER - 1):
        await man.ingest.blind("eye", "connection refused")
    with pytest.raises(StoreFull):
        await man.ingest.blind("eye", "connection refused")
    store.trouble = None
    await man.ingest.tick()
    assert await man.signals("perceiver-blind") == ["eye"]


async def test_what_time_alone_brings_is_owed_too_and_one_failure_does_not_hide_the_others(
    store: Balky, clock: ManualClock
) -> None:
    other = SignalRule(
        "fault", "other", APP, Severity.ERROR, match="fault (?P<id>.+)", key="id", clear_after=60
    )
    man = Watchman(store, clock, EACH, other)
    for tape in (Tape(clock), Tape(clock, "other")):
        tape.lines = [tape.name]
        await man.take(tape)
    clock.advance(60)
    store.trouble = FULL
    with pytest.raises(StoreFull):
        await man.ingest.tick()
    store.trouble = None
    await man.ingest.tick()
    assert sorted(await man.signals("fault", "cleared")) == ["other", "tape"]


async def test_time_waits_for_a_poll_that_is_being_written_down(store: Balky, clock: ManualClock) -> None:
    """What the detector has seen but not committed must not reach the disk without its cursor."""
    man, tape = Watchman(store, clock), Tape(clock)
    tape.lines = ["a"]
    await man.take(tape)
    clock.advance(60)
    tape.lines += ["b"]
    gate = asyncio.Event()
    store.before, store.trouble = [gate], FULL
    taking = asyncio.ensure_future(man.take(tape))
    await store.writing.wait()
    store.trouble = None
    ticking = asyncio.ensure_future(man.ingest.tick())
    await asyncio.sleep(0.05)
    gate.set()
    with pytest.raises(StoreFull):
        await taking
    await ticking
    assert await man.signals("fault", "cleared") == ["a"]

    again, fresh = Watchman(store, clock), Tape(clock)
    fresh.lines = tape.lines
    await again.ingest.restore({"tape": fresh})
    await again.take(fresh)
    assert await again.signals() == ["a", "b"]


# the shift's end and beginning ----------------------------------------------------------------------------------------


async def test_the_end_of_a_shift_puts_everything_on_disk(store: Balky, clock: ManualClock) -> None:
    slow = SignalRule("service-down", "eye", APP, Severity.ERROR, when=parse_when("down"), lasting=60)
    man, eye = Watchman(store, clock, slow), Eye()
    eye.values = {"up": False}
    await man.take(_at(eye, clock))
    clock.advance(59)
    await man.ingest.save(["eye"])

    again = Watchman(store, clock, slow)
    await again.ingest.restore({"eye": eye})
    clock.advance(1)
    await again.take(_at(eye, clock))
    assert await again.signals("service-down") == [""]


def _at(eye: Eye, clock: ManualClock) -> Any:
    """The eye, dating what it sees."""

    class Dated(Eye):
        async def poll(self) -> Batch:
            batch = await eye.poll()
            return Batch(
                [
                    Observation(eye.name, eye.resource, clock.wall(), dict(seen.values))
                    for seen in batch.observations
                ]
            )

    return Dated()


async def test_what_is_still_owed_at_the_end_of_a_shift_is_written_then(
    store: Balky, clock: ManualClock
) -> None:
    man, eye = Watchman(store, clock), Eye()
    eye.values = {"up": False}
    store.trouble = FULL
    with pytest.raises(StoreFull):
        await man.take(eye)
    store.trouble = None
    await man.ingest.save(["eye", "tape"])
    assert await man.signals("service-down") == [""]


async def test_in_the_grace_nothing_is_opened_and_after_it_what_still_fires(
    store: Balky, clock: ManualClock
) -> None:
    man, eye = Watchman(store, clock, grace_until=clock.wall() + 30), Eye()
    eye.values = {"up": False}
    await man.take(eye)
    assert (await man.incidents(), man.woken) == ([], [])
    clock.advance(30)
    await man.ingest.open_held_back()
    assert man.woken == await man.incidents()
    assert len(man.woken) == 1


async def test_an_incident_that_became_part_of_another_is_woken_to_say_so(
    store: Balky, clock: ManualClock
) -> None:
    man = Watchman(store, clock)
    for service in ("web", "jobs", "app"):
        clock.advance(1)
        resource = f"service:{service}"
        await man.ingest.say(Signal("down", resource, Severity.ERROR, "firing", clock.wall(), "down"))
        # Somebody was told of each, so none may simply vanish.
        told = message(incident=man.woken[-1])
        await store.write(partial(enqueue, channel="ops", message=told))
    web, jobs = man.woken[:2]
    assert man.woken[2:] == [web, jobs]
