"""Who is told: the channels of each severity, and the channels that know of an incident already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from daemon.model.domain import Severity
from daemon.store.tables import OUTBOX


@dataclass(frozen=True, slots=True)
class Routes:
    """Severity → channel names, as configured in `[routes]`."""

    by_severity: Mapping[Severity, tuple[str, ...]] = field(default_factory=dict)

    def channels(self, severity: Severity) -> tuple[str, ...]:
        """The channels that are told of this severity, each once; empty when nobody is to be disturbed by it."""
        return tuple(dict.fromkeys(self.by_severity.get(severity, ())))


def told(conn: Connection, incident: str) -> list[str]:
    """The channels that were told of the incident (or are about to be), each once, the first told first.

    Also those whose message failed: a call that got through after all must still be ended.
    """
    query = select(OUTBOX.c.channel).where(
        OUTBOX.c.incident == incident, OUTBOX.c.event.in_(("trigger", "ask", "update"))
    )
    ordered = query.group_by(OUTBOX.c.channel).order_by(func.min(OUTBOX.c.created), OUTBOX.c.channel)
    return [channel for (channel,) in conn.execute(ordered)]
