"""Which incident a signal belongs to: dedup by fingerprint, root before symptom, reopen, flap damping, start-up grace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Table, bindparam, delete, func, or_, select, update

from daemon.incidents.graph import Graph
from daemon.model.domain import Severity, Signal, State
from daemon.store.journal import get_meta, set_meta
from daemon.store.store import Tx
from daemon.store.tables import APPROVAL, ATTEMPT, INCIDENT, OUTBOX, SIGNAL, add, change, put

BUSY = (State.ACTING, State.VERIFYING)
"""While something is being done and proven, an incident keeps its signals and its target."""

How = Literal["opened", "joined", "reopened", "context", "cleared", "flapping", "grace"]


@dataclass(frozen=True, slots=True)
class Placement:
    """The numbers of correlation; durations in seconds."""

    reopen_within: float = 600.0
    """The same trouble again so soon after it was resolved is the same incident."""
    flap_count: int = 5
    """Firings of one fingerprint within `flap_window` from which on it is flapping."""
    flap_window: float = 600.0
    flap_quiet: float = 120.0
    """A flapping signal must be clear this long before it counts as clear."""
    grace_until: float = 0.0
    """Unix seconds until which nothing is opened: the host, or the daemon, is still starting."""
    most_open: int = 200
    """Open incidents at once; further trouble joins the newest one."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a signal went."""

    incident: str | None
    how: How
    merged: tuple[str, ...] = ()
    """Incidents that lost their signals to `incident` and stay on record: to be woken, for people must be told that they are over."""


def place(tx: Tx, signal: Signal, graph: Graph, rules: Placement, seq: int) -> Placed:
    """Put a signal into its incident; `seq` is the journal row that carries the evidence."""
    known = _known(tx.conn, signal)
    if signal.state == "cleared":
        return _cleared(tx, signal, known)
    row = _keep(tx, signal, known, rules, seq)
    if signal.severity is Severity.INFO:
        return _settled(tx, row, Placed(_beside(tx.conn, signal.resource, graph), "context"))
    return _settled(tx, row, _damped(_home(tx, row, graph, rules), row, rules))


def held_back(tx: Tx, graph: Graph, rules: Placement) -> list[str]:
    """After the grace: place what still fires and was only held back. Gives every incident to be looked at."""
    homeless = or_(
        INCIDENT.c.id.is_(None),
        (INCIDENT.c.state == State.RESOLVED) & (INCIDENT.c.resolved_at <= SIGNAL.c.fired_at),
    )
    rows = tx.conn.execute(
        select(SIGNAL)
        .outerjoin(INCIDENT, INCIDENT.c.id == SIGNAL.c.incident)
        .where(SIGNAL.c.state == "firing", SIGNAL.c.severity > int(Severity.INFO), homeless)
        .order_by(SIGNAL.c.fired_at)
    ).all()
    placed = [_settled(tx, row, _home(tx, row, graph, rules)) for row in rows]
    found = [
        incident for where in placed for incident in (where.incident, *where.merged) if incident is not None
    ]
    return list(dict.fromkeys(found))


def retire(tx: Tx, watched: Callable[[str, str, str], bool]) -> list[str]:
    """Clear what fires and can never clear by itself, because `watched(name, resource, key)` says that nothing looks at it any more:
    a rule was renamed, a perceiver taken out. Gives the incidents to be looked at."""
    rows = tx.conn.execute(select(SIGNAL).where(SIGNAL.c.state == "firing", SIGNAL.c.perceiver != "")).all()
    gone = [row for row in rows if not watched(row.name, row.resource, row.key)]
    for row in gone:
        _clear(tx, row, "it is not watched any more")
    return list(dict.fromkeys(row.incident for row in gone if row.incident is not None))


# where a firing signal belongs ----------------------------------------------------------------------------------------------


def _home(tx: Tx, signal: Row[Any], graph: Graph, rules: Placement) -> Placed:
    """The incident for a firing signal, opened if there is none and the grace is over."""
    last = _incident(tx.conn, signal.incident) if signal.incident else None
    if last is not None and last.state != State.RESOLVED:
        return Placed(last.id, "joined")
    crowd = open_incidents(tx.conn)
    if related := _Related.of(signal.resource, crowd, graph):
        return related.join(tx, signal)
    if tx.now < rules.grace_until:
        return Placed(None, "grace")
    if last is not None and tx.now - last.resolved_at <= rules.reopen_within:
        return Placed(_reopen(tx, last, signal), "reopened")
    if len(crowd) >= rules.most_open:
        return Placed(crowd[-1].id, "joined")
    return Placed(_open(tx, signal, graph), "opened")


