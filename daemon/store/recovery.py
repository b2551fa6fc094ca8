"""What happens to the file before it is used: created, checked, migrated, or set aside and replaced by its last copy.

Every new file is finished under another name and then moved into place, so the file itself is always a whole journal or a damaged one.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import DatabaseError
from sqlmodel import SQLModel

from daemon.clock import Clock
from daemon.errors import StoreDamaged, StoreError
from daemon.store import files, journal
from daemon.store.tables import JOURNAL
from daemon.store.writer import translated

if TYPE_CHECKING:
    from daemon.store.migrate import Step

log = logging.getLogger(__name__)
SCHEMA = 1
"""The schema that this code works with. Older ones are migrated; a newer one is refused."""
MOST_ASIDE = 3
"""Damaged files kept for people to look at; older ones go."""
ROOM = 2
"""A copy is made only where so many times its size is free: it must not be what fills the disk."""


def prepare(path: Path, clock: Clock, steps: Mapping[int, Step] | None = None, schema: int = SCHEMA) -> None:
    """Leave a sound file of our schema at `path`. Raises StoreError when that cannot be done.

    `steps` and `schema` are the migrations to use and where they lead; the shipped ones if not given.
    """
    if why := _damage(path):
        _replace(path, clock, why)
    elif not path.exists():
        fresh = _beside(path, ".new")
        _create(fresh)
        files.set_aside(path, f"{path.name}.stale")
        files.put(fresh, path)
    _migrate(path, steps, schema)


def _damage(path: Path) -> str:
    """Why what is there is no sound journal; empty when it is one, or when there never was one."""
    if not path.exists():
        return "the file is gone, but its copy is there" if copy_of(path).exists() else ""
    if path.stat().st_size == 0:
        return "the file is empty"
    try:
        with _connected(path) as conn:
            answer = conn.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            if answer == "ok":
                schema = journal.get_meta(conn, "schema") if inspect(conn).has_table("meta") else None
                return "" if schema and schema.isdigit() else "it is a database, but no journal of midwatch"
            return str(answer)
    except StoreDamaged as exc:
        return str(exc)


def _replace(path: Path, clock: Clock, why: str) -> None:
    """Set the damaged file aside, put the copy in its place if there is a sound one, and allow nothing but watching."""
    aside = f"{path.name}.damaged-{datetime.fromtimestamp(clock.wall(), UTC):%Y%m%dT%H%M%SZ}"
    fresh = _beside(path, ".new")
    copy = copy_of(path)
    restored = copy.exists() and not _damage(copy)
    if restored:
        files.make(fresh)
        shutil.copyfile(copy, fresh)
    else:
        _create(fresh)
    with _connected(fresh) as conn:
        missing = _missing(conn) if restored else "everything: there was no sound copy"
        told = f"the journal was damaged ({why[:200]}) and set aside as {aside}; missing: {missing}"
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        journal.set_meta(conn, "observe_only", told)
        journal.append(
            conn,
            clock.wall(),
            "store.recovered",
            {"why": why[:500], "aside": aside, "missing": missing},
            None,
        )
        conn.exec_driver_sql("COMMIT")
    files.set_aside(path, aside)
    files.put(fresh, path)
    _forget_old(path)
    log.error("%s; midwatch only observes until `midwatch resume`", told)


def _missing(conn: Connection) -> str:
    seq, _ = journal.head(conn)
    at = conn.execute(select(JOURNAL.c.at).where(JOURNAL.c.seq == seq)).scalar()
    when = f", written {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC" if at is not None else ""
    return f"everything after row {seq} of the last copy{when}"


def _forget_old(path: Path) -> None:
    aside = sorted(
        part for part in path.parent.glob(f"{path.name}.damaged-*") if not part.name.endswith(files.SIDES[1:])
    )
    for old in aside[:-MOST_ASIDE]:
        for side in files.SIDES:
            old.with_name(old.name + side).unlink(missing_ok=True)


def _create(path: Path) -> None:
    files.make(path)
    with _connected(path) as conn:
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        SQLModel.metadata.create_all(conn)
        journal.set_meta(conn, "schema", str(SCHEMA))
        journal.set_meta(conn, "genesis", secrets.token_hex(32))
        conn.exec_driver_sql("COMMIT")


def _migrate(path: Path, steps: Mapping[int, Step] | None, schema: int) -> None:
    with _connected(path) as conn:
        found = int(journal.get_meta(conn, "schema") or 0)
        if found > schema:
            told = f"{path} was written by a newer midwatch (schema {found}, this one knows {schema})"
            raise StoreError(f"{told}; install that version again")
        if found == schema:
            return
        # Alembic is heavy and needed once per upgrade.
        from daemon.store import migrate

        kept = _beside(path, f".schema-{found}")
        _copy(conn, kept)
        log.warning(
            "%s is migrated from schema %d to %d; what it was is kept as %s", path, found, schema, kept.name
        )
        migrate.upgrade(conn, found, schema, migrate.shipped() if steps is None else steps)


def copy_of(path: Path) -> Path:
    return _beside(path, ".copy")


def backup(path: Path) -> bool:
    """Write a sound copy beside the file; the old copy stays until the new one is whole. False when there is no room for it.

    Raises StoreError.
    """
    room = os.statvfs(path.parent)
    if room.f_bavail * room.f_frsize < ROOM * path.stat().st_size:
        log.warning("no copy of the journal was made: the disk has not enough room")
        return False
    with _connected(path) as conn:
        _copy(conn, copy_of(path))
    return True


def _copy(conn: Connection, target: Path) -> None:
    fresh = _beside(target, ".new")
    files.make(fresh)
    try:
        conn.exec_driver_sql("VACUUM INTO ?", (str(fresh),))
        files.put(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextmanager
def _connected(path: Path) -> Iterator[Connection]:
    """A connection of its own, gone afterwards with its side files folded in. Raises StoreError."""
    engine = files.engine_for(path)
    try:
        with engine.connect() as conn:
            yield conn
    except DatabaseError as exc:
        raise translated(exc) from exc
    finally:
        engine.dispose()
