"""Where things are: the configuration, the vendor's policies, the state, the socket."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.config import environment
from daemon.config.environment import Environment
from daemon.config.settings import DaemonSettings
from daemon.errors import ConfigError, Problem

SYSTEM = Path("/etc/midwatch/config.toml")


@dataclass(frozen=True, slots=True)
class Places:
    """The directories and paths of one running midwatch, all absolute unless the configuration was named relatively."""

    state: Path
    """The journal and the kept copies."""
    socket: Path
    policies: Path
    """The site's policy files."""
    runbooks: Path
    """The site's own runbooks."""


def vendor() -> Path:
    """The policies that come with midwatch: those of the checkout, else those that were installed."""
    checkout = Path(__file__).resolve().parents[2] / "policies"
    return checkout if checkout.is_dir() else Path(sys.prefix, "share", "midwatch", "policies")


def find(option: Path | None = None, environ: Mapping[str, str] | None = None, system: Path = SYSTEM) -> Path:
    """The configuration file: `option` (--config), MIDWATCH_CONFIG, `system`, then the user's own. Raises ConfigError when there is none."""
    if option is not None:
        return option
    env = environment.read(environ)
    if env.config:
        return Path(env.config)
    own = _base(env.xdg_config, env, ".config") / "midwatch" / "config.toml"
    for path in (system, own):
        if os.path.lexists(path):
            return path
    hint = "write a first one with `midwatch init`, or name yours with --config or MIDWATCH_CONFIG"
    raise ConfigError([Problem(str(own), f"there is no configuration, neither here nor at {system}", hint)])


def places(config: Path, settings: DaemonSettings, environ: Mapping[str, str] | None = None) -> Places:
    """What is said in `[daemon]`, else what systemd and the desktop say, else the user's home."""
    env = environment.read(environ)
    state = Path(settings.state) if settings.state else _state(env)
    socket = Path(settings.socket) if settings.socket else _socket(env, state)
    policies = Path(settings.policies) if settings.policies else config.parent / "policies.d"
    runbooks = Path(settings.runbooks) if settings.runbooks else config.parent / "runbooks.d"
    return Places(state, socket, policies, runbooks)


def _state(env: Environment) -> Path:
    return _first(env.state) if env.state else _base(env.xdg_state, env, ".local/state") / "midwatch"


def _socket(env: Environment, state: Path) -> Path:
    if env.runtime:
        return _first(env.runtime) / "admin.sock"
    if env.xdg_runtime and os.path.isabs(env.xdg_runtime):
        return Path(env.xdg_runtime, "midwatch", "admin.sock")
    return state / "admin.sock"


def _first(directories: str) -> Path:
    # systemd joins several directories of one unit with colons.
    return Path(directories.partition(":")[0])


def _base(directory: str | None, env: Environment, fallback: str) -> Path:
    # The XDG specification: a relative path is to be ignored.
    if directory and os.path.isabs(directory):
        return Path(directory)
    return (Path(env.home) if env.home else Path.home()) / fallback
