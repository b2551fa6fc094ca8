"""From Observations to rows: judged by the detector, placed into incidents, committed together with the perceiver's cursor."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Table, select

from daemon.act.ending import to_the_end
from daemon.clock import Clock
from daemon.detect.detector import Detector
from daemon.incidents import correlate
from daemon.incidents.graph import Graph
from daemon.model.domain import Signal
from daemon.store.crashpoints import point
from daemon.store.store import Store, Tx
from daemon.store.tables import CURSOR, DETECTOR_STATE, put
from perceivers.base import Batch, Perceiver

CURSOR_EVERY = 5.0
"""Seconds between writes of a cursor that moved over nothing of interest: reading that again does no harm."""
MOST_OWED = 1000
"""Findings of one perceiver that are kept while the journal cannot be written, the newest."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How signals become incidents; see `daemon.incidents.correlate`."""

    graph: Graph
    rules: correlate.Placement


class Ingest:
    """Takes batches in, each exactly once."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        detector: Detector,
        placement: Placement,
        wake: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._detector = detector
        self._placement = placement
        self._wake = wake
        self._cursors: dict[str, Mapping[str, Any]] = {}
        self._kept_at: dict[str, float] = {}
        self._owed: dict[str, list[Signal]] = {}
        """Perceiver → findings not on disk yet that no later poll will give again, because there is no cursor to be set back to."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Perceiver → held from what the detector judged until that is on disk."""

    async def restore(self, perceivers: Mapping[str, Perceiver]) -> None:
        """Give detector and perceivers what was committed last."""
        cursors, states = await self._store.read(
            lambda conn: (
                conn.execute(select(CURSOR.c.perceiver, CURSOR.c.cursor)).all(),
                conn.execute(select(DETECTOR_STATE.c.id, DETECTOR_STATE.c.state)).all(),
            )
        )
        for name, cursor in cursors:
            if name in perceivers:
                self._cursors[name] = cursor
                perceivers[name].restore(cursor)
        for name, state in states:
            self._detector.restore(name, state)

    async def take(self, perceiver: Perceiver, batch: Batch) -> None:
        """Judge a batch and commit what follows with its cursor. If the commit fails, detector and perceiver stand where they stood."""
        # Not even a cancelled poll may leave a line half seen: a commit that was begun cannot be taken back.
        await to_the_end(self._take(perceiver, batch))

    async def _take(self, perceiver: Perceiver, batch: Batch) -> None:
        name = perceiver.name
        async with self._locks[name]:
            before = self._detector.state(name)
            try:
                signals = [*self._detector.seen(name), *self._detector.judge(name, batch.observations)]
                await self._keep(name, signals, batch)
            except BaseException:
                if name in self._cursors:
                    self._detector.restore(name, before)
                    perceiver.restore(self._cursors[name])
                raise

    async def _keep(self, name: str, signals: list[Signal], batch: Batch) -> None:
        hits = any(seen.rule for seen in batch.observations)
        if name not in self._cursors:
            self._owe(name, signals)
            signals = []
        if not (signals or hits or name in self._owed or self._cursor_is_due(name, batch)):
            return
        await self._commit(name, signals, batch.cursor)
        if batch.cursor is not None:
            self._cursors[name] = batch.cursor
            self._kept_at[name] = self._clock.boottime()

    async def blind(self, name: str, reason: str) -> None:
        """A perceiver could not look."""
        self._owe(name, self._detector.blind(name, reason))
        await to_the_end(self._pay(name))

    async def say(self, signal: Signal) -> None:
        """Take in a finding of the daemon about itself."""
        self._wake_all(await self._store.write(lambda tx: self._place(tx, signal)))

    async def tick(self) -> None:
        """What follows from time alone: absence, durations, quiet. What could not be written down before is tried again."""
        for signal in self._detector.tick():
            self._owe(signal.perceiver, [signal])
        for name in list(self._owed):
            await to_the_end(self._pay(name))

    def brewing(self, perceiver: str) -> bool:
        return self._detector.brewing(perceiver)

    async def save(self, names: Sequence[str]) -> None:
        """Put the detector's whole state on disk: at the end of a shift, so that the next one goes on where this one stopped."""
        await asyncio.gather(*(self._save(name) for name in names))

    async def _save(self, name: str) -> None:
        async with self._locks[name]:
            await self._commit(name, [], None)

    async def open_held_back(self) -> None:
        """After the grace: what still fires and was held back becomes incidents."""
        placement = self._placement
        self._wake_all(
            await self._store.write(lambda tx: correlate.held_back(tx, placement.graph, placement.rules))
        )

    def _owe(self, name: str, signals: Sequence[Signal]) -> None:
        if signals:
            self._owed[name] = [*self._owed.get(name, ()), *signals][-MOST_OWED:]

    async def _pay(self, name: str) -> None:
        async with self._locks[name]:
            if name in self._owed:
                await self._commit(name, [], None)

    def _cursor_is_due(self, name: str, batch: Batch) -> bool:
        if batch.cursor is None or batch.cursor == self._cursors.get(name):
            return False
        return self._clock.boottime() - self._kept_at.get(name, -CURSOR_EVERY) >= CURSOR_EVERY

    async def _commit(self, name: str, signals: Sequence[Signal], cursor: Mapping[str, Any] | None) -> None:
        """What is owed and these signals, with the perceiver's cursor and the detector's state, all or nothing."""
        owed = self._owed.pop(name, [])
        state = self._detector.state(name)
        point("ingest_before_commit")

        def work(tx: Tx) -> list[str]:
            _put(tx, CURSOR, "perceiver", name, "cursor", cursor)
            _put(tx, DETECTOR_STATE, "id", name, "state", state)
            return [incident for signal in (*owed, *signals) for incident in self._place(tx, signal)]

        try:
            incidents = await self._store.write(work)
        except BaseException:
            later = self._owed.pop(name, [])
            self._owe(name, [*owed, *later])
            raise
        point("ingest_after_commit")
        self._wake_all(incidents)

    def _wake_all(self, incidents: Sequence[str]) -> None:
        for incident in incidents:
            self._wake(incident)

    def _place(self, tx: Tx, signal: Signal) -> list[str]:
        """Gives the incidents to be looked at."""
        facts = {**asdict(signal), "severity": signal.severity.word, "samples": list(signal.samples)}
        seq = tx.record("signal", facts)
        placed = correlate.place(tx, signal, self._placement.graph, self._placement.rules, seq)
        return [*filter(None, [placed.incident]), *placed.merged]


def _put(tx: Tx, table: Table, key: str, name: str, column: str, value: Mapping[str, Any] | None) -> None:
    if value is not None:
        put(tx.conn, table, {key: name, column: dict(value)})
