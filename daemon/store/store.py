"""The store: midwatch.db, its writer thread, its readers."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from daemon.clock import Clock
from daemon.errors import StoreDamaged, StoreError
from daemon.store import ballast, journal, recovery, retention
from daemon.store.files import engine_for
from daemon.store.writer import Writer, translated

T = TypeVar("T")


class Tx:
    """A unit of work: everything done through it is committed together or not at all."""

    def __init__(self, conn: Connection, clock: Clock) -> None:
        self.conn = conn
        self.clock = clock
        self.now = clock.wall()

    def record(self, kind: str, payload: Mapping[str, Any], incident: str | None = None) -> int:
        """Append a fact to the journal; gives its sequence number."""
        return journal.append(self.conn, self.now, kind, payload, incident)


class Store:
    """Opened once per process. `observe_only` says why nothing may be done (after damage), or is empty."""

    def __init__(self, path: Path, clock: Clock, lock: int, ballast_size: int) -> None:
        self.path = path
        self.observe_only = ""
        self.on_damage: Callable[[], None] = _nothing
        """Called when the file turns out to be damaged while it is used: only opening it anew restores it."""
        self._clock = clock
        self._lock = lock
        self._ballast = ballast.Ballast(path.with_suffix(".ballast"), ballast_size)
        self._readers = engine_for(path, read_only=True)
        self._engine = engine_for(path)
        self._writer = Writer(self._engine, self._ballast.release)

    @classmethod
    async def open(cls, path: Path, clock: Clock, *, ballast_size: int = ballast.SIZE) -> Store:
        """Open, create, migrate or recover the file. Raises StoreError when another midwatch has it or it cannot be made usable."""
        lock = _take_lock(path)
        try:
            await asyncio.to_thread(recovery.prepare, path, clock)
            store = cls(path, clock, lock, ballast_size)
        except DatabaseError as exc:
            os.close(lock)
            raise translated(exc) from exc
        except BaseException:
            os.close(lock)
            raise
        store.observe_only = await store.read(lambda conn: journal.get_meta(conn, "observe_only") or "")
        await asyncio.to_thread(store._ballast.fill)
        return store

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run a unit of work in the writer thread; returns after it is on disk. On a full disk it may be run a second time."""
        try:
            return await self._writer.submit(lambda conn: work(Tx(conn, self._clock)))
        except StoreDamaged:
            self.on_damage()
            raise

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run queries that all see one moment. A point read is a tenth of a millisecond, less than a thread's hand-over costs, so it
        runs here."""
        try:
            with self._readers.connect() as conn:
                conn.exec_driver_sql("BEGIN")
                try:
                    return work(conn)
                finally:
                    conn.exec_driver_sql("ROLLBACK")
        except DatabaseError as exc:
            error = translated(exc)
            if isinstance(error, StoreDamaged):
                self.on_damage()
            raise error from exc

    async def resume(self) -> None:
        """A person says that the recovered file may be acted on again."""

        def work(tx: Tx) -> None:
            journal.set_meta(tx.conn, "observe_only", "")
            tx.record("store.resumed", {"was": self.observe_only})

        await self.write(work)
        self.observe_only = ""

    async def keep_house(self, keep_for: float) -> None:
        """Seal, drop what is older than `keep_for` seconds, refill the ballast, copy. Called now and then."""
        await self.write(lambda tx: retention.sweep(tx, keep_for))
        await asyncio.to_thread(self._ballast.fill)
        await asyncio.to_thread(recovery.backup, self.path)

    async def close(self) -> None:
        """Commit what waits and let the file go."""
        await asyncio.to_thread(self._writer.close)
        self._readers.dispose()
        self._engine.dispose()
        os.close(self._lock)


def _nothing() -> None:
    return None


def _take_lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StoreError(
            f"another midwatch (pid {owner or 'unknown'}) works on {path}; stop it first"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock
