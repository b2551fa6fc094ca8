"""What `status` and the timeline say, from plain values."""

from __future__ import annotations

import io
from typing import Any

import pytest

from daemon.api.timeline import SENTENCES, sentence
from daemon.cli.ask import explanation, incident_page
from daemon.cli.status import nagios, page
from daemon.cli.terminal import Cell, Page, clean, lasting

NOW = 1_700_000_000.0


def status(**parts: Any) -> dict[str, Any]:
    myself = {
        "version": "0.1.0",
        "host": "web1",
        "mode": "act",
        "uptime": 7260.0,
        "perceivers": 3,
        "rules": 12,
        "observe_only": "",
        "policy_trouble": "",
        "changed_on_disk": [],
    }
    empty: dict[str, Any] = {"for_you": [], "wrong": [], "did": [], "held": [], "blind": {}, "unwatched": []}
    reach = {"channels": ["ops"], "undelivered": 0, "waiting": 0}
    return {**empty, "reach": reach, **parts, "self": {**myself, **parts.get("self", {})}}


def incident(**values: Any) -> dict[str, Any]:
    facts = {
        "id": "i-1",
        "severity": "error",
        "state": "open",
        "title": "service-down on service:api",
        "reason": "",
        "acked_by": None,
    }
    return {**facts, "opened_at": NOW - 250, **values}


def text(shown: Page) -> str:
    out = io.StringIO()
    shown.show(out)
    return out.getvalue()


def test_all_well_is_said_in_a_few_lines() -> None:
    said = text(page(status(), NOW))
    assert "midwatch 0.1.0 on web1: mode act, up 2h 1m, 3 perceivers, 12 rules" in said
    assert "Nothing is wrong, and nothing waits for you." in said
    for absent in ("For you", "Wrong", "Held", "Blind", "Unwatched", "undelivered"):
        assert absent not in said


def test_every_part_that_has_something_is_shown_with_what_to_type() -> None:
    question = {
        "id": "a-1",
        "expires_at": NOW + 840,
        "votes": ["ben"],
        "quorum": 2,
        "action": "unit.restart",
        "target": "unit:a.service",
    }
    attempt = {
        "incident": "i-0",
        "at": NOW - 90,
        "result": "succeeded",
        "verified": True,
        "undo_of": None,
        "action": "noop",
        "target": "host",
    }
    said = text(
        page(
            status(
                for_you=[{**question, "incident": "i-1"}],
                wrong=[incident(reason="doing unit.restart", acked_by="anna")],
                did=[
                    {**attempt, "reason": ""},
                    {**attempt, "result": None, "verified": None, "undo_of": "k", "reason": ""},
                ],
                held=[{"name": "pause", "by": "anna", "reason": "racks", "at": NOW, "until": None}],
                blind={"logs": "permission denied"},
                unwatched=["unit:cron.service"],
                reach={"channels": [], "undelivered": 2, "waiting": 1},
                self={
                    "policy_trouble": "a.toml:3: bad",
                    "observe_only": "damaged",
                    "changed_on_disk": ["a.toml"],
                },
            ),
            NOW,
        )
    )
    for wanted in (
        "midwatch approve a-1   or   midwatch reject a-1",
        "14m left  1 of 2 votes  unit.restart on unit:a.service, for i-1",
        "i-1  error  open  4m 10s  service-down on service:api: doing unit.restart; anna has it",
        "1m 30s ago  succeeded  proven  noop on host",
        "under way          undoing noop on host",
        "pause  by anna    racks  midwatch resume",
        "logs  permission denied",
        "unit:cron.service",
        "none: nobody is told",
        "2 messages in the last day; try: midwatch notify-test CHANNEL",
        "everything is denied: a.toml:3: bad",
        "only observing: damaged",
        "take it up: midwatch reload",
        "Next: midwatch incidents show i-1",
    ):
        assert wanted in said


