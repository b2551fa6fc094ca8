"""What every perceiver promises, whatever it looks at."""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import fakes
import pytest
from fakes.perceiver_case import Case, Scene
from fakes.perceiver_tools import tools_on
from pydantic import ValidationError

from daemon.clock import ManualClock
from perceivers.base import Batch, Observation, Perceiver

MODULES = [
    found.name for found in pkgutil.iter_modules(fakes.__path__) if found.name.startswith("perceiver_cases_")
]
CASES: list[Case] = [case for name in sorted(MODULES) for case in import_module(f"fakes.{name}").CASES]


@dataclass
class Stage:
    """A scene with the means to put perceivers before it."""

    case: Case
    scene: Scene
    directory: Path
    clock: ManualClock
    built: list[Perceiver]

    def perceiver(self) -> Perceiver:
        self.built.append(self.case.kind.build(self.scene.spec, tools_on(self.clock)))
        return self.built[-1]

    async def poll(self, perceiver: Perceiver) -> Batch:
        async with asyncio.timeout(10):
            return await perceiver.poll()

    def still(self, batch: Batch) -> list[Observation]:
        """The observations without what moves by itself."""
        moving = self.case.moving
        told = [
            replace(
                seen,
                at=0.0,
                unreadable="",
                values={name: value for name, value in seen.values.items() if name not in moving},
            )
            for seen in batch.observations
        ]
        return sorted(told, key=lambda seen: (seen.rule, seen.key))


@pytest.fixture(params=CASES, ids=lambda case: case.name)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    case: Case = request.param
    directory = tmp_path / "scene"
    directory.mkdir()
    async with case.scene(directory) as scene:
        # Started at the real time: pid files and logs have real ones.
        staged = Stage(case, scene, directory, ManualClock(wall=time.time()), [])
        yield staged
        for perceiver in staged.built:
            await perceiver.close()


def listing(directory: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in sorted(directory.rglob("*")):
        stat = path.lstat()
        found[str(path)] = (stat.st_mode, stat.st_size, stat.st_mtime_ns)
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def falls_to(most: int) -> None:
    """Wait until no more than so many descriptors are open: the other side of a connection closes it in its own time."""
    async with asyncio.timeout(5):
        while descriptors() > most:
            await asyncio.sleep(0.001)


def hits(seen: Sequence[Observation]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for one in seen:
        if one.rule:
            found[one.rule, one.key] += one.count
    return found


def changes(seen: Sequence[Observation]) -> set[str]:
    return {one.key for one in seen if one.values.get("changed") is True}


async def test_it_tells_only_what_its_kind_declares(stage: Stage) -> None:
    perceiver = stage.perceiver()
    first = await stage.poll(perceiver)
    await stage.scene.happen()
    stage.clock.advance(1)
    second = await stage.poll(perceiver)
    assert first.observations or second.observations
    for seen in [*first.observations, *second.observations]:
        assert set(seen.values) <= set(stage.case.kind.values)
        assert (seen.perceiver, seen.resource) == (stage.scene.spec.name, stage.scene.spec.resource)
        assert 0 <= stage.clock.wall() - seen.at <= 1
        assert all(isinstance(value, float | int | str | bool | None) for value in seen.values.values())
        assert not seen.rule or stage.case.kind.rules


async def test_it_is_what_it_says(stage: Stage) -> None:
    perceiver = stage.perceiver()
    spec = stage.scene.spec
    assert (perceiver.name, perceiver.kind, perceiver.resource) == (
        spec.name,
        stage.case.kind.name,
        spec.resource,
    )
    assert isinstance(spec.settings, stage.case.kind.settings)


async def test_its_settings_are_strict(stage: Stage) -> None:
    settings = stage.scene.spec.settings
    with pytest.raises(ValidationError):
        type(settings).model_validate({**settings.model_dump(exclude_unset=True), "no_such_key": 1})
    with pytest.raises(ValidationError):
        setattr(settings, next(iter(type(settings).model_fields)), "changed")


async def test_a_poll_changes_nothing(stage: Stage) -> None:
    perceiver = stage.perceiver()
    before = listing(stage.directory)
    for _ in range(3):
        await stage.poll(perceiver)
    await falls_to(descriptors())
    open_before = descriptors()
    for _ in range(50):
        stage.clock.advance(1)
        await stage.poll(perceiver)
    await falls_to(open_before)
    assert listing(stage.directory) == before


async def test_a_cancelled_poll_loses_nothing(stage: Stage) -> None:
    perceiver, undisturbed = stage.perceiver(), stage.perceiver()
    got: list[Observation] = [*(await stage.poll(perceiver)).observations]
    expected: list[Observation] = [*(await stage.poll(undisturbed)).observations]
    for steps in range(12):
        if steps % 6 == 0:
            await stage.scene.happen()
        poll = asyncio.ensure_future(perceiver.poll())
        for _ in range(steps):
            await asyncio.sleep(0)
        poll.cancel()
        with suppress(asyncio.CancelledError):
            got += (await poll).observations
    got += (await stage.poll(perceiver)).observations
    expected += (await stage.poll(undisturbed)).observations
    assert hits(got) == hits(expected)
    assert changes(got) == changes(expected)
    assert stage.still(await stage.poll(perceiver)) == stage.still(await stage.poll(undisturbed))


async def test_restored_it_goes_on_as_if_it_had_never_stopped(stage: Stage) -> None:
    perceiver = stage.perceiver()
    await stage.scene.happen()
    cursor = (await stage.poll(perceiver)).cursor
    for _ in range(3):
        stage.clock.advance(1)
        follower = stage.perceiver()
        if cursor is not None:
            follower.restore(json.loads(json.dumps(cursor)))
        await stage.scene.happen()
        never_stopped, restored = await stage.poll(perceiver), await stage.poll(follower)
        assert stage.still(restored) == stage.still(never_stopped)
        cursor = restored.cursor


async def test_trouble_is_told_and_not_raised(stage: Stage) -> None:
    perceiver = stage.perceiver()
    await stage.poll(perceiver)
    await stage.scene.spoil()
    stage.clock.advance(1)
    assert stage.case.troubled((await stage.poll(perceiver)).observations)


async def test_closed_it_holds_nothing(stage: Stage) -> None:
    open_before = descriptors()
    perceiver = stage.perceiver()
    perceiver.wake_on(lambda: None)
    await stage.poll(perceiver)
    await perceiver.close()
    await perceiver.close()
    await falls_to(open_before)
