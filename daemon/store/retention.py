"""Nothing grows without bound: what is over and old is dropped, the journal in sealed segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Table, delete, or_, select

from daemon.store import journal
from daemon.store.tables import APPROVAL, ATTEMPT, INCIDENT, OUTBOX, SIGNAL

if TYPE_CHECKING:
    from daemon.store.store import Tx

OF_INCIDENTS: tuple[Table, ...] = (ATTEMPT, APPROVAL, OUTBOX, SIGNAL)


def sweep(tx: Tx, keep_for: float) -> None:
    """Seal what is due and drop what ended more than `keep_for` seconds ago."""
    moment = tx.now - keep_for
    journal.seal(tx.conn, tx.now)
    journal.drop_before(tx.conn, tx.now, keep_for)
    over = select(INCIDENT.c.id).where(INCIDENT.c.state == "resolved", INCIDENT.c.resolved_at < moment)
    for of_incidents in OF_INCIDENTS:
        tx.conn.execute(delete(of_incidents).where(of_incidents.c.incident.in_(over)))
    gone = tx.conn.execute(delete(INCIDENT).where(INCIDENT.c.id.in_(over))).rowcount
    # What never belonged to an incident, or outlived it: context, test messages.
    nobodys = SIGNAL.c.incident.is_(None), SIGNAL.c.state == "cleared", SIGNAL.c.at < moment
    tx.conn.execute(delete(SIGNAL).where(*nobodys))
    alone = or_(OUTBOX.c.incident.is_(None), OUTBOX.c.incident.not_in(select(INCIDENT.c.id)))
    tx.conn.execute(delete(OUTBOX).where(alone, OUTBOX.c.state != "pending", OUTBOX.c.created < moment))
    if gone:
        tx.record("incidents.dropped", {"incidents": gone, "before": moment})
