"""THE loop: a state machine over rows. `advance` does one step for one incident, commits it, and says when to look again.

Nothing else acts. Everything that people, the API and the perceivers do is a row and a wake-up of the incident's lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import Row

from actuators.base import Outcome, Result
from daemon.act.executor import Executor
from daemon.act.holds import Holds
from daemon.clock import Clock, deadline, remaining
from daemon.gate import Gate, Passage
from daemon.incidents import correlate
from daemon.loop.casebook import Casebook
from daemon.loop.people import People
from daemon.loop.rows import diagnosed, find_incident, move, moved_on, open_attempt, plan_of, prove, tries
from daemon.model.deadline import Deadline
from daemon.model.domain import Proposal, Remedy, Severity, State
from daemon.model.plan import Plan
from daemon.reason.base import Reasoner
from daemon.store.store import Store, Tx

T = TypeVar("T")
Writes = Callable[[Tx], None]
MOST_REMEDIES = 3
"""Remedies that may really be tried for one incident; then a person."""
HELD_AGAIN = 1.0
"""Seconds between looks at a hold that cannot wake us (a file)."""
QUIET_AGAIN = 60.0
"""Seconds between looks at whether the quiet hours of a rule's question are over."""
LOOK_AGAIN = 0.5
"""Seconds between looks at an unfinished proof."""
CALM_AGAIN = 10.0
"""Seconds between looks at whether what came and went stays away."""
PATIENCE = 60.0
"""Seconds for which trouble that is brewing below is waited for; it may never become a Signal."""


def _nothing(tx: Tx) -> None:
    """Nothing is to be written first."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with; `app` puts it together."""

    store: Store
    clock: Clock
    gate: Gate
    executor: Executor
    holds: Holds
    reasoner: Reasoner
    people: People
    cases: Casebook


