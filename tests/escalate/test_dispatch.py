"""The dispatcher: at least once under one id, in order, patient, and never silent about what does not get through."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from fakes.channel import ScriptedChannel
from fakes.escalations import journaled, message, open_incident, outbox_rows
from fakes.receiver import Receiver
from sqlalchemy import update

from daemon.clock import ManualClock, SystemClock
from daemon.errors import DeliveryError, StoreFull
from daemon.escalate import dispatch
from daemon.escalate.dispatch import Dispatcher
from daemon.escalate.outbox import enqueue, undelivered
from daemon.model.domain import State
from daemon.model.message import Message
from daemon.store.store import Store
from daemon.store.tables import OUTBOX

DOWN = DeliveryError("it answers 503")
GONE = DeliveryError("it answers 410", permanent=True)
ROOT = Path(__file__).parents[2]


class Post:
    """A dispatcher whose waits move the clock instead of taking time."""

    def __init__(self, store: Store, clock: ManualClock, *channels: ScriptedChannel, **options: Any) -> None:
        self.store = store
        self.clock = clock
        self.dispatcher = Dispatcher(
            store,
            clock,
            {channel.name: channel for channel in channels},
            jitter=lambda: 0.5,
            rest=self._rest,
            **options,
        )

    async def queue(self, channel: str, *messages: Message) -> list[str]:
        ids = await self.store.write(lambda tx: [enqueue(tx, channel, message) for message in messages])
        self.dispatcher.wake()
        return ids

    async def settle(self) -> None:
        """Run until nothing is pending."""
        async with self.running():
            await until(self._settled)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.dispatcher.run())
        try:
            yield
        finally:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    async def _settled(self) -> bool:
        return all(row.state != "pending" for row in await outbox_rows(self.store))

    async def _rest(self, woken: asyncio.Event, seconds: float | None) -> None:
        if seconds is None:
            await woken.wait()
        else:
            self.clock.advance(seconds)
            await asyncio.sleep(0)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.002)


def after(holds: Callable[[], bool]) -> Callable[[], Any]:
    async def condition() -> bool:
        return holds()

    return condition


async def test_a_message_is_sent_and_marked(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock)
    post = Post(store, clock, ops)
    [id] = await post.queue("ops", message())
    await post.settle()
    [row] = await outbox_rows(store)
    assert (row.id, row.state, row.tries, row.sent_at) == (id, "sent", 1, clock.wall())
    assert [sent.id for sent in ops.sent] == [id]
    assert await journaled(store, "message.sent") == [
        {"message": id, "channel": "ops", "event": "trigger", "tries": 1}
    ]


async def test_it_is_tried_again_under_the_same_id_and_ever_more_patiently(
    store: Store, clock: ManualClock
) -> None:
    ops = ScriptedChannel("ops", clock, *[DOWN] * 10)
    post = Post(store, clock, ops)
    [id] = await post.queue("ops", message())
    await post.settle()
    assert {sent.id for sent in ops.sent} == {id}
    assert ops.waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert (await outbox_rows(store))[0].error == ""


async def test_jitter_spreads_the_tries(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock, DOWN, DOWN)
    post = Post(store, clock, ops)
    post.dispatcher = Dispatcher(
        store, clock, {"ops": ops}, jitter=iter([0.0, 1.0]).__next__, rest=post._rest
    )
    await post.queue("ops", message())
    await post.settle()
    assert ops.waits == [1.6, 4.8]


@pytest.mark.parametrize(("said", "waited"), [(120.0, 120.0), (1.0, 2.0), (0.0, 2.0), (1e6, 3600.0)])
async def test_the_service_says_when(store: Store, clock: ManualClock, said: float, waited: float) -> None:
    ops = ScriptedChannel("ops", clock, DeliveryError("it answers 429", retry_after=said))
    post = Post(store, clock, ops)
    await post.queue("ops", message())
    await post.settle()
    assert ops.waits == [waited]


async def test_a_service_that_wants_quiet_is_left_alone_by_other_incidents_too(
    store: Store, clock: ManualClock
) -> None:
    ops = ScriptedChannel("ops", clock, DeliveryError("it answers 429", retry_after=120))
    post = Post(store, clock, ops)
    await post.queue("ops", message(incident="i-1"), message(incident="i-2"))
    await post.settle()
    assert ops.waits == [120, 0]


async def test_a_refused_message_fails_at_once(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock, GONE)
    post = Post(store, clock, ops)
    [id] = await post.queue("ops", message())
    await post.settle()
    [row] = await outbox_rows(store)
    assert (row.state, row.tries, row.error) == ("failed", 1, "it answers 410")
    assert [fact["message"] for fact in await journaled(store, "message.failed")] == [id]
    assert [row.id for row in await store.read(undelivered)] == [id]


async def test_it_is_given_up_after_a_day(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock, always=DOWN)
    post = Post(store, clock, ops)
    start = clock.wall()
    await post.queue("ops", message())
    await post.settle()
    assert (await outbox_rows(store))[0].state == "failed"
    assert 86_400 < ops.sent[-1].at - start < 86_400 + 600


async def test_a_day_switched_off_costs_no_message(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock, DOWN, DOWN)
    post = Post(store, clock, ops)
    await post.queue("ops", message())
    clock.advance(3 * 86_400)
    await post.settle()
    assert (await outbox_rows(store))[0].state == "sent"


async def test_a_clock_set_back_delays_nothing(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock)
    post = Post(store, clock, ops)
    fresh, tried = await post.queue("ops", message(incident="i-1"), message(incident="i-2"))
    await store.write(lambda tx: tx.conn.execute(update(OUTBOX).where(OUTBOX.c.id == tried).values(tries=1)))
    clock.step_wall(-86_400)
    before = clock.wall()
    await post.settle()
    assert [sent.id for sent in ops.sent] == [fresh, tried]
    assert clock.wall() == before


async def test_a_resolve_never_overtakes_its_trigger(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock, DOWN, DOWN, DOWN)
    post = Post(store, clock, ops)
    await post.queue("ops", message("trigger"), message("update"), message("resolve"))
    await post.settle()
    assert ops.events == ["trigger"] * 4 + ["update", "resolve"]


async def test_the_order_is_that_of_queueing_whatever_the_clock_did(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock)
    post = Post(store, clock, ops)
    for event in ("trigger", "acknowledge", "resolve"):
        await post.queue("ops", message(event))
        clock.step_wall(-10)
    await post.settle()
    assert ops.events == ["trigger", "acknowledge", "resolve"]


async def test_one_incident_does_not_wait_for_another(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock, DOWN)
    post = Post(store, clock, ops)
    await post.queue("ops", message(incident="i-1"), message(incident="i-2"), message("resolve", "i-2"))
    await post.settle()
    assert [sent.message.incident for sent in ops.sent] == ["i-1", "i-2", "i-2", "i-1"]


async def test_tests_do_not_wait_for_each_other(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock, DOWN)
    post = Post(store, clock, ops)
    first, second = await post.queue("ops", message("test", ""), message("test", ""))
    await post.settle()
    assert [sent.id for sent in ops.sent] == [first, second, first]


async def test_a_hanging_channel_does_not_hold_up_the_others(store: Store, clock: ManualClock) -> None:
    slow, quick = ScriptedChannel("slow", clock), ScriptedChannel("quick", clock)
    slow.gate.clear()
    post = Post(store, clock, slow, quick)
    await post.queue("slow", message())
    async with post.running():
        await until(after(lambda: bool(slow.sent)))
        await post.queue("quick", message(), message("resolve"))
        await until(after(lambda: len(quick.sent) == 2))
        slow.gate.set()
        await until(post._settled)


async def test_only_so_many_channels_send_at_once(store: Store, clock: ManualClock) -> None:
    channels = [ScriptedChannel(f"c{n}", clock) for n in range(dispatch.MOST_AT_ONCE + 2)]
    for channel in channels:
        channel.gate.clear()
    post = Post(store, clock, *channels)
    for channel in channels:
        await post.queue(channel.name, message())
    async with post.running():
        await until(after(lambda: sum(len(channel.sent) for channel in channels) == dispatch.MOST_AT_ONCE))
        for channel in channels:
            channel.gate.set()
        await until(post._settled)
    assert all(len(channel.sent) == 1 for channel in channels)


async def test_a_faulty_channel_costs_a_try_only(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    ops = ScriptedChannel("ops", clock, RuntimeError("oops"), TimeoutError())
    post = Post(store, clock, ops)
    await post.queue("ops", message())
    await post.settle()
    assert len(ops.sent) == 3
    assert "channel ops failed" in caplog.text


async def test_what_was_sent_but_could_not_be_marked_is_not_sent_again(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class FullStore:
        """Has no space for the first three writes."""

        refusals = 3
        read = store.read

        async def write(self, work: Any) -> Any:
            if self.refusals:
                self.refusals -= 1
                raise StoreFull("the journal has no space")
            return await store.write(work)

    ops = ScriptedChannel("ops", clock)
    post = Post(store, clock, ops)
    post.dispatcher = Dispatcher(cast(Store, FullStore()), clock, {"ops": ops}, rest=post._rest)
    await post.queue("ops", message())
    await post.settle()
    assert len(ops.sent) == 1
    assert "the outbox waits: the journal has no space" in caplog.text


async def test_a_message_for_a_channel_that_is_gone_fails_and_is_told(
    store: Store, clock: ManualClock
) -> None:
    ops = ScriptedChannel("ops", clock)
    post = Post(store, clock, ops)
    [id] = await post.queue("old", message())
    await post.settle()
    [lost] = [row for row in await outbox_rows(store) if row.id == id]
    assert lost.state == "failed"
    assert "no channel of this name" in lost.error
    assert ops.sent[0].message.summary.startswith("could not reach old")


async def test_a_wake_up_is_enough(store: Store, clock: ManualClock) -> None:
    ops = ScriptedChannel("ops", clock)
    post = Post(store, clock, ops)
    async with post.running():
        await post.queue("ops", message())
        await until(post._settled)
        await post.queue("ops", message("resolve"))
        await until(post._settled)
    assert ops.events == ["trigger", "resolve"]


@pytest.mark.parametrize("seconds", [0.01, None])
async def test_resting_ends_when_woken(seconds: float | None) -> None:
    woken = asyncio.Event()
    if seconds is None:
        asyncio.get_running_loop().call_soon(woken.set)
    async with asyncio.timeout(10):
        await dispatch.rest(woken, seconds)


class TestFallback:
    """What is grave and does not get through is said elsewhere, once."""

    @staticmethod
    def elsewhere(*names: str) -> Callable[[str], Sequence[str]]:
        return lambda channel: names

    async def test_a_late_message_is_told_to_the_others_of_the_route(
        self, store: Store, clock: ManualClock
    ) -> None:
        pager = ScriptedChannel("pager", clock, always=DOWN)
        ops, mail = ScriptedChannel("ops", clock), ScriptedChannel("mail", clock)
        post = Post(store, clock, pager, ops, mail, fallback=self.elsewhere("pager", "ops"))
        [id] = await post.queue("pager", message(severity="critical"))
        await post.settle()
        [note] = [sent.message for sent in ops.sent]
        assert note.summary == "could not reach pager (it answers 503). api does not answer"
        assert (note.event, note.incident, note.details) == ("trigger", "i-1", {"undelivered": id})
        assert mail.sent == []
        [fact] = await journaled(store, "message.undelivered")
        assert fact["told"] == ["ops"]
        assert [row.created for row in await outbox_rows(store) if row.channel == "ops"] == [pager.sent[2].at]

    async def test_a_refused_one_at_once(self, store: Store, clock: ManualClock) -> None:
        pager, ops = ScriptedChannel("pager", clock, GONE), ScriptedChannel("ops", clock)
        post = Post(store, clock, pager, ops, fallback=self.elsewhere("ops"))
        await post.queue("pager", message())
        await post.settle()
        assert len(ops.sent) == 1

    async def test_one_that_must_wait_long_at_once(self, store: Store, clock: ManualClock) -> None:
        pager = ScriptedChannel("pager", clock, *[DeliveryError("it answers 429", retry_after=1800)] * 5)
        ops = ScriptedChannel("ops", clock)
        post = Post(store, clock, pager, ops, fallback=self.elsewhere("ops"))
        await post.queue("pager", message())
        await post.settle()
        assert len(ops.sent) == 1
        assert len(pager.sent) == 6

    async def test_nobody_is_left_untold_when_the_route_knows_no_other(
        self, store: Store, clock: ManualClock
    ) -> None:
        pager, ops = ScriptedChannel("pager", clock, GONE), ScriptedChannel("ops", clock)
        post = Post(store, clock, pager, ops, fallback=self.elsewhere("pager"))
        await post.queue("pager", message())
        await post.settle()
        assert len(ops.sent) == 1

    async def test_warnings_disturb_nobody_else(self, store: Store, clock: ManualClock) -> None:
        pager, ops = ScriptedChannel("pager", clock, GONE), ScriptedChannel("ops", clock)
        post = Post(store, clock, pager, ops)
        await post.queue("pager", message(severity="warning"))
        await post.settle()
        assert ops.sent == []

    async def test_two_dead_channels_do_not_tell_each_other_for_ever(
        self, store: Store, clock: ManualClock
    ) -> None:
        one, two = ScriptedChannel("one", clock, always=GONE), ScriptedChannel("two", clock, always=GONE)
        post = Post(store, clock, one, two)
        await post.queue("one", message())
        await post.settle()
        assert (len(one.sent), len(two.sent)) == (1, 1)

    async def test_late_trouble_does_not_open_again_what_is_over(
        self, store: Store, clock: ManualClock
    ) -> None:
        pager, ops = ScriptedChannel("pager", clock, GONE, GONE), ScriptedChannel("ops", clock)
        post = Post(store, clock, pager, ops)
        await store.write(lambda tx: open_incident(tx, "i-1", state=State.RESOLVED.value))
        await post.queue("pager", message("trigger"), message("resolve"))
        await post.settle()
        assert ops.events == ["resolve"]


@pytest.mark.parametrize(("crash", "arrivals"), [("outbox_before_send", 1), ("outbox_after_send", 2)])
async def test_a_kill_between_send_and_mark_sends_again_under_the_same_id(
    tmp_path: Path, crash: str, arrivals: int
) -> None:
    database = tmp_path / "outbox.db"
    store = await Store.open(database, SystemClock(), ballast_size=0)
    id = await store.write(lambda tx: enqueue(tx, "ops", message()))
    await store.close()
    with Receiver() as receiver:
        assert await _sender(database, receiver.url, crash) == -signal.SIGKILL
        assert len(receiver.taken) == arrivals - 1
        assert await _sender(database, receiver.url, "") == 0
        assert [request.headers["webhook-id"] for request in receiver.taken] == [id] * arrivals


async def _sender(database: Path, url: str, crash: str) -> int:
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "MIDWATCH_CRASH": crash}
    command = (sys.executable, "-m", "fakes.sender", str(database), url)
    process = await asyncio.create_subprocess_exec(*command, env=environ)
    return await process.wait()
