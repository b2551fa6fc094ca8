"""What the loop says to people: asked, held, handed over, over. Rows in the outbox, written in the transaction that moves the incident."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, literal_column, select, update

from daemon.clock import Clock, remaining
from daemon.escalate import approvals, oncall, outbox, routes
from daemon.gate import Passage
from daemon.loop.rows import approval_of, find_incident, move, plan_of
from daemon.model.deadline import Deadline
from daemon.model.domain import Proposal, Severity, State
from daemon.model.message import Message
from daemon.model.plan import Plan
from daemon.store.store import Tx
from daemon.store.tables import APPROVAL, OUTBOX, SIGNAL


@dataclass(frozen=True, slots=True)
class Voices:
    """Whom to tell: routes by severity, and the on-call steps."""

    routes: routes.Routes
    oncall: oncall.OnCall
    people: Mapping[str, tuple[str, ...]]
    """Person → channel names."""


class People:
    """Speaks for the loop."""

    def __init__(self, voices: Voices, clock: Clock, host: str) -> None:
        self._voices = voices
        self._clock = clock
        self._host = host

    def refusal(self, passage: Passage, proposal: Proposal) -> str:
        """Why a proposal was not done, with rule and line, as a person is told it."""
        what = f"{proposal.action} on {proposal.target}"
        if passage.way == "shadow":
            return f"would do {what}, but {passage.reason}"
        verdict = passage.verdict
        where = f" by {verdict.rule} at {verdict.where}" if verdict and verdict.where else ""
        near = f" (nearly: {', '.join(verdict.near_misses)})" if verdict and verdict.near_misses else ""
        return f"{what} {passage.way}{where}: {passage.reason}{near}"

    def held(self, tx: Tx, row: Row[Any], reason: str) -> None:
        """Say once what holds us back; the incident is looked at again from the start when the hold goes."""
        if row.held != reason:
            self._tell(tx, row, "trigger", f"nothing is done: {reason}", {"held": reason})
            move(tx, row.id, _resting(row), reason, held=reason)

    def wait_for_day(self, tx: Tx, row: Row[Any], passage: Passage) -> None:
        """The question keeps until the rule's quiet hours are over; said in the row, told to nobody."""
        assert passage.verdict is not None
        held = f"quiet hours of {passage.verdict.rule}"
        if row.held != held:
            move(tx, row.id, State(row.state), "the question waits for the end of the quiet hours", held=held)

    def ask(self, tx: Tx, row: Row[Any], plan: Plan, passage: Passage) -> None:
        """Ask the people whom the rule names whether exactly this may be done."""
        verdict, action = passage.verdict, passage.action
        assert verdict is not None
        assert action is not None
        asked = approvals.ask(
            tx,
            self._clock,
            incident=row.id,
            digest=passage.digest,
            action=action.id,
            target=action.target,
            params=dict(action.params),
            rule=verdict.rule,
            wanted=verdict.approvals,
        )
        question = f"May {action.id} be done on {action.target}? midwatch approve {asked}"
        rule = f"{verdict.rule} at {verdict.where}"
        what = {"action": action.id, "target": action.target, "params": dict(action.params)}
        details = {**what, "rule": rule, "why": passage.reason}
        summary = f"{plan.diagnosis.summary}. {question}"
        message = self._message(tx, row, "ask", summary, details, approval=asked)
        for channel in self._askable(row, verdict.approvals.from_ if verdict.approvals else ()):
            outbox.enqueue(tx, channel, message)
        move(tx, row.id, State.WAITING, question, plan=plan, held=None, oncall_due=None)
        after = verdict.approvals.escalate_after if verdict.approvals else None
        if after is not None:
            self._begin_calling(tx, row, after)

    def answer(self, tx: Tx, incident: str) -> Row[Any] | None:
        """The newest approval asked for in the incident, as it stands now: unanswered too long is expired, asked before a reboot is void."""
        approvals.lapse(tx, self._clock, incident)
        return approval_of(tx.conn, incident)

    def drop(self, tx: Tx, approval: str, reason: str) -> None:
        """An approval that is no longer needed must not be usable later. One that was answered no, ran out or was used stays so."""
        usable = APPROVAL.c.id == approval, APPROVAL.c.state.in_(("pending", "approved"))
        incident = tx.conn.execute(select(APPROVAL.c.incident).where(*usable)).scalar()
        if incident is None:
            return
        tx.conn.execute(update(APPROVAL).where(*usable).values(state="void", reason=reason))
        tx.record("approval.void", {"approval": approval, "reason": reason}, incident)

    def escalate(self, tx: Tx, row: Row[Any], reason: str) -> None:
        """Hand over to a person, with the evidence so far."""
        self._tell(tx, row, "trigger", reason, {})
        self._begin_calling(tx, row)
        tx.record("incident.escalated", {"reason": reason}, row.id)
        move(tx, row.id, State.ESCALATED, reason, held=None)

    def stumbled(self, tx: Tx, row: Row[Any], reason: str) -> None:
        """Say that a fault of our own keeps us from going on; the incident stays where it is and is tried further."""
        self._tell(tx, row, "trigger", f"midwatch does not get on with this, look yourself: {reason}", {})
        tx.record("incident.stumbled", {"reason": reason}, row.id)

    def call(self, tx: Tx, row: Row[Any]) -> float | None:
        """Go on calling; gives the seconds until the next call, None when nobody is to be called any more."""
        message = self._message(tx, row, "trigger", row.reason, {})
        due = oncall.advance(tx, self._clock, row.id, self._voices.oncall, message)
        return None if due is None else max(0.0, remaining(self._clock, Deadline.from_text(due)))

    def resolve(self, tx: Tx, row: Row[Any], reason: str) -> None:
        """Over: tell everybody who was told of the trouble, once."""
        now = find_incident(tx.conn, row.id)
        if now is None or now.state == State.RESOLVED:
            return
        message = self._message(tx, row, "resolve", reason, {})
        for channel in _listening(tx.conn, row.id):
            outbox.enqueue(tx, channel, message)
        tx.record("incident.resolved", {"reason": reason}, row.id)
        move(tx, row.id, State.RESOLVED, reason, resolved_at=tx.now, held=None, due=None, oncall_due=None)

    def pass_on(self, tx: Tx, row: Row[Any], event: Literal["acknowledge", "update"], summary: str) -> None:
        """Tell everybody who was told of the trouble."""
        message = self._message(tx, row, event, summary, {})
        for channel in _listening(tx.conn, row.id):
            outbox.enqueue(tx, channel, message)

    def _begin_calling(self, tx: Tx, row: Row[Any], after: float = 0.0) -> None:
        severity = Severity(row.severity)
        oncall.start(tx, self._clock, row.id, self._voices.oncall, severity=severity, after=after)

    def _tell(self, tx: Tx, row: Row[Any], event: Any, summary: str, details: Mapping[str, Any]) -> None:
        message = self._message(tx, row, event, summary, details)
        for channel in self._voices.routes.channels(Severity(row.severity)):
            outbox.enqueue(tx, channel, message)

    def _askable(self, row: Row[Any], approvers: tuple[str, ...]) -> list[str]:
        """The channels of the people who may answer; when they have none, the routes of the incident's severity."""
        own = [channel for person in approvers for channel in self._voices.people.get(person, ())]
        return list(dict.fromkeys(own)) or list(self._voices.routes.channels(Severity(row.severity)))

    def _message(
        self,
        tx: Tx,
        row: Row[Any],
        event: Any,
        summary: str,
        details: Mapping[str, Any],
        approval: str | None = None,
    ) -> Message:
        plan = plan_of(row)
        cause = {"cause": plan.diagnosis.summary} if plan else {}
        return Message(
            event=event,
            incident=row.id,
            title=row.title,
            severity=Severity(row.severity).word,
            summary=summary,
            details={**cause, **details, "resource": row.resource, "signals": _evidence(tx.conn, row.id)},
            host=self._host,
            dedup=f"midwatch/{self._host}/{row.id}",
            approval=approval,
            at=tx.now,
        )


def _resting(row: Row[Any]) -> State:
    """Where a held incident waits: before anything was done it is looked at afresh later, else it stays where it is."""
    return (
        State.OPEN
        if row.state in (State.OPEN, State.INVESTIGATING) and row.attempts == 0
        else State(row.state)
    )


def _listening(conn: Connection, incident: str) -> list[str]:
    """The channels that were told of the trouble and not of its end yet: an incident may have been over before, and come again."""
    query = select(OUTBOX.c.channel, OUTBOX.c.event).where(OUTBOX.c.incident == incident)
    listening: dict[str, None] = {}
    for channel, event in conn.execute(query.order_by(literal_column("outbox.rowid"))):
        if event == "resolve":
            listening.pop(channel, None)
        elif event in ("trigger", "ask", "update"):
            listening[channel] = None
    return list(listening)


def _evidence(conn: Connection, incident: str) -> list[str]:
    """The incident's findings in words, the gravest first; a person must not have to look elsewhere first."""
    query = select(SIGNAL.c.summary).where(SIGNAL.c.incident == incident, SIGNAL.c.state == "firing")
    return [
        text for (text,) in conn.execute(query.order_by(SIGNAL.c.severity.desc(), SIGNAL.c.fired_at).limit(8))
    ]
