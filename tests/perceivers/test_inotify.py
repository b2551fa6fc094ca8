from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perceivers.inotify import Inotify


class Bell:
    """Counts wakes and lets one wait for the next."""

    def __init__(self) -> None:
        self.rings = 0
        self.rung = asyncio.Event()

    def ring(self) -> None:
        self.rings += 1
        self.rung.set()

    async def heard(self) -> None:
        await self.rung.wait()
        self.rung.clear()


@contextmanager
def watching(directory: Path, bell: Bell, name: str = "app.log", pause: float = 0.0) -> Iterator[Inotify]:
    inotify = Inotify(bell.ring, name.__eq__, pause)
    inotify.watch([str(directory)])
    yield inotify
    inotify.close()


async def test_wakes_when_the_file_is_made_written_moved_and_removed(tmp_path: Path) -> None:
    bell = Bell()
    path = tmp_path / "app.log"
    with watching(tmp_path, bell):
        for change in (path.touch, lambda: path.write_text("x"), lambda: path.chmod(0o600)):
            change()
            await bell.heard()
        path.rename(tmp_path / "aside")
        await bell.heard()
        (tmp_path / "aside").rename(path)
        await bell.heard()
        path.unlink()
        await bell.heard()


async def test_other_names_do_not_wake(tmp_path: Path) -> None:
    bell = Bell()
    with watching(tmp_path, bell):
        (tmp_path / "other").write_text("x")
        (tmp_path / "app.log").touch()
        await bell.heard()
    assert bell.rings == 1


async def test_busy_writer_wakes_once_per_pause(tmp_path: Path) -> None:
    bell = Bell()
    loop = asyncio.get_running_loop()
    with watching(tmp_path, bell, pause=0.05):
        started = loop.time()
        while bell.rings < 4:
            (tmp_path / "app.log").write_text("x")
            await asyncio.sleep(0)
        # Four wakes have three pauses between them.
        assert loop.time() - started >= 3 * 0.05 * 0.9


async def test_directory_that_was_replaced_is_found_when_watched_again(tmp_path: Path) -> None:
    bell = Bell()
    directory = tmp_path / "logs"
    with watching(directory, bell) as inotify:
        directory.mkdir()
        inotify.watch([str(directory)])
        directory.rmdir()
        await bell.heard()
        directory.mkdir()
        inotify.watch([str(directory)])
        (directory / "app.log").touch()
        await bell.heard()


async def test_without_inotify_nothing_wakes_and_nothing_fails(tmp_path: Path) -> None:
    bell = Bell()
    with _no_descriptor_left():
        inotify = Inotify(bell.ring, "app.log".__eq__, 0.0)
    inotify.watch([str(tmp_path)])
    (tmp_path / "app.log").touch()
    await asyncio.sleep(0)
    inotify.close()
    assert bell.rings == 0


@contextmanager
def _no_descriptor_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
