"""Every probe exactly once, whatever is done to the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.log_world import LogWorld, once


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[LogWorld]:
    path = tmp_path / "app.log"
    path.write_bytes(b"an old line with probe 999\n")
    world = LogWorld(path)
    await world.poll()
    yield world
    await world.perceiver.close()


async def test_plain_appended_lines(log: LogWorld) -> None:
    log.write(*range(5))
    await log.poll()
    log.write(*range(5, 10))
    await log.poll()
    await log.poll()
    assert log.seen == once(*range(10))


async def test_rename_and_create_back_to_back(log: LogWorld) -> None:
    log.write(*range(10))
    log.rotate()
    log.write(*range(10, 20))
    await log.poll()
    await log.poll()
    assert log.seen == once(*range(20))


async def test_writer_goes_on_in_the_renamed_file(log: LogWorld) -> None:
    rotated = log.rotate()
    await log.poll()
    log.write(1, 2, to=rotated)
    await log.poll()
    log.write(3, to=rotated)
    await log.pass_grace()
    assert log.seen == once(1, 2, 3)


async def test_rotated_file_is_closed_after_the_grace(log: LogWorld) -> None:
    rotated = log.rotate()
    await log.poll()
    await log.pass_grace()
    await log.poll()
    assert str(rotated) not in _open_files()
    assert log.batch.cursor is not None
    assert log.batch.cursor["rotated"] == []


async def test_new_file_comes_later(log: LogWorld) -> None:
    log.write(*range(10))
    log.rotate(create=False)
    await log.poll()
    await log.pass_grace()
    log.write(*range(10, 20))
    await log.poll()
    await log.pass_grace()
    assert log.seen == once(*range(20))


async def test_renamed_there_and_back(log: LogWorld) -> None:
    log.write(1)
    aside = log.rotate(".aside", create=False)
    await log.poll()
    await log.pass_grace()
    log.write(2, to=aside)
    aside.rename(log.path)
    log.write(3)
    await log.poll()
    await log.pass_grace()
    assert log.seen == once(1, 2, 3)


async def test_copytruncate(log: LogWorld) -> None:
    log.write(*range(10))
    await log.poll()
    shutil.copy(log.path, log.sibling(".1"))
    os.truncate(log.path, 0)
    await log.poll()
    log.write(*range(10, 20))
    await log.poll()
    assert log.seen == once(*range(20))


async def test_truncated_and_regrown_larger(log: LogWorld) -> None:
    log.write(*range(15))
    await log.poll()
    os.truncate(log.path, 0)
    log.write(*range(15, 40))
    await log.poll()
    assert log.seen == once(*range(40))


async def test_truncated_under_a_writer_that_goes_on_at_its_old_place(log: LogWorld) -> None:
    with log.path.open("r+b", buffering=0) as writer:
        writer.seek(300_000)
        writer.write(b"x\nprobe 1\n")
        await log.poll()
        os.truncate(log.path, 0)
        writer.write(b"probe 2\n")
        await log.poll()
        writer.write(b"probe 3\n")
    await log.poll()
    assert log.seen == once(1, 2, 3)


async def test_half_a_line_and_later_the_other_half(log: LogWorld) -> None:
    log.append(b"half a line with pro")
    assert await log.poll() == []
    log.monotonic += 1.5
    log.append(b"be 1 in it\n")
    await log.poll()
    assert log.seen == once(1)


async def test_line_without_newline_is_taken_after_a_long_quiet_time(log: LogWorld) -> None:
    log.append(b"probe 1")
    await log.poll()
    assert log.seen == {}
    log.monotonic += 31
    await log.poll()
    log.append(b" and probe 2 on the same line\n")
    log.write(3)
    await log.poll()
    assert log.seen == once(1, 3)


async def test_line_without_newline_is_taken_at_rotation(log: LogWorld) -> None:
    log.append(b"probe 1")
    log.rotate()
    log.write(2)
    await log.poll()
    assert log.seen == once(2)
    await log.pass_grace()
    assert log.seen == once(1, 2)


async def test_nul_and_invalid_utf8_before_the_match(log: LogWorld) -> None:
    log.append(b"\x00\xff\xfe\xc3\x28\x00 probe 1\r\n")
    log.write(2)
    await log.poll()
    assert log.seen == once(1, 2)


@pytest.mark.parametrize("size", [65_535, 65_536, 262_143, 262_144, 1_000_000, 10_000_000])
async def test_probe_after_a_long_binary_line(log: LogWorld, size: int) -> None:
    log.append(b"probe 1 " + os.urandom(size).replace(b"\n", b"") + b"\n")
    log.write(2)
    await log.poll()
    assert log.seen == once(1, 2)


async def test_long_line_that_comes_in_pieces(log: LogWorld) -> None:
    log.append(b"probe 1 ")
    for _ in range(5):
        log.append(b"x" * 40_000)
        await log.poll()
    log.append(b" probe 2\n")
    log.write(3)
    await log.poll()
    assert log.seen == once(1, 3)


async def test_burst_with_probes_inside(log: LogWorld) -> None:
    for probe in range(101):
        log.append(b"nothing of interest in this line\n" * 300)
        log.write(probe)
    await log.poll()
    assert log.seen == once(*range(101))


async def test_deleted_and_recreated(log: LogWorld) -> None:
    log.write(1)
    log.path.unlink()
    await log.poll()
    log.write(2, 3)
    await log.poll()
    await log.pass_grace()
    log.write(4, 5)
    await log.poll()
    assert log.seen == once(1, 2, 3, 4, 5)


async def test_deleted_file_does_not_keep_its_space(log: LogWorld) -> None:
    log.path.unlink()
    await log.poll()
    assert any(name.startswith(str(log.path)) for name in _open_files())
    await log.pass_grace()
    await log.poll()
    assert not any(name.startswith(str(log.path)) for name in _open_files())


async def test_rotated_twice_between_two_polls(log: LogWorld) -> None:
    log.write(1)
    log.rotate()
    log.write(2)
    log.sibling(".1").rename(log.sibling(".2"))
    log.rotate()
    log.write(3)
    await log.poll()
    await log.pass_grace()
    assert log.seen == once(1, 2, 3)


def _open_files() -> list[str]:
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return names