@pytest.mark.parametrize(
    ("found", "code", "word"),
    [
        (status(), 0, "OK"),
        (status(wrong=[incident(severity="warning")]), 1, "WARNING"),
        (status(blind={"logs": "x"}), 1, "WARNING"),
        (status(reach={"channels": [], "undelivered": 1, "waiting": 0}), 1, "WARNING"),
        (status(self={"policy_trouble": "bad"}), 1, "WARNING"),
        (status(wrong=[incident(severity="warning"), incident()]), 2, "CRITICAL"),
    ],
)
def test_nagios_gets_one_line_and_its_code(found: dict[str, Any], code: int, word: str) -> None:
    given, line = nagios(found)
    assert given == code
    assert line.startswith(f"MIDWATCH {word} - ")
    assert "\n" not in line
    assert " | incidents=" in line


def test_what_an_outsider_wrote_cannot_move_the_cursor() -> None:
    hostile = "a\x1b[2Jb\rc\nd\u202ee\x00"
    assert clean(hostile) == "a\\x1b[2Jb\\rc\\nd\\u202ee\\x00"
    shown = Page()
    shown.line(hostile)
    shown.section(hostile, [[Cell(hostile, "error"), hostile]])
    assert not set(text(shown)) & set("\x1b\r\u202e\x00")


def test_a_pipe_gets_one_line_for_each_thing() -> None:
    shown = Page()
    shown.rows([["i-1", "x" * 500], ["i-22", "y"]])
    assert text(shown) == f"i-1   {'x' * 500}\ni-22  y\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = Page()
    shown.line("grave", "critical")
    shown.rows([["i-1", "word " * 20]])
    coloured, plain = Terminal(), Terminal()
    shown.show(coloured)
    assert "\x1b[" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    shown.show(plain)
    assert "\x1b" not in plain.getvalue()
    lines = plain.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("     word") for line in lines[2:])


def test_durations_have_two_units_at_most() -> None:
    assert [lasting(value) for value in (-1, 0.4, 59, 61, 3600, 93784)] == [
        "0s",
        "0s",
        "59s",
        "1m 1s",
        "1h",
        "1d 2h",
    ]


JOURNALED: dict[str, tuple[dict[str, Any], str]] = {
    "signal": (
        {"name": "disk-full", "resource": "path:/var", "state": "cleared", "summary": "40% used"},
        "clear again: disk-full on path:/var: 40% used",
    ),
    "incident.opened": ({"title": "disk-full on path:/var"}, "opened: disk-full on path:/var"),
    "incident.signal": (
        {"signal": "disk-full|path:/var|", "how": "reopened", "summary": "99%"},
        "it is back: disk-full on path:/var: 99%",
    ),
    "incident.root": (
        {"from": "service:a", "to": "service:b"},
        "the root lies deeper: service:b, not service:a",
    ),
    "incident.merged": ({"gone": "i-2", "resource": "service:b"}, "i-2 (service:b) is part of this"),
    "incident.reopened": ({"times": 2}, "reopened (time 2)"),
    "incident.moved": (
        {"state": "open", "reason": "paused by anna", "held": "paused by anna"},
        "now open: paused by anna",
    ),
    "incident.acknowledged": ({"by": "anna"}, "anna has it"),
    "incident.escalated": ({"reason": "unknown"}, "handed over to a person: unknown"),
    "incident.resolved": ({"reason": "repaired"}, "over: repaired"),
    "diagnosis": (
        {"summary": "it crashed", "by": "runbook:x", "confidence": 0.8, "remedies": [{}]},
        "it crashed (runbook:x; confidence 80%; one remedy)",
    ),
    "verdict": (
        {
            "request": {"action": "noop", "target": "host"},
            "verdict": {
                "effect": "allow",
                "rule": "r",
                "where": "a.toml:3",
                "shadow": True,
                "reasons": ["w"],
            },
        },
        "allowed, but only noted (shadow) by r at a.toml:3 (w): noop on host",
    ),
    "proposal.refused": (
        {"action": "noop", "target": "host", "params": {"a": 1}, "reason": "no"},
        "cannot be done: noop on host (a=1): no",
    ),
    "intent": (
        {"action": "noop", "target": "host", "rule": "r", "undo_of": "k"},
        "taking back noop on host, by rule r",
    ),
    "outcome": (
        {"action": "noop", "target": "host", "result": "failed", "reason": "exit 1"},
        "noop on host failed: exit 1",
    ),
    "proof": ({"verified": False}, "the fault is still there: that did not help"),
    "approval.asked": (
        {"approval": "a-1", "approvers": [], "action": "noop", "target": "host"},
        "asked anybody known whether noop on host may be done (a-1)",
    ),
    "approval.vote": (
        {"approval": "a-1", "person": "ben", "yes": True, "counted": False, "why": "not asked"},
        "ben said yes to a-1; it does not count: not asked",
    ),
    "approval.void": ({"approval": "a-1", "reason": "gone"}, "a-1 is not needed any more: gone"),
    "approval.expired": ({"approval": "a-1"}, "nobody answered a-1 in time"),
    "approval.used": ({"approval": "a-1"}, "a-1 is used: it counts for this one action"),
    "oncall.called": ({"channels": ["phone"]}, "on call: told phone"),
    "incident.stumbled": (
        {"reason": "KeyError: 'x'"},
        "a fault of midwatch's own is in the way: KeyError: 'x'",
    ),
    "message.sent": ({"channel": "ops", "event": "trigger", "tries": 1}, "told ops (trigger)"),
    "message.failed": ({"channel": "ops", "error": "410"}, "could not tell ops: 410"),
    "message.undelivered": (
        {"channel": "ops", "error": "503", "told": ["pager"]},
        "ops cannot be reached: 503; told pager",
    ),
    "control.set": (
        {"name": "pause", "by": "anna", "for": "10m", "reason": "r"},
        "pause set by anna for 10m: r",
    ),
    "control.cleared": ({"name": "pause", "by": "anna"}, "pause ended by anna"),
}


