"""Reloading by itself: real files, the kernel's own notices, and a daemon that follows them."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest
from fakes.home import ALLOW, Home, until

from daemon.app.app import App
from daemon.app.assemble import Assembly, assemble
from daemon.app.follow import Follower
from daemon.clock import SystemClock

FOLLOW = 'reload_on_change = "300ms"'
QUIET = 0.3
BROKEN = ALLOW.replace('effect = "allow"', 'effect = "perhaps"')


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.configure(daemon=FOLLOW)
    return home


def _rules(app: App) -> set[str]:
    return {rule.id for rule in app.shift.assembly.policy.rules}


async def _has_mend(app: App) -> bool:
    return "mend" in _rules(app)


async def test_a_new_file_is_taken_up_once_it_rests(home: Home) -> None:
    async with home.running() as app:
        began = time.monotonic()
        home.allow()
        await until(lambda: _has_mend(app))
        assert time.monotonic() - began >= QUIET


async def test_while_somebody_still_writes_nothing_is_taken_up(home: Home) -> None:
    async with home.running() as app:
        for _ in range(10):
            written = time.monotonic()
            home.allow()
            await asyncio.sleep(QUIET / 3)
            taken_up = await _has_mend(app)
            if time.monotonic() - written >= QUIET:
                break  # the machine slept longer than that, which is a rest
            assert not taken_up
        await until(lambda: _has_mend(app))


async def test_a_broken_file_leaves_the_old_in_force_until_it_is_mended(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused() -> bool:
        return f"not reloaded, the old one stays in force: {law}:6: " in caplog.text

    async with home.running() as app:
        digest = app.shift.assembly.policy.digest
        law = home.allow(BROKEN)
        await until(refused)
        assert app.shift.assembly.policy.digest == digest
        home.allow()
        await until(lambda: _has_mend(app))
    assert caplog.text.count("not reloaded") == 1


async def test_directories_may_come_later_and_be_replaced(home: Home) -> None:
    home.path("policies.d").rmdir()
    async with home.running() as app:
        home.path("policies.d").mkdir(mode=0o700)
        home.allow()
        await until(lambda: _has_mend(app))
        shutil.rmtree(home.path("policies.d"))
        home.path("policies.d").mkdir(mode=0o700)
        await until(lambda: _lacks_mend(app))
        home.allow()
        await until(lambda: _has_mend(app))


async def _lacks_mend(app: App) -> bool:
    return "mend" not in _rules(app)


async def test_it_can_be_switched_on_and_off_by_a_reload(home: Home) -> None:
    home.configure()
    async with home.running() as app:
        home.configure(daemon=FOLLOW)
        await app.reload()
        home.allow()
        await until(lambda: _has_mend(app))
        home.configure()
        await until(lambda: _follows_not(app))
        home.path("policies.d/site.toml").unlink()
        await asyncio.sleep(3 * QUIET)
        assert await _has_mend(app)


async def _follows_not(app: App) -> bool:
    return app.shift.assembly.config.settings.daemon.reload_on_change is None


async def test_its_own_journal_is_no_change(home: Home) -> None:
    async with home.running() as app:
        shift = app.shift
        for _ in range(4):
            await home.post("/holds/tide")
            await asyncio.sleep(QUIET)
        assert app.shift is shift


class Watched:
    """What a Follower is given, without a daemon around it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now: Assembly = assemble(path)
        self.reloads = 0
        self.fails = 0
        self.follower = Follower(lambda: self.now, self.reload, SystemClock(), retry=0.1)

    async def reload(self) -> None:
        self.reloads += 1
        if self.fails:
            self.fails -= 1
            raise RuntimeError("a fault of ours")
        self.now = assemble(self.path)
        self.follower.turn()


async def test_a_fault_in_a_reload_does_not_end_the_following(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(home.config)
    watched.fails = 1
    following = asyncio.create_task(watched.follower.run())
    home.allow()

    async def twice() -> bool:
        return watched.reloads == 2

    await until(twice)
    assert "the files cannot be followed; tried again" in caplog.text
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert following.cancelled()


async def test_what_changed_before_anybody_followed_it_is_taken_up(home: Home) -> None:
    watched = Watched(home.config)
    home.allow()
    following = asyncio.create_task(watched.follower.run())

    async def once() -> bool:
        return watched.reloads == 1

    await until(once)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
