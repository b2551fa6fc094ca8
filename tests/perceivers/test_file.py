from __future__ import annotations

import asyncio
import grp
import hashlib
import json
import os
import pwd
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fakes.log_world import open_for_reading
from fakes.ordinary import ordinary_user
from pydantic import ValidationError

from perceivers.base import Batch, Observation, PerceiverBlind, Spec, Tools
from perceivers.file import ENTRIES, KIND, FilePerceiver, FileSettings, build

TOOLS = Tools(time.time, time.monotonic, open_for_reading)
CHANGES = ("changed", "content_changed", "mode_changed", "owner_changed")


class FileWorld:
    """Polls one path; a restart keeps nothing but the last cursor, as JSON."""

    def __init__(self, path: Path, tools: Tools = TOOLS, **settings: Any) -> None:
        self.path = path
        self.tools = tools
        self._spec = Spec("file", "service:api", FileSettings(path=str(path), **settings))
        self.perceiver = FilePerceiver(self._spec, tools)
        self.batch = Batch()

    async def poll(self) -> Observation:
        self.batch = await self.perceiver.poll()
        (seen,) = self.batch.observations
        assert set(seen.values) <= set(KIND.values)
        return seen

    async def changes(self) -> set[str]:
        values = (await self.poll()).values
        return {name for name in CHANGES if values[name]}

    async def restart(self) -> None:
        await self.perceiver.close()
        self.perceiver = FilePerceiver(self._spec, self.tools)
        self.perceiver.restore(json.loads(json.dumps(self.batch.cursor)))


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[FileWorld]:
    path = tmp_path / "app.conf"
    path.write_text("one")
    path.chmod(0o644)
    world = FileWorld(path)
    yield world
    await world.perceiver.close()


async def test_values_of_a_file(file: FileWorld) -> None:
    os.utime(file.path, (time.time() - 100,) * 2)
    seen = await file.poll()
    values = dict(seen.values)
    assert values.pop("age") == pytest.approx(100, abs=30)
    assert values == {
        "path": str(file.path),
        "exists": True,
        "changed": False,
        "content_changed": False,
        "mode_changed": False,
        "owner_changed": False,
        "sha256": hashlib.sha256(b"one").hexdigest(),
        "mode": "0644",
        "owner": pwd.getpwuid(os.getuid()).pw_name,
        "group": grp.getgrgid(os.getgid()).gr_name,
        "size_bytes": 3,
    }
    assert (seen.perceiver, seen.resource, seen.unreadable) == ("file", "service:api", "")


async def test_change_is_told_once(file: FileWorld) -> None:
    assert await file.changes() == set()
    file.path.write_text("two")
    assert await file.changes() == {"changed", "content_changed"}
    assert await file.changes() == set()


async def test_same_content_written_again_is_no_change(file: FileWorld) -> None:
    await file.poll()
    file.path.write_text("one")
    os.utime(file.path, (1, 1))
    assert await file.changes() == set()


async def test_change_that_keeps_size_and_time_is_seen(file: FileWorld) -> None:
    await file.poll()
    before = file.path.stat()
    file.path.write_text("two")
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await file.changes() == {"changed", "content_changed"}


async def test_replaced_by_rename(file: FileWorld) -> None:
    await file.poll()
    new = file.path.with_suffix(".new")
    new.write_text("two")
    new.chmod(0o644)
    new.rename(file.path)
    assert await file.changes() == {"changed", "content_changed"}


async def test_mode_change(file: FileWorld) -> None:
    await file.poll()
    file.path.chmod(0o4755)
    assert (await file.poll()).values["mode"] == "4755"
    file.path.chmod(0o600)
    assert await file.changes() == {"changed", "mode_changed"}


async def test_owner_change_and_an_owner_without_a_name(file: FileWorld) -> None:
    await file.poll()
    assert file.batch.cursor is not None
    file.perceiver.restore({**file.batch.cursor, "owner": 54321})
    assert await file.changes() == {"changed", "owner_changed"}


async def test_going_and_coming_are_changes(file: FileWorld) -> None:
    await file.poll()
    file.path.unlink()
    gone = await file.poll()
    assert (gone.values["exists"], gone.values["changed"]) == (False, True)
    assert await file.changes() == set()
    file.path.write_text("one")
    assert await file.changes() == {"changed", "content_changed"}


async def test_missing_from_the_start_is_no_change(tmp_path: Path) -> None:
    world = FileWorld(tmp_path / "none")
    assert await world.changes() == set()
    assert await world.changes() == set()


@pytest.mark.parametrize("content", ["one", "two"])
async def test_restart_remembers_what_was_seen(file: FileWorld, content: str) -> None:
    await file.poll()
    await file.restart()
    file.path.write_text(content)
    assert ("changed" in await file.changes()) == (content == "two")


async def test_cursor_of_another_path_says_nothing(file: FileWorld) -> None:
    await file.poll()
    assert file.batch.cursor is not None
    other = FileWorld(file.path.with_name("other"))
    other.perceiver.restore(file.batch.cursor)
    assert await other.changes() == set()


