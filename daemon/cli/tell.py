"""Verbs that tell the running daemon something. They write rows there; what follows from them is the loop's to do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from time import sleep
from typing import Any

import click

from daemon.api.client import path
from daemon.cli import status as shown_status
from daemon.cli.options import as_json, daemon, dry_run, reaching, reason
from daemon.cli.terminal import Cell, Page, lasting, moment, show_json
from daemon.clock import SystemClock
from daemon.errors import MidwatchError

LOOK_AGAIN = 0.25
"""Seconds between looks at whether a test message has gone out."""


@click.command()
@click.argument("id")
@reason
@click.option("--yes", "-y", is_flag=True, help="Do not ask back.")
@dry_run
@reaching
def approve(id: str, reason: str, yes: bool, dry_run: bool, socket: Path | None, config: Path | None) -> None:
    """Say yes to one exact action. On a terminal it is shown and asked back first."""
    client = daemon(socket, config)
    asked = client.get(path("approvals", id))
    if dry_run or (sys.stdin.isatty() and not yes):
        _show_question(asked)
    if dry_run:
        _say(f"would approve {id}")
        return
    if sys.stdin.isatty() and not yes:
        click.confirm("Approve exactly this?", abort=True)
    _vote(client.post(path("approvals", id, "approve"), {"reason": reason}))


@click.command()
@click.argument("id")
@reason
@dry_run
@reaching
def reject(id: str, reason: str, dry_run: bool, socket: Path | None, config: Path | None) -> None:
    """Say no: final for this question."""
    client = daemon(socket, config)
    if dry_run:
        _show_question(client.get(path("approvals", id)))
        _say(f"would reject {id}")
        return
    _vote(client.post(path("approvals", id, "reject"), {"reason": reason}))


def _show_question(asked: Mapping[str, Any]) -> None:
    page = Page()
    page.line(f"{asked['id']}: {asked['action']} on {asked['target']}", "title")
    params = [(name, str(value)) for name, value in asked["params"].items()]
    people = ", ".join(asked["approvers"]) or "anybody known"
    votes = f"{len(asked['votes'])} of {asked['quorum']}" + (
        f" ({', '.join(asked['votes'])})" if asked["votes"] else ""
    )
    state = asked["state"] + (f", until {moment(asked['expires_at'])}" if asked["state"] == "pending" else "")
    facts = [
        ("incident", asked["incident"]),
        ("rule", asked["rule"]),
        ("from", people),
        ("votes", votes),
        ("state", state),
    ]
    page.rows([[Cell(name, "quiet"), value] for name, value in [*params, *facts]])
    page.show()


def _vote(answer: Mapping[str, Any]) -> None:
    _say(f"{answer['approval']}: {answer['reason'] or answer['state']}")


@click.command()
@click.argument("id")
@dry_run
@reaching
def ack(id: str, dry_run: bool, socket: Path | None, config: Path | None) -> None:
    """Say that you have it: nobody else is called."""
    client = daemon(socket, config)
    if dry_run:
        _say(f"would acknowledge {_title(client.get(path('incidents', id)))}")
        return
    answer = client.post(path("incidents", id, "ack"))
    _say(f"{answer['incident']}: {answer['acked_by']} has it")


@click.command()
@click.argument("id")
@reason
@dry_run
@reaching
def resolve(id: str, reason: str, dry_run: bool, socket: Path | None, config: Path | None) -> None:
    """Close an incident yourself."""
    client = daemon(socket, config)
    if dry_run:
        _say(f"would resolve {_title(client.get(path('incidents', id)))}")
        return
    answer = client.post(path("incidents", id, "resolve"), {"reason": reason})
    _say(f"{answer['incident']}: {answer['reason']}")


def _title(incident: Mapping[str, Any]) -> str:
    return f"{incident['id']} ({incident['title']}, {incident['state']})"


@click.command()
@click.argument("name", default="")
@click.option(
    "--for",
    "lasts",
    default="",
    metavar="TIME",
    help="How long, such as 10m; until it is released if not given.",
)
@reason
@click.option("--release", default="", metavar="NAME", help="End a hold.")
@as_json
@dry_run
@reaching
def hold(
    name: str,
    lasts: str,
    reason: str,
    release: str,
    json: bool,
    dry_run: bool,
    socket: Path | None,
    config: Path | None,
) -> None:
    """Keep midwatch's hands still under a name, end that, or list what holds it."""
    if name and release:
        raise click.UsageError("either NAME or --release NAME")
    client = daemon(socket, config)
    if not name and not release:
        _list_holds(client.get("/holds"), json)
    elif dry_run:
        _say(
            f"would release {release}"
            if release
            else f"would hold {name}" + (f" for {lasts}" if lasts else "")
        )
    elif release:
        client.post(path("holds", release, "release"))
        _say(f"released {release}")
    else:
        answer = client.post(path("holds", name), {"reason": reason, "for": lasts})
        until = (
            f"for {lasting(answer['for'])}"
            if answer["for"]
            else f"until: {shown_status.release_of(f'hold:{name}')}"
        )
        _say(f"held {until}")


