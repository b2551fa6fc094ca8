"""The manual knows every verb and every option, and promises nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from fakes.desk import RunningDesk

from daemon.api.server import Api
from daemon.cli.app import app

MANUAL = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
EVERYWHERE = {"--json", "--dry-run", "--socket", "--config", "--help"}


def verbs(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from verbs(command, f"{before}{name} ")


@pytest.mark.parametrize(
    ("name", "command"), list(verbs(app)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_verb_and_option_is_in_the_manual(name: str, command: click.Command) -> None:
    assert re.search(rf"`{name}[` ]", MANUAL)
    assert command.help
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--") and option not in EVERYWHERE:
                assert option in MANUAL


def test_every_verb_in_the_manual_exists() -> None:
    known = {name for name, _ in verbs(app)}
    rows = [line for line in MANUAL.split("## JSON")[0].splitlines() if line.startswith("| `")]
    named = {
        name for row in rows for name in re.findall(r"`([a-z-]+(?: [a-z]+)?)[^`]*`", row.split(" | ")[0])
    }
    assert named <= known


async def test_every_path_is_in_the_manual(desk: RunningDesk) -> None:
    paths = {route.path for route in Api(None, None).app().routes}  # type: ignore[arg-type, attr-defined]
    for path in paths:
        short = re.sub(r"\{(\w+)\}", lambda match: match[1].upper(), path.removeprefix("/api/v1"))
        assert f"{short}`" in MANUAL or f"{short}[" in MANUAL


def keys(section: str, row: str) -> set[str]:
    line = next(line for line in MANUAL.split(section)[1].splitlines() if line.startswith(f"| `{row}` |"))
    return set(re.findall(r"`([a-z_]+)`", line.split(" | ")[1]))


async def test_status_is_as_the_manual_says(desk: RunningDesk) -> None:
    status = await desk.by(lambda client: client.get("/status"))
    assert set(status) | set(status["self"]) | set(status["reach"]) == keys("## JSON", "status")


async def test_the_things_are_as_the_manual_says(desk: RunningDesk) -> None:
    incident = await desk.incident()
    await desk.asked(incident)
    found = await desk.by(lambda client: client.get(f"/incidents/{incident}"))
    added = keys("## JSON", "incidents show")
    for name, thing in (
        ("incident", {key: value for key, value in found.items() if key not in added}),
        ("approval", found["approvals"][0]),
        ("signal", found["signals"][0]),
    ):
        paragraph = MANUAL.split(f"**{name}**:")[1].split("\n\n")[0]
        assert set(thing) <= set(re.findall(r"`([a-z_]+)`", paragraph))
