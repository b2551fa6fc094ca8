"""Approvals: one question about one exact action. Silence is never consent, the first no is final, a yes is used once."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, literal_column, select, update

from daemon.clock import Clock, deadline, remaining
from daemon.errors import ActionRefused
from daemon.escalate.text import plain
from daemon.model.deadline import Deadline
from daemon.model.policy import Terms
from daemon.store.store import Tx
from daemon.store.tables import APPROVAL

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""What ids are made of: nothing that looks or sounds like something else of it."""
LONGEST_REASON = 500
_AGAIN = "see `midwatch status` for what is asked now"


@dataclass(frozen=True, slots=True)
class Vote:
    """What became of a vote."""

    counted: bool
    reason: str
    """One sentence for the one who voted: how it stands now, or why the vote did not count."""
    state: str
    """The approval's state after it; empty when there is no such approval."""


def ask(
    tx: Tx,
    clock: Clock,
    *,
    incident: str,
    digest: str,
    action: str,
    target: str,
    params: Mapping[str, Any],
    rule: str,
    wanted: Terms | None,
) -> str:
    """Put the question; gives the id to answer with, such as `a-7f3k`. It replaces what the incident asked before.

    `digest` names the exact action and the state in which it was checked: a yes counts for nothing else.
    """
    terms = wanted or Terms()
    _supersede(tx, incident)
    id = _new_id(tx.conn)
    row = {
        "id": id,
        "incident": incident,
        "digest": digest,
        "action": action,
        "target": target,
        "params": dict(params),
        "rule": rule,
        "approvers": list(terms.from_),
        "quorum": max(1, terms.quorum),
        "votes": [],
        "state": "pending",
        "boot_id": clock.boot_id,
        "due": deadline(clock, terms.expires).to_text(),
        "asked_at": tx.now,
        "reason": "",
    }
    tx.conn.execute(insert(APPROVAL).values(**row))
    kept = ("digest", "action", "target", "params", "rule", "approvers", "quorum", "due")
    tx.record("approval.asked", {"approval": id, **{name: row[name] for name in kept}}, incident)
    return id


def vote(tx: Tx, clock: Clock, approval: str, person: str, yes: bool, reason: str) -> Vote:
    """Take one person's answer. It counts while the question is open, from those who may answer, and once from each.

    A no from somebody who said yes before is a no: nobody is held to their yes while the question is open.
    """
    row = _find(tx.conn, approval)
    if row is None:
        return Vote(False, f"there is no approval {approval!r}; {_AGAIN}", "")
    row = _current(tx, clock, row)
    given = plain(reason, LONGEST_REASON)
    if against := _objection(row, person, yes):
        answer = Vote(False, against, row.state)
    else:
        answer = _accept(tx, row, person, given) if yes else _reject(tx, row, person, given)
    shown = {"approval": approval, "person": person, "yes": yes, "reason": given}
    tx.record(
        "approval.vote",
        {**shown, "counted": answer.counted, "state": answer.state, "why": answer.reason},
        row.incident,
    )
    return answer


def consume(tx: Tx, approval: str, digest: str) -> None:
    """Use a granted approval up, in the transaction that writes the intent.

    Raises ActionRefused unless it was granted in this boot, for exactly this, and was never used.
    """
    used = tx.conn.execute(
        update(APPROVAL)
        .where(
            APPROVAL.c.id == approval,
            APPROVAL.c.digest == digest,
            APPROVAL.c.state == "approved",
            APPROVAL.c.boot_id == tx.clock.boot_id,
        )
        .values(state="used")
    )
    row = _find(tx.conn, approval)
    if row is None or used.rowcount != 1:
        raise ActionRefused(_unusable(row, approval, digest))
    tx.record("approval.used", {"approval": approval}, row.incident)


def lapse(tx: Tx, clock: Clock, incident: str) -> str:
    """Let time take effect on the incident's newest approval (expired; void after a reboot); gives its state, or "" for none."""
    query = select(APPROVAL).where(APPROVAL.c.incident == incident)
    # The wall clock may give two questions the same moment; the order of insertion never does.
    row = tx.conn.execute(query.order_by(literal_column("approval.rowid").desc()).limit(1)).first()
    return "" if row is None else str(_current(tx, clock, row).state)


