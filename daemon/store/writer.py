"""The one thread that writes. Units of work queue up, each runs in a SAVEPOINT of its own, and one COMMIT makes them all durable."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError

from daemon.errors import StoreDamaged, StoreError, StoreFull

T = TypeVar("T")
LONGEST_QUEUE = 10_000
LARGEST_GROUP = 256
"""Units per commit: bounds how long the first of them waits."""
# A write that the kernel refuses for want of room is SQLITE_FULL only for ENOSPC; for a quota or a size limit it is an I/O error.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def translated(exc: DatabaseError) -> StoreError:
    """SQLite's complaint in our words."""
    code = getattr(exc.orig, "sqlite_errorcode", 0)
    if code in _FULL:
        return StoreFull(f"the journal has no space: {exc.orig}")
    if code & 0xFF in _DAMAGED:
        return StoreDamaged(f"the journal is damaged: {exc.orig}")
    return StoreError(f"the journal cannot be used: {exc.orig}")


class Unit:
    """Work waiting for its turn."""

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.done: Future[Any] = Future()


class _Answer(NamedTuple):
    """What a unit gave, or the error that it is to raise."""

    unit: Unit
    value: Any = None
    error: Exception | None = None

    def give(self) -> None:
        if self.error is not None:
            self.unit.done.set_exception(self.error)
        else:
            self.unit.done.set_result(self.value)


class Writer:
    """Runs units in order; answers each after the COMMIT that made it durable."""

    def __init__(self, engine: Engine, relieve: Callable[[], bool]) -> None:
        """`relieve` is called when the disk is full; True when it made room and the group may be tried once more."""
        self._conn = (
            engine.connect()
        )  # here, so that a missing descriptor is the opener's error, not a dead thread
        self._relieve = relieve
        self._queue: queue.Queue[Unit | None] = queue.Queue(LONGEST_QUEUE)
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="midwatch-writer", daemon=True)
        self._thread.start()

    async def submit(self, work: Callable[[Connection], T]) -> T:
        """Raises what the work raises, or StoreError when it could not be made durable."""
        unit = Unit(work)
        with self._closing:
            if self._closed:
                raise StoreError("the journal is closed")
            try:
                self._queue.put_nowait(unit)
            except queue.Full:
                raise StoreError("the journal cannot keep up: too many writes are waiting") from None
        # Shielded: a cancelled caller does not take back what may already be committed.
        result: T = await asyncio.shield(asyncio.wrap_future(unit.done))
        return result

    def close(self) -> None:
        """Commit what waits, then stop. Blocks until that is done."""
        with self._closing:
            self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._conn.close()

    def _run(self) -> None:
        last = False
        while not last:
            waiting = self._waiting()
            last = waiting[-1] is None
            for answer in self._commit([unit for unit in waiting if unit is not None]):
                answer.give()

    def _waiting(self) -> list[Unit | None]:
        """What is queued right now, at least one; None is the end."""
        group = [self._queue.get()]
        while group[-1] is not None and len(group) < LARGEST_GROUP:
            try:
                group.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return group

    def _commit(self, group: list[Unit]) -> list[_Answer]:
        try:
            try:
                return self._attempt(group)
            except StoreFull:
                if not self._relieve():
                    raise
                return self._attempt(group)
        except StoreError as exc:
            return [_Answer(unit, error=exc) for unit in group]

    def _attempt(self, group: list[Unit]) -> list[_Answer]:
        try:
            self._sql("BEGIN IMMEDIATE")
            answers = [self._one(unit) for unit in group]
            self._sql("COMMIT")
        except DatabaseError as exc:
            if self._in_transaction():
                with suppress(DatabaseError):  # the first error is the one that says what is wrong
                    self._sql("ROLLBACK")
            raise translated(exc) from exc
        return answers

    def _one(self, unit: Unit) -> _Answer:
        self._sql("SAVEPOINT unit")
        try:
            answer = _Answer(unit, unit.work(self._conn))
        except Exception as exc:
            # Whatever the work raises belongs to the one who asked for it, unless it is everybody's.
            if isinstance(exc, DatabaseError) and (
                not self._in_transaction() or type(translated(exc)) is not StoreError
            ):
                raise  # a full disk or a damaged file is everybody's, and SQLite may have rolled everything back
            self._sql("ROLLBACK TO unit")
            answer = _Answer(unit, error=exc)
        self._sql("RELEASE unit")
        return answer

    def _sql(self, statement: str) -> None:
        self._conn.exec_driver_sql(statement)

    def _in_transaction(self) -> bool:
        connection = self._conn.connection.dbapi_connection
        assert isinstance(connection, sqlite3.Connection)
        return connection.in_transaction
