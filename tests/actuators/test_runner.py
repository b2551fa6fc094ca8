"""Processes: bounded in time and output, started with nothing but what is given, and never waited for by their children's sake."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fakes.actuator_tools import await_true, running

from actuators.runner import GRACE, LAUNCHER, TAIL, Ran, Runner

PYTHON = sys.executable
SH = "/bin/sh"


async def run(
    *argv: str, timeout: float = 30.0, key: str = "", env: Mapping[str, str] | None = None, cwd: str = "/"
) -> Ran:
    return await Runner().run(argv, env=env or {}, cwd=cwd, timeout=timeout, key=key)


async def python(code: str, timeout: float = 30.0, key: str = "") -> Ran:
    return await run(PYTHON, "-I", "-S", "-c", code, timeout=timeout, key=key)


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[Path]:
    """A file in which a command notes a process that it leaves; that process is ended after the test."""
    noted = tmp_path / "pid"
    yield noted
    if noted.exists():
        os.kill(int(noted.read_text()), signal.SIGKILL)


async def test_exit_code_output_and_duration_come_back() -> None:
    ran = await run(SH, "-c", "echo out; echo err >&2; exit 3")
    assert (ran.exit_code, ran.timed_out, ran.ok) == (3, False, False)
    assert sorted(ran.output_tail.split()) == ["err", "out"]
    assert 0 < ran.duration < 30


async def test_a_signal_is_told_as_a_shell_would() -> None:
    assert (await run(SH, "-c", "kill -9 $$")).exit_code == 128 + 9


async def test_nothing_is_a_shell(tmp_path: Path) -> None:
    ran = await run("/bin/echo", f"$(touch {tmp_path}/made)", "; id", "`id`", "*")
    assert ran.output_tail == f"$(touch {tmp_path}/made) ; id `id` *\n"
    assert os.listdir(tmp_path) == []


async def test_the_environment_is_empty_but_for_what_is_given() -> None:
    assert (await run("/usr/bin/env")).output_tail == ""
    assert (await run("/usr/bin/env", env={"A": "b=c", "LC_CTYPE": "C"})).output_tail.split() == [
        "A=b=c",
        "LC_CTYPE=C",
    ]


async def test_descriptors_directory_session_and_limits(tmp_path: Path) -> None:
    held = os.open("/", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        ran = await run(
            SH, "-c", "ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/fd/0", cwd=str(tmp_path)
        )
        assert ran.output_tail == "0 1 2 3 /dev/null\n"  # 3 is the listing itself
    finally:
        os.close(held)
    assert (await run("/bin/pwd", cwd=str(tmp_path))).output_tail.strip() == str(tmp_path)
    ran = await python(
        "import os, resource, re\n"
        "print(os.getsid(0) != int(os.environ.get('S', '0')), os.umask(0), resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
        "print(re.search('NoNewPrivs:.(.)', open('/proc/self/status').read())[1])\n"
    )
    assert ran.output_tail.split() == ["True", "18", "0", "1"]


async def test_the_session_is_its_own() -> None:
    ran = await python("import os; print(os.getsid(0))")
    assert int(ran.output_tail) != os.getsid(0)


async def test_no_signal_is_blocked_or_ignored_but_broken_pipes() -> None:
    ran = await run("/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    blocked, ignored = (int(line.split()[1], 16) for line in ran.output_tail.splitlines())
    assert blocked == 0
    assert ignored & (1 << (signal.SIGTERM - 1)) == 0
    assert ignored & (1 << (signal.SIGPIPE - 1))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("/nowhere/tool",), "cannot start /nowhere/tool: No such file"),
        (("/etc/passwd",), "cannot start /etc/passwd: Permission denied"),
    ],
)
async def test_what_cannot_be_started_is_told(argv: tuple[str, ...], told: str) -> None:
    ran = await run(*argv)
    assert ran.exit_code == 127
    assert ran.output_tail.startswith(told)


async def test_a_bad_directory_or_argument_is_told() -> None:
    assert "cannot be started" in (await run("/bin/true", cwd="/nowhere")).output_tail
    ran = await run("/bin/echo", "a\0b")
    assert (ran.exit_code, ran.timed_out) == (None, False)
    assert "null byte" in ran.output_tail


async def test_the_time_limit_ends_the_whole_group(tmp_path: Path) -> None:
    ran = await run(SH, "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; echo begun; wait", timeout=2.0)
    assert (ran.exit_code, ran.timed_out, ran.ok, ran.output_tail) == (None, True, False, "begun\n")
    await_true(lambda: not running(int((tmp_path / "pid").read_text())))


async def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ran = await python(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open('{tmp_path}/pid', 'w').write(str(os.getpid()))\n"
        "time.sleep(1000)\n",
        timeout=2.0,
    )
    assert ran.timed_out
    assert ran.duration >= 2.0 + GRACE
    await_true(lambda: not running(int((tmp_path / "pid").read_text())))


async def test_a_command_may_end_in_order_on_sigterm() -> None:
    ran = await run(
        SH, "-c", "trap 'echo tidied; exit 0' TERM; echo begun; while :; do sleep 0.05; done", timeout=2.0
    )
    assert ran.timed_out
    assert ran.output_tail.endswith("tidied\n")


async def test_a_child_left_behind_is_not_waited_for_and_lives_on(left_behind: Path) -> None:
    ran = await run(SH, "-c", f"sleep 1000 & echo $! > {left_behind}; echo started")
    assert ran.ok
    assert ran.output_tail == "started\n"
    assert running(int(left_behind.read_text()))


async def test_a_child_left_behind_survives_writing_to_the_closed_output(
    tmp_path: Path, left_behind: Path
) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    child = f"until [ -e {go} ]; do sleep 0.01; done; echo late; touch {done}; exec sleep 1000"
    ran = await run(SH, "-c", f"({child}) & echo $! > {left_behind}")
    assert ran.ok
    go.touch()
    await_true(done.exists)
    assert running(int(left_behind.read_text()))


async def test_output_is_cut_to_its_end() -> None:
    ran = await python("print('x' * 200_000 + 'the end')")
    assert len(ran.output_tail) == TAIL
    assert ran.output_tail.endswith("the end\n")


async def test_more_than_is_read_does_not_hang_the_command() -> None:
    ran = await python("print('x' * (2 * 2**20) + 'the end')")
    assert ran.ok
    assert ran.output_tail.endswith("the end\n")


async def test_a_flood_ends_with_the_time_limit() -> None:
    ran = await run("/usr/bin/yes", timeout=0.5)
    assert ran.timed_out
    assert len(ran.output_tail) == TAIL


async def test_a_child_left_behind_that_floods_ends_nothing(left_behind: Path) -> None:
    ran = await run(SH, "-c", f"yes & echo $! > {left_behind}")
    assert ran.ok
    assert len(ran.output_tail) <= TAIL


async def test_control_characters_are_replaced() -> None:
    ran = await python(r"import sys; sys.stdout.buffer.write(b'a\x1b[31mb\xff\x00\tc\n')")
    assert ran.output_tail == "a�[31mb��\tc\n"


async def test_a_cancelled_run_leaves_nothing(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    task = asyncio.create_task(
        run(SH, "-c", f"echo $$ > {noted}.new; mv {noted}.new {noted}; exec sleep 1000")
    )
    await asyncio.to_thread(await_true, noted.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await_true(lambda: not running(int(noted.read_text())))


async def test_many_runs_leave_no_descriptor_and_no_zombie() -> None:
    await run("/bin/true")
    descriptors, children = len(os.listdir("/proc/self/fd")), own_children()
    ran = await asyncio.gather(*(run("/bin/true") for _ in range(20)))
    assert all(one.ok for one in ran)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert own_children() == children


def own_children() -> set[int]:
    """Running and ended ones that were not waited for."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


async def test_what_is_in_flight_is_seen_by_its_key(tmp_path: Path) -> None:
    go = tmp_path / "go"
    runner = Runner()
    task = asyncio.create_task(run(SH, "-c", f"until [ -e {go} ]; do sleep 0.01; done", key="abc"))
    await asyncio.to_thread(await_true, lambda: bool(_launchers("abc")))
    assert not await runner.settled("abc", 0.01)
    assert await runner.settled("ab", 0.01)
    go.touch()
    assert await runner.settled("abc", 20.0)
    assert (await task).ok


def _launchers(key: str) -> list[str]:
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and f"launcher.py\0{key}\0" in _cmdline(pid)]


def _cmdline(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_launcher_that_was_left_alone_ends_its_command_in_time(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    argv = [
        PYTHON,
        "-I",
        "-S",
        LAUNCHER,
        "key",
        "2.0",
        SH,
        "-c",
        f"echo $$ > {noted}; trap '' TERM; while :; do sleep 1; done",
    ]
    ended = subprocess.run(argv, env={}, start_new_session=True, timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL
    await_true(lambda: not running(int(noted.read_text())))