@dataclass
class _Related:
    """Open incidents beside a Resource in the graph, each list oldest first."""

    node: str
    causes: list[Row[Any]] = field(default_factory=list)
    """On the Resource itself, or on what it hangs on."""
    symptoms: list[Row[Any]] = field(default_factory=list)
    """On what hangs on the Resource."""

    @classmethod
    def of(cls, resource: str, crowd: Sequence[Row[Any]], graph: Graph) -> _Related | None:
        found = cls(graph.node(resource))
        for row in crowd:
            if graph.hangs_on(row.resource, resource):
                found.symptoms.append(row)
            elif graph.related(resource, row.resource):
                found.causes.append(row)
        # On the Resource itself before what lies below: that incident knows the most about this trouble.
        found.causes.sort(key=lambda row: graph.node(row.resource) != found.node)
        return found if found.causes or found.symptoms else None

    def join(self, tx: Tx, signal: Row[Any]) -> Placed:
        """Put the signal where its cause is. Incidents of its symptoms are the same trouble and become one with it; several causes that
        only this Resource connects stay apart, and so does what is being worked on."""
        home = (self.causes or sorted(self.symptoms, key=lambda row: row.state not in BUSY))[0]
        others = [row for row in self.symptoms if row.id != home.id and row.state not in BUSY]
        told = tuple(row.id for row in others if _merge(tx, home, row))
        worst = max(signal.severity, home.severity, *(row.severity for row in others))
        if worst > home.severity:
            _change(tx, home.id, severity=worst)
        if not self.causes:
            _new_root(tx, home, self.node, signal)
        return Placed(home.id, "joined", told)


_AFRESH: Mapping[str, Any] = {"state": State.OPEN.value, "remedy": 0, "step": 0}
"""An open incident begins with the first remedy of whatever is found."""


def _new_root(tx: Tx, row: Row[Any], node: str, signal: Row[Any]) -> None:
    """The trouble lies deeper than thought. What waits or was handed over to somebody who has not taken it is looked at again; what is
    being done is finished first."""
    again = row.state in (State.INVESTIGATING, State.WAITING) or (
        row.state == State.ESCALATED and row.acked_by is None
    )
    fresh = {**_AFRESH, "diagnosis": None} if again else {}
    if again:
        _void(tx, row.id, f"the trouble lies deeper: {node}")
    _change(tx, row.id, resource=node, title=_title(signal), **fresh)
    tx.record("incident.root", {"from": row.resource, "to": node}, row.id)


def _merge(tx: Tx, into: Row[Any], gone: Row[Any]) -> bool:
    """Two incidents turn out to be one trouble. True when the other stays on record, because something was done or told in it."""
    tx.conn.execute(update(SIGNAL).where(SIGNAL.c.incident == gone.id).values(incident=into.id))
    for incident in (into.id, gone.id):
        tx.record("incident.merged", {"into": into.id, "gone": gone.id, "resource": gone.resource}, incident)
    if not any(_count(tx.conn, kept, gone.id) for kept in (ATTEMPT, APPROVAL, OUTBOX)):
        tx.conn.execute(delete(INCIDENT).where(INCIDENT.c.id == gone.id))
        return False
    _void(tx, gone.id, f"one trouble with {into.id}")
    _change(tx, gone.id, merged_into=into.id)
    return True


def _void(tx: Tx, incident: str, reason: str) -> None:
    """What was asked for under a diagnosis that does not hold any more must not be usable later."""
    asked = APPROVAL.c.incident == incident, APPROVAL.c.state.in_(("pending", "approved"))
    for (approval,) in tx.conn.execute(select(APPROVAL.c.id).where(*asked)).all():
        change(tx.conn, APPROVAL, approval, {"state": "void", "reason": reason})
        tx.record("approval.void", {"approval": approval, "reason": reason}, incident)


def _open(tx: Tx, signal: Row[Any], graph: Graph) -> str:
    incident = _new_id(tx)
    told = {"resource": graph.node(signal.resource), "title": _title(signal)}
    counts = dict.fromkeys(("remedy", "step", "attempts", "oncall_step", "reopened"), 0)
    times = {"opened_at": tx.now, "changed_at": tx.now}
    row = {
        "id": incident,
        "state": State.OPEN.value,
        "severity": signal.severity,
        "reason": "",
        **told,
        **counts,
        **times,
    }
    add(tx.conn, INCIDENT, row)
    tx.record("incident.opened", told, incident)
    return incident


def _reopen(tx: Tx, row: Row[Any], signal: Row[Any]) -> str:
    """The same trouble again. Its attempts still count: what did not last is not tried for ever."""
    times = row.reopened + 1
    fresh = {
        **_AFRESH,
        "resolved_at": None,
        "diagnosis": None,
        "held": None,
        "acked_by": None,
    }
    severity = max(row.severity, signal.severity)
    _change(tx, row.id, **fresh, reopened=times, oncall_step=0, oncall_due=None, severity=severity)
    tx.record("incident.reopened", {"times": times}, row.id)
    incident: str = row.id
    return incident


def _change(tx: Tx, incident: str, **values: Any) -> None:
    change(tx.conn, INCIDENT, incident, {**values, "changed_at": tx.now})


def _count(conn: Connection, kept: Table, incident: str) -> int:
    return conn.execute(
        select(func.count()).select_from(kept).where(kept.c.incident == incident)
    ).scalar_one()


# signals as rows ------------------------------------------------------------------------------------------------------------


_BY_FINGERPRINT = select(SIGNAL).where(SIGNAL.c.fingerprint == bindparam("print"))


