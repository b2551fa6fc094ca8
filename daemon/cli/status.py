"""`midwatch status`: what waits for you, what is wrong, what was done, what holds it back, and what it cannot see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.cli.terminal import Cell, Page, Row, lasting

Status = Mapping[str, Any]
DONE = {"succeeded": "good", "undone": "warning"}


def page(status: Status, now: float) -> Page:
    """The whole answer for a person; `now` in unix seconds."""
    shown = Page()
    shown.line(_headline(status["self"]), "title")
    for trouble in _troubles(status["self"]):
        shown.line(trouble, "critical")
    shown.section("For you", _for_you(status["for_you"], now))
    shown.section("Wrong", [_wrong(incident, now) for incident in status["wrong"]])
    shown.section("Done in the last day", [_did(attempt, now) for attempt in status["did"]])
    shown.section("Held", [held_row(hold, now) for hold in status["held"]])
    shown.section("Blind", [[Cell(name, "warning"), why] for name, why in status["blind"].items()])
    shown.section("Unwatched", [[name] for name in status["unwatched"]])
    shown.section("Reach", _reach(status["reach"]))
    shown.line()
    shown.line(*_last_word(status))
    return shown


def nagios(status: Status) -> tuple[int, str]:
    """(exit code, one line) as Nagios and its heirs want it: 0 OK, 1 WARNING, 2 CRITICAL."""
    grave = [incident for incident in status["wrong"] if incident["severity"] in ("error", "critical")]
    lesser = [*status["wrong"], *status["for_you"], *status["blind"], *_troubles(status["self"])]
    code = 2 if grave else 1 if lesser or status["reach"]["undelivered"] else 0
    counts = {
        "incidents": len(status["wrong"]),
        "approvals": len(status["for_you"]),
        "blind": len(status["blind"]),
        "undelivered": status["reach"]["undelivered"],
    }
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    first = f": {(grave or status['wrong'])[0]['title']}" if status["wrong"] else ""
    measured = " ".join(f"{name}={number}" for name, number in counts.items())
    return code, f"MIDWATCH {('OK', 'WARNING', 'CRITICAL')[code]} - {told}{first} | {measured}"


def _headline(myself: Mapping[str, Any]) -> str:
    watch = f"{myself['perceivers']} perceivers, {myself['rules']} rules"
    return f"midwatch {myself['version']} on {myself['host']}: mode {myself['mode']}, up {lasting(myself['uptime'])}, {watch}"


def _troubles(myself: Mapping[str, Any]) -> list[str]:
    """What keeps midwatch itself from its work, each with what to type."""
    told = []
    if myself["observe_only"]:
        told.append(f"only observing: {myself['observe_only']}; once you have looked: midwatch resume")
    if myself["policy_trouble"]:
        told.append(
            f"everything is denied: {myself['policy_trouble']}; mend it, then: midwatch policy check, midwatch reload"
        )
    if myself["changed_on_disk"]:
        told.append(
            f"changed on disk and not in force: {', '.join(myself['changed_on_disk'])}; take it up: midwatch reload"
        )
    return told


def _for_you(approvals: Sequence[Mapping[str, Any]], now: float) -> list[Row]:
    rows: list[Row] = []
    for asked in approvals:
        left = f"{lasting(asked['expires_at'] - now)} left"
        votes = f"{len(asked['votes'])} of {asked['quorum']} votes"
        rows.append(
            [
                Cell(asked["id"], "title"),
                left,
                votes,
                f"{asked['action']} on {asked['target']}, for {asked['incident']}",
            ]
        )
        rows.append(
            [
                "",
                "",
                "",
                Cell(f"midwatch approve {asked['id']}   or   midwatch reject {asked['id']}", "quiet"),
            ]
        )
    return rows


def _wrong(incident: Mapping[str, Any], now: float) -> Row:
    acked = f"; {incident['acked_by']} has it" if incident["acked_by"] else ""
    severity = Cell(incident["severity"], incident["severity"] if incident["severity"] != "info" else "quiet")
    since = lasting(now - incident["opened_at"])
    told = incident["title"] + (f": {incident['reason']}" if incident["reason"] else "") + acked
    return [Cell(incident["id"], "title"), severity, incident["state"], since, told]


def _did(attempt: Mapping[str, Any], now: float) -> Row:
    result = attempt["result"] or "under way"
    proof = {True: "proven", False: "did not help", None: ""}[attempt["verified"]]
    what = f"{'undoing ' if attempt['undo_of'] else ''}{attempt['action']} on {attempt['target']}"
    why = f" ({attempt['reason']})" if attempt["reason"] and result != "succeeded" else ""
    ago = f"{lasting(now - attempt['at'])} ago"
    return [
        attempt["incident"],
        ago,
        Cell(result, DONE.get(result, "error" if attempt["result"] else "")),
        proof,
        what + why,
    ]


def held_row(hold: Mapping[str, Any], now: float) -> Row:
    until = f"{lasting(hold['until'] - now)} left" if hold["until"] is not None else ""
    by = f"by {hold['by']}" if hold["by"] else ""
    return [
        Cell(hold["name"].removeprefix("hold:"), "warning"),
        by,
        until,
        hold["reason"],
        Cell(release_of(hold["name"]), "quiet"),
    ]


def release_of(name: str) -> str:
    """What to type to end a hold."""
    if name == "pause":
        return "midwatch resume"
    return f"midwatch hold --release {name.removeprefix('hold:')}" if name.startswith("hold:") else ""


def _reach(reach: Mapping[str, Any]) -> list[Row]:
    channels = ", ".join(reach["channels"])
    rows: list[Row] = [
        ["channels", channels or Cell("none: nobody is told; add [channels.NAME] and [routes]", "warning")]
    ]
    if reach["undelivered"]:
        told = f"{reach['undelivered']} messages in the last day; try: midwatch notify-test CHANNEL"
        rows.append(["undelivered", Cell(told, "error")])
    if reach["waiting"]:
        rows.append(["waiting", f"{reach['waiting']} messages"])
    return rows


def _last_word(status: Status) -> tuple[str, str]:
    if status["wrong"]:
        return f"Next: midwatch incidents show {status['wrong'][0]['id']}", "quiet"
    if status["for_you"]:
        return "Nothing is wrong any more; the questions above are still open.", ""
    return "Nothing is wrong, and nothing waits for you.", "good"
