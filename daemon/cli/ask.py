"""Verbs that only ask the running daemon: status, incidents, explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from daemon.api.client import path
from daemon.api.timeline import decided, sentence
from daemon.cli import status as shown_status
from daemon.cli.options import as_json, daemon, reaching
from daemon.cli.terminal import Cell, Page, Row, clean, lasting, moment, show_json
from daemon.clock import SystemClock
from daemon.errors import MidwatchError

NAGIOS_UNKNOWN = 3


@click.command()
@as_json
@click.option("--nagios", is_flag=True, help="One line and the exit code that Nagios wants.")
@reaching
def status(json: bool, nagios: bool, socket: Path | None, config: Path | None) -> None:
    """What waits for you, what is wrong, what was done, what is held or not seen."""
    if nagios:
        _nagios(socket, config)
    found = daemon(socket, config).get("/status")
    if json:
        show_json(found)
    else:
        shown_status.page(found, SystemClock().wall()).show()


def _nagios(socket: Path | None, config: Path | None) -> None:
    """Always ends the command: every trouble is a line and an exit code here."""
    try:
        code, line = shown_status.nagios(daemon(socket, config).get("/status"))
    except MidwatchError as exc:
        code, line = NAGIOS_UNKNOWN, f"MIDWATCH UNKNOWN - {exc}"
    print(clean(line))
    raise SystemExit(code)


@click.group(invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@as_json
@reaching
@click.pass_context
def incidents(
    context: click.Context, everything: bool, json: bool, socket: Path | None, config: Path | None
) -> None:
    """What is wrong, and what was."""
    if context.invoked_subcommand is None:
        _list(everything, json, socket, config)


@incidents.command()
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@as_json
@reaching
def ls(everything: bool, json: bool, socket: Path | None, config: Path | None) -> None:
    """List the incidents that are not over."""
    _list(everything, json, socket, config)


def _list(everything: bool, json: bool, socket: Path | None, config: Path | None) -> None:
    found = daemon(socket, config).get("/incidents" + ("?all=1" if everything else ""))
    if json:
        show_json(found)
        return
    listed, now = Page(), SystemClock().wall()
    if found:
        head: list[Row] = [["ID", "SEVERITY", "STATE", "OPENED", "WHAT"]]
        listed.rows(head + [_listed_row(row, now) for row in found])
    else:
        listed.line(
            "no incidents"
            if everything
            else "nothing is wrong; those that are over: midwatch incidents --all"
        )
    listed.show()


def _listed_row(row: Mapping[str, Any], now: float) -> Row:
    told = row["title"] + (f": {row['reason']}" if row["reason"] else "")
    return [
        Cell(row["id"], "title"),
        _severity(row["severity"]),
        row["state"],
        f"{lasting(now - row['opened_at'])} ago",
        told,
    ]


def _severity(word: str) -> Cell:
    return Cell(word, "quiet" if word == "info" else word)


@incidents.command()
@click.argument("id")
@as_json
@reaching
def show(id: str, json: bool, socket: Path | None, config: Path | None) -> None:
    """One incident from its first signal to its end."""
    found = daemon(socket, config).get(path("incidents", id))
    if json:
        show_json(found)
    else:
        incident_page(found).show()


def incident_page(found: Mapping[str, Any]) -> Page:
    """An incident for a person: where it stands, its signals, and its timeline."""
    page = Page()
    page.line(f"{found['id']}: {found['title']}", "title")
    page.rows(_facts(found))
    page.section(
        "Signals",
        [
            [_severity(s["severity"]), s["state"], f"{s['name']} on {s['resource']}", s["summary"]]
            for s in found["signals"]
        ],
    )
    page.section("Timeline", _timeline(found))
    page.section("Next", [[command] for command in _next(found)])
    return page


def _facts(found: Mapping[str, Any]) -> list[Row]:
    plan = (found["diagnosis"] or {}).get("diagnosis", {})
    facts = {
        "severity": found["severity"],
        "state": found["state"] + (f": {found['reason']}" if found["reason"] else ""),
        "resource": found["resource"],
        "cause": plan.get("summary"),
        "held": found["held"],
        "with": found["acked_by"],
        "opened": moment(found["opened_at"]) + _again(found["reopened"]),
        "over": moment(found["resolved_at"]) if found["resolved_at"] else None,
    }
    return [[Cell(name, "quiet"), value] for name, value in facts.items() if value]


def _again(times: int) -> str:
    return "" if not times else ", reopened once" if times == 1 else f", reopened {times} times"


def _timeline(found: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    if found["earlier"]:
        rows.append(["", "", Cell(f"{found['earlier']} earlier rows are not shown", "quiet")])
    return rows + [_line(line) for line in found["timeline"]]


def _line(line: Mapping[str, Any]) -> Row:
    return [Cell(moment(line["at"]), "quiet"), line["kind"], sentence(line["kind"], line["payload"])]


def _next(found: Mapping[str, Any]) -> list[str]:
    """What one may type now."""
    asked = [approval["id"] for approval in found["approvals"] if approval["state"] == "pending"]
    commands = [f"midwatch {verb} {id}" for id in asked for verb in ("approve", "reject")]
    if found["state"] != "resolved" and not found["acked_by"]:
        commands.append(f"midwatch ack {found['id']}")
    if any(line["kind"] in ("verdict", "proposal.refused") for line in found["timeline"]):
        commands.append(f"midwatch explain {found['id']}")
    return commands


@click.command()
@click.argument("id")
@as_json
@reaching
def explain(id: str, json: bool, socket: Path | None, config: Path | None) -> None:
    """Why something was allowed, asked for or denied: rule, file and line, and what was nearly enough.

    ID is an incident, an approval, or the beginning of an attempt's key.
    """
    found = daemon(socket, config).get(path("explain", id))
    if json:
        show_json(found)
    else:
        explanation(found).show()


def explanation(found: Mapping[str, Any]) -> Page:
    """Every verdict on what was asked for, in order."""
    page = Page()
    page.line(
        f"{found['id']} (incident {found['incident']})" if found["id"] != found["incident"] else found["id"],
        "title",
    )
    if not found["verdicts"]:
        page.line("Nothing was proposed in it, so nothing was judged.")
    for line in found["verdicts"]:
        payload = line["payload"]
        page.section(f"{moment(line['at'])}  {_proposed(payload.get('request', payload))}", _why(payload))
    return page


def _proposed(request: Mapping[str, Any]) -> str:
    by = f", proposed by {request['proposed_by']}" if request.get("proposed_by") else ""
    return f"{request['action']} on {request['target']}{by}"


def _why(payload: Mapping[str, Any]) -> list[Row]:
    if "verdict" not in payload:
        return [["cannot be done", payload["reason"]]]
    return verdict_rows(payload["verdict"], payload["facts"])


def verdict_rows(verdict: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Row]:
    """A verdict with everything that bore on it."""
    style = {"allow": "good", "require-approval": "warning", "deny": "error"}.get(verdict["effect"], "")
    told: list[tuple[str, Sequence[str]]] = [
        ("nearly", verdict["near_misses"]),
        ("overridden", verdict["notes"]),
        ("yes from", facts["votes"]),
        ("mode", [facts["mode"]]),
    ]
    return [
        ["verdict", Cell(decided(verdict), style)],
        *([name, value] for name, values in told for value in values),
    ]
