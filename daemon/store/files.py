"""How database files are opened, made and moved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

MODE = 0o640
"""The daemon's user writes, its group reads, nobody else; SQLite gives its side files the same."""
PRAGMAS = (
    "PRAGMA busy_timeout=5000",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA wal_autocheckpoint=1000",
    "PRAGMA journal_size_limit=16777216",
)
SIDES = ("", "-wal", "-shm")


def engine_for(path: Path, *, read_only: bool = False) -> Engine:
    """An engine whose transactions are ours: the driver's own BEGIN would come too late for savepoints."""
    pragmas = (*PRAGMAS, "PRAGMA query_only=ON") if read_only else PRAGMAS
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=4,
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        for pragma in pragmas:
            connection.execute(pragma).close()

    return engine


def make(path: Path) -> None:
    """Make an empty file of our mode, in place of whatever is there."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    os.fchmod(handle, MODE)  # whatever the umask is
    os.close(handle)


def put(fresh: Path, path: Path) -> None:
    """Move a finished file into place so that a power cut leaves the old one or the whole new one."""
    _sync(fresh)
    fresh.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(path: Path, name: str) -> None:
    """Rename a database with its side files; they belong together, and a leftover -wal would be played into the next file."""
    for side in reversed(SIDES):
        part = path.with_name(path.name + side)
        if part.exists():
            part.rename(path.with_name(name + side))
