"""From files to everything that can be built without touching the host: what `check` tries, and what a start or a reload goes on from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.app.registry import kinds
from daemon.config import load as config_load
from daemon.config import places, toml
from daemon.config.load import Config
from daemon.errors import ConfigError, PolicyError, Problem
from daemon.model.runbook import Runbook
from daemon.policy import load as policy_load
from daemon.policy import testing
from daemon.policy.engine import Policy
from daemon.reason import runbooks as runbook_load


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything that was read from files, sound as far as files can show."""

    config: Config
    policy: Policy
    runbooks: tuple[Runbook, ...]
    laws: Mapping[Path, str]
    """Every policy and runbook file, the vendor's too → SHA-256 of what was there right before it was read."""
    trouble: str = ""
    """Why the policy files cannot be used, so that everything is denied; empty when they can."""

    def changed(self) -> list[str]:
        """Files that read otherwise now than what is in force."""
        now = _laws(self.config)
        laws = {path for path in {*now, *self.laws} if now.get(path) != self.laws.get(path)}
        return sorted(str(path) for path in {*self.config.changed(), *laws})


def assemble(path: Path) -> Assembly:
    """Read configuration, runbooks and policy, and run the policy's inline tests. Raises ConfigError or PolicyError with all problems."""
    config = read_config(path)
    laws = _laws(config)
    return Assembly(config, read_policy(config), read_runbooks(config), laws)


def assemble_to_watch(path: Path) -> Assembly:
    """As `assemble`, but with policy files that cannot be used it still stands watch: everything is denied. Raises ConfigError."""
    config = read_config(path)
    laws = _laws(config)
    try:
        policy, trouble = read_policy(config), ""
    except PolicyError as exc:
        policy, trouble = Policy.deny_all(str(exc.problems[0])), str(exc)
    return Assembly(config, policy, read_runbooks(config), laws, trouble)


def read_config(path: Path) -> Config:
    return config_load.load(path, kinds())


def read_policy(config: Config) -> Policy:
    """The vendor's rules, those of the packs, and the site's over them; every inline test must pass. Raises PolicyError."""
    if problem := _closed(config.places.policies):
        raise PolicyError([problem])
    vendor, site = _policies(config)
    policy = policy_load.load(
        vendor=vendor,
        site=site,
        commands=frozenset(config.settings.commands),
        people=frozenset(config.settings.people),
        owner=policy_load.owner_of(config.places.policies),
    )
    failed = [test for test in testing.run_tests(policy) if not test.passed]
    if failed:
        raise PolicyError([Problem(test.where, f"this test fails: {test.message}") for test in failed])
    return policy


def read_runbooks(config: Config) -> tuple[Runbook, ...]:
    """Those of the packs, then the site's own. Raises ConfigError."""
    if problem := _closed(config.places.runbooks):
        raise ConfigError([problem])
    return tuple(runbook_load.load(_runbooks(config)))


def _policies(config: Config) -> tuple[list[Path], list[Path]]:
    """The vendor's policy files, and the site's."""
    vendor = [*policy_load.paths(places.vendor() / "rules"), *_of_packs(config, "rules.toml")]
    return vendor, policy_load.paths(config.places.policies)


def _runbooks(config: Config) -> list[Path]:
    return [*_of_packs(config, "runbooks.toml"), *policy_load.paths(config.places.runbooks)]


def _of_packs(config: Config, name: str) -> list[Path]:
    found = [places.vendor() / "packs" / pack / name for pack in config.settings.packs]
    return [path for path in found if path.exists()]


def _laws(config: Config) -> dict[Path, str]:
    vendor, site = _policies(config)
    return {path: _digest(path) for path in (*vendor, *site, *_runbooks(config))}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(toml.read(path)).hexdigest()
    except OSError:
        return ""  # whoever reads it for good says why it cannot be read


def _closed(directory: Path) -> Problem | None:
    """Why a directory cannot be looked into: what lies there would go unheeded without a word."""
    try:
        os.listdir(directory)
    except FileNotFoundError:
        return None
    except OSError as exc:
        hint = "make it a directory that the user who runs midwatch can read"
        return Problem(str(directory), f"cannot be listed: {exc.strerror}", hint)
    return None
