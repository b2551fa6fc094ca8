from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.perceiver_tools import open_for_reading, real_tools, tools_on
from fakes.probe_processes import Sleepers, sleepers
from pydantic import ValidationError

from daemon.clock import ManualClock
from perceivers.base import Observation, PerceiverBlind, Spec, Tools
from perceivers.process import FAREWELL, MOST_EACH, Expect, ProcessPerceiver, Settings

Watch = Callable[..., ProcessPerceiver]


@pytest.fixture
def children() -> Iterator[Sleepers]:
    with sleepers() as found:
        yield found


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    built: list[ProcessPerceiver] = []

    def build(tools: Tools | None = None, **settings: object) -> ProcessPerceiver:
        checked = Settings.model_validate(settings)
        built.append(ProcessPerceiver(Spec("app", "service:app", checked), tools or real_tools()))
        return built[-1]

    yield build
    for perceiver in built:
        await perceiver.close()


async def whole(perceiver: ProcessPerceiver) -> Observation:
    return (await perceiver.poll()).observations[0]


async def singles(perceiver: ProcessPerceiver) -> dict[str, Observation]:
    return {seen.key: seen for seen in (await perceiver.poll()).observations if seen.key}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


def pidfile(directory: Path, content: object) -> str:
    path = directory / "app.pid"
    path.write_text(f"{content}\n")
    return str(path)


# by pid file -------------------------------------------------------------------------------------------------------------


async def test_the_process_of_a_pid_file_is_up(watch: Watch, children: Sleepers, tmp_path: Path) -> None:
    pid = children.start()
    seen = await whole(watch(pidfile=pidfile(tmp_path, pid)))
    start = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    expected = {
        "up": True,
        "count": 1,
        "excess": 0,
        "zombies": 0,
        "error": "",
        "pid": pid,
        "start": start,
        "threads": 1,
    }
    assert {name: seen.values[name] for name in expected} == expected
    assert isinstance(seen.values["age"], float)
    assert 0 <= seen.values["age"] < 60


async def test_what_a_process_uses_is_told(watch: Watch, children: Sleepers, tmp_path: Path) -> None:
    values = (await whole(watch(pidfile=pidfile(tmp_path, children.start())))).values
    assert isinstance(values["rss_bytes"], int)
    assert values["rss_bytes"] > 4096
    assert isinstance(values["handles"], int)
    assert values["handles"] >= 3
    assert isinstance(values["handles_used"], float)
    assert 0 < values["handles_used"] < 1


@pytest.mark.parametrize("content", ["", "garbage", "-1", "0", "12 34"])
async def test_a_pid_file_without_a_pid_is_down(watch: Watch, tmp_path: Path, content: str) -> None:
    seen = await whole(watch(pidfile=pidfile(tmp_path, content)))
    assert seen.values["up"] is False
    assert "holds no pid" in str(seen.values["error"])


async def test_a_pid_file_may_have_more_lines(watch: Watch, children: Sleepers, tmp_path: Path) -> None:
    seen = await whole(
        watch(pidfile=pidfile(tmp_path, f"{children.start()}\n/var/lib/postgresql\n1700000000"))
    )
    assert seen.values["up"] is True


@pytest.mark.parametrize("missing", ["nowhere.pid", "nowhere/app.pid"])
async def test_a_missing_pid_file_is_down(watch: Watch, tmp_path: Path, missing: str) -> None:
    seen = await whole(watch(pidfile=str(tmp_path / missing)))
    assert (seen.values["up"], seen.values["count"], seen.values["pid"]) == (False, 0, None)
    assert "there is no pid file" in str(seen.values["error"])


async def test_a_pid_file_of_a_process_that_is_gone_is_stale(
    watch: Watch, children: Sleepers, tmp_path: Path
) -> None:
    perceiver = watch(pidfile=pidfile(tmp_path, children.start()))
    assert (await whole(perceiver)).values["up"] is True
    children.kill()
    seen = await whole(perceiver)
    assert seen.values["up"] is False
    assert "is gone" in str(seen.values["error"])
    assert seen.values["cpu"] == 0.0


async def test_a_pid_file_older_than_its_process_is_stale(
    watch: Watch, children: Sleepers, tmp_path: Path
) -> None:
    path = pidfile(tmp_path, children.start())
    os.utime(path, (1_000_000_000, 1_000_000_000))
    seen = await whole(watch(pidfile=path))
    assert seen.values["up"] is False
    assert "younger than the file" in str(seen.values["error"])


