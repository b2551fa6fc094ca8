"""Opening, sharing, reading and closing the store."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from daemon.clock import ManualClock
from daemon.errors import StoreDamaged, StoreError
from daemon.store.store import Store, Tx
from daemon.store.tables import JOURNAL

HOLDER = """
import asyncio, sys
from pathlib import Path
from daemon.clock import SystemClock
from daemon.store.store import Store

async def hold() -> None:
    store = await Store.open(Path(sys.argv[1]), SystemClock(), ballast_size=0)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await store.close()

asyncio.run(hold())
"""


def kinds(conn: Connection) -> list[str]:
    return list(conn.execute(select(JOURNAL.c.kind).order_by(JOURNAL.c.seq)).scalars())


async def test_what_was_written_is_there_after_a_new_start(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "state" / "midwatch.db"
    store = await Store.open(path, clock, ballast_size=0)
    assert await store.write(lambda tx: tx.record("first", {"a": 1})) == 1
    await store.close()
    store = await Store.open(path, clock, ballast_size=0)
    assert await store.write(lambda tx: tx.record("second", {})) == 2
    assert await store.read(kinds) == ["first", "second"]
    assert store.observe_only == ""
    await store.close()


async def test_only_the_daemons_group_may_read_the_files(tmp_path: Path, clock: ManualClock) -> None:
    before = os.umask(0)
    try:
        store = await Store.open(tmp_path / "state" / "midwatch.db", clock, ballast_size=4096)
        await store.write(lambda tx: tx.record("x", {}))
        await store.keep_house(1.0)
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "state").iterdir()}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o750
    assert set(modes.values()) == {0o640}, modes
    assert {"midwatch.db", "midwatch.db-wal", "midwatch.db.copy", "midwatch.ballast", "midwatch.lock"} <= set(
        modes
    )
    await store.close()


async def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(
            StoreError, match=rf"another midwatch \(pid {holder.pid}\) works on .*; stop it first"
        ):
            await Store.open(path, clock, ballast_size=0)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.wait() == 0
    await (await Store.open(path, clock, ballast_size=0)).close()


async def test_reads_go_on_while_a_write_is_under_way(store: Store) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(tx: Tx) -> None:
        tx.record("slow", {})
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    await store.write(lambda tx: tx.record("before", {}))
    writing = asyncio.ensure_future(store.write(slow))
    await started.wait()
    assert await store.read(kinds) == ["before"]
    go_on.set()
    await writing
    assert await store.read(kinds) == ["before", "slow"]


async def test_a_read_sees_one_moment(store: Store) -> None:
    await store.write(lambda tx: tx.record("one", {}))
    loop = asyncio.get_running_loop()

    def twice(conn: Connection) -> tuple[list[str], list[str]]:
        first = kinds(conn)
        asyncio.run_coroutine_threadsafe(store.write(lambda tx: tx.record("two", {})), loop).result()
        return first, kinds(conn)

    first, second = await asyncio.to_thread(asyncio.run, store.read(twice))
    assert first == second == ["one"]
    assert await store.read(kinds) == ["one", "two"]


async def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError, match="readonly"):
        await store.read(lambda conn: conn.exec_driver_sql("DELETE FROM journal"))


async def test_a_reads_own_error_comes_through_and_the_store_goes_on(store: Store) -> None:
    def wrong(conn: Connection) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await store.read(wrong)
    for _ in range(20):
        assert await store.read(kinds) == []


async def test_time_of_a_unit_is_the_clocks(store: Store, clock: ManualClock) -> None:
    await store.write(lambda tx: tx.record("x", {}))
    clock.advance(5)
    await store.write(lambda tx: tx.record("y", {}))
    rows = await store.read(lambda conn: conn.execute(select(JOURNAL.c.at)).scalars().all())
    assert rows[1] - rows[0] == 5


async def test_damage_while_in_use_is_told_at_once(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "midwatch.db"
    store = await Store.open(path, clock, ballast_size=0)
    for number in range(200):
        await store.write(lambda tx, number=number: tx.record("filler", {"n": number, "text": "x" * 500}))  # type: ignore[misc]
    await store.close()

    store = await Store.open(path, clock, ballast_size=0)
    told: list[str] = []
    store.on_damage = lambda: told.append("damaged")
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 8192))
    with pytest.raises(StoreDamaged):
        await store.read(lambda conn: conn.exec_driver_sql("SELECT sum(length(payload)) FROM journal").all())
    assert told == ["damaged"]
    await store.close()
