"""The writer thread: who shares a commit, who is rolled back, and what a full disk does."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from daemon.errors import StoreError, StoreFull
from daemon.store.files import engine_for
from daemon.store.writer import Writer


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = engine_for(tmp_path / "midwatch.db")
    with engine.connect() as conn:
        conn.exec_driver_sql("CREATE TABLE t (n INTEGER PRIMARY KEY, filler BLOB)")
    return engine


def never() -> bool:
    return False


def insert(conn: Connection, number: int, size: int = 0) -> int:
    conn.execute(text("INSERT INTO t VALUES (:n, zeroblob(:size))"), {"n": number, "size": size})
    return number


def numbers(engine: Engine) -> list[int]:
    with engine.connect() as conn:
        return [row[0] for row in conn.exec_driver_sql("SELECT n FROM t ORDER BY n")]


def driver(conn: Connection) -> sqlite3.Connection:
    connection = conn.connection.dbapi_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


async def test_concurrent_writes_share_commits_and_are_answered_after_them(engine: Engine) -> None:
    writer = Writer(engine, never)
    statements: list[str] = []
    await writer.submit(lambda conn: driver(conn).set_trace_callback(statements.append))

    async def one(number: int) -> list[int]:
        await writer.submit(lambda conn: insert(conn, number))
        return numbers(engine)

    seen = await asyncio.gather(*(one(number) for number in range(200)))
    assert all(number in seen[number] for number in range(200))
    assert statements.count("COMMIT") < 20
    writer.close()


async def test_a_unit_that_raises_is_rolled_back_alone(engine: Engine) -> None:
    writer = Writer(engine, never)

    def wrong(conn: Connection) -> None:
        insert(conn, 100)
        raise ValueError("mine")

    good, bad, clash, typo = await asyncio.gather(
        writer.submit(lambda conn: insert(conn, 1)),
        writer.submit(wrong),
        writer.submit(lambda conn: insert(conn, 1)),
        writer.submit(lambda conn: conn.exec_driver_sql("SELECT nothing FROM nowhere")),
        return_exceptions=True,
    )
    after = await writer.submit(lambda conn: insert(conn, 2))
    assert good == 1
    assert after == 2
    assert isinstance(bad, ValueError)
    assert isinstance(clash, IntegrityError)
    assert isinstance(typo, OperationalError)
    assert numbers(engine) == [1, 2]
    writer.close()


async def test_what_was_queued_is_committed_before_the_end_and_nothing_is_taken_after_it(
    engine: Engine,
) -> None:
    writer = Writer(engine, never)
    waiting = [asyncio.ensure_future(writer.submit(partial(insert, number=n))) for n in range(50)]
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.close)
    assert await asyncio.gather(*waiting) == list(range(50))
    with pytest.raises(StoreError, match="closed"):
        await writer.submit(lambda conn: insert(conn, 99))


async def test_a_cancelled_caller_does_not_take_back_its_write(engine: Engine) -> None:
    writer = Writer(engine, never)
    caller = asyncio.ensure_future(writer.submit(lambda conn: insert(conn, 7)))
    await asyncio.sleep(0)
    caller.cancel()
    await writer.submit(lambda conn: None)
    assert numbers(engine) == [7]
    writer.close()


async def test_on_a_full_disk_room_is_made_once_and_the_group_is_tried_again(engine: Engine) -> None:
    """A limit on the file's pages makes SQLite itself answer SQLITE_FULL; what relieves is to lift it."""
    asked: list[int] = []
    limits: list[sqlite3.Connection] = []

    def relieve() -> bool:
        asked.append(1)
        if len(asked) == 1:
            limits[0].execute("PRAGMA max_page_count=100")
        return len(asked) == 1

    writer = Writer(engine, relieve)

    def narrow(conn: Connection) -> None:
        limits.append(driver(conn))
        conn.exec_driver_sql("PRAGMA max_page_count=10")

    await writer.submit(narrow)
    done = await asyncio.gather(
        writer.submit(lambda conn: insert(conn, 1)), writer.submit(lambda conn: insert(conn, 2, 100_000))
    )
    assert list(done) == [1, 2]
    with pytest.raises(StoreFull, match="no space"):
        await writer.submit(lambda conn: insert(conn, 3, 1_000_000))
    await writer.submit(lambda conn: insert(conn, 4))
    assert numbers(engine) == [1, 2, 4]
    writer.close()
