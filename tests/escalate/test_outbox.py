"""The outbox: rows, bounded and harmless, that are queued or not queued together with their reason."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fakes.escalations import message, outbox_rows
from sqlalchemy import update

from daemon.clock import ManualClock
from daemon.escalate.outbox import enqueue, undelivered
from daemon.model.message import Message
from daemon.store.store import Store, Tx
from daemon.store.tables import OUTBOX


async def test_a_message_is_due_at_once_and_reads_back(store: Store, clock: ManualClock) -> None:
    said = message(
        "ask", details={"signals": ["http-down"], "params": {"retries": 2, "share": 0.5, "dry": False}}
    )
    id = await store.write(lambda tx: enqueue(tx, "ops", said))
    [row] = await outbox_rows(store)
    assert re.fullmatch(r"msg_[A-Za-z0-9_-]{16,}", id)
    assert (row.id, row.channel, row.incident, row.event) == (id, "ops", "i-1", "ask")
    assert (row.state, row.tries, row.due, row.created) == ("pending", 0, clock.wall(), clock.wall())
    assert Message.from_json(row.message) == said


async def test_a_test_belongs_to_no_incident(store: Store) -> None:
    await store.write(lambda tx: enqueue(tx, "ops", message("test", "")))
    assert (await outbox_rows(store))[0].incident is None


async def test_what_fails_queues_nothing(store: Store) -> None:
    def work(tx: Tx) -> None:
        enqueue(tx, "ops", message())
        raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        await store.write(work)
    assert await outbox_rows(store) == []


async def test_undelivered_is_what_nobody_got(store: Store, clock: ManualClock) -> None:
    def work(tx: Tx) -> list[str]:
        changes: list[dict[str, Any]] = [
            {"tries": 2},
            {"tries": 3},
            {"due": tx.now + 61},
            {"state": "failed"},
        ]
        ids = [enqueue(tx, "ops", message(incident=f"i-{n}")) for n in range(5)]
        for id, values in zip(ids[1:], changes, strict=True):
            tx.conn.execute(update(OUTBOX).where(OUTBOX.c.id == id).values(**values))
        return ids

    ids = await store.write(work)
    assert {row.id for row in await store.read(undelivered)} == set(ids[2:])
    assert await store.read(lambda conn: undelivered(conn, clock.wall() + 1)) == []