class Loop:
    """Advances incidents."""

    def __init__(self, parts: Parts) -> None:
        self._store = parts.store
        self._clock = parts.clock
        self._gate = parts.gate
        self._executor = parts.executor
        self._holds = parts.holds
        self._reasoner = parts.reasoner
        self._people = parts.people
        self._cases = parts.cases

    async def advance(self, incident: str) -> float | None:
        """One step. Gives the seconds until the next look: 0 at once, None only when something wakes the lane."""
        row = await self._store.read(lambda conn: find_incident(conn, incident))
        if row is None:
            return None  # merged into another one
        if row.merged_into is not None:
            await self._write(
                lambda tx: self._people.resolve(tx, row, f"it is one trouble with {row.merged_into}")
            )
            return None
        match State(row.state):
            case State.OPEN | State.INVESTIGATING:
                return await self._investigate(row)
            case State.WAITING:
                return await self._await_people(row)
            case State.ACTING:
                return await self._act(row)
            case State.VERIFYING:
                return await self._verify(row)
            case State.ESCALATED:
                return await self._stay_with(row)
            case State.RESOLVED:
                return None

    async def stumbled(self, incident: str, reason: str) -> None:
        """Steps of the incident failed again and again: people must hear that midwatch itself does not get on with it."""

        def work(tx: Tx) -> None:
            row = find_incident(tx.conn, incident)
            if row is not None and row.state != State.RESOLVED:
                self._people.stumbled(tx, row, reason)

        await self._write(work)

    # open, investigating ---------------------------------------------------------------------------------------

    async def _investigate(self, row: Row[Any]) -> float | None:
        fires, switched = await self._store.read(
            lambda conn: (correlate.firing(conn, row.id), self._holds.switched(conn))
        )
        gone = "it went away" if row.attempts else "it went away before anything was done"
        if not fires and await self._over(row, gone):
            return None
        if held := switched or self._holds.outside():
            return await self._hold(row, held)
        if not fires:
            return CALM_AGAIN
        plan = plan_of(row)
        if row.state == State.OPEN or plan is None:
            return await self._diagnose(row)
        return await self._try(row, plan)

    async def _diagnose(self, row: Row[Any]) -> float | None:
        # Root before symptom: what this hangs on is looked at now, and what is found there may move the root or merge incidents.
        if self._cases.hangs_on_others(row.resource):
            if await self._cases.brewing_below(row.resource) and self._patient(row):
                return LOOK_AGAIN
            if await self._store.read(lambda conn: moved_on(conn, row)):
                return 0
        plan = Plan(await self._reasoner.diagnose(await self._cases.case(row)))
        # Written with the gate's answer in one transaction, so that the first action waits for the disk once less.
        return await self._try(row, plan, lambda tx: diagnosed(tx, row, plan))

    def _patient(self, row: Row[Any]) -> bool:
        return bool(0 <= self._clock.wall() - row.changed_at < PATIENCE)

    async def _try(self, row: Row[Any], plan: Plan, first: Writes = _nothing) -> float | None:
        """Bring the next remedy before the gate."""
        remedies = plan.diagnosis.remedies
        if row.remedy >= len(remedies) or row.attempts >= MOST_REMEDIES:
            return await self._escalate(row, _handed_over(plan, row.attempts), first)
        return await self._pass(row, plan, first=first)

    async def _pass(
        self, row: Row[Any], plan: Plan, approval: str | None = None, first: Writes = _nothing
    ) -> float | None:
        """Ask the gate; `first` is written before its answer."""

        def stale(tx: Tx) -> bool:
            if moved_on(tx.conn, row):
                return True
            first(tx)
            return False

        passage = await self._gate.judge(
            row.id,
            _step(row, plan),
            Severity(row.severity),
            remedy=row.remedy,
            step=row.step,
            approval=approval,
            stale=stale,
            then=lambda tx, passage: self._follow(tx, row, plan, passage, approval),
        )
        if passage.way == "intended":
            return await self._carry_out(row.id, passage.key)
        if passage.way == "ask" and passage.quiet:
            return QUIET_AGAIN
        return HELD_AGAIN if passage.way in ("held", "busy") else 0

    def _follow(self, tx: Tx, row: Row[Any], plan: Plan, passage: Passage, approval: str | None) -> None:
        """What the gate's answer means for the incident; runs in the gate's own transaction."""
        if approval is not None and passage.way not in ("ask", "held", "busy"):
            self._people.drop(tx, approval, f"{passage.way}: {passage.reason}")
        match passage.way:
            case "intended":
                self._intended(tx, row, plan, passage)
            case "ask" if passage.quiet:
                self._people.wait_for_day(tx, row, passage)
            case "ask":
                self._people.ask(tx, row, plan, passage)
            case "held":
                self._people.held(tx, row, passage.reason)
            case "busy" | "stale":
                pass  # looked at again from the row: the target is free soon, or the incident stands elsewhere now
            case "denied" | "refused" | "shadow":
                self._not_done(
                    tx, row, plan.but(no=(*plan.no, self._people.refusal(passage, _step(row, plan))))
                )

    def _intended(self, tx: Tx, row: Row[Any], plan: Plan, passage: Passage) -> None:
        demanded = passage.verdict.verify if passage.verdict else None
        plan = plan.but(keys=(*plan.keys, passage.key), proofs=(*plan.proofs, *filter(None, [demanded])))
        tried = row.attempts + (row.step == 0)
        move(tx, row.id, State.ACTING, f"doing {_spell(plan, row)}", plan=plan, attempts=tried, held=None)

    def _not_done(self, tx: Tx, row: Row[Any], plan: Plan) -> None:
        """The next remedy, unless a step of this one is done already: that is taken back first."""
        if row.step == 0:
            move(tx, row.id, State.INVESTIGATING, plan=plan, remedy=row.remedy + 1, held=None)
        else:
            failed = "its next step was refused"
            move(tx, row.id, State.VERIFYING, failed, plan=plan.but(failed=failed), held=None)

    # waiting ---------------------------------------------------------------------------------------------------

    async def _await_people(self, row: Row[Any]) -> float | None:
        approval = await self._write(lambda tx: self._people.answer(tx, row.id))
        plan = _plan(row)
        if approval is None or approval.state == "void":
            return await self._ask_again(row)
        approved = approval.state == "approved"
        if approved:
            await self._cases.look_at_all(row.id)
        late = "approved too late: the fault is gone; nothing was done"
        if await self._over(row, late if approved else "it went away by itself", approval.id):
            return None
        if approved:
            return await self._pass(row, plan, approval.id)
        if approval.state == "pending":
            return await self._keep_asking(row, approval)
        return await self._said_no(row, plan, approval)

    async def _ask_again(self, row: Row[Any]) -> float | None:
        """What was asked does not hold any more. Before anything was done the incident is looked at afresh."""
        place: dict[str, Any] = {} if row.step else {"remedy": 0}
        state = State.ACTING if row.step else State.OPEN
        await self._unless_moved_on(
            row, lambda tx: move(tx, row.id, state, "the question is put again", **place)
        )
        return 0

    async def _keep_asking(self, row: Row[Any], approval: Row[Any]) -> float:
        called = await self._write(lambda tx: self._people.call(tx, row))
        left = max(0.0, remaining(self._clock, Deadline.from_text(approval.due)))
        return left if called is None else min(left, called)

    async def _said_no(self, row: Row[Any], plan: Plan, approval: Row[Any]) -> float | None:
        words = {"rejected": f"{approval.decided_by} said no", "expired": "nobody answered in time"}
        no = f"{words.get(approval.state, approval.state)}: {approval.action} on {approval.target}"
        if row.step == 0:
            return await self._escalate(row, no)
        # What is half done is taken back; what people did not want is not gone around by another remedy.
        last = replace(plan.diagnosis, remedies=plan.diagnosis.remedies[: row.remedy + 1])
        plan = plan.but(diagnosis=last, failed=no)
        await self._unless_moved_on(row, lambda tx: move(tx, row.id, State.VERIFYING, no, plan=plan))
        return 0

    # acting ----------------------------------------------------------------------------------------------------

    async def _act(self, row: Row[Any]) -> float | None:
        plan = _plan(row)
        key = await self._store.read(lambda conn: open_attempt(conn, row.id))
        if key is not None:
            # Whatever is begun is ended in one step; so this was interrupted, and nobody knows how far it came.
            return await self._after(row, plan, await self._executor.settle(key))
        if row.step < len(plan.keys):
            # The outcome was written, the move after it was not.
            ((done, _),) = await self._store.read(lambda conn: tries(conn, plan.keys[row.step :]))
            return await self._after(row, plan, Outcome(Result(done.result), done.reason, done.detail))
        return await self._pass(row, plan)

    async def _carry_out(self, incident: str, key: str) -> float | None:
        """With its intent in one step: between the two nobody could tell any more, after a restart, that it was not begun."""
        outcome = await self._executor.run(key)
        row = await self._store.read(lambda conn: find_incident(conn, incident))
        if row is None or row.state != State.ACTING:
            return 0  # a person closed it meanwhile
        return await self._after(row, _plan(row), outcome)

    async def _after(self, row: Row[Any], plan: Plan, outcome: Outcome) -> float | None:
        action = _step(row, plan).action
        if outcome.result is Result.UNKNOWN:
            return await self._escalate(row, f"{action}: {outcome.reason}")
        if outcome.result is not Result.SUCCEEDED:
            return await self._fail(row, plan, f"{action} {outcome.result.value}: {outcome.reason}")
        if row.step + 1 < len(_remedy(row, plan).steps):
            following = row.step + 1
            await self._unless_moved_on(
                row, lambda tx: move(tx, row.id, State.ACTING, "next step", step=following)
            )
            return 0
        return await self._start_proof(row, plan)

    async def _start_proof(self, row: Row[Any], plan: Plan) -> float | None:
        settle = max(_remedy(row, plan).settle, self._cases.settle(row.resource))
        plan = plan.but(look_from=deadline(self._clock, settle).to_text())
        await self._unless_moved_on(
            row, lambda tx: move(tx, row.id, State.VERIFYING, "waiting for the proof", plan=plan, held=None)
        )
        return settle

    async def _fail(self, row: Row[Any], plan: Plan, failed: str) -> float | None:
        """The remedy did not help; it is taken back next."""

        def work(tx: Tx) -> None:
            prove(tx, row.id, plan.keys, verified=False)
            move(tx, row.id, State.VERIFYING, failed, plan=plan.but(failed=failed), held=None)

        await self._unless_moved_on(row, work)
        return 0

    # verifying -------------------------------------------------------------------------------------------------

    async def _verify(self, row: Row[Any]) -> float | None:
        plan = _plan(row)
        if plan.failed:
            return await self._take_back(row, plan)
        waited = -remaining(self._clock, Deadline.from_text(plan.look_from))
        if waited < 0:
            return -waited
        await self._cases.look_at_all(row.id)
        proofs = (_remedy(row, plan).proof, *plan.proofs)
        missing = await self._store.read(lambda conn: self._cases.missing(conn, row.id, proofs))
        for proof, why in missing:
            if waited >= proof.within:
                return await self._fail(row, plan, f"{_spell(plan, row)} did not help: {why}")
        if missing:
            return LOOK_AGAIN
        late = waited >= max(proof.within for proof in proofs)
        return await self._write(lambda tx: self._proven(tx, row, plan, late=late))

    def _proven(self, tx: Tx, row: Row[Any], plan: Plan, *, late: bool) -> float | None:
        """The fault is gone. Symptoms may take a moment longer; what still fires after that is another fault."""
        others = correlate.firing(tx.conn, row.id)
        if moved_on(tx.conn, row) or (others and not late):
            return LOOK_AGAIN
        prove(tx, row.id, plan.keys, verified=True)
        done = f"repaired: {_spell(plan, row)}"
        if not others:
            self._people.resolve(tx, row, done)
            return None
        move(tx, row.id, State.OPEN, f"{done}; but {others[0].summary}", diagnosis=None, remedy=0, step=0)
        return 0

    async def _take_back(self, row: Row[Any], plan: Plan) -> float | None:
        """Undo one thing that the failed remedy did, the last first; when all is undone the next remedy has its turn."""
        if held := await self._held():
            return await self._hold(row, held)
        for attempt, undo in reversed(await self._store.read(lambda conn: tries(conn, plan.keys))):
            if undo is not None and undo.result == Result.UNDONE:
                continue
            if undo is None and not (
                attempt.result == Result.SUCCEEDED and self._executor.undoable(attempt.action)
            ):
                continue
            outcome = await self._undo(attempt, undo)
            if outcome is None:
                return HELD_AGAIN
            if outcome.result is Result.UNDONE:
                return 0
            return await self._escalate(
                row, f"{plan.failed}; taking {attempt.action} back failed: {outcome.reason}"
            )
        return await self._next_remedy(row, plan)

    async def _undo(self, attempt: Row[Any], undo: Row[Any] | None) -> Outcome | None:
        """Take back what was not begun to be, settle what was interrupted, or tell again how it ended."""
        if undo is None:
            return await self._executor.undo(attempt.key)
        if undo.result is None:
            return await self._executor.settle(undo.key)
        return Outcome(Result(undo.result), undo.reason)

    async def _next_remedy(self, row: Row[Any], plan: Plan) -> float | None:
        tried = plan.but(failed="", no=(*plan.no, plan.failed), keys=(), proofs=())
        place = {"remedy": row.remedy + 1, "step": 0, "held": None}
        await self._unless_moved_on(
            row, lambda tx: move(tx, row.id, State.INVESTIGATING, plan.failed, plan=tried, **place)
        )
        return 0

    # escalated ---------------------------------------------------------------------------------------------------

    async def _stay_with(self, row: Row[Any]) -> float | None:
        """With a person now: call again until somebody answers, and notice when it is over."""
        if await self._over(row, "it is over"):
            return None
        called = await self._write(lambda tx: self._people.call(tx, row))
        if await self._fires(row):
            return called
        return CALM_AGAIN if called is None else min(called, CALM_AGAIN)

    async def _escalate(self, row: Row[Any], reason: str, first: Writes = _nothing) -> float | None:
        def work(tx: Tx) -> None:
            first(tx)
            self._people.escalate(tx, find_incident(tx.conn, row.id) or row, reason)

        await self._unless_moved_on(row, work)
        return 0

    # shared ----------------------------------------------------------------------------------------------------

    async def _over(self, row: Row[Any], reason: str, approval: str | None = None) -> bool:
        """Close the incident if nothing of it is left; judged again in the transaction that closes it, so that no new finding falls
        between."""
        if not await self._store.read(lambda conn: correlate.all_clear(conn, row.id, self._clock.wall())):
            return False

        def work(tx: Tx) -> bool:
            if not correlate.all_clear(tx.conn, row.id, tx.now):
                return False
            if approval is not None:
                self._people.drop(tx, approval, reason)
            self._people.resolve(tx, row, reason)
            return True

        return await self._write(work)

    async def _fires(self, row: Row[Any]) -> bool:
        """Whether something fires right now; else it came and went, and may come again."""
        return bool(await self._store.read(lambda conn: correlate.firing(conn, row.id)))

    async def _hold(self, row: Row[Any], held: str) -> float:
        if row.held != held:
            await self._unless_moved_on(row, lambda tx: self._people.held(tx, row, held))
        return HELD_AGAIN

    async def _held(self) -> str:
        return await self._store.read(self._holds.switched) or self._holds.outside()

    async def _unless_moved_on(self, row: Row[Any], work: Callable[[Tx], None]) -> None:
        """Write what follows from `row`, if the incident still stands as it did; else the next step sees where it stands."""

        def unless(tx: Tx) -> None:
            if not moved_on(tx.conn, row):
                work(tx)

        await self._write(unless)

    async def _write(self, work: Callable[[Tx], T]) -> T:
        return await self._store.write(work)


def _plan(row: Row[Any]) -> Plan:
    """The plan that every incident has once it was diagnosed."""
    plan = plan_of(row)
    assert plan is not None
    return plan


def _remedy(row: Row[Any], plan: Plan) -> Remedy:
    remedy: int = row.remedy
    return plan.diagnosis.remedies[remedy]


def _step(row: Row[Any], plan: Plan) -> Proposal:
    step: int = row.step
    return _remedy(row, plan).steps[step]


def _spell(plan: Plan, row: Row[Any]) -> str:
    return " then ".join(f"{step.action} on {step.target}" for step in _remedy(row, plan).steps)


def _handed_over(plan: Plan, attempts: int) -> str:
    """Why a person is called: the cause as far as known, and why each remedy was not enough."""
    reasons: Sequence[str] = plan.no or ("nothing to try",)
    if attempts >= MOST_REMEDIES:
        reasons = (*reasons, f"{attempts} remedies were tried; no more without a person")
    return f"{plan.diagnosis.summary}; " + "; ".join(reasons)
