"""A process that dies at any moment loses nothing that it was told is on disk."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.clock import ManualClock
from daemon.store import journal
from daemon.store.store import Store

WRITES = """
import asyncio, sys
from pathlib import Path
from daemon.clock import SystemClock
from daemon.store.crashpoints import point
from daemon.store.store import Store, Tx

async def write(store: Store, lane: int) -> None:
    for number in range(100000):
        name = f"{lane}-{number}"
        def work(tx: Tx) -> None:
            tx.record("lane", {"name": name, "filler": "x" * 200})
            if number > 20:
                point("inside_unit")
            tx.record("lane", {"name": name + "b"})
        await store.write(work)
        print(name, flush=True)

async def main() -> None:
    store = await Store.open(Path(sys.argv[1]), SystemClock(), ballast_size=0)
    await asyncio.gather(*(write(store, lane) for lane in range(8)))

asyncio.run(main())
"""


def life(path: Path, environment: dict[str, str], kill_after: float | None) -> list[str]:
    """One process that writes until it is killed; gives the names that it was answered for."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        answered = [child.stdout.readline()]
        if kill_after is not None:
            time.sleep(kill_after)
            child.kill()
        answered += child.stdout.readlines()
        assert child.wait() == -signal.SIGKILL
    return [line.strip() for line in answered if line.endswith("\n")]


@pytest.mark.parametrize("crash", ["inside_unit", None], ids=["inside a unit", "at random"])
async def test_nothing_that_was_answered_is_lost(
    tmp_path: Path, clock: ManualClock, crash: str | None
) -> None:
    path = tmp_path / "midwatch.db"
    environment = {
        "PYTHONPATH": ":".join(filter(None, sys.path)),
        "MIDWATCH_CRASH": crash or "",
        "MIDWATCH_CRASH_P": "0.02",
    }
    answered: list[str] = []
    for _ in range(4):
        answered += life(path, environment, None if crash else random.uniform(0.0, 0.3))
    store = await Store.open(path, clock, ballast_size=0)
    assert store.observe_only == ""
    report = await store.read(journal.verify)
    assert report.problems == []
    await store.close()
    with sqlite3.connect(path) as conn:
        kept = [row[0] for row in conn.execute("SELECT json_extract(payload, '$.name') FROM journal")]
    conn.close()
    assert answered
    assert set(answered) <= set(kept)
    assert {f"{name}b" for name in kept if not name.endswith("b")} == {
        name for name in kept if name.endswith("b")
    }