def _known(conn: Connection, signal: Signal) -> Row[Any] | None:
    return conn.execute(_BY_FINGERPRINT, {"print": signal.fingerprint}).first()


def _keep(tx: Tx, signal: Signal, known: Row[Any] | None, rules: Placement, seq: int) -> Row[Any]:
    values = {
        "fingerprint": signal.fingerprint,
        "name": signal.name,
        "resource": signal.resource,
        "key": signal.key,
        "severity": int(signal.severity),
        "state": "firing",
        "at": tx.now,
        "summary": signal.summary,
        "values": dict(signal.values),
        "tainted": signal.tainted,
        "perceiver": signal.perceiver,
        "seq": seq,
        **_counted(known, tx.now, rules),
    }
    put(tx.conn, SIGNAL, values)
    row = _known(tx.conn, signal)
    assert row is not None
    return row


def _counted(known: Row[Any] | None, now: float, rules: Placement) -> dict[str, Any]:
    """When it fired, and how often since when. A wall clock set back begins anew rather than counting for ever."""
    if known is not None and known.state == "firing":
        return {"fired_at": known.fired_at, "flaps": known.flaps, "flaps_since": known.flaps_since}
    if known is None or not 0 <= now - known.flaps_since <= rules.flap_window:
        return {"fired_at": now, "flaps": 1, "flaps_since": now}
    return {"fired_at": now, "flaps": known.flaps + 1, "flaps_since": known.flaps_since}


def _damped(placed: Placed, row: Row[Any], rules: Placement) -> Placed:
    flapping = row.flaps >= rules.flap_count and placed.how in ("joined", "reopened")
    return replace(placed, how="flapping") if flapping else placed


def _settled(tx: Tx, row: Row[Any], placed: Placed) -> Placed:
    if placed.how == "grace":
        return placed
    change(tx.conn, SIGNAL, row.fingerprint, {"incident": placed.incident})
    if placed.incident is not None:
        told = {"signal": row.fingerprint, "how": placed.how, "summary": row.summary}
        tx.record("incident.signal", told, placed.incident)
    return placed


def _cleared(tx: Tx, signal: Signal, known: Row[Any] | None) -> Placed:
    if known is None:
        return Placed(None, "cleared")
    if known.state == "firing":
        _clear(tx, known, signal.summary)
    return Placed(known.incident, "cleared")


def _clear(tx: Tx, row: Row[Any], why: str) -> None:
    change(tx.conn, SIGNAL, row.fingerprint, {"state": "cleared", "at": tx.now})
    if row.incident is not None:
        tx.record(
            "incident.signal", {"signal": row.fingerprint, "how": "cleared", "summary": why}, row.incident
        )


def _title(signal: Row[Any]) -> str:
    return f"{signal.name} on {signal.resource}" + (
        f" ({signal.key})" if signal.key and not signal.tainted else ""
    )


# incidents as rows ----------------------------------------------------------------------------------------------------------


_OPEN = (
    select(INCIDENT)
    .where(INCIDENT.c.state != State.RESOLVED, INCIDENT.c.merged_into.is_(None))
    .order_by(INCIDENT.c.opened_at, INCIDENT.c.id)
)
_FIRING = select(SIGNAL).where(
    SIGNAL.c.incident == bindparam("of"),
    SIGNAL.c.state == "firing",
    SIGNAL.c.severity > int(Severity.INFO),
)


def open_incidents(conn: Connection) -> list[Row[Any]]:
    """Every incident that is not resolved nor merged into another, oldest first."""
    return list(conn.execute(_OPEN))


def firing(conn: Connection, incident: str) -> list[Row[Any]]:
    """The signals that make the incident what it is: those above `info` that fire."""
    return list(conn.execute(_FIRING, {"of": incident}))


def all_clear(conn: Connection, incident: str, now: float, rules: Placement | None = None) -> bool:
    """Whether the fault is gone: nothing fires, and what flapped has been quiet for long enough."""
    rules = rules or Placement()
    if firing(conn, incident):
        return False
    flapping = SIGNAL.c.incident == incident, SIGNAL.c.flaps >= rules.flap_count
    newest = conn.execute(select(func.max(SIGNAL.c.at)).where(*flapping)).scalar()
    # What lies in the future was written before the clock was set back: nobody can tell how long ago.
    return newest is None or not 0 <= now - newest < rules.flap_quiet


def _incident(conn: Connection, incident: str) -> Row[Any] | None:
    return conn.execute(select(INCIDENT).where(INCIDENT.c.id == incident)).first()


def _beside(conn: Connection, resource: str, graph: Graph) -> str | None:
    """The open incident on the Resource, for what is only context."""
    node = graph.node(resource)
    return next((row.id for row in open_incidents(conn) if graph.node(row.resource) == node), None)


def _new_id(tx: Tx) -> str:
    """`i-20261124-0007`: short, sortable, and fit to be said over a telephone. The number never starts anew: days repeat when a clock
    is set back."""
    number = int(get_meta(tx.conn, "incident_counter") or 0) + 1
    set_meta(tx.conn, "incident_counter", str(number))
    return f"i-{datetime.fromtimestamp(tx.now, UTC):%Y%m%d}-{number:04d}"
