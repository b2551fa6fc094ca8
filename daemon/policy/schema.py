"""What people may write in a policy file; docs/policy.md explains every key. Small grammars (`rate`, `hours`, `severity`) are read here,
so that what leaves this module is already a value and not a text."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from daemon.config.settings import NAME, ModeWord, Seconds, SeverityWord, Strict
from daemon.model import units
from daemon.model.domain import ProposedBy, Severity
from daemon.model.policy import Effect
from daemon.policy.rules import PROBATION_MEMORY, Rate

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ALL_SEVERITIES = frozenset(Severity)
_RATE = re.compile(r"([1-9][0-9]{0,5})/(\S+) per (target|rule)")
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")


def _severities(value: Any) -> frozenset[Severity]:
    """`"error"`, `">=error"` or a list of words."""
    if isinstance(value, str) and value.startswith(">="):
        least = Severity.parse(value[2:].strip())
        return frozenset(one for one in Severity if one >= least)
    words = value if isinstance(value, list) else [value]
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError('write "error", ">=error" or a list such as ["warning", "error"]')
    return frozenset(map(Severity.parse, words))


def _rate(value: Any) -> Rate:
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f'{value!r} is no rate: write N/DURATION per target or per rule, such as "2/1h per target"'
        )
    most, period, per = found.groups()
    seconds = units.seconds(period)
    if not 0 < seconds <= PROBATION_MEMORY:
        raise ValueError(f"{value!r}: a rate looks back at most {units.spell_seconds(PROBATION_MEMORY)}")
    return Rate(int(most), seconds, "target" if per == "target" else "rule", f"rate {value}")


def _hours(value: Any) -> tuple[int, int]:
    found = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f'{value!r} is no stretch of a day: write HH:MM-HH:MM between 00:00 and 24:00, such as "22:00-07:00"'
        )
    start = int(found[1]) * 60 + int(found[2])
    end = int(found[3]) * 60 + int(found[4]) if found[3] else 1440
    if start == end:
        raise ValueError(
            f'{value!r} is empty: for whole days leave `hours` out and give `days`, or write "00:00-24:00"'
        )
    return start, end


def _zone(value: Any) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError(
            f'{value!r} is no time zone: write a name such as "Europe/Berlin" or "UTC"'
        ) from None


def _moment(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("the offset is missing: write 2026-12-18T00:00:00Z or 2026-12-18T00:00:00+01:00")
    return value


def _portion(value: Any) -> int | float:
    """A share of the group (float) or a number of targets (int)."""
    if isinstance(value, str):
        return units.share(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f'{value!r} is neither a share such as "34%" nor a number of targets from 1')


def _measure(value: Any) -> int:
    if isinstance(value, str):
        return units.size(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f'{value!r} is neither a number from 0 nor a size such as "20GiB"')


def _measures(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("bytes"), int) and value["bytes"]:
        raise ValueError(f'bytes = {value["bytes"]} has no unit: write a size such as "20GiB"')
    return value


def _once(values: list[str]) -> list[str]:
    twice = {value for value in values if values.count(value) > 1}
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))} stands there twice")
    return values


def _read(parse: Callable[[Any], Any]) -> BeforeValidator:
    return BeforeValidator(parse)


Severities = Annotated[frozenset[Severity], _read(_severities)]
Moment = Annotated[datetime, AfterValidator(_moment)]
Measures = Annotated[dict[str, Annotated[int, _read(_measure)]], _read(_measures)]
Span = Annotated[Seconds, Field(gt=0, le=PROBATION_MEMORY)]
Names = Annotated[list[str], AfterValidator(_once)]


class WindowSettings(Strict):
    """`hours` and `days` of a time zone, again and again, or once `from` a moment `to` another."""

    hours: Annotated[tuple[int, int], _read(_hours)] | None = None
    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = Field(default_factory=list)
    tz: Annotated[ZoneInfo, _read(_zone)] | None = None
    from_: Moment | None = Field(default=None, alias="from")
    to: Moment | None = None

    @model_validator(mode="after")
    def _one_of(self) -> WindowSettings:
        recurs = self.hours is not None or bool(self.days)
        if recurs == (self.from_ is not None or self.to is not None):
            raise ValueError("a window has either `hours` or `days` with `tz`, or `from` and `to`")
        if recurs and self.tz is None:
            raise ValueError(
                '`tz` is missing: write the zone whose clocks are meant, such as "Europe/Berlin"'
            )
        if not recurs and (self.from_ is None or self.to is None or self.tz is not None):
            raise ValueError("a window with `from` needs `to`, and no `tz`: the moments have their offset")
        if self.from_ and self.to and self.from_ >= self.to:
            raise ValueError("`to` must be later than `from`")
        return self


class BlastRadiusSettings(Strict):
    group: str
    max: Annotated[int | float, _read(_portion)]
    """A share of the group, or a number of targets, that may be touched `within` that time."""
    within: Span


class VerifySettings(Strict):
    signal: str = Field(pattern=NAME)
    """The signal that must be clear."""
    clear_for: Seconds = Field(default=3.0, ge=0)
    within: Seconds = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> VerifySettings:
        if self.clear_for > self.within:
            raise ValueError("`clear_for` is longer than `within`: this proof could never be had")
        return self


class ApprovalSettings(Strict):
    from_: Names = Field(default_factory=list, alias="from")
    """People of the configuration; empty: anybody known."""
    quorum: int = Field(default=1, ge=1)
    expires: Seconds = Field(default=3600.0, gt=0)
    quiet: str | None = None
    """A window during which nobody is disturbed by the question."""
    escalate_after: Seconds | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> ApprovalSettings:
        if self.from_ and self.quorum > len(self.from_):
            raise ValueError(
                f"`quorum` is {self.quorum}, but `from` names {len(self.from_)}: it could never be reached"
            )
        return self


class RuleSettings(Strict):
    id: str = Field(pattern=NAME)
    effect: Effect
    action: Names = Field(default_factory=list)
    """Action globs."""
    class_: Names = Field(default_factory=list, alias="class")
    """Names from `[classes]`; added to `action`."""
    target: Names = Field(default_factory=list)
    """Resource globs and `@GROUP`; empty: every target."""
    severity: Severities = ALL_SEVERITIES
    during: str | None = None
    not_during: str | None = None
    proposed_by: list[ProposedBy] = Field(default_factory=list)
    cooldown: Span | None = None
    """Per target."""
    rate: list[Annotated[Rate, _read(_rate)]] = Field(default_factory=list)
    blast_radius: BlastRadiusSettings | None = None
    probation: int = Field(default=0, ge=0, le=1000)
    mode: Literal["shadow"] | None = None
    irreversible: bool = False
    max: Measures = Field(default_factory=dict)
    verify: VerifySettings | None = None
    evidence: Literal["trusted"] | None = None
    approvals: ApprovalSettings | None = None
    reason: str = ""


class ExpectSettings(Strict):
    effect: Effect
    rule: str | None = None
    shadow: bool | None = None


class PastSettings(Strict):
    """An earlier attempt in an inline test; what is left out is as in the test's own question and answer."""

    age: Seconds = Field(ge=0)
    rule: str | None = None
    action: str | None = None
    target: str | None = None
    result: Literal["succeeded", "failed", "timed_out", "refused", "undone", "unknown", "under-way"] = (
        "succeeded"
    )
    verified: bool | None = None


class InlineTestSettings(Strict):
    action: str
    target: str
    severity: SeverityWord = "error"
    proposed_by: ProposedBy = "runbook"
    tainted: bool = False
    irreversible: bool | None = None
    """Default: as midwatch's own actuators say of the action."""
    params: dict[str, Any] = Field(default_factory=dict)
    size: Measures = Field(default_factory=dict)
    at: Moment | None = None
    mode: ModeWord = "act"
    votes: Names = Field(default_factory=list)
    past: list[PastSettings] | None = None
    expect: ExpectSettings


class PolicyFile(Strict):
    """One policy file."""

    # The name that people write is `schema`; pydantic has a method of that name.
    version: Literal[1] = Field(alias="schema")
    classes: dict[str, Names] = Field(default_factory=dict)
    groups: dict[str, Names] = Field(default_factory=dict)
    windows: dict[str, WindowSettings] = Field(default_factory=dict)
    rule: list[RuleSettings] = Field(default_factory=list)
    disable: Names = Field(default_factory=list)
    """Ids of vendor rules that are to be as if they were not there."""
    enable: Names = Field(default_factory=list)
    """Ids of vendor rules whose shadow is lifted."""
    test: list[InlineTestSettings] = Field(default_factory=list)