def _current(tx: Tx, clock: Clock, row: Row[Any]) -> Row[Any]:
    """The approval as it is now, after what time has done to it."""
    if row.state in ("pending", "approved") and row.boot_id != clock.boot_id:
        return _end(tx, row, "void", "the machine was restarted since it was asked; it is asked again")
    if row.state == "pending" and remaining(clock, Deadline.from_text(row.due)) <= 0:
        return _end(tx, row, "expired", "nobody answered in time, which counts as no")
    return row


def _objection(row: Row[Any], person: str, yes: bool) -> str:
    """Why the vote does not count; empty when it does."""
    if row.state != "pending":
        return _closed(row)
    if row.approvers and person not in row.approvers:
        return f"{person} may not answer {row.id}; the rule {row.rule} names {', '.join(row.approvers)}"
    if yes and person in row.votes:
        return f"{person} said yes to {row.id} already; {_missing(row.quorum, row.votes)}"
    return ""


def _closed(row: Row[Any]) -> str:
    by = f" by {row.decided_by}" if row.decided_by else ""
    because = f": {row.reason}" if row.reason else ""
    words = {
        "approved": f"was approved{by} already",
        "used": f"was approved{by} and the action was started already",
    }
    return f"{row.id} {words.get(row.state, f'is {row.state}{by}{because}')}; {_AGAIN}"


def _accept(tx: Tx, row: Row[Any], person: str, reason: str) -> Vote:
    votes = [*row.votes, person]
    if len(votes) < row.quorum:
        _set(tx, row.id, votes=votes)
        return Vote(True, _missing(row.quorum, votes), "pending")
    _set(
        tx,
        row.id,
        votes=votes,
        state="approved",
        decided_at=tx.now,
        decided_by=", ".join(votes),
        reason=reason,
    )
    return Vote(True, "approved; it is checked once more and then done", "approved")


def _reject(tx: Tx, row: Row[Any], person: str, reason: str) -> Vote:
    _set(tx, row.id, state="rejected", decided_at=tx.now, decided_by=person, reason=reason)
    return Vote(True, "rejected; it will not be done", "rejected")


def _missing(quorum: int, votes: list[str]) -> str:
    left = quorum - len(votes)
    return f"{left} more {'person' if left == 1 else 'people'} must say yes"


def _unusable(row: Row[Any] | None, approval: str, digest: str) -> str:
    if row is None:
        return f"there is no approval {approval!r}"
    if row.digest != digest:
        return (
            f"{approval} was given for {row.action} on {row.target} in another state; it must be asked again"
        )
    if row.state != "approved":
        return f"{approval} is {row.state}, so it allows nothing"
    return f"{approval} was given before the machine was restarted; it must be asked again"


def _supersede(tx: Tx, incident: str) -> None:
    """An older question of the incident, open or answered but unused, is replaced by the new one."""
    open_ = APPROVAL.c.state.in_(("pending", "approved"))
    for row in tx.conn.execute(select(APPROVAL).where(APPROVAL.c.incident == incident, open_)).all():
        _end(tx, row, "void", "another question took its place")


def _end(tx: Tx, row: Row[Any], state: str, reason: str) -> Row[Any]:
    _set(tx, row.id, state=state, decided_at=tx.now, reason=reason)
    tx.record(f"approval.{state}", {"approval": row.id, "reason": reason}, row.incident)
    return tx.conn.execute(select(APPROVAL).where(APPROVAL.c.id == row.id)).one()


def _set(tx: Tx, approval: str, **values: Any) -> None:
    tx.conn.execute(update(APPROVAL).where(APPROVAL.c.id == approval).values(**values))


def _find(conn: Connection, approval: str) -> Row[Any] | None:
    return conn.execute(select(APPROVAL).where(APPROVAL.c.id == approval)).first()


def _new_id(conn: Connection, length: int = 4) -> str:
    """Short enough to be said on the phone: four letters, one more for each one that is taken."""
    id = "a-" + "".join(secrets.choice(LETTERS) for _ in range(length))
    taken = conn.execute(select(APPROVAL.c.id).where(APPROVAL.c.id == id)).first()
    return id if taken is None else _new_id(conn, length + 1)
