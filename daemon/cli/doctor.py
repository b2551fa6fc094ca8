"""`midwatch doctor`: everything that must be right outside of midwatch, each with the command that mends it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from daemon.api.client import Client
from daemon.cli import places
from daemon.cli.options import as_json, reaching
from daemon.cli.terminal import Cell, Page, show_json
from daemon.errors import ConfigError, MidwatchError, NotRunning, PolicyError
from daemon.model.units import spell_bytes

if TYPE_CHECKING:
    from daemon.config.load import Config as Loaded

OLDEST_PYTHON = (3, 11)
LEAST_SPACE = 256 * 2**20
"""Bytes free in the state directory below which it is a warning."""
STYLES = {"OK": "good", "WARN": "warning", "FAIL": "error"}
OPENAT2, PIDFD_OPEN, LANDLOCK_CREATE_RULESET = 437, 434, 444
"""System call numbers, the same on every architecture since 5.1."""
LANDLOCK_VERSION = 1
"""landlock_create_ruleset's flag that asks for the ABI only."""
LANDLOCK_NETWORK = 4
"""The ABI from which on it can bound connections."""
ENOSYS = 38


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    state: Literal["OK", "WARN", "FAIL"]
    says: str
    fix: str = ""
    """What to type or write; empty when all is well."""


@click.command()
@as_json
@reaching
def doctor(json: bool, socket: Path | None, config: Path | None) -> None:
    """Look at everything that midwatch rests on. Exit 1 when something fails."""
    found = list(examine(places.config_file(config), socket))
    if json:
        show_json([asdict(check) for check in found])
    else:
        _page(found).show()
    raise SystemExit(1 if any(check.state == "FAIL" for check in found) else 0)


def _page(found: list[Check]) -> Page:
    page = Page()
    page.rows([[Cell(check.state, STYLES[check.state]), check.name, check.says] for check in found])
    page.section("Mend", [[check.name, check.fix] for check in found if check.fix])
    return page


def examine(file: Path, socket: Path | None = None) -> Iterator[Check]:
    """Every check, in the order in which one would mend things."""
    yield _python()
    yield _owner()
    yield from _kernel()
    loaded, check = _config(file)
    yield check
    yield _reachable(places.socket(socket, file))
    if loaded is None:
        return
    yield _policy(loaded)
    yield from _policy_files(loaded.places.policies)
    yield _state(loaded.places.state)
    yield _channels(loaded)
    yield from _commands(loaded)


def _python() -> Check:
    version = sys.version.split()[0]
    if sys.version_info < OLDEST_PYTHON:
        return Check(
            "python", "FAIL", f"{version} is too old", "install Python 3.11 or newer and midwatch into it"
        )
    return Check("python", "OK", version)


def _owner() -> Check:
    """python-daemon owns the top-level name too; installers overwrite one with the other and say nothing."""
    from importlib.metadata import packages_distributions

    owners = sorted(set(packages_distributions().get("daemon", ())))
    strangers = [owner for owner in owners if owner != "midwatch"]
    if strangers:
        fix = f"install midwatch into an environment of its own, without {', '.join(strangers)}"
        return Check("package", "WARN", f"`daemon` belongs to {', '.join(owners)}", fix)
    return Check("package", "OK", "`daemon` is midwatch's alone")


def _kernel() -> Iterator[Check]:
    yield _call(
        "openat2", OPENAT2, "paths are opened without following links that are swapped in", "Linux 5.6"
    )
    yield _call(
        "pidfd",
        PIDFD_OPEN,
        "a process is signalled for certain, not its successor of the same number",
        "Linux 5.3",
    )
    yield _landlock()
    if os.access("/proc/pressure/memory", os.R_OK):
        yield Check("pressure", "OK", "pressure readings (PSI) are there")
    else:
        yield Check("pressure", "WARN", "no pressure readings (PSI)", "boot with psi=1, or go without them")


