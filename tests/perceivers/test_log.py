"""What the log perceiver tells: observations, bounds, blindness, wake-ups. Rotation and restarts have suites of their own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.log_world import PROBE, LogWorld, once, open_for_reading
from pydantic import ValidationError

from perceivers.base import Observation, PerceiverBlind, Rule, Spec, Tools
from perceivers.log import KIND, LogSettings, build, printable


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[LogWorld]:
    world = LogWorld(tmp_path / "app.log")
    world.path.touch()
    await world.poll()
    yield world
    await world.perceiver.close()


def reading(world: LogWorld) -> Observation:
    return next(seen for seen in world.batch.observations if not seen.rule)


async def test_one_observation_per_rule_and_key(tmp_path: Path) -> None:
    rules = (
        Rule("failed", r"Failed (?P<what>\w+) from (?P<ip>\S+)", "ip"),
        Rule("any", "from"),
        Rule("none", "never there"),
    )
    world = LogWorld(tmp_path / "auth.log", rules)
    world.path.touch()
    await world.poll()
    before = time.time()
    world.append(b"Failed password from 192.0.2.1\n" * 4 + b"Failed key from 192.0.2.2\nfrom nowhere\n")
    hits = {(seen.rule, seen.key): seen for seen in await world.poll()}
    await world.perceiver.close()
    assert {place: seen.count for place, seen in hits.items()} == {
        ("failed", "192.0.2.1"): 4,
        ("failed", "192.0.2.2"): 1,
        ("any", ""): 6,
    }
    seen = hits["failed", "192.0.2.1"]
    assert seen.samples == ("Failed password from 192.0.2.1",) * 3
    assert seen.captures == {"what": "password", "ip": "192.0.2.1"}
    assert before <= seen.first <= seen.last <= time.time()
    assert (seen.perceiver, seen.resource) == ("log", "service:api")


async def test_begins_at_the_end(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "app.log")
    world.append(b"probe 1\nprobe 2, begun before anybody loo")
    await world.poll()
    world.append(b"ked\nprobe 3\n")
    await world.poll()
    await world.perceiver.close()
    assert world.seen == once(3)


async def test_from_start(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "app.log", from_start=True)
    world.write(1, 2)
    await world.poll()
    await world.perceiver.close()
    assert world.seen == once(1, 2)


async def test_missing_file_is_told_and_waited_for(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "later" / "app.log")
    await world.poll()
    missing = reading(world)
    assert missing.values == {"exists": False, "lines": 0, "idle": None}
    assert "no such file" in missing.unreadable
    world.path.parent.mkdir()
    world.write(1)
    await world.poll()
    await world.perceiver.close()
    assert world.seen == once(1)
    assert reading(world).values["exists"] is True
    assert reading(world).values["lines"] == 1


async def test_idle_tells_since_when_nothing_was_written(log: LogWorld) -> None:
    os.utime(log.path, (time.time() - 600,) * 2)
    await log.poll()
    assert reading(log).values["idle"] == pytest.approx(600, abs=30)


async def test_permission_denied_is_blindness_with_advice(tmp_path: Path) -> None:
    def refuse(path: str) -> int:
        raise PermissionError(13, "Permission denied", path)

    path = tmp_path / "app.log"
    path.touch(mode=0o640)
    perceiver = build(
        Spec("log", "host", LogSettings(path=str(path))), Tools(time.time, time.monotonic, refuse)
    )
    with pytest.raises(PerceiverBlind, match="permission denied; let the daemon's user read it"):
        await perceiver.poll()
    await perceiver.close()


async def test_what_was_denied_at_first_begins_at_its_end(tmp_path: Path) -> None:
    allowed = False

    def open_if_allowed(path: str) -> int:
        if not allowed:
            raise PermissionError(13, "Permission denied", path)
        return open_for_reading(path)

    world = LogWorld(tmp_path / "app.log")
    world.write(1)
    spec = Spec("log", "host", LogSettings(path=str(world.path)), (PROBE,))
    world.perceiver = build(spec, Tools(time.time, time.monotonic, open_if_allowed))  # type: ignore[assignment]
    with pytest.raises(PerceiverBlind):
        await world.poll()
    allowed = True
    await world.poll()
    world.write(2)
    await world.poll()
    await world.perceiver.close()
    assert world.seen == once(2)


@pytest.mark.parametrize("kind", ["directory", "fifo"])
async def test_not_a_regular_file_is_blindness(tmp_path: Path, kind: str) -> None:
    world = LogWorld(tmp_path / "app.log")
    world.path.mkdir() if kind == "directory" else os.mkfifo(world.path)
    with pytest.raises(PerceiverBlind, match="not a regular file"):
        await world.poll()


async def test_keys_of_one_poll_are_bounded(log: LogWorld) -> None:
    log.write(*range(1500))
    hits = await log.poll()
    assert len(hits) == 1001
    assert {seen.key: seen.count for seen in hits}["*"] == 500
    assert sum(seen.count for seen in hits) == 1500


async def test_outsiders_text_is_cut_and_made_harmless(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "app.log", (Rule("user", r"user=(?P<user>.+)", "user"),))
    world.path.touch()
    await world.poll()
    world.append("user=\x1b]0;owned\x07\u202e\u2028\x9b2J\ttab".encode() + b"\xff\x00x" + b"y" * 2000 + b"\n")
    (seen,) = await world.poll()
    await world.perceiver.close()
    assert len(seen.key) == 200
    assert len(seen.captures["user"]) == 200
    assert len(seen.samples[0]) == 512
    assert all(text.isprintable() for text in (seen.key, seen.captures["user"], seen.samples[0]))


def test_printable_keeps_what_is_harmless() -> None:
    assert printable("Grüße, 世界 🙂", 100) == "Grüße, 世界 🙂"
    assert printable("a\tb\x1b[31m", 100) == "a b\ufffd[31m"
    assert printable("abc", 2) == "ab"


async def test_budget_leaves_the_rest_for_the_next_poll_and_wakes_it(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "app.log", budget=256 * 1024)
    world.path.touch()
    await world.poll()
    woken = asyncio.Event()
    world.perceiver.wake_on(woken.set)
    world.append(b"nothing of interest in this line\n" * 40_000)
    world.write(1)
    await world.poll()
    assert world.seen == {}
    polls = 0
    while not world.seen:
        await woken.wait()
        woken.clear()
        await world.poll()
        polls += 1
    await world.perceiver.close()
    assert world.seen == once(1)
    assert polls >= 2


async def test_slow_rules_end_a_poll_by_time(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "app.log")
    world.path.touch()
    await world.poll()

    def a_second_for_every_look() -> float:
        world.monotonic += 1.0
        return world.monotonic

    tools = Tools(time.time, a_second_for_every_look, open_for_reading)
    slow = build(Spec("log", "host", LogSettings(path=str(world.path)), (PROBE,)), tools)
    assert world.batch.cursor is not None
    slow.restore(world.batch.cursor)
    world.append(b"nothing of interest in this line\n" * 20_000)
    batch = await slow.poll()
    assert batch.cursor is not None
    assert 0 < batch.cursor["files"][str(world.path)]["offset"] < world.path.stat().st_size
    await slow.close()
    await world.perceiver.close()


async def test_cancelled_poll_has_read_nothing(log: LogWorld) -> None:
    log.append(b"nothing of interest in this line\n" * 20_000)
    log.write(1)
    poll = asyncio.create_task(log.perceiver.poll())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    poll.cancel()
    with pytest.raises(asyncio.CancelledError):
        await poll
    await log.poll()
    await log.poll()
    assert log.seen == once(1)


async def test_glob_follows_all_and_what_is_renamed_among_them(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "*.log*")
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    first.touch()
    await world.poll()
    world.write(1, to=first)
    world.write(2, to=second)
    await world.poll()
    rotated = first.rename(tmp_path / "a.log.1")
    world.write(3, to=rotated)
    world.write(4, to=first)
    await world.poll()
    await world.pass_grace()
    world.write(5, to=rotated)
    await world.die_and_restart()
    await world.poll()
    await world.perceiver.close()
    assert world.seen == once(1, 2, 3, 4, 5)


async def test_glob_is_bounded_and_says_so(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "*.log", most_files=2)
    for name in "abc":
        world.write(1, to=tmp_path / f"{name}.log")
    await world.poll()
    assert "3 files match, at most 2 are followed" in reading(world).unreadable
    (tmp_path / "a.log").unlink()
    await world.poll()
    assert reading(world).unreadable == ""
    await world.perceiver.close()


async def test_busy_file_of_a_glob_does_not_starve_the_others(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "*.log", budget=256 * 1024)
    busy, calm = tmp_path / "a.log", tmp_path / "b.log"
    busy.touch()
    calm.touch()
    await world.poll()
    world.append(b"nothing of interest in this line\n" * 100_000, to=busy)
    world.write(1, to=calm)
    await world.poll()
    await world.perceiver.close()
    assert world.seen == once(1)


async def test_line_wakes_the_poll(log: LogWorld) -> None:
    woken = asyncio.Event()
    log.perceiver.wake_on(woken.set)
    log.write(1)
    await woken.wait()
    await log.poll()
    assert log.seen == once(1)


async def test_line_written_through_a_symbolic_link_wakes_the_poll(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "current-1.txt"
    real.touch()
    world = LogWorld(tmp_path / "app.log")
    world.path.symlink_to(real)
    await world.poll()
    woken = asyncio.Event()
    world.perceiver.wake_on(woken.set)
    world.write(1, to=real)
    await woken.wait()
    await world.poll()
    await world.perceiver.close()
    assert world.seen == once(1)


async def test_poll_leaves_the_world_as_it_is(log: LogWorld) -> None:
    log.write(1)
    before = (sorted(os.listdir(log.path.parent)), log.path.read_bytes())
    await log.poll()
    assert (sorted(os.listdir(log.path.parent)), log.path.read_bytes()) == before


def test_settings_say_what_is_accepted() -> None:
    with pytest.raises(ValidationError, match="must be absolute"):
        LogSettings(path="app.log")
    assert KIND.rules
