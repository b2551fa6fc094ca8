"""Reads and changes of incident and attempt rows that the loop shares with what serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, literal_column, or_, select, update

from actuators.base import Result
from daemon.model.domain import State
from daemon.model.plan import Plan
from daemon.store.store import Tx
from daemon.store.tables import APPROVAL, ATTEMPT, INCIDENT, change

_BY_ID = select(INCIDENT).where(INCIDENT.c.id == bindparam("incident"))
"""Built once, as everything that each step asks: building a statement costs more than running it."""
PROVABLE = (Result.SUCCEEDED, Result.FAILED, Result.TIMED_OUT)


def find_incident(conn: Connection, incident: str) -> Row[Any] | None:
    return conn.execute(_BY_ID, {"incident": incident}).first()


def unfinished(conn: Connection) -> list[str]:
    """Every incident that is not final, oldest first: what a start takes up again."""
    rows = conn.execute(
        select(INCIDENT.c.id).where(INCIDENT.c.state != State.RESOLVED).order_by(INCIDENT.c.opened_at)
    )
    return [row.id for row in rows]


def moved_on(conn: Connection, row: Row[Any]) -> bool:
    """Whether the incident stands elsewhere than in `row`: merged, closed by a person, or its root was found deeper."""
    now = find_incident(conn, row.id)
    return now is None or (now.state, now.resource, now.merged_into) != (
        row.state,
        row.resource,
        row.merged_into,
    )


def plan_of(row: Row[Any]) -> Plan | None:
    return None if row.diagnosis is None else Plan.from_json(row.diagnosis)


def open_attempt(conn: Connection, incident: str) -> str | None:
    """The key of the attempt that was intended and has no outcome yet."""
    query = select(ATTEMPT.c.key).where(ATTEMPT.c.incident == incident, ATTEMPT.c.result.is_(None))
    found: str | None = conn.execute(query).scalar()
    return found


def tries(conn: Connection, keys: Sequence[str]) -> list[tuple[Row[Any], Row[Any] | None]]:
    """The attempts of those keys in that order, each with the one that takes it back, if there is one."""
    query = select(ATTEMPT).where(or_(ATTEMPT.c.key.in_(keys), ATTEMPT.c.undo_of.in_(keys)))
    rows = list(conn.execute(query))
    done = {row.key: row for row in rows}
    undone = {row.undo_of: row for row in rows if row.undo_of}
    return [(done[key], undone.get(key)) for key in keys]


def approval_of(conn: Connection, incident: str) -> Row[Any] | None:
    """The newest approval asked for in this incident."""
    query = select(APPROVAL).where(APPROVAL.c.incident == incident)
    # The wall clock may give two questions the same moment; the order of insertion never does.
    return conn.execute(query.order_by(literal_column("approval.rowid").desc()).limit(1)).first()


def move(
    tx: Tx, incident: str, state: State, reason: str = "", *, plan: Plan | None = None, **values: Any
) -> None:
    """Change an incident's row and journal the step. What a person closed meanwhile stays closed."""
    if plan is not None:
        values["diagnosis"] = plan.to_json()
    values |= {"state": state.value, "changed_at": tx.now}
    if reason:
        values["reason"] = reason
    if not change(tx.conn, INCIDENT, incident, values, unless=State.RESOLVED):
        return
    shown: dict[str, Any] = {
        name: values[name]
        for name in ("state", "reason", "remedy", "step", "attempts", "held")
        if name in values
    }
    tx.record("incident.moved", shown, incident)


def diagnosed(tx: Tx, row: Row[Any], plan: Plan) -> None:
    """Put a new diagnosis on record."""
    diagnosis = plan.diagnosis
    root = {"resource": diagnosis.root} if diagnosis.root else {}
    tx.record("diagnosis", plan.to_json()["diagnosis"], row.id)
    move(tx, row.id, State.INVESTIGATING, diagnosis.summary, plan=plan, remedy=0, step=0, held=None, **root)


def prove(tx: Tx, incident: str, keys: Sequence[str], *, verified: bool) -> None:
    """Write on a remedy's attempts whether the proof was seen: what probation and demotion count. What was refused, or may not have
    happened at all, proves nothing."""
    tx.conn.execute(
        update(ATTEMPT)
        .where(ATTEMPT.c.key.in_(keys), ATTEMPT.c.result.in_(PROVABLE))
        .values(verified=verified)
    )
    tx.record("proof", {"attempts": list(keys), "verified": verified}, incident)