def _syscall(number: int, *values: int) -> int:
    """A raw system call; the result, or minus the error number."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in values))
    return result if result >= 0 else -ctypes.get_errno()


def _call(name: str, number: int, what: str, since: str) -> Check:
    # Called with nonsense: a kernel that has it complains of the values, one that has not says so.
    if _syscall(number, -1, 0, 0, 0) == -ENOSYS:
        return Check(name, "FAIL", f"missing: {what}", f"run a kernel from {since} on")
    return Check(name, "OK", what)


def _landlock() -> Check:
    abi = _syscall(LANDLOCK_CREATE_RULESET, 0, 0, LANDLOCK_VERSION)
    if abi < 0:
        return Check(
            "landlock",
            "WARN",
            "not there: children are bounded by limits and user alone",
            "boot with lsm=landlock,...",
        )
    if abi < LANDLOCK_NETWORK:
        return Check(
            "landlock",
            "WARN",
            f"ABI {abi}: files are bounded, connections are not",
            "Linux 6.7 bounds connections too",
        )
    return Check("landlock", "OK", f"ABI {abi}: files and connections of children can be bounded")


def _config(file: Path) -> tuple[Loaded | None, Check]:
    from daemon.app.assemble import read_config

    try:
        loaded = read_config(file)
    except ConfigError as exc:
        fix = "midwatch check" if file.exists() else "midwatch init"
        return None, Check("config", "FAIL", str(exc.problems[0]), fix)
    return loaded, Check("config", "OK", str(file))


def _reachable(socket: Path) -> Check:
    try:
        status = Client(socket).get("/status")["self"]
    except NotRunning:
        return Check(
            "socket", "WARN", f"nobody answers on {socket}", "systemctl start midwatch, or midwatch run"
        )
    except MidwatchError as exc:
        return Check("socket", "FAIL", str(exc), f"ls -l {socket}")
    return Check("socket", "OK", f"{socket}: midwatch {status['version']}, up")


def _policy(loaded: Loaded) -> Check:
    from daemon.app.assemble import read_policy

    try:
        policy = read_policy(loaded)
    except PolicyError as exc:
        return Check(
            "policy", "FAIL", f"everything would be denied: {exc.problems[0]}", "midwatch policy check"
        )
    return Check("policy", "OK", f"{len(policy.rules)} rules")


def _policy_files(directory: Path) -> Iterator[Check]:
    """Whoever can write a policy file can have anything done."""
    if not directory.is_dir():
        yield Check("policy files", "OK", f"there is no {directory}: the vendor's rules alone hold")
        return
    for path in (directory, *sorted(directory.glob("*.toml"))):
        yield _policy_file(path)


def _policy_file(path: Path) -> Check:
    try:
        found = path.stat()
    except OSError as exc:
        return Check("policy files", "FAIL", f"{path} cannot be read: {exc.strerror}", f"ls -l {path}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        says = f"{path} may be written by others ({stat.filemode(found.st_mode)})"
        return Check("policy files", "FAIL", says, f"chmod go-w {path}")
    if found.st_uid not in (0, os.geteuid()):
        return Check("policy files", "FAIL", f"{path} belongs to user {found.st_uid}", f"chown root {path}")
    return Check("policy files", "OK", str(path))


def _state(directory: Path) -> Check:
    there = next(place for place in (directory, *directory.parents) if place.exists())
    if not os.access(there, os.W_OK):
        return Check(
            "state",
            "FAIL",
            f"{directory} cannot be written",
            f"chown {os.geteuid()} {there}, or set `state` in [daemon]",
        )
    free = shutil.disk_usage(there).free
    says = f"{directory}: {spell_bytes(free)} free"
    if free < LEAST_SPACE:
        return Check("state", "WARN", says, f"make room: midwatch wants {spell_bytes(LEAST_SPACE)}")
    return Check("state", "OK", says)


def _channels(loaded: Loaded) -> Check:
    names = sorted(loaded.channels)
    if not names:
        return Check(
            "channels",
            "WARN",
            "none: nobody is told of anything",
            "add [channels.NAME] and [routes]; then midwatch notify-test NAME",
        )
    return Check("channels", "OK", f"{', '.join(names)}; try one: midwatch notify-test {names[0]}")


def _commands(loaded: Loaded) -> Iterator[Check]:
    """A command whose program is missing is found out at three in the morning otherwise."""
    for name, command in loaded.settings.commands.items():
        lines: dict[str, list[str] | None] = {
            "argv": command.argv,
            "ready": command.ready,
            "verify": command.verify,
            "undo": command.undo,
            "probe": command.probe,
        }
        missing = [
            f"{key}: {argv[0]}"
            for key, argv in lines.items()
            if argv and not _runs(argv[0], command.env.get("PATH"))
        ]
        where = loaded.where("commands", name)
        if missing:
            yield Check(
                f"command.{name}",
                "FAIL",
                f"cannot be run: {'; '.join(missing)}",
                f"install it, or mend {where}",
            )
        else:
            yield Check(f"command.{name}", "OK", command.argv[0])


def _runs(program: str, path: str | None) -> bool:
    return "{" in program or shutil.which(program, path=path) is not None
