"""A damaged file is set aside, its copy takes its place, and nothing but watching is done until a person says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from daemon.clock import ManualClock
from daemon.errors import StoreError
from daemon.store import journal, recovery
from daemon.store.store import Store
from daemon.store.tables import JOURNAL


def flip_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(byte ^ 0xFF for byte in path.read_bytes()[:100]))


def flip_middle(path: Path) -> None:
    """Half a page; a flipped bit inside a text is no damage to SQLite, but `audit verify` finds it."""
    content = path.read_bytes()
    middle = len(content) // 8192 * 4096
    with path.open("r+b") as file:
        file.seek(middle)
        file.write(bytes(byte ^ 0xFF for byte in content[middle : middle + 2000]))


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("this is no database\n" * 200)


def somebody_elses(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as conn:
        conn.execute("PRAGMA journal_mode=WAL")  # what looking at it would make of it
        conn.execute("CREATE TABLE songs (name TEXT)")
    conn.close()


def gone(path: Path) -> None:
    path.unlink()


DAMAGE = [flip_header, flip_middle, cut, empty, text, somebody_elses, gone]


def kinds(conn: Connection) -> list[str]:
    return list(conn.execute(select(JOURNAL.c.kind).order_by(JOURNAL.c.seq)).scalars())


async def lived(path: Path, clock: ManualClock) -> None:
    """A journal with a copy that lacks its last row."""
    store = await Store.open(path, clock, ballast_size=0)
    for _ in range(80):
        await store.write(lambda tx: tx.record("kept", {"filler": "x" * 500}))
    await store.keep_house(1e9)
    await store.write(lambda tx: tx.record("lost", {}))
    await store.close()


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_file_is_set_aside_and_its_copy_restored(
    tmp_path: Path, clock: ManualClock, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "midwatch.db"
    await lived(path, clock)
    damage(path)
    damaged = path.read_bytes() if path.exists() else None
    store = await Store.open(path, clock, ballast_size=0)
    assert (
        "missing: everything after row 80 of the last copy, written 2023-11-14 22:13:20 UTC"
        in store.observe_only
    )
    assert await store.read(kinds) == ["kept"] * 80 + ["store.recovered"]
    assert (await store.read(journal.verify)).problems == []
    aside = list(tmp_path.glob("midwatch.db.damaged-*"))
    assert [file.read_bytes() for file in aside] == ([] if damaged is None else [damaged])
    await store.close()


async def test_without_a_sound_copy_everything_is_missing(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    await lived(path, clock)
    text(path)
    flip_header(recovery.copy_of(path))
    store = await Store.open(path, clock, ballast_size=0)
    assert "missing: everything: there was no sound copy" in store.observe_only
    assert await store.read(kinds) == ["store.recovered"]
    await store.close()


async def test_observing_only_lasts_over_restarts_until_a_person_resumes(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "midwatch.db"
    await lived(path, clock)
    flip_middle(path)
    store = await Store.open(path, clock, ballast_size=0)
    await store.close()
    store = await Store.open(path, clock, ballast_size=0)
    assert store.observe_only
    await store.resume()
    assert store.observe_only == ""
    await store.close()
    store = await Store.open(path, clock, ballast_size=0)
    assert store.observe_only == ""
    assert (await store.read(kinds))[-2:] == ["store.recovered", "store.resumed"]
    await store.close()


async def test_a_leftover_log_of_a_lost_file_is_not_played_into_the_next(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "midwatch.db"
    store = await Store.open(path, clock, ballast_size=0)
    await store.write(lambda tx: tx.record("old", {}))
    log = (tmp_path / "midwatch.db-wal").read_bytes()
    assert log
    await store.close()
    path.unlink()
    (tmp_path / "midwatch.db-wal").write_bytes(log)
    store = await Store.open(path, clock, ballast_size=0)
    assert await store.read(kinds) == []
    assert store.observe_only == ""
    await store.close()


async def test_only_the_newest_damaged_files_are_kept(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    await lived(path, clock)
    for _ in range(6):
        text(path)
        await (await Store.open(path, clock, ballast_size=0)).close()
        clock.advance(60)
    assert len(list(tmp_path.glob("midwatch.db.damaged-*"))) == recovery.MOST_ASIDE


async def test_a_file_in_use_is_not_taken_for_damaged(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    await lived(path, clock)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            await Store.open(path, clock, ballast_size=0)
    other.close()
    assert not list(tmp_path.glob("midwatch.db.damaged-*"))


async def test_a_failed_start_lets_the_lock_go(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    path.mkdir()
    with pytest.raises(StoreError):
        await Store.open(path, clock, ballast_size=0)
    path.rmdir()
    await (await Store.open(path, clock, ballast_size=0)).close()
