"""Last good copies: each content of a service's file is kept by hash, and is *good* once the service was quiet on it for long enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select, update

from daemon.clock import Clock
from daemon.incidents.graph import Graph
from daemon.model.domain import Severity
from daemon.store.store import Store, Tx
from daemon.store.tables import COPY, SIGNAL, put
from perceivers.base import Observation

MOST_COPIES = 20
"""Contents kept per file, the newest ones and the last good one."""

Keep = Callable[[str, str], bool]
"""(path, SHA-256) → whether the content of that hash is in the directory of copies now."""
Drop = Callable[[Sequence[str]], None]
"""Takes these contents (SHA-256) out of the directory of copies."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file whose copies are kept, and the service that uses it."""

    service: str
    """A Resource."""
    quiet: float
    """Seconds of quiet after which a content counts as good."""


class Copies:
    """Follows the files of the inventory through what the file perceivers see."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        graph: Graph,
        files: Mapping[str, Kept],
        keep: Keep,
        drop: Drop = lambda hashes: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._graph = graph
        self._files = dict(files)
        self._keep = keep
        self._drop = drop
        self.good: dict[str, str] = {}
        """Path → SHA-256 of its last good content."""
        self._current: dict[str, str] = {}
        """Path → SHA-256 of what is in use and kept; what cannot be read or kept is not in it, and so never becomes good."""

    async def restore(self) -> None:
        rows = await self._store.read(
            lambda conn: conn.execute(
                select(COPY).where(COPY.c.good_at.is_not(None)).order_by(COPY.c.good_at)
            ).all()
        )
        self.good = {row.path: row.sha256 for row in rows}

    def last_good(self, path: str) -> str | None:
        """The SHA-256 of the path's last good content."""
        return self.good.get(path)

    async def saw(self, observations: Sequence[Observation]) -> None:
        """Keep what is new among what a poll saw."""
        for seen in observations:
            path, sha256 = seen.values.get("path"), seen.values.get("sha256")
            if isinstance(path, str) and path in self._files and self._current.get(path) != sha256:
                self._current.pop(path, None)
                if isinstance(sha256, str):
                    await self._new(path, sha256)

    async def _new(self, path: str, sha256: str) -> None:
        if not self._keep(path, sha256):
            return  # it changed again before it could be read; the next poll sees that
        useless = await self._store.write(lambda tx: _write(tx, path, sha256))
        self._drop(useless)
        self._current[path] = sha256

    async def tick(self) -> None:
        """Call good what has proven itself."""
        waiting = {path: sha256 for path, sha256 in self._current.items() if self.good.get(path) != sha256}
        if not waiting:
            return
        ripe = await self._store.read(
            lambda conn: {p: s for p, s in waiting.items() if self._ripe(conn, p, s)}
        )
        for path, sha256 in ripe.items():
            await self._store.write(lambda tx, path=path, sha256=sha256: _mark(tx, path, sha256))  # type: ignore[misc]
            self.good[path] = sha256

    def _ripe(self, conn: Connection, path: str, sha256: str) -> bool:
        kept = self._files[path]
        row = conn.execute(select(COPY.c.seen_at).where(COPY.c.path == path, COPY.c.sha256 == sha256)).first()
        if row is None or self._clock.wall() - row.seen_at < kept.quiet:
            return False
        since = self._clock.wall() - kept.quiet
        lately = or_(SIGNAL.c.state == "firing", SIGNAL.c.at > since)
        query = select(SIGNAL.c.resource).where(SIGNAL.c.severity > int(Severity.INFO), lately)
        return all(self._graph.node(resource) != kept.service for (resource,) in conn.execute(query))


def _write(tx: Tx, path: str, sha256: str) -> list[str]:
    """Put a copy on record and take the oldest ones off it; gives the contents that nobody needs any more."""
    put(tx.conn, COPY, {"path": path, "sha256": sha256, "seen_at": tx.now})
    tx.record("copy.kept", {"path": path, "sha256": sha256})
    rows = tx.conn.execute(select(COPY).where(COPY.c.path == path).order_by(COPY.c.seen_at.desc())).all()
    good = max((row for row in rows if row.good_at is not None), key=lambda row: row.good_at, default=None)
    old = [row.sha256 for row in rows[MOST_COPIES:] if row is not good]
    tx.conn.execute(delete(COPY).where(COPY.c.path == path, COPY.c.sha256.in_(old)))
    elsewhere = {found for (found,) in tx.conn.execute(select(COPY.c.sha256).where(COPY.c.sha256.in_(old)))}
    return [found for found in old if found not in elsewhere]


def _mark(tx: Tx, path: str, sha256: str) -> None:
    tx.conn.execute(update(COPY).where(COPY.c.path == path, COPY.c.sha256 == sha256).values(good_at=tx.now))
    tx.record("copy.good", {"path": path, "sha256": sha256})
