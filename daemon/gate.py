"""The gate: the only way from a proposal to an intent. Proposals, approvals and re-checks all pass here.

resolve the target → read the preconditions → one transaction: holds, lock, facts, policy, verdict row with its whole input,
approval consumed, limits taken (the intent row *is* the token that later decisions count), intent written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, Row, bindparam, func, literal_column, or_, select

from actuators.base import Action, Check
from daemon.act.catalogue import Catalogue
from daemon.act.executor import attempt_key, worked_on_for, write_intent
from daemon.act.holds import Holds
from daemon.clock import Clock
from daemon.errors import ActionRefused
from daemon.escalate import approvals
from daemon.model.canonical import canonical
from daemon.model.domain import Mode, Proposal, Severity
from daemon.model.policy import Facts, Past, Request, Verdict
from daemon.policy.engine import Policy, decide
from daemon.store.crashpoints import point
from daemon.store.store import Store, Tx
from daemon.store.tables import APPROVAL, ATTEMPT

MOST_PAST = 10_000
"""Attempts that a decision looks back on; more within the longest window of any rule would itself be a runaway."""

Way = Literal["intended", "ask", "denied", "shadow", "held", "busy", "refused", "stale"]


@dataclass(frozen=True, slots=True)
class Passage:
    """What the gate answered. `key` names the attempt when `way` is `intended`; `digest` the exact action when it is `ask`."""

    way: Way
    reason: str
    verdict: Verdict | None = None
    key: str = ""
    action: Action | None = None
    digest: str = ""

    @property
    def quiet(self) -> bool:
        """The rule does not want anybody to be asked at this hour."""
        return (
            self.verdict is not None and self.verdict.approvals is not None and self.verdict.approvals.quiet
        )


@dataclass(frozen=True, slots=True)
class _Judged:
    """A proposal made canonical, with its preconditions: all that is needed before the transaction."""

    action: Action
    check: Check
    request: Request
    hands: tuple[str | None, int]
    """Whose hands were on the target before its preconditions were read; see `_hands`."""

    @property
    def digest(self) -> str:
        facts = [self.action.id, self.action.target, dict(self.action.params), dict(self.check.state)]
        return hashlib.sha256(canonical(facts).encode()).hexdigest()


class Gate:
    """Judges proposals. `policy` and `mode` are asked each time, so a reload takes effect with the next proposal."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        holds: Holds,
        clock: Clock,
        policy: Callable[[], Policy],
        mode: Callable[[], Mode],
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._holds = holds
        self._clock = clock
        self._policy = policy
        self._mode = mode

    async def judge(
        self,
        incident: str,
        proposal: Proposal,
        severity: Severity,
        *,
        remedy: int = 0,
        step: int = 0,
        approval: str | None = None,
        stale: Callable[[Tx], bool] = lambda tx: False,
        then: Callable[[Tx, Passage], None] = lambda tx, passage: None,
    ) -> Passage:
        """Judge one proposal; with `way == "intended"` the intent is on disk. `then` runs last in the same transaction, so that
        what follows from the answer is committed with it or not at all; `stale` runs first and says whether the question has
        lost its ground meanwhile.

        `approval` is the id of an approval that was granted; it counts only if it speaks of exactly this action and state.
        """
        looked = await self._look(incident, proposal, severity)
        outside = self._holds.outside()
        point("before_intent")

        def work(tx: Tx) -> Passage:
            if stale(tx):
                return Passage("stale", "the incident moved on while this was looked at")
            passage = self._answer(tx, looked, outside, approval, remedy, step)
            if passage.way == "refused":
                shown = {
                    "action": proposal.action,
                    "target": proposal.target,
                    "params": dict(proposal.params),
                }
                tx.record("proposal.refused", {**shown, "reason": passage.reason}, incident)
            then(tx, passage)
            return passage

        passage = await self._store.write(work)
        point("after_intent")
        return passage

    async def _look(self, incident: str, proposal: Proposal, severity: Severity) -> _Judged | Passage:
        """Make it canonical and read its preconditions; a Passage when there is no such action."""
        try:
            action = await self._catalogue.resolve(
                Action(proposal.action, proposal.target, dict(proposal.params))
            )
        except ActionRefused as exc:
            return Passage("refused", str(exc))
        hands = await self._store.read(lambda conn: _hands(conn, action.target))
        check = await self._catalogue.actuator(action.id).check(action)
        request = Request(
            action=action.id,
            target=action.target,
            params=dict(action.params),
            severity=severity,
            proposed_by=proposal.proposed_by,
            tainted=proposal.tainted,
            irreversible=self._catalogue.entries()[action.id].irreversible,
            size=dict(check.size),
            at=self._clock.wall(),
            incident=incident,
        )
        return _Judged(action, check, request, hands)

    def _answer(
        self, tx: Tx, looked: _Judged | Passage, outside: str, approval: str | None, remedy: int, step: int
    ) -> Passage:
        if isinstance(looked, Passage):
            return looked
        if held := self._holds.switched(tx.conn) or outside:
            return Passage("held", held, action=looked.action)
        if busy := _busy(tx.conn, looked):
            return Passage("busy", busy, action=looked.action)
        if not looked.check.ok:
            return Passage("refused", looked.check.reason, action=looked.action)
        votes = _votes(tx, approval, looked.digest)
        verdict = self._decide(tx, looked.request, votes)
        passage = _passage(verdict, looked)
        if passage.way != "intended":
            return passage
        if approval is not None and votes:
            approvals.consume(tx, approval, looked.digest)
        return replace(passage, key=self._intend(tx, looked, verdict, remedy, step))

    def _decide(self, tx: Tx, request: Request, votes: tuple[str, ...]) -> Verdict:
        """Policy's answer, journaled with everything that it rests on."""
        policy = self._policy()
        facts = Facts(self._mode(), _past(tx, policy.horizon, self._clock), votes)
        verdict = decide(policy, request, facts)
        told = {"request": request.to_json(), "facts": facts.to_json(), "verdict": verdict.to_json()}
        tx.record("verdict", told, request.incident)
        return verdict

    def _intend(self, tx: Tx, judged: _Judged, verdict: Verdict, remedy: int, step: int) -> str:
        incident = judged.request.incident
        number = tx.conn.execute(_TIMES_TRIED, {"of": incident}).scalar_one()
        key = attempt_key(judged.action, incident, number)
        place = {"key": key, "remedy": remedy, "step": step}
        now = {"boot_id": self._clock.boot_id, "boottime": self._clock.boottime(), "at": tx.now}
        write_intent(tx, {**_row(judged, verdict), **place, **now})
        return key


