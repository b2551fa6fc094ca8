"""Where the running daemon's socket and journal are, found with nothing but the standard library.

`daemon.config.places` says where a daemon puts its things; this finds those of a daemon that somebody else may have started, without
importing (or needing to be allowed to read, or being stopped by a fault in) the configuration. A test holds the two to the same answers.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

SYSTEM = Path("/etc/midwatch/config.toml")
SOCKET = "admin.sock"
JOURNAL = "midwatch.db"
_RUNTIME = Path("/run/midwatch")
_STATE = Path("/var/lib/midwatch")


def config_file(given: Path | None, env: Mapping[str, str] = os.environ, system: Path = SYSTEM) -> Path:
    """The configuration file: as given (`--config`, MIDWATCH_CONFIG), else the system's, else the user's own."""
    if given is not None:
        return given
    return next((path for path in (system, own_config(env)) if os.path.lexists(path)), system)


def own_config(env: Mapping[str, str] = os.environ) -> Path:
    """The configuration file of a user who is not root."""
    return _home(env, "XDG_CONFIG_HOME", ".config") / "config.toml"


def socket(given: Path | None, config: Path, env: Mapping[str, str] = os.environ) -> Path:
    """The socket to talk to: as given (`--socket`, MIDWATCH_SOCKET), as configured, else the first usual place where there is one."""
    if given is not None:
        return given
    if configured := _daemon_table(config).get("socket"):
        return Path(configured)
    return _first(_runtimes(env, config), SOCKET)


def journal(config: Path, env: Mapping[str, str] = os.environ) -> Path:
    """The journal's file."""
    if configured := _daemon_table(config).get("state"):
        return Path(configured) / JOURNAL
    return _first(_states(env), JOURNAL)


def _first(places: Iterator[Path], name: str) -> Path:
    """The first place that has it; when none does, the one where a daemon started by this user would put it."""
    found = [place / name for place in places]
    return next((path for path in found if path.exists()), found[0])


def _runtimes(env: Mapping[str, str], config: Path) -> Iterator[Path]:
    if runtime := env.get("RUNTIME_DIRECTORY"):
        yield Path(runtime.split(":")[0])
    if os.path.isabs(runtime := env.get("XDG_RUNTIME_DIR", "")):
        yield Path(runtime) / "midwatch"
    if configured := _daemon_table(config).get("state"):
        yield Path(configured)
    yield from _states(env)
    yield _RUNTIME


def _states(env: Mapping[str, str]) -> Iterator[Path]:
    if state := env.get("STATE_DIRECTORY"):
        yield Path(state.split(":")[0])
    yield _home(env, "XDG_STATE_HOME", ".local/state")
    yield _STATE


def _home(env: Mapping[str, str], name: str, fallback: str) -> Path:
    # The XDG specification: a relative path is to be ignored.
    directory = env.get(name, "")
    return (
        Path(directory) if os.path.isabs(directory) else Path(env.get("HOME") or Path.home()) / fallback
    ) / "midwatch"


def _daemon_table(config: Path) -> dict[str, str]:
    """`[daemon]` of the file and its drop-ins, as far as it can be read: a daemon that runs must be reachable whatever the files say now."""
    merged: dict[str, str] = {}
    for path in [config, *sorted(config.parent.glob("conf.d/*.toml"))]:
        try:
            table = tomllib.loads(path.read_text()).get("daemon", {})
        except (OSError, ValueError):
            continue
        if isinstance(table, dict):
            merged |= {name: value for name, value in table.items() if isinstance(value, str)}
    return merged
