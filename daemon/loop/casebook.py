"""What the loop knows about an incident when it asks a reasoner or looks for a proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Connection, Row, bindparam, or_, select

from actuators.base import Result
from daemon.clock import Clock
from daemon.incidents.graph import Graph
from daemon.model.domain import Proof, Proposal, Severity, Signal
from daemon.reason.base import Case
from daemon.store.store import Store
from daemon.store.tables import ATTEMPT, SIGNAL
from perceivers.base import Observation

RECENT = 24 * 3600.0
"""Seconds for which a signal counts as recent evidence; a runbook's own `within` is usually shorter."""
MOST_SIGNALS = 500
"""Signals that a reasoner is shown, the newest."""
UNHELPFUL = (Result.FAILED, Result.TIMED_OUT, Result.REFUSED, Result.UNKNOWN)


_CASE = (
    select(SIGNAL)
    .where(
        or_(SIGNAL.c.incident == bindparam("of"), SIGNAL.c.resource.in_(bindparam("here", expanding=True))),
        or_(SIGNAL.c.state == "firing", SIGNAL.c.at > bindparam("since")),
    )
    .order_by(SIGNAL.c.at.desc())
    .limit(MOST_SIGNALS)
)
_VAIN = select(ATTEMPT.c.action, ATTEMPT.c.target, ATTEMPT.c.params).where(
    ATTEMPT.c.incident == bindparam("of"),
    ATTEMPT.c.undo_of.is_(None),
    or_(ATTEMPT.c.verified.is_(False), ATTEMPT.c.result.in_(UNHELPFUL)),
)


class Watching(Protocol):
    """Polls on demand, through the same way in as the scheduled ones."""

    async def look_at(self, resources: Sequence[str], kind: str | None = None) -> list[Observation]: ...

    def brewing(self, resources: Sequence[str]) -> bool:
        """Whether something abnormal was seen on one of them that has not lasted long enough yet to be a Signal."""
        ...


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the operator said about services."""

    graph: Graph
    verbs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    settle: Mapping[str, float] = field(default_factory=dict)


class Casebook:
    """Builds cases and judges proofs."""

    def __init__(self, store: Store, clock: Clock, watching: Watching, inventory: Inventory) -> None:
        self._store = store
        self._clock = clock
        self._watching = watching
        self._inventory = inventory

    def settle(self, resource: str) -> float:
        return self._inventory.settle.get(resource, 0.0)

    def hangs_on_others(self, resource: str) -> bool:
        return bool(self._inventory.graph.below(resource))

    async def brewing_below(self, resource: str) -> bool:
        """Look now at all that the Resource hangs on; True when trouble shows there that is about to become a Signal."""
        graph = self._inventory.graph
        below = [part for node in sorted(graph.below(resource)) for part in graph.parts(node)]
        if below:
            await self._watching.look_at(below)
        return bool(below) and self._watching.brewing(below)

    async def look_at_all(self, incident: str) -> None:
        """Look now at everything that the incident's signals speak of."""
        query = select(SIGNAL.c.resource).where(SIGNAL.c.incident == incident).distinct().limit(200)
        resources = await self._store.read(lambda conn: [found for (found,) in conn.execute(query)])
        await self._watching.look_at(resources)

    async def case(self, row: Row[Any]) -> Case:
        signals, tried = await self._store.read(lambda conn: (self._signals(conn, row), _tried(conn, row.id)))

        async def read(kind: str, resource: str) -> list[Observation]:
            return await self._watching.look_at([resource], kind)

        return Case(
            incident=row.id,
            resource=row.resource,
            severity=Severity(row.severity),
            firing=tuple(signal for signal, mine, _ in signals if mine and signal.state == "firing"),
            recent=tuple(signal for signal, _, _ in signals),
            read=read,
            now=self._clock.wall(),
            verbs=self._inventory.verbs,
            tried=tried,
            evidence=tuple(seq for _, mine, seq in signals if mine),
            owners=self._inventory.graph.owners,
        )

    def _signals(self, conn: Connection, row: Row[Any]) -> list[tuple[Signal, bool, int]]:
        """(signal, belongs to this incident, journal row), newest first: the incident's own, and what was lately seen on its root and
        the files of its root."""
        graph = self._inventory.graph
        here = graph.parts(graph.node(row.resource))
        asked = {"of": row.id, "here": here, "since": self._clock.wall() - RECENT}
        return [(_signal(found), found.incident == row.id, found.seq) for found in conn.execute(_CASE, asked)]

    def missing(self, conn: Connection, incident: str, proofs: Sequence[Proof]) -> list[tuple[Proof, str]]:
        """The proofs that are not seen yet, each with why."""
        rows = list(conn.execute(select(SIGNAL).where(SIGNAL.c.incident == incident)))
        told = ((proof, next(self._doubts(proof, rows), "")) for proof in proofs)
        return [(proof, why) for proof, why in told if why]

    def _doubts(self, proof: Proof, rows: Sequence[Row[Any]]) -> Iterator[str]:
        """Why the fault does not count as gone."""
        for row in rows:
            if proof.clear and row.name not in proof.clear:
                continue
            if row.state == "firing" and row.severity > Severity.INFO:
                yield f"{row.name} on {row.resource} still fires"
            # What lies in the future was written before the clock was set back: nobody can tell how long ago.
            elif row.state == "cleared" and 0 <= self._clock.wall() - row.at < proof.clear_for:
                yield f"{row.name} on {row.resource} is clear for less than {proof.clear_for:g}s"


def _signal(row: Row[Any]) -> Signal:
    return Signal(
        name=row.name,
        resource=row.resource,
        severity=Severity(row.severity),
        state=row.state,
        at=row.at,
        summary=row.summary,
        key=row.key,
        values=row.values,
        tainted=row.tainted,
    )


def _tried(conn: Connection, incident: str) -> tuple[Proposal, ...]:
    """What was done in this incident and did not help, or may not have."""
    rows = conn.execute(_VAIN, {"of": incident})
    return tuple(Proposal(row.action, row.target, row.params) for row in rows)
