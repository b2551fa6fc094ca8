"""The light search for socket and journal answers as the configuration's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.cli import places as light
from daemon.config import places as full
from daemon.config.settings import DaemonSettings

WRITTEN = [
    "",
    '[daemon]\nsocket = "/srv/mw/admin.sock"\n',
    '[daemon]\nstate = "/srv/mw/state"\n',
    '[daemon]\nstate = "/srv/mw/state"\nsocket = "/srv/mw/run/admin.sock"\n',
]
ENVIRONMENTS = [
    {},
    {"XDG_RUNTIME_DIR": "/run/user/1000"},
    {"XDG_RUNTIME_DIR": "relative"},
    {"RUNTIME_DIRECTORY": "/run/mw:/run/other", "STATE_DIRECTORY": "/var/lib/mw:/var/lib/other"},
    {"XDG_STATE_HOME": "/home/anna/state"},
    {"XDG_STATE_HOME": "relative"},
]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_both_searches_agree(tmp_path: Path, written: str, environment: dict[str, str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(written)
    env = {"HOME": str(tmp_path / "home"), **environment}
    keys = [line.partition(" = ") for line in written.splitlines()[1:]]
    settings = DaemonSettings.model_validate({name: value.strip('"') for name, _, value in keys})
    wanted = full.places(config, settings, env)
    assert light.socket(None, config, env) == wanted.socket
    assert light.journal(config, env) == wanted.state / "midwatch.db"


@pytest.mark.parametrize("there", [(), ("system",), ("own",), ("system", "own")])
def test_both_find_the_same_configuration(tmp_path: Path, there: tuple[str, ...]) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "own")}
    paths = {"system": tmp_path / "system.toml", "own": tmp_path / "own" / "midwatch" / "config.toml"}
    for name in there:
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_text("")
    found = light.config_file(None, env, paths["system"])
    assert found == (full.find(None, env, paths["system"]) if there else paths["system"])


def test_what_is_named_is_taken(tmp_path: Path) -> None:
    assert light.config_file(tmp_path) == tmp_path
    assert light.socket(tmp_path / "s", tmp_path / "missing.toml") == tmp_path / "s"


def test_a_drop_in_counts_and_a_broken_file_is_passed_over(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("mode = ")
    drop_ins = tmp_path / "conf.d"
    drop_ins.mkdir()
    (drop_ins / "10-place.toml").write_text('[daemon]\nsocket = "/srv/mw.sock"\n')
    (drop_ins / "20-odd.toml").write_text("daemon = 3\n")
    assert light.socket(None, config, {"HOME": str(tmp_path)}) == Path("/srv/mw.sock")


def test_a_running_daemon_of_this_user_is_found_before_the_usual_place(tmp_path: Path) -> None:
    state = tmp_path / "state" / "midwatch"
    state.mkdir(parents=True)
    (state / "admin.sock").touch()
    env = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path / "state")}
    assert light.socket(None, tmp_path / "config.toml", env) == state / "admin.sock"
