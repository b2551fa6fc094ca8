"""Signal rules as operators write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from daemon.model.domain import Severity
from daemon.model.signals import Condition, SignalRule, build, parse_when

VALUES = {
    "status": "",
    "disk_used": "",
    "latency": "",
    "up": "",
    "hung": "",
    "changed": "",
    "state": "",
    "rx_errors": "",
}


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("down", Condition("down", "value", "up", "==", False)),
        ("hung", Condition("hung", "value", "hung", "==", True)),
        ("absent", Condition("absent", "absent")),
        ("status >= 500", Condition("status >= 500", "value", "status", ">=", 500.0)),
        ("latency>2s", Condition("latency>2s", "value", "latency", ">", 2.0)),
        ("state == Z", Condition("state == Z", "value", "state", "==", "Z")),
        ("up != true", Condition("up != true", "value", "up", "!=", True)),
        ("p95 > 2s", Condition("p95 > 2s", "percentile", "latency", ">", 2.0, 95)),
        (
            "rate(rx_errors) > 30 per m",
            Condition("rate(rx_errors) > 30 per m", "rate", "rx_errors", ">", 0.5),
        ),
    ],
)
def test_conditions(text: str, condition: Condition) -> None:
    assert parse_when(text) == condition


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no condition"),
        ("broken", "no condition"),
        ("status => 500", "no condition"),
        ("status > fast", "quantity"),
        ("status > 5 per m", "belongs to rate"),
        ("rate(rx_errors) > 5", "unit of time"),
        ("rate(rx_errors) > 5 per fortnight", "unit of time"),
        ("status > 500; import os", "quantity"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_is_accepted(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_when(text)


def test_what_cannot_be_compared_shows_nothing() -> None:
    condition = parse_when("status >= 500")
    readings = (None, float("nan"), True, "500")
    assert [condition.compares(reading) for reading in readings] == [None] * 4
    assert [condition.compares(reading) for reading in (500, 499.9)] == [True, False]
    assert condition.holds({"status": 503})
    assert not condition.holds({})
    assert not parse_when("p95 > 1s").holds({"latency": 5.0})


@dataclass
class Settings:
    name: str = "x"
    when: str | None = None
    match: str | None = None
    key: str | None = None
    count: str | None = None
    for_: float = 0.0
    clear: str | None = None
    clear_after: float | None = None
    severity: str = "error"
    summary: str | None = None


def made(rules: bool = False, **settings: Any) -> SignalRule:
    return build("p", "service:api", VALUES, rules, Settings(**settings))


def test_a_rule_is_built_with_what_was_left_out() -> None:
    assert made(
        when="disk_used > 97%", for_=30.0, clear="disk_used < 95%", severity="critical"
    ) == SignalRule(
        "x",
        "p",
        "service:api",
        Severity.CRITICAL,
        when=parse_when("disk_used > 97%"),
        lasting=30.0,
        clear=parse_when("disk_used < 95%"),
    )
    assert made(when="changed").clear_after == 60.0
    rule = made(rules=True, match=r"from (?P<ip>\S+)", key="ip", count="5 in 10m")
    assert (rule.count, rule.window, rule.clear_after, rule.key) == (5, 600.0, 600.0, "ip")
    assert made(rules=True, match="x", clear_after=1.0).clear_after == 1.0


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "either"),
        ({"when": "down", "match": "x"}, "either"),
        ({"match": "x"}, "read lines"),
        ({"rules": True, "match": "(a+)+b"}, "refused"),
        ({"rules": True, "match": "x", "key": "ip"}, "names no group"),
        ({"rules": True, "match": "x", "count": "many"}, "5 in 10m"),
        ({"rules": True, "match": "x", "for_": 1.0}, "belong to `when`"),
        ({"when": "down", "count": "5 in 1m"}, "belong to `match`"),
        ({"when": "load > 5"}, "reads no 'load'; it reads changed, disk_used"),
        ({"when": "absent"}, "needs `for`"),
        ({"when": "changed", "for_": 1.0}, "for a moment"),
        ({"when": "changed", "clear": "status < 5"}, "clear_after"),
        ({"when": "status > 5", "clear": "absent"}, "by a reading"),
        ({"when": "down", "severity": "grave"}, "no severity"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_accepted(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        made(**settings)