async def test_a_step_of_the_clock_kills_nobody(watch: Watch, children: Sleepers, tmp_path: Path) -> None:
    clock = ManualClock(wall=time.time())
    path = pidfile(tmp_path, children.start())
    perceiver = watch(tools_on(clock), pidfile=path)
    before = await perceiver.poll()
    clock.step_wall(86400)
    assert (await whole(perceiver)).values["up"] is True
    restarted = watch(tools_on(clock), pidfile=path)
    assert before.cursor is not None
    restarted.restore(before.cursor)
    assert (await whole(restarted)).values["up"] is True


async def test_a_zombie_is_down(watch: Watch, children: Sleepers, tmp_path: Path) -> None:
    perceiver = watch(pidfile=pidfile(tmp_path, children.start()))
    children.kill(reap=False)
    os.waitid(os.P_PID, children.running[0].pid, os.WEXITED | os.WNOWAIT)
    seen = await whole(perceiver)
    assert (seen.values["up"], seen.values["zombies"]) == (False, 1)
    assert "not reaped" in str(seen.values["error"])


async def test_a_pid_file_that_may_not_be_read_blinds(watch: Watch, tmp_path: Path) -> None:
    def closed(path: str) -> int:
        if path.endswith(".pid"):
            raise PermissionError(13, "Permission denied", path)
        return open_for_reading(path)

    with pytest.raises(PerceiverBlind, match="may not be read"):
        await watch(replace(real_tools(), open=closed), pidfile=pidfile(tmp_path, 1)).poll()


# by name and command line ------------------------------------------------------------------------------------------------


async def test_processes_are_found_by_command_line(watch: Watch, children: Sleepers) -> None:
    first = children.start()
    children.start()
    seen = await whole(watch(command=children.pattern))
    assert (seen.values["up"], seen.values["count"]) == (True, 2)
    assert seen.values["pid"] == first, "among the idle the oldest leads"


async def test_processes_are_found_by_name(watch: Watch, children: Sleepers, tmp_path: Path) -> None:
    program = tmp_path / "mw-probe"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([str(program), "1000"]) as child:
        seen = await whole(watch(name="mw-probe"))
        assert (seen.values["pid"], seen.values["count"]) == (child.pid, 1)
        child.kill()


async def test_names_longer_than_the_kernel_keeps_are_told_apart(watch: Watch, tmp_path: Path) -> None:
    program = tmp_path / "midwatch-probe-number-one"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([str(program), "1000"]) as child:
        assert (await whole(watch(name="midwatch-probe-number-one"))).values["pid"] == child.pid
        assert (await whole(watch(name="midwatch-probe-number-two"))).values["up"] is False
        child.kill()


async def test_a_malicious_name_does_not_mislead(watch: Watch, tmp_path: Path) -> None:
    program = tmp_path / "x) Z 1 1 1 (y"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([str(program), "1000"]) as child:
        seen = await whole(watch(name="x) Z 1 1 1 (y"))
        assert (seen.values["up"], seen.values["pid"], seen.values["threads"]) == (True, child.pid, 1)
        child.kill()


async def test_nothing_found_is_down(watch: Watch, children: Sleepers) -> None:
    seen = await whole(watch(command=children.pattern))
    assert (seen.values["up"], seen.values["count"], seen.values["cpu"], seen.values["rss_bytes"]) == (
        False,
        0,
        0.0,
        0,
    )
    assert "at least 1 expected" in str(seen.values["error"])


async def test_our_own_command_line_is_not_what_is_looked_for(watch: Watch) -> None:
    own = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    seen = await whole(watch(command=f"^{re.escape(own)}$"))
    assert seen.values["pid"] != os.getpid()


async def test_a_process_is_found_after_its_exec(watch: Watch, children: Sleepers) -> None:
    shell = subprocess.Popen(
        ["sh", "-c", f"read line; exec sleep 1000 {children.mark}"], stdin=subprocess.PIPE
    )
    children.running.append(shell)
    perceiver = watch(command=f"^{children.pattern}")
    assert (await whole(perceiver)).values["count"] == 0
    assert shell.stdin is not None
    shell.stdin.write(b"go\n")
    shell.stdin.close()

    async def found() -> bool:
        return (await whole(perceiver)).values["count"] == 1

    await until(found)


