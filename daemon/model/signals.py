"""Signal rules: what an operator calls abnormal, in a few words.

down · hung · changed · absent        words, each on the value of that name
FIELD OP VALUE                        `status >= 500`, `disk_used > 90%`, `latency > 2s`, `state == Z`
pNN OP VALUE                          a percentile of the latencies of the last minutes: `p95 > 2s`
rate(FIELD) OP VALUE per UNIT         `rate(rx_errors) > 10 per m`
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from daemon.model.domain import Scalar, Severity
from daemon.model.patterns import screen
from daemon.model.units import SECONDS, quantity, seconds

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
WORDS: Mapping[str, tuple[str, str, bool]] = {
    "down": ("up", "==", False),
    "hung": ("hung", "==", True),
    "changed": ("changed", "==", True),
}
_COMPARISON = re.compile(r"\s*(rate\(\s*(\w+)\s*\)|\w+)\s*(>=|<=|==|!=|>|<)\s*(.+?)(?:\s+per\s+(\w+))?\s*\Z")
_PERCENTILE = re.compile(r"p([1-9][0-9]?)\Z")
_COUNT = re.compile(r"\s*([1-9][0-9]{0,5})\s+in\s+(\S+)\s*\Z")


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed `when`. `kind` is `value`, `rate`, `percentile` or `absent`."""

    text: str
    kind: str
    field: str = ""
    op: str = "=="
    value: Scalar = True
    percentile: int = 0

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Whether the values show it; what could not be read (None, missing) shows nothing. Rates and percentiles need a history: False."""
        return self.kind == "value" and self.compares(values.get(self.field)) is True

    def compares(self, reading: Scalar) -> bool | None:
        """The comparison with one reading; None when it is unreadable or of another nature."""
        if reading is None or (isinstance(reading, float) and math.isnan(reading)):
            return None
        if any(isinstance(self.value, kind) != isinstance(reading, kind) for kind in (bool, str)):
            return None
        return OPERATORS[self.op](reading, self.value)


def parse_when(text: str) -> Condition:
    """Raises ValueError that says what is accepted."""
    word = text.strip()
    if word in WORDS:
        return Condition(word, "value", *WORDS[word])
    if word == "absent":
        return Condition(word, "absent")
    match = _COMPARISON.match(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no condition: write down, hung, changed, absent, FIELD OP VALUE, pNN OP VALUE or rate(FIELD) OP VALUE per UNIT"
        )
    name, rated, op, value, unit = match.groups()
    if rated is not None:
        return Condition(word, "rate", rated, op, _rate(value, unit))
    if unit is not None:
        raise ValueError(f"{text!r}: `per` belongs to rate(FIELD)")
    if percentile := _PERCENTILE.match(name):
        return Condition(word, "percentile", "latency", op, quantity(value), int(percentile[1]))
    return Condition(word, "value", name, op, _value(value, op))


def _rate(value: str, unit: str | None) -> float:
    if unit not in SECONDS:
        raise ValueError(f"a rate needs its unit of time: `per` and one of {', '.join(SECONDS)}")
    return quantity(value) / SECONDS[unit]


def _value(text: str, op: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    try:
        return quantity(text)
    except ValueError:
        if op in ("==", "!=") and re.fullmatch(r"[\w./:-]+", text):
            return text
        raise


@dataclass(frozen=True, slots=True)
class SignalRule:
    """One rule over one perceiver's Observations. Durations are seconds."""

    name: str
    perceiver: str
    resource: str
    severity: Severity
    when: Condition | None = None
    match: str = ""
    key: str = ""
    count: int = 1
    window: float = 0.0
    lasting: float = 0.0
    """`for`: how long the condition must hold before it fires."""
    clear: Condition | None = None
    """Hysteresis: the condition that must hold for it to clear; None: that `when` does not hold any more."""
    clear_after: float = 0.0
    """How long it must be normal before it clears; for log rules and changes: how long it must be quiet."""
    summary: str = ""


class SignalSettings(Protocol):
    """What the configuration hands over; see SignalRule."""

    name: str
    when: str | None
    match: str | None
    key: str | None
    count: str | None
    for_: float
    clear: str | None
    clear_after: float | None
    severity: str
    summary: str | None


QUIET = 60.0
"""Seconds of quiet after which a log signal clears, unless the rule says otherwise."""


def build(
    perceiver: str, resource: str, values: Mapping[str, str], rules: bool, settings: SignalSettings
) -> SignalRule:
    """The rule of one `signals` entry of a perceiver whose kind gives `values`, and takes `match` if `rules`.

    Raises ValueError with what is accepted.
    """
    if (settings.when is None) == (settings.match is None):
        raise ValueError("a signal has either `when` or `match`")
    if settings.match is not None and not rules:
        raise ValueError("`match` belongs to perceivers that read lines (log)")
    judged = _pattern(settings) if settings.match is not None else _threshold(settings, values)
    severity = Severity.parse(settings.severity)
    return SignalRule(settings.name, perceiver, resource, severity, summary=settings.summary or "", **judged)


def _threshold(settings: SignalSettings, values: Mapping[str, str]) -> dict[str, Any]:
    if settings.count or settings.key:
        raise ValueError("`count` and `key` belong to `match`")
    condition = _known(parse_when(str(settings.when)), values)
    clear = _known(parse_when(settings.clear), values) if settings.clear else None
    passing = condition.text == "changed"
    if condition.kind == "absent" and not settings.for_:
        raise ValueError("`absent` needs `for`: after how long without a reading")
    if passing and settings.for_:
        raise ValueError("`changed` is true for a moment only: take `for` away")
    if clear is not None and (passing or "absent" in (condition.kind, clear.kind)):
        raise ValueError(
            "`clear` belongs to values that stay abnormal for a while; `changed` clears by `clear_after`, `absent` by a reading"
        )
    quiet = QUIET if passing else 0.0
    clear_after = quiet if settings.clear_after is None else settings.clear_after
    return {"when": condition, "lasting": settings.for_, "clear": clear, "clear_after": clear_after}


def _known(condition: Condition, values: Mapping[str, str]) -> Condition:
    if condition.field and condition.field not in values:
        raise ValueError(f"this perceiver reads no {condition.field!r}; it reads {', '.join(sorted(values))}")
    return condition


def _pattern(settings: SignalSettings) -> dict[str, Any]:
    match = str(settings.match)
    if settings.for_ or settings.clear:
        raise ValueError("`for` and `clear` belong to `when`; a pattern has `count` and `clear_after`")
    if refused := screen(match):
        raise ValueError(f"the pattern {match!r} is refused: {refused}")
    if settings.key and settings.key not in re.compile(match).groupindex:
        raise ValueError(f"`key` names no group of the pattern; write (?P<{settings.key}>...) in it")
    count, window = 1, 0.0
    if settings.count:
        parsed = _COUNT.match(settings.count)
        if parsed is None:
            raise ValueError(f"{settings.count!r} is no count: write `5 in 10m`")
        count, window = int(parsed[1]), seconds(parsed[2])
    quiet = max(QUIET, window) if settings.clear_after is None else settings.clear_after
    return {"match": match, "key": settings.key or "", "count": count, "window": window, "clear_after": quiet}
