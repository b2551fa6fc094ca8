"""`doctor` on hosts that are well and hosts that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.desk import RunningDesk
from fakes.typed import typed

from daemon.cli.doctor import Check, examine

CONFIG = """
schema = 1
mode = "observe"
[daemon]
state = {state}
policies = {policies}
[services.api]
restart = "command.restart-api"
[commands.restart-api]
argv = ["/bin/true"]
target = ["service:api"]
[commands.gone]
argv = ["/nowhere/at/all"]
undo = ["/nowhere/else"]
target = ["service:api"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    places = {name: json.dumps(str(tmp_path / name)) for name in ("state", "policies")}
    file.write_text(CONFIG.format(**places))
    return file


def found(file: Path, socket: Path | None = None) -> dict[str, Check]:
    return {check.name: check for check in examine(file, socket)}


def test_what_is_right_is_said(config: Path) -> None:
    checks = found(config)
    assert {
        checks[name].state
        for name in ("python", "package", "config", "policy", "policy files", "state", "command.restart-api")
    } == {"OK"}
    assert {"openat2", "pidfd", "landlock", "pressure"} <= set(checks)


def test_what_is_wrong_comes_with_what_mends_it(config: Path) -> None:
    checks = found(config, config.parent / "admin.sock")
    assert checks["socket"].state == "WARN"
    assert "midwatch run" in checks["socket"].fix
    assert checks["channels"].state == "WARN"
    assert checks["command.gone"].state == "FAIL"
    assert "argv: /nowhere/at/all; undo: /nowhere/else" in checks["command.gone"].says
    assert f"{config}:" in checks["command.gone"].fix
    said = typed("doctor", "--config", str(config))
    assert said.code == 1
    assert "FAIL  command.gone" in said.out
    assert "\nMend\n" in said.out


async def test_a_running_daemon_is_seen(config: Path, desk: RunningDesk) -> None:
    checks = await desk.by(lambda client: found(config, client.path))
    assert checks["socket"].says == f"{desk.path}: midwatch 0.1.0, up"


def test_policy_files_that_others_may_write_are_found(config: Path) -> None:
    policies = config.parent / "policies"
    policies.mkdir(mode=0o755)
    loose = policies / "a.toml"
    loose.write_text("schema = 1\n")
    loose.chmod(0o666)
    (policies / "b.toml").symlink_to(policies / "gone")
    states = [check for check in examine(config) if check.name == "policy files"]
    assert [check.state for check in states] == ["OK", "FAIL", "FAIL"]
    assert states[1].fix == f"chmod go-w {loose}"


def test_a_broken_configuration_ends_the_round_early(config: Path) -> None:
    config.write_text("schema = 1\nmod = 'act'\n")
    checks = found(config)
    assert checks["config"].state == "FAIL"
    assert f"{config}:2" in checks["config"].says
    assert checks["config"].fix == "midwatch check"
    assert "policy" not in checks
    assert found(config.parent / "none.toml")["config"].fix == "midwatch init"


def test_programs_get_json(config: Path) -> None:
    said = typed("doctor", "--json", "--config", str(config))
    assert all(set(check) == {"name", "state", "says", "fix"} for check in said.json)