_TIMES_DONE = select(func.count()).select_from(ATTEMPT).where(ATTEMPT.c.target == bindparam("on"))


def _hands(conn: Connection, target: str) -> tuple[str | None, int]:
    """Who works on the target, and how often that was done so far."""
    return worked_on_for(conn, target), conn.execute(_TIMES_DONE, {"on": target}).scalar_one()


def _busy(conn: Connection, judged: _Judged) -> str:
    """Whether somebody else's hands are on the target, or were since its preconditions were read; empty when not."""
    target, now = judged.action.target, _hands(conn, judged.action.target)
    if now[0] is not None:
        return f"{target} is being worked on for {now[0]}"
    return "" if now == judged.hands else f"{target} was worked on while it was looked at"


def _passage(verdict: Verdict, judged: _Judged) -> Passage:
    reason = "; ".join(verdict.reasons) or verdict.rule
    ways: dict[str, Way] = {"allow": "intended", "require-approval": "ask", "deny": "denied"}
    way = ways[verdict.effect]
    if verdict.shadow and way != "denied":
        way = "shadow"
    return Passage(way, reason, verdict, action=judged.action, digest=judged.digest)


def _row(judged: _Judged, verdict: Verdict) -> dict[str, Any]:
    return {
        "incident": judged.request.incident,
        "action": judged.action.id,
        "target": judged.action.target,
        "params": dict(judged.action.params),
        "check_state": dict(judged.check.state),
        "check_size": dict(judged.check.size),
        "rule": verdict.rule,
        "rule_digest": verdict.rule_digest,
        "proposed_by": judged.request.proposed_by,
    }


def _votes(tx: Tx, approval: str | None, digest: str) -> tuple[str, ...]:
    """Who said yes to exactly this action in exactly this state; an approval of anything else counts for nothing."""
    if approval is None:
        return ()
    row = tx.conn.execute(
        select(APPROVAL.c.votes).where(
            APPROVAL.c.id == approval, APPROVAL.c.digest == digest, APPROVAL.c.state == "approved"
        )
    ).first()
    return () if row is None else tuple(row[0])


_COUNTED: tuple[Any, ...] = (
    ATTEMPT.c.rule, ATTEMPT.c.rule_digest, ATTEMPT.c.action, ATTEMPT.c.target,
    ATTEMPT.c.result, ATTEMPT.c.verified, ATTEMPT.c.boot_id, ATTEMPT.c.boottime, ATTEMPT.c.at,
)  # fmt: skip
_LATELY = (
    select(*_COUNTED)
    .where(
        ATTEMPT.c.undo_of.is_(None),
        or_(ATTEMPT.c.boot_id != bindparam("boot"), ATTEMPT.c.boottime >= bindparam("since")),
    )
    # The wall clock may step; the order of insertion never does.
    .order_by(literal_column("attempt.rowid").desc())
    .limit(MOST_PAST)
)
_TIMES_TRIED = select(func.count()).select_from(ATTEMPT).where(ATTEMPT.c.incident == bindparam("of"))


def _past(tx: Tx, horizon: float, clock: Clock) -> tuple[Past, ...]:
    """The attempts that limits count, newest first. Within one boot age is measured on the boot clock, which never steps."""
    asked = {"boot": clock.boot_id, "since": clock.boottime() - horizon}
    aged = [(row, _age(row, clock, tx.now)) for row in tx.conn.execute(_LATELY, asked)]
    return tuple(
        Past(row.rule, row.rule_digest, row.action, row.target, age, row.result, row.verified)
        for row, age in aged
        if age <= horizon
    )


def _age(row: Row[Any], clock: Clock, wall: float) -> float:
    if row.boot_id == clock.boot_id:
        return max(0.0, clock.boottime() - float(row.boottime))
    # Another boot's clock means nothing now. A wall clock that was set back since must not make the attempt look like a future one;
    # then all that is certain is how long this boot lasts.
    return float(wall - row.at) if wall >= row.at else clock.boottime()
