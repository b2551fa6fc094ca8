"""After kill -9 there is nothing but the last cursor; still every probe is seen exactly once."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.log_world import LogWorld, once


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[LogWorld]:
    path = tmp_path / "app.log"
    path.touch()
    world = LogWorld(path)
    await world.poll()
    world.write(1)
    await world.poll()
    yield world
    await world.perceiver.close()


async def test_cursor_is_plain_json(log: LogWorld) -> None:
    found = log.path.stat()
    line = b"a line with probe 1 in it\n"
    assert json.loads(json.dumps(log.batch.cursor)) == log.batch.cursor
    assert log.batch.cursor == {
        "path": str(log.path),
        "files": {
            str(log.path): {
                "inode": found.st_ino,
                "device": found.st_dev,
                "offset": len(line),
                "guard": line.hex(),
                "skipping": False,
            }
        },
        "rotated": [],
    }


async def test_written_while_down(log: LogWorld) -> None:
    log.write(2)
    await log.die_and_restart()
    await log.poll()
    assert log.seen == once(1, 2)


async def test_rotated_while_down(log: LogWorld) -> None:
    log.write(2)
    log.rotate()
    log.write(3)
    await log.die_and_restart()
    await log.poll()
    await log.pass_grace()
    assert log.seen == once(1, 2, 3)


async def test_rotated_while_down_and_the_new_file_comes_later(log: LogWorld) -> None:
    log.write(2)
    log.rotate("-20260102", create=False)
    await log.die_and_restart()
    await log.poll()
    assert log.seen == once(1, 2)
    log.write(3)
    await log.poll()
    assert log.seen == once(1, 2, 3)


async def test_rotated_three_times_while_down_by_numbers(log: LogWorld) -> None:
    for probe in (2, 3, 4):
        log.write(probe)
        for number in (2, 1):
            if (older := log.sibling(f".{number}")).exists():
                older.rename(log.sibling(f".{number + 1}"))
        log.rotate()
    log.write(5)
    log.sibling(".4").write_bytes(b"probe 999\n")
    await log.die_and_restart()
    await log.poll()
    await log.pass_grace()
    assert log.seen == once(1, 2, 3, 4, 5)


async def test_rotated_three_times_while_down_by_dates(log: LogWorld) -> None:
    log.sibling("-20260101").write_bytes(b"probe 999\n")
    log.sibling("-errors").write_bytes(b"probe 998\n")
    for probe in (2, 3, 4):
        log.write(probe)
        log.rotate(f"-2026010{probe}")
    log.write(5)
    await log.die_and_restart()
    await log.poll()
    await log.pass_grace()
    assert log.seen == once(1, 2, 3, 4, 5)


async def test_killed_while_the_rotated_file_was_still_followed(log: LogWorld) -> None:
    rotated = log.rotate()
    await log.poll()
    log.write(2, to=rotated)
    log.write(3)
    await log.die_and_restart()
    await log.poll()
    await log.pass_grace()
    assert log.seen == once(1, 2, 3)


async def test_truncated_and_regrown_while_down(log: LogWorld) -> None:
    os.truncate(log.path, 0)
    log.append(b"something quite different, and longer than what was there before\n")
    log.write(2)
    await log.die_and_restart()
    await log.poll()
    assert log.seen == once(1, 2)


async def test_deleted_and_recreated_while_down(log: LogWorld) -> None:
    log.path.unlink()
    log.append(b"a new file, which may well have the inode of the old one\n")
    log.write(2)
    await log.die_and_restart()
    await log.poll()
    assert log.seen == once(1, 2)


async def test_an_unrelated_file_with_the_old_inode_is_left_alone(log: LogWorld) -> None:
    other = log.path.rename(log.path.with_name("other.txt"))
    other.write_bytes(b"these bytes are not those that were read here; probe 999\n")
    await log.die_and_restart()
    await log.poll()
    assert log.seen == once(1)


async def test_within_a_long_line(log: LogWorld) -> None:
    log.append(b"probe 2 " + b"x" * 100_000)
    await log.poll()
    await log.die_and_restart()
    log.append(b" probe 999\n")
    log.write(3)
    await log.poll()
    assert log.seen == once(1, 2, 3)


async def test_partial_line_is_held_back_over_a_restart(log: LogWorld) -> None:
    log.append(b"prob")
    await log.poll()
    await log.die_and_restart()
    log.append(b"e 2\n")
    await log.poll()
    assert log.seen == once(1, 2)


async def test_the_device_has_another_number_after_a_boot(log: LogWorld) -> None:
    assert log.batch.cursor is not None
    log.batch.cursor["files"][str(log.path)]["device"] += 1
    log.write(2)
    await log.die_and_restart()
    await log.poll()
    assert log.seen == once(1, 2)


async def test_cursor_of_another_path_says_nothing(log: LogWorld, tmp_path: Path) -> None:
    log.path.rename(tmp_path / "renamed.log")
    other = LogWorld(tmp_path / "renamed.log")
    assert log.batch.cursor is not None
    other.perceiver.restore(log.batch.cursor)
    await other.poll()
    other.write(2)
    await other.poll()
    await other.perceiver.close()
    assert other.seen == once(2)


async def test_batch_that_could_not_be_committed_is_read_again(log: LogWorld) -> None:
    """The journal was full: the perceiver goes on from the older cursor, even in a file that has no name any more."""
    committed = log.batch.cursor
    assert committed is not None
    log.write(2)
    log.path.unlink()
    await log.poll()
    await log.pass_grace()
    log.seen = {}
    log.perceiver.restore(committed)
    await log.poll()
    assert log.seen == once(2)
