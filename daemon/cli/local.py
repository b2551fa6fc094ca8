"""Verbs that work on the files of this host: run, demo, check, init, perceive."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.api.client import path
from daemon.cli import places
from daemon.cli.options import FILE, as_json, daemon, dry_run, reaching
from daemon.cli.options import config as config_option
from daemon.cli.terminal import Cell, Page, Row, moment, show_json
from daemon.errors import MidwatchError

if TYPE_CHECKING:
    from daemon.config.plans import PerceiverPlan


@click.command()
@config_option
def run(config: Path | None) -> None:
    """Stand watch until told to stop (SIGTERM, Ctrl-C)."""
    from daemon.app.run import run as stand_watch

    raise SystemExit(stand_watch(configured(config)))


@click.command()
@click.option("--deny", is_flag=True, help="With the allow rules taken out.")
@click.option("--keep", is_flag=True, help="Leave its directory for a look afterwards.")
def demo(deny: bool, keep: bool) -> None:
    """The whole loop on real faults in a little world of its own; no key, no network."""
    from daemon.demo.main import main as show

    raise SystemExit(show(deny, keep))


def configured(given: Path | None) -> Path:
    """The configuration file. Raises ConfigError when there is none."""
    from daemon.config.places import find

    return find(given)


@click.command()
@as_json
@config_option
def check(json: bool, config: Path | None) -> None:
    """Read configuration, policy and runbooks, run their tests, and say what they amount to. Changes nothing."""
    told = _facts(configured(config))
    if json:
        show_json(told)
    else:
        _checked(told).show()


def look_over(config: Path | None) -> Page:
    """What `check` shows a person. Raises ConfigError, PolicyError."""
    return _checked(_facts(configured(config)))


def _facts(file: Path) -> dict[str, Any]:
    from daemon.app.assemble import assemble

    found = assemble(file)
    settings, places = found.config.settings, found.config.places
    return {
        "config": str(file),
        "mode": found.config.mode.name.lower(),
        "packs": list(settings.packs),
        "perceivers": sorted(plan.name for plan in found.config.perceivers),
        "services": sorted(settings.services),
        "channels": sorted(found.config.channels),
        "rules": len(found.policy.rules),
        "policy_tests": len(found.policy.tests),
        "runbooks": sorted(book.id for book in found.runbooks),
        "state": str(places.state),
        "socket": str(places.socket),
        "policies": str(places.policies),
    }


def _checked(told: Mapping[str, Any]) -> Page:
    page = Page()
    page.line(f"{told['config']} is sound", "good")
    page.rows([[Cell(name, "quiet"), _listed(value)] for name, value in told.items() if name != "config"])
    return page


def _listed(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    return f"{len(value)}: {', '.join(value)}" if value else "none"


@click.command()
@click.argument("file", type=FILE, required=False)
@dry_run
def init(file: Path | None, dry_run: bool) -> None:
    """Write a first configuration for this host, to FILE or the usual place: useful checks, observing only."""
    from daemon.config import starter

    text = starter.starter()
    target = file or _usual_place()
    if dry_run:
        click.echo(text, nl=False)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise MidwatchError(
            f"{target} exists and is left as it is; see what would be written with `midwatch init --dry-run`"
        ) from None
    click.echo(f"wrote {target}; next: midwatch check --config {target}")


def _usual_place() -> Path:
    return places.own_config() if os.geteuid() else places.SYSTEM


@click.command()
@click.argument("name")
@click.option(
    "--local", "here", is_flag=True, help="Without a daemon: build it from the files and poll it once."
)
@as_json
@reaching
def perceive(name: str, here: bool, json: bool, socket: Path | None, config: Path | None) -> None:
    """Look through one perceiver now and show what it sees."""
    seen = _poll_here(name, config) if here else daemon(socket, config).post(path("perceivers", name, "poll"))
    if json:
        show_json(seen)
    else:
        _observations(seen).show()


def _poll_here(name: str, config: Path | None) -> list[dict[str, Any]]:
    import asyncio
    from dataclasses import asdict

    from daemon.app.assemble import read_config

    plans = {plan.name: plan for plan in read_config(configured(config)).perceivers}
    if name not in plans:
        raise MidwatchError(
            f"there is no perceiver {name!r}; configured: {', '.join(sorted(plans)) or 'none'}"
        )
    return [asdict(seen) for seen in asyncio.run(_poll(plans[name]))]


async def _poll(plan: PerceiverPlan) -> Sequence[Any]:
    import asyncio

    from actuators import safefs
    from daemon.clock import SystemClock
    from perceivers.base import PerceiverBlind, Tools

    clock = SystemClock()
    perceiver = plan.kind.build(plan.spec, Tools(clock.wall, clock.boottime, safefs.open_for_reading))
    try:
        async with asyncio.timeout(plan.timeout):
            return (await perceiver.poll()).observations
    except TimeoutError:
        raise MidwatchError(f"{plan.name} is blind: no answer within {plan.timeout:g}s") from None
    except (OSError, PerceiverBlind) as exc:
        raise MidwatchError(f"{plan.name} is blind: {exc}") from exc
    finally:
        await perceiver.close()


def _observations(seen: Sequence[Mapping[str, Any]]) -> Page:
    page = Page()
    for one in seen:
        about = " ".join(filter(None, (one["resource"], one["key"], one["rule"])))
        page.section(f"{about}  {moment(one['at'])}", _values(one))
    if not seen:
        page.line("nothing to be seen just now")
    return page


def _values(one: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = [
        [name, "not readable" if value is None else f"{value}"] for name, value in one["values"].items()
    ]
    if one["unreadable"]:
        rows.append(["unreadable", Cell(one["unreadable"], "warning")])
    if one["count"]:
        rows.append(["hits", str(one["count"])])
    return rows + [["line", sample] for sample in one["samples"]]