def test_a_finding_is_not_said_twice() -> None:
    said = {"signal": "down|service:api|", "how": "opened", "summary": "down on service:api: refused"}
    assert sentence("incident.signal", said) == "it began with: down on service:api: refused"
    unknown = {
        "cause": "unknown",
        "summary": "no runbook knows down",
        "by": "runbook",
        "confidence": 0.0,
        "remedies": [],
    }
    assert sentence("diagnosis", unknown) == "no runbook knows down (runbook; nothing to try)"


def test_every_kind_has_its_sentence_tried() -> None:
    assert set(JOURNALED) == set(SENTENCES)


@pytest.mark.parametrize("kind", JOURNALED)
def test_a_journal_row_is_a_sentence(kind: str) -> None:
    payload, wanted = JOURNALED[kind]
    assert sentence(kind, payload) == wanted


def test_an_unknown_kind_is_spelled_out() -> None:
    assert (
        sentence("store.resumed", {"was": "damaged", "none": None, "long": "x" * 300})
        == f"was: damaged, long: {'x' * 200}"
    )


@pytest.mark.parametrize("kind", JOURNALED)
def test_a_row_with_nothing_in_it_does_not_break_the_page(kind: str) -> None:
    assert isinstance(sentence(kind, {}), str)


def test_an_incident_names_what_can_be_done_next() -> None:
    found = {
        **incident(),
        "resource": "service:api",
        "resolved_at": None,
        "held": None,
        "reopened": 1,
        "diagnosis": {"diagnosis": {"summary": "it crashed"}},
        "signals": [
            {
                "severity": "error",
                "state": "firing",
                "name": "service-down",
                "resource": "service:api",
                "summary": "500",
            }
        ],
        "approvals": [{"id": "a-1", "state": "pending"}, {"id": "a-0", "state": "void"}],
        "timeline": [{"at": NOW, "kind": "verdict", "payload": {}}],
        "earlier": 4,
    }
    said = text(incident_page(found))
    for wanted in (
        "it crashed",
        "reopened once",
        "4 earlier rows",
        "midwatch approve a-1",
        "midwatch ack i-1",
        "midwatch explain i-1",
    ):
        assert wanted in said
    assert "a-0" not in said


def test_an_incident_without_verdicts_is_explained_too() -> None:
    assert "nothing was judged" in text(explanation({"id": "i-1", "incident": "i-1", "verdicts": []}))