def _list_holds(found: list[Mapping[str, Any]], json: bool) -> None:
    if json:
        show_json(found)
        return
    page, now = Page(), SystemClock().wall()
    if found:
        page.rows([shown_status.held_row(hold, now) for hold in found])
    else:
        page.line("nothing holds midwatch")
    page.show()


@click.command()
@reason
@dry_run
@reaching
def pause(reason: str, dry_run: bool, socket: Path | None, config: Path | None) -> None:
    """Stop all actions. Watching and telling go on."""
    client = daemon(socket, config)
    if dry_run:
        _say("would stop all actions until `midwatch resume`")
        return
    client.post("/pause", {"reason": reason})
    _say("paused: nothing is done until `midwatch resume`")


@click.command()
@dry_run
@reaching
def resume(dry_run: bool, socket: Path | None, config: Path | None) -> None:
    """End a pause, or the observing after the journal was damaged."""
    client = daemon(socket, config)
    if dry_run:
        held = [hold["name"] for hold in client.get("/holds")]
        _say("would end the pause" if "pause" in held else "there is no pause to end")
        return
    client.post("/resume")
    _say("resumed: what policy allows is done again")


@click.command()
@dry_run
@reaching
def reload(dry_run: bool, socket: Path | None, config: Path | None) -> None:
    """Take up the files as they are now, if they are sound; else the old ones stay in force (exit 78)."""
    if dry_run:
        from daemon.cli.local import look_over

        look_over(config).show()
        return
    answer = daemon(socket, config).post("/reload")
    _say("reloaded")
    for rule in answer.get("newly_allowed", []):
        _say(f"newly allowed: {rule}")


@click.command("notify-test")
@click.argument("channel")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="Seconds to wait for its delivery.",
)
@dry_run
@reaching
def notify_test(channel: str, wait: float, dry_run: bool, socket: Path | None, config: Path | None) -> None:
    """Send a test message by one channel and see it off."""
    client = daemon(socket, config)
    if dry_run:
        channels = client.get("/status")["reach"]["channels"]
        _say(
            f"would send a test message by {channel}"
            if channel in channels
            else f"there is no channel {channel}"
        )
        return
    message = client.post(path("channels", channel, "test"))["message"]
    found = client.get(path("messages", message))
    for _ in range(round(wait / LOOK_AGAIN)):
        if found["state"] != "pending":
            break
        sleep(LOOK_AGAIN)
        found = client.get(path("messages", message))
    if found["state"] != "sent":
        raise MidwatchError(
            f"{message} by {channel} is {found['state']} after {found['tries']} tries: {found['error'] or 'no answer yet'}"
        )
    _say(f"{message} was taken by {channel}")


def _say(text: str) -> None:
    page = Page()
    page.line(text)
    page.show()
