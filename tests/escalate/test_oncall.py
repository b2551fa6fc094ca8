"""On-call steps: called one after the other, again from the first, until somebody answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes.escalations import journaled, message, open_incident, outbox_rows
from sqlalchemy import select, update

from daemon.clock import ManualClock, remaining
from daemon.escalate import oncall
from daemon.escalate.oncall import OnCall, Step
from daemon.escalate.outbox import enqueue
from daemon.model.deadline import Deadline
from daemon.model.domain import Severity, State
from daemon.store.store import Store, Tx
from daemon.store.tables import INCIDENT

STEPS = OnCall((Step(("ben", "mail"), 900.0), Step(("anna",), 0.0)), repeat=600.0)


class Rota:
    """Starts and advances in transactions of their own."""

    def __init__(self, store: Store, clock: ManualClock, steps: OnCall = STEPS) -> None:
        self.store = store
        self.clock = clock
        self.steps = steps

    async def start(
        self, severity: Severity = Severity.ERROR, before: Callable[[Tx], object] = lambda tx: None
    ) -> None:
        def work(tx: Tx) -> None:
            open_incident(tx)
            before(tx)
            oncall.start(tx, self.clock, "i-1", self.steps, severity=severity)

        await self.store.write(work)

    async def advance(self) -> float | None:
        """Seconds until the next call."""
        due = await self.store.write(lambda tx: oncall.advance(tx, self.clock, "i-1", self.steps, message()))
        stored = await self.store.read(lambda conn: conn.execute(select(INCIDENT.c.oncall_due)).scalar_one())
        assert due is None or due == stored
        return None if due is None else remaining(self.clock, Deadline.from_text(due))

    async def called(self) -> list[str]:
        return [
            channel for fact in await journaled(self.store, "oncall.called") for channel in fact["channels"]
        ]

    async def change(self, **values: object) -> None:
        await self.store.write(lambda tx: tx.conn.execute(update(INCIDENT).values(**values)))


async def test_people_are_called_one_after_the_other_and_again(store: Store, clock: ManualClock) -> None:
    rota = Rota(store, clock)
    await rota.start()
    assert await rota.advance() == 900
    assert await rota.called() == ["anna"]
    assert await rota.advance() == 900
    assert await rota.called() == ["anna"]
    clock.advance(900)
    assert await rota.advance() == 600
    assert await rota.called() == ["anna", "ben", "mail"]
    clock.advance(600)
    assert await rota.advance() == 900
    assert await rota.called() == ["anna", "ben", "mail", "anna"]
    assert [row.channel for row in await outbox_rows(store)].count("anna") == 2


async def test_the_first_step_may_come_later(store: Store, clock: ManualClock) -> None:
    rota = Rota(store, clock, OnCall((Step(("anna",), 300.0),)))
    await rota.start()
    assert await rota.advance() == 300
    assert await rota.called() == []


@pytest.mark.parametrize(
    "answered", [{"acked_by": "anna"}, {"state": State.RESOLVED.value}, {"oncall_due": None}]
)
async def test_an_answer_ends_the_calls(
    store: Store, clock: ManualClock, answered: dict[str, object]
) -> None:
    rota = Rota(store, clock)
    await rota.start()
    await rota.change(**answered)
    assert await rota.advance() is None
    assert await rota.called() == []


async def test_without_steps_nobody_is_called(store: Store, clock: ManualClock) -> None:
    rota = Rota(store, clock, OnCall())
    await rota.start()
    assert await rota.advance() is None


async def test_warnings_wake_nobody(store: Store, clock: ManualClock) -> None:
    rota = Rota(store, clock)
    await rota.start(Severity.WARNING)
    assert await rota.advance() is None


async def test_where_they_escalate_we_do_not(store: Store, clock: ManualClock) -> None:
    rota = Rota(store, clock, OnCall(STEPS.steps, theirs=frozenset({"pager"})))
    await rota.start(before=lambda tx: enqueue(tx, "pager", message()))
    assert await rota.advance() is None


async def test_who_was_told_just_now_is_not_called_once_more(store: Store, clock: ManualClock) -> None:
    rota = Rota(store, clock)
    await rota.start(before=lambda tx: enqueue(tx, "anna", message()))
    assert await rota.advance() == 900
    assert await rota.called() == []
    clock.advance(900)
    await rota.advance()
    clock.step_wall(-86_400)
    clock.advance(600)
    await rota.advance()
    assert await rota.called() == ["ben", "mail", "anna"]


async def test_a_reload_may_leave_fewer_steps(store: Store, clock: ManualClock) -> None:
    rota = Rota(store, clock)
    await rota.start()
    await rota.advance()
    rota.steps = OnCall((Step(("carl",)),))
    clock.advance(900)
    assert await rota.advance() == rota.steps.repeat
    assert await rota.called() == ["anna", "carl"]


async def test_a_reboot_does_not_end_the_calls(store: Store, clock: ManualClock) -> None:
    rota = Rota(store, clock)
    await rota.start()
    await rota.advance()
    clock.reboot("boot-2", downtime=900)
    await rota.advance()
    assert await rota.called() == ["anna", "ben", "mail"]


def test_repeating_without_a_pause_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        OnCall(repeat=0)
