"""The outbox: what is to be said, as rows, written in the transaction that decides it. The dispatcher alone sends."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, or_, select

from daemon.escalate.text import bounded
from daemon.model.message import Message
from daemon.store.store import Tx
from daemon.store.tables import OUTBOX

LATE_TRIES = 3
"""Vain tries after which a message counts as undelivered, though it is tried further."""
LATE = 60.0
"""Seconds of waiting after which it counts as undelivered, however few its tries."""
MOST_LISTED = 100


def enqueue(tx: Tx, channel: str, message: Message) -> str:
    """Queue one message for one channel, due now; gives its id, which stays the same over all tries.

    The id is what a receiver tells repetitions by; it holds no dot, because webhook signatures join their parts with one.
    """
    id = f"msg_{secrets.token_hex(12)}"
    row = {
        "id": id,
        "channel": channel,
        "incident": message.incident or None,
        "event": message.event,
        "message": bounded(message).to_json(),
        "state": "pending",
        "tries": 0,
        "due": tx.now,
        "created": tx.now,
        "error": "",
    }
    tx.conn.execute(insert(OUTBOX).values(**row))
    return id


def undelivered(conn: Connection, since: float = 0.0) -> list[Row[Any]]:
    """The rows queued after `since` (unix seconds) that did not reach anybody, newest first: given up, or tried in vain for long."""
    late = or_(OUTBOX.c.tries >= LATE_TRIES, OUTBOX.c.due - OUTBOX.c.created > LATE)
    query = select(OUTBOX).where(
        OUTBOX.c.created >= since, or_(OUTBOX.c.state == "failed", and_(OUTBOX.c.state == "pending", late))
    )
    return list(conn.execute(query.order_by(OUTBOX.c.created.desc()).limit(MOST_LISTED)))
