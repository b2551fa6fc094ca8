"""Where midwatch looks for things, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.places import find, places, vendor
from daemon.config.settings import DaemonSettings
from daemon.errors import ConfigError

CONFIG = Path("/etc/midwatch/config.toml")
DEFAULTS = DaemonSettings()


def test_the_configuration_is_looked_for_in_order(tmp_path: Path) -> None:
    system, own = tmp_path / "system.toml", tmp_path / "xdg" / "midwatch" / "config.toml"
    own.parent.mkdir(parents=True)
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "HOME": "/nowhere"}
    own.touch()
    assert find(None, environ, system) == own
    system.touch()
    assert find(None, environ, system) == system
    assert find(None, {**environ, "MIDWATCH_CONFIG": "mine.toml"}, system) == Path("mine.toml")
    assert find(Path("option.toml"), {**environ, "MIDWATCH_CONFIG": "mine.toml"}, system) == Path(
        "option.toml"
    )


def test_the_users_own_is_in_their_home(tmp_path: Path) -> None:
    own = tmp_path / ".config" / "midwatch" / "config.toml"
    own.parent.mkdir(parents=True)
    own.touch()
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "relative/is/ignored", "MIDWATCH_CONFIG": ""}
    assert find(None, environ, tmp_path / "none.toml") == own


def test_no_configuration_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find(None, {"HOME": str(tmp_path)}, tmp_path / "none.toml")
    [problem] = caught.value.problems
    assert problem.where == str(tmp_path / ".config/midwatch/config.toml")
    assert str(tmp_path / "none.toml") in problem.what
    assert "midwatch init" in problem.hint


def test_what_is_said_wins() -> None:
    settings = DaemonSettings(state="/s", socket="/k", policies="/p", runbooks="/r")
    got = places(CONFIG, settings, {"STATE_DIRECTORY": "/x", "RUNTIME_DIRECTORY": "/y"})
    assert (got.state, got.socket, got.policies, got.runbooks) == (
        Path("/s"),
        Path("/k"),
        Path("/p"),
        Path("/r"),
    )


@pytest.mark.parametrize(
    ("environ", "state", "socket"),
    [
        (
            {"STATE_DIRECTORY": "/var/lib/midwatch", "RUNTIME_DIRECTORY": "/run/midwatch:/run/other"},
            "/var/lib/midwatch",
            "/run/midwatch/admin.sock",
        ),
        (
            {"HOME": "/h", "XDG_STATE_HOME": "/st", "XDG_RUNTIME_DIR": "/run/user/7"},
            "/st/midwatch",
            "/run/user/7/midwatch/admin.sock",
        ),
        ({"HOME": "/h"}, "/h/.local/state/midwatch", "/h/.local/state/midwatch/admin.sock"),
        ({"HOME": "/h", "XDG_STATE_HOME": "rel", "XDG_RUNTIME_DIR": "rel"}, "/h/.local/state/midwatch", None),
    ],
)
def test_what_systemd_or_the_desktop_says_comes_next(
    environ: dict[str, str], state: str, socket: str | None
) -> None:
    got = places(CONFIG, DEFAULTS, environ)
    assert (got.state, got.socket) == (Path(state), Path(socket or f"{state}/admin.sock"))
    assert got.policies == Path("/etc/midwatch/policies.d")
    assert got.runbooks == Path("/etc/midwatch/runbooks.d")


def test_the_vendor_is_beside_the_code() -> None:
    assert (vendor() / "packs" / "host" / "perceivers.toml").is_file()
