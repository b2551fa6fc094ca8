"""Declared commands: who may be their target, what their parameters may be, and how their ends become Outcomes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.actuator_tools import await_true, tools
from hypothesis import given
from hypothesis import strategies as st

from actuators.base import Action, Check, Result
from actuators.command import CommandActuator, build

SH = "/bin/sh"
TYPED: dict[str, Any] = {
    "argv": ["/bin/echo", "--", "{name}", "x{count}y", "{loud}"],
    "target": ["service:api", "path:/srv/*"],
    "describe": "says something",
    "params": {
        "name": {"type": "string", "pattern": "[a-z ;$]+"},
        "count": {"type": "integer", "min": 1, "max": 9, "default": 3},
        "loud": {"type": "boolean", "default": False},
    },
}


def commands(home: Path, **declared: dict[str, Any]) -> CommandActuator:
    return build(tools(home, commands=declared))


def act(name: str, /, target: str = "service:api", key: str = "k1", **params: Any) -> Action:
    return Action(f"command.{name}", target, params, key)


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"argv": [SH, "-c", script], "target": ["service:*"], **more}


async def outcome_of(actuator: CommandActuator, action: Action) -> tuple[Result, str]:
    resolved = await actuator.resolve(action)
    outcome = await actuator.apply(resolved, await actuator.check(resolved))
    return outcome.result, outcome.reason


def test_each_command_is_a_verb(tmp_path: Path) -> None:
    actuator = commands(
        tmp_path, say=TYPED, wipe=shell("true", irreversible=True), turn=shell("true", undo=["/bin/true"])
    )
    assert actuator.verbs == {"say": "says something", "wipe": "runs /bin/sh", "turn": "runs /bin/sh"}
    assert actuator.irreversible == {"wipe"}
    assert actuator.undoable == {"turn"}


async def test_defaults_are_filled_in(tmp_path: Path) -> None:
    resolved = await commands(tmp_path, say=TYPED).resolve(act("say", name="api"))
    assert resolved.params == {"name": "api", "count": 3, "loud": False}
    assert resolved.key == "k1"


@pytest.mark.parametrize("target", ["service:api", "path:/srv/a/b"])
async def test_targets_that_match_are_taken(tmp_path: Path, target: str) -> None:
    assert (await commands(tmp_path, say=TYPED).resolve(act("say", target, name="a"))).target == target


@pytest.mark.parametrize(
    "target", ["service:apis", "service:db", "path:/srv", "unit:api.service", "host", "SERVICE:api", ""]
)
async def test_other_targets_are_refused_naming_those_that_match(tmp_path: Path, target: str) -> None:
    with pytest.raises(ValueError, match="must match service:api, path:/srv/\\*"):
        await commands(tmp_path, say=TYPED).resolve(act("say", target, name="a"))


async def test_a_star_does_not_reach_over_the_kind(tmp_path: Path) -> None:
    actuator = commands(tmp_path, any={"argv": ["/bin/true"], "target": ["*", "s*:api", "service:*"]})
    assert await actuator.resolve(act("any", "service:web"))
    with pytest.raises(ValueError, match="must match"):
        await actuator.resolve(act("any", "path:/api"))


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({}, "'name' \\(string\\) is missing"),
        ({"name": None}, "missing"),
        ({"name": 7}, "name must be a JSON string, not 7"),
        ({"name": ["a"]}, "name must be a JSON string"),
        ({"name": "A"}, "must match"),
        ({"name": "ab\n"}, "printable"),
        ({"name": "a" * 501}, "at most 500"),
        ({"name": "a\0"}, "printable"),
        ({"name": "a\u202eb"}, "printable"),
        ({"name": "a", "count": "3"}, "count must be a JSON integer, not '3'"),
        ({"name": "a", "count": True}, "count must be a JSON integer, not True"),
        ({"name": "a", "count": 3.0}, "count must be a JSON integer"),
        ({"name": "a", "count": 0}, "from 1 to 9"),
        ({"name": "a", "count": 10**400}, "from 1 to 9"),
        ({"name": "a", "loud": 1}, "loud must be a JSON boolean, not 1"),
        ({"name": "a", "loud": "true"}, "loud must be a JSON boolean"),
        ({"name": "a", "volume": 3}, "no parameter 'volume'; accepted: name, count, loud"),
    ],
)
async def test_parameters_are_strict(tmp_path: Path, params: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        await commands(tmp_path, say=TYPED).resolve(act("say", **params))


@pytest.mark.parametrize(
    ("declared", "value", "taken"),
    [
        ({}, "-rf", False),
        ({"pattern": ".*"}, "-rf", False),
        ({"pattern": "-[a-z]+"}, "-rf", True),
        ({"pattern": "^(?:-v|-q)$"}, "-q", True),
        ({"choices": ["-v", "plain"]}, "-v", True),
        ({"choices": ["-v", "plain"]}, "-x", False),
        ({}, "a-b", True),
        ({}, "", True),
        ({}, "ünïcode and spaces", True),
    ],
)
async def test_a_leading_dash_must_be_allowed_in_so_many_words(
    tmp_path: Path, declared: dict[str, Any], value: str, taken: bool
) -> None:
    actuator = commands(
        tmp_path, say={"argv": ["/bin/echo", "{v}"], "target": ["service:api"], "params": {"v": declared}}
    )
    if taken:
        assert (await actuator.resolve(act("say", v=value))).params == {"v": value}
    else:
        with pytest.raises(ValueError, match="v must"):
            await actuator.resolve(act("say", v=value))


async def test_an_integer_without_bounds_has_bounds(tmp_path: Path) -> None:
    actuator = commands(
        tmp_path,
        say={"argv": ["/bin/echo", "{n}"], "target": ["service:api"], "params": {"n": {"type": "integer"}}},
    )
    with pytest.raises(ValueError, match="n must be from"):
        await actuator.resolve(act("say", n=2**63))


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)
)
async def test_what_is_taken_is_never_changed(tmp_path: Path, value: object) -> None:
    actuator = commands(
        tmp_path,
        say={
            "argv": ["/bin/echo", "{s}", "{i}", "{b}"],
            "target": ["service:api"],
            "params": {
                "s": {"default": "x"},
                "i": {"type": "integer", "default": 1},
                "b": {"type": "boolean", "default": True},
            },
        },
    )
    for name, kind in (("s", str), ("i", int), ("b", bool)):
        try:
            resolved = await actuator.resolve(Action("command.say", "service:api", {name: value}))
        except ValueError:
            continue
        assert type(resolved.params[name]) is kind
        assert value is None or resolved.params[name] == value


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (shell("{typo}"), "commands.x: {typo} is no parameter of it; there are: none"),
        (shell("true", undo=["/bin/echo", "{gone}"]), "{gone} is no parameter"),
        (shell("true", params={"p": {"pattern": "("}}), "commands.x.params.p"),
        (
            shell("true", params={"p": {"type": "integer", "default": "3"}}),
            "commands.x.params.p: p must be a JSON integer",
        ),
        (shell("true", params={"p": {"choices": ["a"], "default": "b"}}), "must be one of a"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_at_once(
    tmp_path: Path, declared: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told.replace("{", "\\{")):
        commands(tmp_path, x=declared)


async def test_parameters_stand_whole_in_their_argument(tmp_path: Path) -> None:
    actuator = commands(tmp_path, say=TYPED)
    resolved = await actuator.resolve(act("say", name="a; $b", loud=True))
    check = await actuator.check(resolved)
    assert check.state["argv"] == ["/bin/echo", "--", "a; $b", "x3y", "true"]
    outcome = await actuator.apply(resolved, check)
    assert outcome.detail["output"] == "-- a; $b x3y true\n"


async def test_a_value_is_never_looked_through_for_placeholders(tmp_path: Path) -> None:
    declared = {"argv": ["/bin/echo", "{a}", "{b}"], "target": ["service:api"], "params": {"a": {}, "b": {}}}
    actuator = commands(tmp_path, say=declared)
    check = await actuator.check(await actuator.resolve(act("say", a="{b}", b="{a}")))
    assert check.state["argv"] == ["/bin/echo", "{b}", "{a}"]


async def test_key_target_and_environment_are_told_to_it(tmp_path: Path) -> None:
    actuator = commands(
        tmp_path, env={"argv": ["/usr/bin/env"], "target": ["service:*"], "env": {"LEVEL": "7"}}
    )
    resolved = await actuator.resolve(act("env"))
    outcome = await actuator.apply(resolved, await actuator.check(resolved))
    assert sorted(outcome.detail["output"].split()) == [
        "LEVEL=7",
        "MIDWATCH_KEY=k1",
        "MIDWATCH_TARGET=service:api",
    ]


async def test_a_program_is_found_without_its_folder(tmp_path: Path) -> None:
    actuator = commands(tmp_path, say={"argv": ["echo", "hi"], "target": ["service:api"]})
    check = await actuator.check(await actuator.resolve(act("say")))
    assert check.ok
    assert check.state["argv"][0].endswith("/bin/echo")


@pytest.mark.parametrize("program", ["/nowhere/tool", "no-such-tool", "/etc/passwd", "/tmp", "bin/echo"])
async def test_a_program_that_cannot_run_fails_the_check(tmp_path: Path, program: str) -> None:
    actuator = commands(tmp_path, say={"argv": [program], "target": ["service:api"]})
    check = await actuator.check(await actuator.resolve(act("say")))
    assert not check.ok
    assert program in check.reason


async def test_ready_decides_the_check(tmp_path: Path) -> None:
    actuator = commands(
        tmp_path,
        go=shell("true", ready=[SH, "-c", f"test -e {tmp_path}/ready || {{ echo not yet; exit 4; }}"]),
    )
    resolved = await actuator.resolve(act("go"))
    check = await actuator.check(resolved)
    assert (check.ok, check.reason) == (False, "it is not ready: exit 4: not yet")
    (tmp_path / "ready").touch()
    assert (await actuator.check(resolved)).ok


async def test_a_changed_program_changes_the_state(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    actuator = commands(tmp_path, go={"argv": [str(tool)], "target": ["service:api"]})
    resolved = await actuator.resolve(act("go"))
    before = (await actuator.check(resolved)).state
    assert (await actuator.check(resolved)).state == before
    (tmp_path / "new").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "new").chmod(0o755)
    (tmp_path / "new").replace(tool)
    assert (await actuator.check(resolved)).state != before


async def test_a_changed_declaration_fails_the_check(tmp_path: Path) -> None:
    resolved = await commands(tmp_path, say=TYPED).resolve(act("say", name="a"))
    other = {
        **TYPED,
        "params": {**TYPED["params"], "more": {"default": "x"}},
        "argv": ["/bin/echo", "{more}"],
    }
    changed = commands(tmp_path, say=other)
    check = await changed.check(resolved)
    assert (check.ok, check.reason) == (False, "the configuration changed since it was resolved")
    outcome = await changed.apply(resolved, Check(True))
    assert (outcome.result, outcome.reason) == (Result.FAILED, "not run: the parameter 'more' is missing")


async def test_the_ends_of_a_command(tmp_path: Path) -> None:
    actuator = commands(
        tmp_path,
        good=shell("exit 0"),
        bad=shell("echo first; echo why; exit 3"),
        slow=shell("echo begun; sleep 1000", timeout=2.0),
    )
    assert await outcome_of(actuator, act("good")) == (Result.SUCCEEDED, "")
    assert await outcome_of(actuator, act("bad", key="k2")) == (Result.FAILED, "exit 3: why")
    assert await outcome_of(actuator, act("slow", key="k3")) == (Result.TIMED_OUT, "its time was over: begun")


async def test_verify_asks_the_command_if_it_can(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    actuator = commands(tmp_path, go=shell(f"touch {flag}", verify=["/usr/bin/test", "-e", str(flag)]))
    resolved = await actuator.resolve(act("go"))
    check = await actuator.check(resolved)
    outcome = await actuator.apply(resolved, check)
    assert await actuator.verify(resolved, check, outcome)
    flag.unlink()
    assert not await actuator.verify(resolved, check, outcome)


@pytest.mark.parametrize(
    ("code", "answer"), [(0, "happened"), (1, "did-not"), (2, "cannot-tell"), (127, "cannot-tell")]
)
async def test_probe_is_the_commands_own_word(tmp_path: Path, code: int, answer: str) -> None:
    script = f'[ "$MIDWATCH_KEY" = k1 ] && exit {code}; exit 99'
    actuator = commands(tmp_path, go=shell("true", probe=[SH, "-c", script]), mute=shell("true"))
    assert await actuator.probe(await actuator.resolve(act("go")), Check(True)) == answer
    assert await actuator.probe(await actuator.resolve(act("mute")), Check(True)) == "cannot-tell"


async def test_probe_waits_for_a_command_that_outlived_its_daemon(tmp_path: Path) -> None:
    begun, go, done = tmp_path / "begun", tmp_path / "go", tmp_path / "done"
    declared = shell(
        f"touch {begun}; until [ -e {go} ]; do sleep 0.01; done; touch {done}",
        probe=[SH, "-c", f"test -e {done}"],
        timeout=20.0,
    )
    before, after = commands(tmp_path, go=declared), commands(tmp_path, go=declared)
    resolved = await before.resolve(act("go", key="outlived"))
    effect = asyncio.create_task(before.apply(resolved, Check(True)))
    await asyncio.to_thread(await_true, begun.exists)
    probe = asyncio.create_task(after.probe(resolved, Check(True)))
    assert not done.exists()
    go.touch()
    assert await probe == "happened"
    assert (await effect).result is Result.SUCCEEDED


async def test_undo_runs_what_is_declared(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    actuator = commands(
        tmp_path,
        on=shell(f"touch {flag}", undo=["/bin/rm", str(flag)]),
        once=shell("true"),
    )
    resolved = await actuator.resolve(act("on"))
    check = await actuator.check(resolved)
    outcome = await actuator.apply(resolved, check)
    assert (await actuator.undo(resolved, check, outcome)).result is Result.UNDONE
    assert not flag.exists()
    failed = await actuator.undo(resolved, check, outcome)
    assert failed.result is Result.FAILED
    assert failed.reason.startswith("exit 1: ")
    refused = await actuator.undo(await actuator.resolve(act("once")), check, outcome)
    assert refused.result is Result.REFUSED


async def test_one_key_runs_once_and_no_key_never(tmp_path: Path) -> None:
    actuator = commands(tmp_path, go=shell(f"echo x >> {tmp_path}/count"))
    results = await asyncio.gather(*(outcome_of(actuator, act("go")) for _ in range(5)))
    assert sorted(result for result, _ in results) == [Result.REFUSED] * 4 + [Result.SUCCEEDED]
    assert (await outcome_of(actuator, act("go", key="")))[0] is Result.REFUSED
    assert (tmp_path / "count").read_text() == "x\n"


async def test_a_cancelled_apply_still_ends_as_an_outcome(tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    actuator = commands(
        tmp_path, go=shell(f"touch {begun}; until [ -e {go} ]; do sleep 0.01; done; echo whole")
    )
    resolved = await actuator.resolve(act("go"))
    effect = asyncio.create_task(actuator.apply(resolved, Check(True)))
    await asyncio.to_thread(await_true, begun.exists)
    effect.cancel()
    await asyncio.sleep(0)
    effect.cancel()
    go.touch()
    outcome = await effect
    assert (outcome.result, outcome.detail["output"]) == (Result.SUCCEEDED, "whole\n")


async def test_an_unknown_command_is_refused_naming_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there are: command\.say"):
        await commands(tmp_path, say=TYPED).resolve(act("shell", name="a"))


async def test_the_interpreter_itself_can_be_a_command(tmp_path: Path) -> None:
    actuator = commands(tmp_path, py={"argv": [sys.executable, "-c", "print(1)"], "target": ["host"]})
    assert await outcome_of(actuator, act("py", "host")) == (Result.SUCCEEDED, "")
