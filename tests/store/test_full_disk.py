"""A disk that is really full: a small file system of our own, in a namespace that an ordinary user may make."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FULL = """
import asyncio, os, sys
from pathlib import Path
from daemon.clock import SystemClock
from daemon.errors import StoreFull
from daemon.store import journal
from daemon.store.store import Store

def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

async def main(place: Path) -> None:
    store = await Store.open(place / "midwatch.db", SystemClock(), ballast_size=2 * 2**20)
    ballast = place / "midwatch.ballast"
    assert ballast.stat().st_blocks * 512 >= 2 * 2**20
    fill(place / "filler")
    for number in range(50):
        await store.write(lambda tx: tx.record("repair", {"number": number, "filler": "x" * 300}))
    assert not ballast.exists(), "nothing was released"
    await store.keep_house(1e9)
    assert not ballast.exists(), "ballast came back on a full disk"
    fill(place / "filler2")
    refused = 0
    for number in range(2000):
        try:
            await store.write(lambda tx: tx.record("late", {"filler": "x" * 4000}))
        except StoreFull:
            refused += 1
            break
    assert refused, "the disk never was full"
    assert len(await store.read(lambda conn: conn.exec_driver_sql("SELECT 1 FROM journal WHERE kind = 'repair'").all())) == 50
    (place / "filler").unlink()
    (place / "filler2").unlink()
    await store.write(lambda tx: tx.record("again", {}))
    await store.keep_house(1e9)
    assert ballast.stat().st_size == 2 * 2**20
    assert (await store.read(journal.verify)).problems == []
    await store.close()
    print("done")

asyncio.run(main(Path(sys.argv[1])))
"""
MOUNT = 'mount -t tmpfs -o size=8m,mode=0700 tmpfs "$1" && exec "$2" -c "$3" "$1"'


def may_mount(place: Path) -> bool:
    return shutil.which("unshare") is not None and run(place, "pass").returncode == 0


def run(place: Path, code: str) -> subprocess.CompletedProcess[str]:
    argv = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        MOUNT,
        "sh",
        str(place),
        sys.executable,
        code,
    ]
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=50, check=False)


def test_the_ballast_lets_the_repair_be_journaled_and_is_made_again_later(tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("no namespace may be made here, so no small file system")
    ended = run(tmp_path, FULL)
    assert ended.stdout == "done\n", ended.stderr
