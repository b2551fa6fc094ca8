"""What `actuators.base.Actuator` promises, proven for every verb of every actuator by one suite."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from fakes.actuator_tools import aged, running, tools
from fakes.receiver import Receiver

from actuators import command, file, http, noop, process, safefs
from actuators.base import Action, Actuator, Check, Outcome, Result, Tools
from daemon.config.settings import CallSettings, CommandSettings, DirectorySettings, ParamSettings, Secret

PROBES = ("happened", "did-not", "cannot-tell")


@dataclass(frozen=True)
class Scene:
    """A piece of the world in which one verb has something to do."""

    actuator: Actuator
    action: Action
    world: Callable[[], Any]
    """All that the verb could change, as a value that can be compared."""
    vanish: Callable[[], None]
    """The target is gone."""
    settled: frozenset[str]
    """What a probe may say before the effect."""


Build = Callable[[ExitStack, Path], Scene]


def contents(*folders: Path) -> Callable[[], Any]:
    """What stands in the folders: names, contents, modes."""

    def look() -> Any:
        paths = sorted(path for folder in folders for path in folder.rglob("*"))
        return [
            (str(path), path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in paths
        ]

    return look


def nothing() -> None:
    """The target of a verb without one cannot vanish."""


def command_scene(stack: ExitStack, home: Path) -> Scene:
    world = home / "world"
    world.mkdir()
    tool = home / "tool"
    tool.write_text(
        '#!/bin/sh\ncase $1 in\non) echo "$MIDWATCH_KEY $2" >> flag;;\noff) rm flag;;\nis-on) test -e flag;;\nesac\n'
    )
    tool.chmod(0o755)
    declared = {
        "argv": [str(tool), "on", "{level}"],
        "target": ["service:api"],
        "cwd": str(world),
        "params": {"level": {"type": "integer", "default": 1}},
        "ready": ["/usr/bin/test", "-d", str(world)],
        "verify": [str(tool), "is-on"],
        "undo": [str(tool), "off"],
        "probe": [str(tool), "is-on"],
    }
    actuator = command.build(tools(home, commands={"switch": declared}))
    return Scene(
        actuator,
        Action("command.switch", "service:api"),
        contents(world),
        tool.unlink,
        frozenset({"did-not"}),
    )


def signal_scene(stack: ExitStack, home: Path) -> Scene:
    sleeper = subprocess.Popen(["sleep", "1000"])
    stack.callback(sleeper.wait)
    stack.callback(sleeper.kill)
    actuator = process.build(tools(home))
    start = safefs.load(f"/proc/{sleeper.pid}/stat").data.rpartition(b")")[2].split()[19].decode()

    def vanish() -> None:
        sleeper.kill()
        sleeper.wait()

    target = f"process:{sleeper.pid}@{start}"
    return Scene(
        actuator,
        Action("process.signal", target),
        lambda: running(sleeper.pid),
        vanish,
        frozenset({"did-not"}),
    )


def restore_scene(stack: ExitStack, home: Path) -> Scene:
    world = home / "world"
    world.mkdir()
    path = world / "app.conf"
    path.write_bytes(b"broken")
    path.chmod(0o640)
    good = hashlib.sha256(b"good").hexdigest()
    given = tools(home, files=(path,), last_good={str(path): good})
    safefs.put(given.copies, b"good")
    actuator = file.build(given)
    return Scene(
        actuator, Action("file.restore", f"path:{path}"), contents(world), path.unlink, frozenset({"did-not"})
    )


def delete_scene(stack: ExitStack, home: Path) -> Scene:
    world = home / "world"
    world.mkdir()
    for days in range(1, 10):
        aged(world / f"app.log.{days}", days)
    keep = {"newest": 1, "days": 3.0, "age": 0.0}
    actuator = file.build(
        tools(home, directories={"logs": {"path": str(world), "match": ["app.log.*"], "keep": keep}})
    )

    def vanish() -> None:
        world.rename(home / "elsewhere")

    return Scene(
        actuator, Action("file.delete", f"path:{world}"), contents(world), vanish, frozenset({"did-not"})
    )


def call_scene(stack: ExitStack, home: Path) -> Scene:
    receiver = stack.enter_context(Receiver())
    actuator = http.build(tools(home, calls={"drain": {"url": receiver.url, "target": ["service:api"]}}))
    return Scene(
        actuator,
        Action("http.call", "service:api"),
        lambda: [(request.path, request.body) for request in receiver.requests],
        receiver.close,
        frozenset({"cannot-tell"}),
    )


def noop_scene(stack: ExitStack, home: Path) -> Scene:
    # What never has an effect has always had it.
    return Scene(noop.build(tools(home)), Action("noop", "host"), nothing, nothing, frozenset({"happened"}))


SCENES: dict[str, Build] = {
    "command.switch": command_scene,
    "process.signal": signal_scene,
    "file.restore": restore_scene,
    "file.delete": delete_scene,
    "http.call": call_scene,
    "noop": noop_scene,
}


@contextmanager
def closing(build: Build, home: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield build(stack, home)


@pytest.fixture(params=SCENES)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    with closing(SCENES[request.param], tmp_path) as found:
        yield found
        await found.actuator.close()


def verb(scene: Scene) -> str:
    return scene.action.id.partition(".")[2]


async def judged(scene: Scene) -> tuple[Action, Check]:
    """Resolved and checked as the gate does it, with the state as the journal gives it back."""
    resolved = replace(await scene.actuator.resolve(scene.action), key="k1")
    check = await scene.actuator.check(resolved)
    assert check.ok, check.reason
    return resolved, Check(True, "", json.loads(json.dumps(dict(check.state))), dict(check.size))


def test_every_built_in_kind_is_here(tmp_path: Path) -> None:
    built = {entry.name: entry.load() for entry in entry_points(group="midwatch.actuators")}
    kinds = {scene.partition(".")[0] for scene in SCENES}
    assert kinds <= set(built)
    for kind, build in built.items():
        actuator: Actuator = build(tools(tmp_path))
        assert actuator.kind == kind
        declared = {f"{kind}.{verb}" if verb else kind for verb in actuator.verbs}
        assert declared <= set(SCENES), "each verb needs its scene"


def test_verbs_are_described_and_classified(scene: Scene) -> None:
    actuator = scene.actuator
    assert verb(scene) in actuator.verbs
    assert all(text.strip() == text != "" for text in actuator.verbs.values())
    assert actuator.irreversible | actuator.undoable <= set(actuator.verbs)
    assert not actuator.irreversible & actuator.undoable


async def test_resolve_is_idempotent_and_changes_nothing(scene: Scene) -> None:
    before = scene.world()
    resolved = await scene.actuator.resolve(replace(scene.action, key="k1"))
    assert await scene.actuator.resolve(resolved) == resolved
    assert (resolved.id, resolved.target, resolved.key) == (scene.action.id, scene.action.target, "k1")
    assert json.loads(json.dumps(dict(resolved.params))) == resolved.params
    assert scene.world() == before


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda action: replace(action, params={**action.params, "no_such_parameter": 1}),
        lambda action: (
            replace(action, target="container:other") if action.id != "noop" else replace(action, id="noop.x")
        ),
        lambda action: replace(action, id=action.id.partition(".")[0] + ".no-such-verb"),
        lambda action: replace(action, id="other.verb"),
    ],
    ids=["parameter", "target", "verb", "kind"],
)
async def test_what_is_not_accepted_is_a_value_error_naming_what_is(
    scene: Scene, spoilt: Callable[[Action], Action]
) -> None:
    with pytest.raises(ValueError, match=r"accepted|must|there are|only from"):
        await scene.actuator.resolve(spoilt(scene.action))


async def test_check_changes_nothing_and_says_the_same_twice(scene: Scene) -> None:
    before = scene.world()
    resolved, check = await judged(scene)
    again = await scene.actuator.check(resolved)
    assert again.ok
    assert again.reason
    # Compared with what the journal gives back: the state must be plain JSON.
    assert dict(again.state) == check.state
    assert len(json.dumps(dict(again.state))) < 2000
    assert all(isinstance(value, int) for value in again.size.values())
    assert scene.world() == before


async def test_apply_has_its_effect_and_verify_sees_it(scene: Scene) -> None:
    before = scene.world()
    resolved, check = await judged(scene)
    outcome = await scene.actuator.apply(resolved, check)
    assert outcome.result is Result.SUCCEEDED, outcome.reason
    assert json.loads(json.dumps(dict(outcome.detail))) == outcome.detail
    assert await scene.actuator.verify(resolved, check, outcome)
    assert scene.world() != before or scene.world is nothing


async def test_apply_twice_with_one_key_has_the_effect_of_once(scene: Scene) -> None:
    resolved, check = await judged(scene)
    first = await scene.actuator.apply(resolved, check)
    assert await scene.actuator.verify(resolved, check, first)
    after = scene.world()
    again = await scene.actuator.apply(resolved, check)
    assert again.result in (Result.REFUSED, Result.FAILED) or scene.world is nothing
    assert scene.world() == after


async def test_apply_at_once_with_one_key_has_the_effect_of_once(scene: Scene) -> None:
    resolved, check = await judged(scene)
    outcomes = await asyncio.gather(*(scene.actuator.apply(resolved, check) for _ in range(4)))
    assert any(outcome.result is Result.SUCCEEDED for outcome in outcomes)
    world = scene.world()
    if isinstance(world, list) and scene.actuator.kind in ("command", "http"):
        assert len(world) == 1
    assert await scene.actuator.verify(resolved, check, Outcome(Result.SUCCEEDED))


async def test_undo_restores_what_was_there_or_refuses(scene: Scene) -> None:
    before = scene.world()
    resolved, check = await judged(scene)
    outcome = await scene.actuator.apply(resolved, check)
    assert await scene.actuator.verify(resolved, check, outcome)
    after = scene.world()
    undone = await scene.actuator.undo(resolved, check, outcome)
    if verb(scene) in scene.actuator.undoable:
        assert undone.result is Result.UNDONE, undone.reason
        assert scene.world() == before
        assert dict((await scene.actuator.check(resolved)).state) == check.state
    else:
        assert undone.result is Result.REFUSED
        assert undone.reason
        assert scene.world() == after


async def test_undo_does_without_the_outcomes_detail(scene: Scene) -> None:
    before = scene.world()
    resolved, check = await judged(scene)
    await scene.actuator.apply(resolved, check)
    undone = await scene.actuator.undo(
        resolved, check, Outcome(Result.SUCCEEDED, "a probe found the effect there")
    )
    assert scene.world() == before or verb(scene) not in scene.actuator.undoable
    assert undone.result in (Result.UNDONE, Result.REFUSED)


async def test_probe_tells_before_from_after(scene: Scene) -> None:
    resolved, check = await judged(scene)
    if scene.action.id != "process.signal":  # it waits for the end of a process that nobody asked to end
        assert await scene.actuator.probe(resolved, check) in scene.settled
    await scene.actuator.apply(resolved, check)
    after = await scene.actuator.probe(resolved, check)
    assert after == "happened" or scene.settled == {"cannot-tell"}


async def test_verify_denies_what_did_not_succeed(scene: Scene) -> None:
    if scene.world is nothing:
        return
    resolved, check = await judged(scene)
    assert not await scene.actuator.verify(resolved, check, Outcome(Result.FAILED, "it did not"))


async def test_a_target_that_vanished_before_the_check_is_no_exception(scene: Scene) -> None:
    resolved = await scene.actuator.resolve(replace(scene.action, key="k1"))
    scene.vanish()
    check = await scene.actuator.check(resolved)
    assert check.reason
    assert not check.ok or scene.actuator.kind in ("http", "noop")


async def test_a_target_that_vanished_after_the_check_ends_as_an_outcome(scene: Scene) -> None:
    resolved, check = await judged(scene)
    scene.vanish()
    outcome = await scene.actuator.apply(resolved, check)
    assert outcome.result is not Result.SUCCEEDED or scene.world is nothing
    assert outcome.reason or scene.world is nothing
    assert isinstance(await scene.actuator.verify(resolved, check, outcome), bool)
    assert (await scene.actuator.undo(resolved, check, outcome)).result in (Result.FAILED, Result.REFUSED)
    assert await scene.actuator.probe(resolved, check) in PROBES


async def test_a_cancelled_apply_ends_as_an_outcome(scene: Scene) -> None:
    resolved, check = await judged(scene)
    effect = asyncio.create_task(scene.actuator.apply(resolved, check))
    await asyncio.sleep(0)
    effect.cancel()
    outcome = await asyncio.gather(effect, return_exceptions=True)
    assert [type(one) for one in outcome] == [Outcome]


async def test_nothing_is_held_open(scene: Scene) -> None:
    resolved, check = await judged(scene)
    before = len(os.listdir("/proc/self/fd"))
    outcome = await scene.actuator.apply(resolved, check)
    await scene.actuator.verify(resolved, check, outcome)
    await scene.actuator.probe(resolved, check)
    await scene.actuator.check(resolved)
    assert (
        len(os.listdir("/proc/self/fd")) <= before + 2
    )  # the receiver's side of a connection closes in its own time


def test_the_configurations_own_tables_are_taken_as_they_are(tmp_path: Path) -> None:
    param = ParamSettings(type="integer", min=1, default=2)
    switch = CommandSettings(argv=["/bin/echo", "{level}"], target=["service:api"], params={"level": param})
    drain = CallSettings(
        url="http://127.0.0.1:1/", target=["service:api"], headers={"Authorization": Secret(env="X")}
    )
    given = tools(
        tmp_path,
        commands={"switch": switch.model_dump()},
        calls={"drain": drain.model_dump()},
        directories={"logs": DirectorySettings(path="/var/log/api", match=["*.gz"]).model_dump()},
    )
    assert command.build(given).verbs == {"switch": "runs /bin/echo"}
    assert http.build(given).verbs
    assert file.build(given).verbs


def test_tools_without_a_source_of_secrets_have_none(tmp_path: Path) -> None:
    given = tools(tmp_path)
    bare = Tools(run=given.run, files=given.files, settings={}, wall=given.wall)
    assert bare.last_good("/etc/x") is None
    with pytest.raises(ValueError, match="no secret"):
        bare.secret({"env": "X"})
