"""Signals: to that process and to no other, whoever bears its number by then."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.actuator_tools import await_true, running, tools

from actuators import safefs
from actuators.base import Action, Check, Outcome, Result
from actuators.process import SIGNALS, ProcessActuator, build

Start = Callable[..., int]


@pytest.fixture
def actuator(tmp_path: Path) -> ProcessActuator:
    return build(tools(tmp_path))


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*argv: str) -> int:
        process = subprocess.Popen(argv or ("sleep", "1000"), stdin=subprocess.DEVNULL)
        started.append(process)
        return process.pid

    yield begin
    for process in started:
        process.kill()
        process.wait()


def act(target: str, key: str = "k1", **params: Any) -> Action:
    return Action("process.signal", target, params, key)


def start_time(pid: int) -> int:
    return int(safefs.load(f"/proc/{pid}/stat").data.rpartition(b")")[2].split()[19])


def state(pid: int) -> str:
    return safefs.load(f"/proc/{pid}/stat").data.rpartition(b")")[2].split()[0].decode()


async def applied(actuator: ProcessActuator, action: Action) -> tuple[Action, Check, Outcome]:
    resolved = await actuator.resolve(action)
    check = await actuator.check(resolved)
    return resolved, check, await actuator.apply(resolved, check)


async def test_the_start_time_is_filled_in(actuator: ProcessActuator, start: Start) -> None:
    pid = start()
    resolved = await actuator.resolve(act(f"process:{pid}"))
    assert resolved == act(f"process:{pid}@{start_time(pid)}", signal="TERM")
    assert await actuator.resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("process:1", "is init"),
        ("process:1@1", "is init"),
        (f"process:{os.getpid()}", "is midwatch itself"),
        ("process:0", "process:PID"),
        ("process:-1", "process:PID"),
        ("process:007", "process:PID"),
        ("process:12@", "process:PID"),
        ("service:api", "process:PID"),
        ("process:4999999999", "there is no process"),
    ],
)
async def test_targets_that_are_none(actuator: ProcessActuator, target: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        await actuator.resolve(act(target))


@pytest.mark.parametrize(
    "params", [{"signal": "TERMINATE"}, {"signal": "SIGTERM"}, {"signal": 15}, {"signal": ["TERM"]}]
)
async def test_other_signals_are_refused(
    actuator: ProcessActuator, start: Start, params: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="signal must be one of TERM, HUP"):
        await actuator.resolve(act(f"process:{start()}", **params))


async def test_other_parameters_are_refused(actuator: ProcessActuator, start: Start) -> None:
    with pytest.raises(ValueError, match="accepted: signal"):
        await actuator.resolve(act(f"process:{start()}", force=True))


async def test_the_check_tells_who_it_is(actuator: ProcessActuator, start: Start) -> None:
    pid = start()
    resolved = await actuator.resolve(act(f"process:{pid}", signal="HUP"))
    check = await actuator.check(resolved)
    assert check.ok
    assert check.reason == f"would send HUP to sleep ({pid})"
    assert check.state == {"comm": "sleep", "uid": os.geteuid(), "start": start_time(pid)}


async def test_the_next_owner_of_a_number_is_left_alone(actuator: ProcessActuator, start: Start) -> None:
    pid = start()
    resolved = await actuator.resolve(act(f"process:{pid}@{start_time(pid) - 1}", signal="KILL"))
    check = await actuator.check(resolved)
    assert (check.ok, check.reason) == (False, f"process {pid} is gone; another one has its number now")
    outcome = await actuator.apply(resolved, Check(True))
    assert outcome.result is Result.REFUSED
    assert running(pid)
    assert await actuator.probe(resolved, Check(True)) == "happened"


async def test_ancestors_are_left_alone(actuator: ProcessActuator) -> None:
    ours = await actuator.check(await actuator.resolve(act(f"process:{os.getppid()}")))
    assert (ours.ok, ours.reason) == (False, f"process {os.getppid()} is an ancestor of midwatch")


def sees_the_kernel() -> bool:
    """False in most containers."""
    try:
        return Path("/proc/2/comm").read_text() == "kthreadd\n"
    except OSError:
        return False


@pytest.mark.skipif(not sees_the_kernel(), reason="no thread of the kernel is seen here")
async def test_kernel_threads_are_left_alone(actuator: ProcessActuator) -> None:
    check = await actuator.check(await actuator.resolve(act("process:2")))
    assert not check.ok
    assert "kernel" in check.reason or "another user" in check.reason


async def test_a_process_that_has_ended_is_told(actuator: ProcessActuator, start: Start) -> None:
    pid = start("true")
    resolved = await actuator.resolve(act(f"process:{pid}"))
    await_true(lambda: not running(pid))
    assert "has ended already" in (await actuator.check(resolved)).reason
    os.waitpid(pid, 0)
    assert (await actuator.check(resolved)).reason == f"there is no process {pid} any more"
    assert (await actuator.apply(resolved, Check(True))).result is Result.FAILED


@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT", "KILL"])
async def test_a_signal_that_ends_is_proven(actuator: ProcessActuator, start: Start, name: str) -> None:
    pid = start()
    resolved, check, outcome = await applied(actuator, act(f"process:{pid}", signal=name))
    assert (outcome.result, outcome.detail) == (Result.SUCCEEDED, {"signal": name, "pid": pid})
    assert await actuator.verify(resolved, check, outcome)
    assert not running(pid)
    assert await actuator.probe(resolved, check) == "happened"


async def test_a_process_that_shrugs_it_off_is_no_success(tmp_path: Path, start: Start) -> None:
    actuator = ProcessActuator(tools(tmp_path), patience=0.2)
    deaf = tmp_path / "deaf"
    pid = start("/bin/sh", "-c", f"trap '' TERM; touch {deaf}; while :; do sleep 1; done")
    await_true(deaf.exists)
    resolved, check, outcome = await applied(actuator, act(f"process:{pid}"))
    assert outcome.result is Result.SUCCEEDED
    assert not await actuator.verify(resolved, check, outcome)
    assert await actuator.probe(resolved, check) == "did-not"


async def test_other_signals_are_sent_and_cannot_be_probed(actuator: ProcessActuator, start: Start) -> None:
    pid = start()
    stopped, check, outcome = await applied(actuator, act(f"process:{pid}", signal="STOP"))
    assert await actuator.verify(stopped, check, outcome)
    await_true(lambda: state(pid) == "T")
    assert await actuator.probe(stopped, check) == "cannot-tell"
    await applied(actuator, act(f"process:{pid}", "k2", signal="CONT"))
    await_true(lambda: state(pid) == "S")


async def test_one_key_sends_once(tmp_path: Path, actuator: ProcessActuator, start: Start) -> None:
    count = tmp_path / "count"
    pid = start(
        "/bin/sh", "-c", f"trap 'echo x >> {count}' USR1; touch {count}; while :; do sleep 0.01; done"
    )
    await_true(count.exists)
    resolved, check, _ = await applied(actuator, act(f"process:{pid}", signal="USR1"))
    await_true(lambda: count.read_text() == "x\n")
    assert (await actuator.apply(resolved, check)).result is Result.REFUSED
    await applied(actuator, act(f"process:{pid}", "k2", signal="USR1"))
    await_true(lambda: count.read_text() == "x\nx\n")


async def test_nothing_is_taken_back(actuator: ProcessActuator, start: Start) -> None:
    resolved, check, outcome = await applied(actuator, act(f"process:{start()}", signal="HUP"))
    assert (await actuator.undo(resolved, check, outcome)).result is Result.REFUSED


def test_signal_names_are_real() -> None:
    assert all(hasattr(signal, f"SIG{name}") for name in SIGNALS)