@pytest.mark.parametrize(
    ("expect", "up", "excess"),
    [
        (Expect(), True, 0),
        (Expect(min=3), False, 0),
        (Expect(min=2, max=2), True, 0),
        (Expect(max=1), True, 1),
        (Expect(min=0), True, 0),
    ],
)
async def test_the_count_may_be_too_small_or_too_large(
    watch: Watch, children: Sleepers, expect: Expect, up: bool, excess: int
) -> None:
    children.start()
    children.start()
    seen = await whole(watch(command=children.pattern, expect=expect))
    assert (seen.values["up"], seen.values["excess"]) == (up, excess)
    assert bool(seen.values["error"]) == (not up or excess > 0)


async def test_zombies_are_counted_apart(watch: Watch, children: Sleepers) -> None:
    children.start()
    children.start()
    perceiver = watch(command=children.pattern)
    assert (await whole(perceiver)).values["zombies"] == 0
    children.kill(reap=False)
    os.waitid(os.P_PID, children.running[0].pid, os.WEXITED | os.WNOWAIT)
    seen = await whole(perceiver)
    assert (seen.values["count"], seen.values["zombies"]) == (1, 1)


# what they use -----------------------------------------------------------------------------------------------------------


async def test_the_busiest_leads(watch: Watch, children: Sleepers) -> None:
    children.start()
    busy = subprocess.Popen(["sh", "-c", "while :; do :; done", children.mark])
    children.running.append(busy)
    perceiver = watch(command=children.mark.replace(".", "[.]"))
    first = await whole(perceiver)
    assert (first.values["cpu"], first.values["cpu_total"]) == (None, None)
    assert "second reading" in first.unreadable
    seen = first

    async def busiest() -> bool:
        nonlocal seen
        seen = await whole(perceiver)
        return isinstance(seen.values["cpu"], float) and seen.values["cpu"] > 0.1

    await until(busiest)
    assert seen.values["pid"] == busy.pid
    assert isinstance(seen.values["cpu_total"], float)
    assert 0.1 < seen.values["cpu_total"] < 1.5


async def test_a_moment_is_too_short_for_a_share(watch: Watch, children: Sleepers) -> None:
    clock = ManualClock(wall=time.time())
    children.start()
    perceiver = watch(tools_on(clock), command=children.pattern)
    await perceiver.poll()
    clock.advance(10)
    assert (await whole(perceiver)).values["cpu"] == 0.0
    clock.advance(0.01)
    assert (await whole(perceiver)).values["cpu"] == 0.0, "the share of the poll before"


async def test_handles_that_may_not_be_read_are_none_with_a_reason(watch: Watch, children: Sleepers) -> None:
    def closed(path: str) -> int:
        if path.endswith("/limits"):
            raise PermissionError(13, "Permission denied", path)
        return open_for_reading(path)

    children.start()
    seen = await whole(watch(replace(real_tools(), open=closed), command=children.pattern))
    assert (seen.values["handles"], seen.values["handles_used"]) == (None, None)
    assert "handles: Permission denied" in seen.unreadable
    assert seen.values["up"] is True


# each --------------------------------------------------------------------------------------------------------------------


async def test_each_process_is_told_of_by_its_pid(watch: Watch, children: Sleepers) -> None:
    pids = [children.start(), children.start()]
    batch = await watch(command=children.pattern, each=True).poll()
    assert [seen.key for seen in batch.observations] == ["", *map(str, pids)]
    together, *apart = batch.observations
    assert together.values.keys() == {"up", "count", "excess", "zombies", "error"}
    assert [seen.values["pid"] for seen in apart] == pids
    assert all("up" not in seen.values for seen in apart)


async def test_a_process_that_is_gone_uses_nothing(watch: Watch, children: Sleepers) -> None:
    clock = ManualClock(wall=time.time())
    perceiver = watch(tools_on(clock), command=children.pattern, each=True)
    pid = children.start()
    cursor = (await perceiver.poll()).cursor
    children.kill()
    gone = (await singles(perceiver))[str(pid)]
    assert (gone.values["state"], gone.values["cpu"], gone.values["rss_bytes"]) == ("X", 0.0, 0)
    restarted = watch(tools_on(clock), command=children.pattern, each=True)
    assert cursor is not None
    restarted.restore(cursor)
    assert (await singles(restarted))[str(pid)].values["state"] == "X"
    clock.advance(FAREWELL - 1)
    assert str(pid) in await singles(perceiver)
    clock.advance(2)
    assert await singles(perceiver) == {}


async def test_the_gone_do_not_pile_up(watch: Watch, children: Sleepers) -> None:
    perceiver = watch(command=children.pattern, each=True)
    now = time.time()
    perceiver.restore({"told": {str(pid): [1, now] for pid in range(4_000_000, 4_000_000 + 3 * MOST_EACH)}})
    batch = await perceiver.poll()
    assert len(batch.observations) == 1 + MOST_EACH
    assert batch.cursor is not None
    assert len(batch.cursor["told"]) == MOST_EACH


