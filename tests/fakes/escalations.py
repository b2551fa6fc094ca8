"""What the escalation suites start from: an incident's row, a message about it, a look at the rows and the journal."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import insert, select

from daemon.model.domain import Severity, State
from daemon.model.message import Message
from daemon.store.store import Store, Tx
from daemon.store.tables import INCIDENT, JOURNAL, OUTBOX


def message(
    event: Any = "trigger", incident: str = "i-1", *, severity: str = "error", **values: Any
) -> Message:
    return Message(
        event=event,
        incident=incident,
        title="api is down",
        severity=severity,
        summary=values.pop("summary", "api does not answer"),
        host="web1",
        dedup=f"midwatch/web1/{incident}",
        at=1_700_000_000.0,
        **values,
    )


def open_incident(tx: Tx, id: str = "i-1", **values: Any) -> None:
    row = {
        "id": id,
        "state": State.ESCALATED.value,
        "severity": int(Severity.ERROR),
        "resource": "service:api",
        "title": "api is down",
        "opened_at": tx.now,
        "changed_at": tx.now,
        "remedy": 0,
        "step": 0,
        "attempts": 0,
        "reason": "",
        "oncall_step": 0,
        "reopened": 0,
    }
    tx.conn.execute(insert(INCIDENT).values(**row | values))


async def outbox_rows(store: Store) -> list[Any]:
    """In the order in which they were queued."""
    return await store.read(
        lambda conn: list(conn.execute(select(OUTBOX).order_by(OUTBOX.c.created, OUTBOX.c.id)))
    )


async def journaled(store: Store, kind: str) -> list[dict[str, Any]]:
    query = select(JOURNAL.c.payload).where(JOURNAL.c.kind == kind).order_by(JOURNAL.c.seq)
    return await store.read(lambda conn: [json.loads(text) for (text,) in conn.execute(query)])
