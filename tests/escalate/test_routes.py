"""Routes: whom a severity disturbs, and who knows of an incident already."""

from __future__ import annotations

import pytest
from fakes.escalations import message
from sqlalchemy import update

from daemon.clock import ManualClock
from daemon.escalate.outbox import enqueue
from daemon.escalate.routes import Routes, told
from daemon.model.domain import Severity
from daemon.model.message import Message
from daemon.store.store import Store
from daemon.store.tables import OUTBOX

HEARD = (("pager", "trigger"), ("ops", "ask"), ("pager", "update"), ("mail", "resolve"), ("chat", "update"))


async def queue(store: Store, channel: str, said: Message) -> None:
    await store.write(lambda tx: enqueue(tx, channel, said))


def test_each_channel_of_a_severity_is_named_once() -> None:
    routes = Routes({Severity.CRITICAL: ("pager", "ops", "pager")})
    assert routes.channels(Severity.CRITICAL) == ("pager", "ops")
    assert routes.channels(Severity.INFO) == ()


@pytest.mark.parametrize("state", ["pending", "sent", "failed"])
async def test_told_is_who_heard_of_the_trouble_first_told_first(
    store: Store, clock: ManualClock, state: str
) -> None:
    for channel, event in HEARD:
        await queue(store, channel, message(event))
        clock.advance(1)
    await queue(store, "other", message(incident="i-2"))
    await store.write(lambda tx: tx.conn.execute(update(OUTBOX).values(state=state)))
    assert await store.read(lambda conn: told(conn, "i-1")) == ["pager", "ops", "chat"]