# one scan, and what it cannot see ----------------------------------------------------------------------------------------


async def test_one_scan_serves_all_who_poll_together(watch: Watch, children: Sleepers) -> None:
    opened: Counter[str] = Counter()

    def counting(path: str) -> int:
        opened[path] += 1
        return open_for_reading(path)

    tools = replace(real_tools(), open=counting)
    children.start()
    perceivers = [watch(tools, command=children.pattern) for _ in range(20)]
    batches = await asyncio.gather(*(perceiver.poll() for perceiver in perceivers))
    assert all(batch.observations[0].values["up"] for batch in batches)
    assert opened["/proc"] == 1
    await perceivers[0].poll()
    assert opened["/proc"] == 2, "who asks again is told what is now"


async def test_processes_that_are_hidden_are_not_called_down(watch: Watch, children: Sleepers) -> None:
    own = children.start()

    def hidden(path: str) -> int:
        parts = path.split("/")
        if len(parts) > 3 and parts[2].isdigit() and int(parts[2]) != own:
            raise FileNotFoundError(2, "No such file or directory", path)
        return open_for_reading(path)

    tools = replace(real_tools(), open=hidden)
    assert (await whole(watch(tools, command=children.pattern))).values["up"] is True
    with pytest.raises(PerceiverBlind, match="hidden"):
        await watch(tools, name="no-such-program").poll()


async def test_a_hidden_process_of_a_pid_file_is_not_called_down(watch: Watch, tmp_path: Path) -> None:
    def hidden(path: str) -> int:
        if path.endswith("/stat"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return open_for_reading(path)

    with pytest.raises(PerceiverBlind, match="hidden"):
        await watch(replace(real_tools(), open=hidden), pidfile=pidfile(tmp_path, os.getpid())).poll()


async def test_a_scan_is_cheap(watch: Watch, children: Sleepers) -> None:
    perceiver = watch(name="no-such-program", expect=Expect(min=0))
    await perceiver.poll()
    began = time.process_time()
    for _ in range(20):
        await perceiver.poll()
    cost = (time.process_time() - began) / 20
    processes = sum(name.isdigit() for name in os.listdir("/proc"))
    assert cost < max(0.010 * processes / 100, 0.002)


# waking ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pidfile", "command"])
async def test_a_death_wakes_at_once(watch: Watch, children: Sleepers, tmp_path: Path, way: str) -> None:
    woken = asyncio.Event()
    pid = children.start()
    found = {"pidfile": pidfile(tmp_path, pid)} if way == "pidfile" else {"command": children.pattern}
    perceiver = watch(**found)
    perceiver.wake_on(woken.set)
    assert (await whole(perceiver)).values["up"] is True
    assert not woken.is_set()
    children.kill()
    async with asyncio.timeout(5):
        await woken.wait()
    assert (await whole(perceiver)).values["up"] is False, "not what a scan saw before the death"


async def test_the_next_process_is_followed_too(watch: Watch, children: Sleepers, tmp_path: Path) -> None:
    woken = asyncio.Event()
    perceiver = watch(pidfile=pidfile(tmp_path, children.start()))
    perceiver.wake_on(woken.set)
    for _ in range(3):
        await perceiver.poll()
        woken.clear()
        children.kill()
        async with asyncio.timeout(5):
            await woken.wait()
        pidfile(tmp_path, children.start())


async def test_closed_it_wakes_no_more(watch: Watch, children: Sleepers, tmp_path: Path) -> None:
    woken = asyncio.Event()
    perceiver = watch(pidfile=pidfile(tmp_path, children.start()))
    perceiver.wake_on(woken.set)
    await perceiver.poll()
    open_before = len(os.listdir("/proc/self/fd"))
    await perceiver.close()
    assert len(os.listdir("/proc/self/fd")) == open_before - 1
    children.kill()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not woken.is_set()


# settings ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "exactly one"),
        ({"name": "a", "command": "b"}, "exactly one"),
        ({"name": ""}, "exactly one"),
        ({"command": "("}, "no regular expression"),
        ({"pidfile": "app.pid"}, "no absolute path"),
        ({"name": "a", "expect": {"min": 3, "max": 2}}, "is below"),
        ({"name": "a", "expect": {"min": -1}}, "greater than or equal"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Settings.model_validate(settings)