async def test_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    opened: list[str] = []

    def counting(path: str) -> int:
        opened.append(path)
        return open_for_reading(path)

    path = tmp_path / "app.conf"
    path.write_text("one")
    world = FileWorld(path, Tools(time.time, time.monotonic, counting))
    await world.poll()
    await world.poll()
    assert opened == [str(path)]


async def test_unreadable_content_is_none_with_a_reason_and_no_change(tmp_path: Path) -> None:
    refused = False

    def perhaps(path: str) -> int:
        if refused:
            raise PermissionError(13, "Permission denied", path)
        return open_for_reading(path)

    path = tmp_path / "app.conf"
    path.write_text("one")
    world = FileWorld(path, Tools(time.time, time.monotonic, perhaps))
    await world.poll()
    refused = True
    path.write_text("two")
    seen = await world.poll()
    assert (seen.values["sha256"], seen.values["content_changed"], seen.values["changed"]) == (
        None,
        None,
        None,
    )
    assert "Permission denied; let the daemon's user read it" in seen.unreadable
    assert seen.values["size_bytes"] == 3
    refused = False
    assert await world.changes() == {"changed", "content_changed"}


async def test_large_file_is_not_hashed(file: FileWorld) -> None:
    world = FileWorld(file.path, largest=2)
    seen = await world.poll()
    assert seen.values["sha256"] is None
    assert "has 3 bytes; files above 2 are not hashed" in seen.unreadable


async def test_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    seen = await FileWorld(tmp_path / "fifo").poll()
    assert seen.values["sha256"] is None
    assert "not a regular file" in seen.unreadable


async def test_file_that_is_being_written_is_looked_at_again(file: FileWorld) -> None:
    await file.poll()
    file.path.write_bytes(b"x" * 600_000)
    poll = asyncio.create_task(file.poll())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with file.path.open("ab") as writer:
        writer.write(b"more")
    seen = await poll
    assert seen.values["content_changed"] is None
    assert "was being written" in seen.unreadable
    assert await file.changes() == {"changed", "content_changed"}


async def test_directory_that_may_not_be_searched_is_blindness(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with ordinary_user(), pytest.raises(PerceiverBlind, match="search"):
        await FileWorld(closed / "app.conf").poll()


# directories ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def tree(tmp_path: Path) -> AsyncIterator[FileWorld]:
    root = tmp_path / "backups"
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / "a.dump").write_bytes(b"x" * 10)
    (root / "deep" / "b.dump").write_bytes(b"x" * 20)
    (root / "deep" / "deeper" / "notes.txt").write_bytes(b"x" * 40)
    (root / "deep" / "loop").symlink_to(root)
    (root / "c.dump").symlink_to(root / "a.dump")
    world = FileWorld(root)
    yield world
    await world.perceiver.close()


async def test_values_of_a_directory(tree: FileWorld) -> None:
    os.utime(tree.path / "a.dump", (time.time() - 1000,) * 2)
    os.utime(tree.path / "deep" / "b.dump", (time.time() - 500,) * 2)
    os.utime(tree.path / "deep" / "deeper" / "notes.txt", (time.time() - 2000,) * 2)
    seen = await tree.poll()
    assert (seen.values["files"], seen.values["size_bytes"], seen.values["truncated"]) == (3, 70, False)
    assert seen.values["age"] == pytest.approx(500, abs=30)
    assert "sha256" not in seen.values
    assert seen.unreadable == ""


async def test_match_chooses_by_name(tree: FileWorld) -> None:
    values = (await FileWorld(tree.path, match=["*.dump"]).poll()).values
    assert (values["files"], values["size_bytes"]) == (2, 30)


async def test_changes_in_a_directory(tree: FileWorld) -> None:
    assert await tree.changes() == set()
    (tree.path / "deep" / "new").touch()
    assert await tree.changes() == {"changed", "content_changed"}
    assert await tree.changes() == set()
    await tree.restart()
    (tree.path / "a.dump").unlink()
    assert await tree.changes() == {"changed", "content_changed"}


async def test_walk_is_bounded_and_says_so(tree: FileWorld) -> None:
    world = FileWorld(tree.path, most_entries=3)
    seen = await world.poll()
    assert (seen.values["truncated"], seen.values["content_changed"]) == (True, None)
    assert "more than 3 entries (`most_entries`); the numbers are a lower bound" in seen.unreadable


async def test_long_walk_leaves_others_their_turn(tree: FileWorld) -> None:
    for number in range(2 * ENTRIES):
        (tree.path / str(number)).touch()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await tree.poll()
    beside.cancel()
    assert turns >= 2


# waking --------------------------------------------------------------------------------------------------------------


async def test_change_wakes_the_poll(file: FileWorld) -> None:
    await file.poll()
    woken = asyncio.Event()
    file.perceiver.wake_on(woken.set)
    file.path.write_text("two")
    await woken.wait()
    assert "changed" in await file.changes()


def test_settings_say_what_is_accepted() -> None:
    with pytest.raises(ValidationError, match="must be absolute"):
        FileSettings(path="etc/app.conf")
    assert FileSettings(path="/etc/app/").path == "/etc/app"
    assert build(Spec("file", "host", FileSettings(path="/etc")), TOOLS).kind == "file"
