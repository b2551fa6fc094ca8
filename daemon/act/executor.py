"""Turns a committed intent into an effect and its outcome into a row. Nothing is done here that was not written down first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select

from actuators.base import Action, Actuator, Check, Outcome, Result
from daemon.act.catalogue import Catalogue
from daemon.act.ending import to_the_end
from daemon.clock import Clock
from daemon.errors import ActionRefused
from daemon.model.canonical import canonical
from daemon.store.crashpoints import point
from daemon.store.store import Store, Tx
from daemon.store.tables import ATTEMPT, LOCK, add, change

_SETTLED = {
    "happened": Outcome(Result.SUCCEEDED, "interrupted; a probe shows that the effect is there"),
    "did-not": Outcome(Result.FAILED, "interrupted; a probe shows that it did not happen"),
    "cannot-tell": Outcome(Result.UNKNOWN, "interrupted; nobody can tell whether it happened"),
}
_UNDO_SETTLED = {
    "happened": Outcome(Result.FAILED, "interrupted; a probe shows that it was not taken back"),
    "did-not": Outcome(Result.UNDONE, "interrupted; a probe shows that it was taken back"),
    "cannot-tell": Outcome(Result.UNKNOWN, "interrupted; nobody can tell whether it was taken back"),
}
"""What a probe of the original effect says about an interrupted attempt, and about an interrupted undoing of it."""


def attempt_key(action: Action, incident: str, number: int) -> str:
    """The idempotency key: equal for the same action tried as the same number in the same incident, and for nothing else."""
    facts = [action.id, action.target, dict(action.params), incident, number]
    return hashlib.sha256(canonical(facts).encode()).hexdigest()


_WORKED_ON = select(LOCK.c.incident).where(LOCK.c.target == bindparam("on"))


def worked_on_for(conn: Connection, target: str) -> str | None:
    """The incident for which an attempt on the target is under way."""
    found: str | None = conn.execute(_WORKED_ON, {"on": target}).scalar()
    return found


def write_intent(tx: Tx, values: Mapping[str, Any]) -> None:
    """Put an intent on record and take the target's lock. Called inside the transaction that decides it."""
    add(tx.conn, ATTEMPT, values)
    lock = {"target": values["target"], "incident": values["incident"], "attempt": values["key"]}
    add(tx.conn, LOCK, {**lock, "at": tx.now})
    shown = ("key", "action", "target", "params", "check_state", "rule", "undo_of", "proposed_by")
    tx.record("intent", {name: values.get(name) for name in shown}, values["incident"])


class Executor:
    """Runs attempts by key."""

    def __init__(self, store: Store, catalogue: Catalogue, clock: Clock) -> None:
        self._store = store
        self._catalogue = catalogue
        self._clock = clock

    async def run(self, key: str) -> Outcome:
        """Carry out the intent `key`: preconditions again, effect, outcome on record."""
        row = await self._attempt(key)
        action, check = _action(row), _check(row)
        actuator = self._catalogue.actuator(action.id)
        now = await actuator.check(action)
        if not now.ok:
            return await self._close(row, Outcome(Result.REFUSED, now.reason))
        if canonical(dict(now.state)) != canonical(dict(check.state)):
            return await self._close(row, Outcome(Result.REFUSED, "the target changed since it was judged"))
        return await to_the_end(self._do(row, actuator, action, check))

    async def _do(self, row: Mapping[str, Any], actuator: Actuator, action: Action, check: Check) -> Outcome:
        outcome = await actuator.apply(action, check)
        point("after_effect")
        if outcome.result is Result.SUCCEEDED and not await actuator.verify(action, check, outcome):
            outcome = Outcome(Result.FAILED, "the effect is not there after the action", outcome.detail)
        return await self._close(row, outcome)

    async def settle(self, key: str) -> Outcome:
        """An intent found open: find out whether its effect happened (or was taken back). It is never simply run again."""
        row = await self._attempt(key)
        action, check = _action(row), _check(row)
        try:
            answer = await self._catalogue.actuator(action.id).probe(action, check)
        except ActionRefused as exc:
            return await self._close(row, Outcome(Result.UNKNOWN, f"interrupted; {exc}"))
        outcomes = _UNDO_SETTLED if row["undo_of"] else _SETTLED
        return await self._close(row, outcomes[answer])

    def undoable(self, action: str) -> bool:
        entry = self._catalogue.entries().get(action)
        return entry is not None and entry.undoable

    async def undo(self, key: str) -> Outcome | None:
        """Take an attempt back: an effect of its own, with its own intent and key. None while somebody works on the target."""
        row = await self._attempt(key)
        of = Action("undo." + row["action"], row["target"], {"of": key})
        undoing = {**row, "key": attempt_key(of, row["incident"], 0), "undo_of": key}
        point("before_undo")
        if not await self._store.write(lambda tx: self._intend_undo(tx, undoing)):
            return None
        point("after_undo_intent")
        return await to_the_end(self._undo(row, undoing))

    def _intend_undo(self, tx: Tx, undoing: Mapping[str, Any]) -> bool:
        if worked_on_for(tx.conn, undoing["target"]) is not None:
            return False
        now = {"boot_id": self._clock.boot_id, "boottime": self._clock.boottime(), "at": tx.now}
        ended: dict[str, Any] = {
            "result": None,
            "reason": "",
            "detail": {},
            "verified": None,
            "ended_at": None,
        }
        write_intent(tx, {**undoing, **ended, **now})
        return True

    async def _undo(self, row: Mapping[str, Any], undoing: Mapping[str, Any]) -> Outcome:
        action = _action(row)
        done = Outcome(Result(row["result"]), row["reason"], row["detail"])
        outcome = await self._catalogue.actuator(action.id).undo(action, _check(row), done)
        point("after_undo_effect")
        undone = await self._close(undoing, outcome)
        point("after_undo_done")
        return undone

    async def _attempt(self, key: str) -> dict[str, Any]:
        query = select(ATTEMPT).where(ATTEMPT.c.key == key)
        row = await self._store.read(lambda conn: conn.execute(query).one())
        return dict(row._mapping)

    async def _close(self, row: Mapping[str, Any], outcome: Outcome) -> Outcome:
        await self._store.write(lambda tx: _write_outcome(tx, row, outcome))
        point("after_done")
        return outcome


def _write_outcome(tx: Tx, row: Mapping[str, Any], outcome: Outcome) -> None:
    told = {"result": outcome.result.value, "reason": outcome.reason, "detail": dict(outcome.detail)}
    change(tx.conn, ATTEMPT, row["key"], {**told, "ended_at": tx.now})
    tx.conn.execute(delete(LOCK).where(LOCK.c.attempt == row["key"]))
    shown = {name: row[name] for name in ("key", "action", "target", "undo_of")}
    tx.record("outcome", {**shown, **told}, row["incident"])


def _action(row: Mapping[str, Any]) -> Action:
    return Action(row["action"], row["target"], row["params"], row["undo_of"] or row["key"])


def _check(row: Mapping[str, Any]) -> Check:
    return Check(True, "", row["check_state"], row["check_size"])
