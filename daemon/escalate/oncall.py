"""The on-call steps: one person after the other is called until somebody answers, and then again from the first."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update

from daemon.clock import Clock, deadline, remaining
from daemon.escalate.outbox import enqueue
from daemon.escalate.routes import told
from daemon.model.deadline import Deadline
from daemon.model.domain import Severity, State
from daemon.model.message import Message
from daemon.store.store import Tx
from daemon.store.tables import INCIDENT, OUTBOX

REPEAT = 900.0
"""Seconds after the last step before the first one's people are called again."""
JUST_NOW = 30.0
"""Seconds within which a channel that was told already is not called once more."""


@dataclass(frozen=True, slots=True)
class Step:
    """Whom to call, and when."""

    channels: tuple[str, ...]
    """The channels of the step's people."""
    after: float = 0.0
    """Seconds after the escalation."""


@dataclass(frozen=True, slots=True)
class OnCall:
    """All steps, sorted by their time. No steps: nobody is called beyond the routes."""

    steps: tuple[Step, ...] = ()
    repeat: float = REPEAT
    theirs: frozenset[str] = frozenset()
    """Channels whose service calls people itself (`escalation = "theirs"`): once it was told, nobody is called from here."""
    least: Severity = Severity.ERROR
    """What is less grave wakes nobody."""

    def __post_init__(self) -> None:
        if self.repeat <= 0:
            raise ValueError(f"on-call steps are repeated after more than 0 seconds, not {self.repeat:g}")
        object.__setattr__(self, "steps", tuple(sorted(self.steps, key=lambda step: step.after)))


def start(
    tx: Tx, clock: Clock, incident: str, oncall: OnCall, *, severity: Severity, after: float = 0.0
) -> None:
    """Begin with the first step, `after` seconds from now at the earliest. Nothing becomes due without steps, below `least`, or when
    their service calls people."""
    ours = severity >= oncall.least and not oncall.theirs.intersection(told(tx.conn, incident))
    due = deadline(clock, after + oncall.steps[0].after).to_text() if ours and oncall.steps else None
    _keep(tx, incident, 0, due)


def advance(tx: Tx, clock: Clock, incident: str, oncall: OnCall, message: Message) -> str | None:
    """Call the people of the step that is due; gives the next step's Deadline text, None once nobody is to be called any more."""
    row = tx.conn.execute(select(INCIDENT).where(INCIDENT.c.id == incident)).one()
    if row.acked_by or row.oncall_due is None or row.state == State.RESOLVED or not oncall.steps:
        return None
    if remaining(clock, Deadline.from_text(row.oncall_due)) > 0:
        return str(row.oncall_due)
    now = row.oncall_step % len(oncall.steps)  # a reload may have left fewer steps
    _call(tx, incident, oncall.steps[now], message)
    following = (now + 1) % len(oncall.steps)
    wait = oncall.steps[following].after - oncall.steps[now].after if following else oncall.repeat
    due = deadline(clock, wait).to_text()
    _keep(tx, incident, following, due)
    return due


def _call(tx: Tx, incident: str, step: Step, message: Message) -> None:
    called = [channel for channel in step.channels if not _just_told(tx, incident, channel)]
    for channel in called:
        enqueue(tx, channel, message)
    tx.record("oncall.called", {"channels": called}, incident)


def _just_told(tx: Tx, incident: str, channel: str) -> bool:
    """The routes may have told the same channel in the moment of the escalation: the phone need not ring twice for it."""
    query = select(OUTBOX.c.id).where(
        OUTBOX.c.incident == incident,
        OUTBOX.c.channel == channel,
        OUTBOX.c.event == "trigger",
        OUTBOX.c.state != "failed",
        OUTBOX.c.created.between(tx.now - JUST_NOW, tx.now),
    )
    return tx.conn.execute(query.limit(1)).first() is not None


def _keep(tx: Tx, incident: str, step: int, due: str | None) -> None:
    values = {"oncall_step": step, "oncall_due": due}
    tx.conn.execute(update(INCIDENT).where(INCIDENT.c.id == incident).values(**values))
