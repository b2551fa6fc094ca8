"""Older files are brought up, newer ones refused. There is one schema so far, so the older ones are made up."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from alembic.operations import Operations
from sqlalchemy import select

from daemon.clock import ManualClock
from daemon.errors import StoreError
from daemon.store import journal, migrate, recovery
from daemon.store.store import Store
from daemon.store.tables import JOURNAL


def to_1(op: Operations) -> None:
    with op.batch_alter_table("control") as batch:
        batch.add_column(sqlalchemy.Column("reason", sqlalchemy.String, nullable=False, server_default=""))


def to_2(op: Operations) -> None:
    op.rename_table("copy", "kept_copy")


def breaks(op: Operations) -> None:
    to_2(op)
    raise RuntimeError("half way")


async def old_file(path: Path, clock: ManualClock, schema: int = 0) -> None:
    """A file as a made-up schema 0 had it: holds had no reason."""
    store = await Store.open(path, clock, ballast_size=0)
    await store.write(lambda tx: tx.record("old", {}))
    await store.close()
    with sqlite3.connect(path) as conn:
        conn.execute("INSERT INTO control VALUES ('pause', 'anna', 'why', 1.0, NULL)")
        conn.execute("ALTER TABLE control DROP COLUMN reason")
        conn.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(schema),))
    conn.close()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as conn:
        found = conn.execute(query).fetchall()
    conn.close()
    return found


async def test_an_old_file_is_copied_first_and_then_brought_up(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    await old_file(path, clock)
    recovery.prepare(path, clock, {1: to_1})
    assert rows(path, "SELECT name, by, reason FROM control") == [("pause", "anna", "")]
    assert rows(tmp_path / "midwatch.db.schema-0", "SELECT * FROM control") == [("pause", "anna", 1.0, None)]
    store = await Store.open(path, clock, ballast_size=0)
    assert await store.read(lambda conn: conn.execute(select(JOURNAL.c.kind)).scalars().all()) == ["old"]
    assert (await store.read(journal.verify)).problems == []
    assert store.observe_only == ""
    await store.close()


async def test_several_steps_are_one_transaction(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    await old_file(path, clock)
    with pytest.raises(RuntimeError, match="half way"):
        recovery.prepare(path, clock, {1: to_1, 2: breaks}, schema=2)
    assert rows(path, "SELECT value FROM meta WHERE key = 'schema'") == [("0",)]
    assert rows(path, "SELECT * FROM control") == [("pause", "anna", 1.0, None)]
    recovery.prepare(path, clock, {1: to_1, 2: to_2}, schema=2)
    assert rows(path, "SELECT value FROM meta WHERE key = 'schema'") == [("2",)]
    assert rows(path, "SELECT count(*) FROM kept_copy") == [(0,)]


async def test_a_missing_step_is_said(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    await old_file(path, clock)
    with pytest.raises(StoreError, match=r"no way from schema 0 to 2: the step to 2 is missing"):
        recovery.prepare(path, clock, {1: to_1}, schema=2)


async def test_a_newer_file_is_refused_untouched(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    await old_file(path, clock, schema=99)
    with pytest.raises(StoreError, match=r"newer midwatch \(schema 99, this one knows 1\)"):
        await Store.open(path, clock, ballast_size=0)
    assert rows(path, "SELECT value FROM meta WHERE key = 'schema'") == [("99",)]


def test_the_shipped_steps_lead_to_the_schema_of_this_code() -> None:
    assert sorted(migrate.shipped()) == list(range(2, recovery.SCHEMA + 1))


def test_alembic_is_loaded_only_for_a_migration(tmp_path: Path) -> None:
    code = "import sys, daemon.store.store, daemon.store.recovery; sys.exit(any(name.startswith('alembic') for name in sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode
        == 0
    )
