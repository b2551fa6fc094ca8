"""Rules as they are judged: compiled, frozen, free of the file they were written in. `schema` is what people write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Literal
from zoneinfo import ZoneInfo

from daemon.model import resource
from daemon.model.domain import Mode, Proof
from daemon.model.policy import Effect, Past, Request, Terms

DEFAULT = "default"
"""What the verdict is named after when no rule decides."""
PROBATION_MEMORY = 90 * 86400.0
"""Seconds for which proofs count towards a probation; also the longest that any limit may look back."""
EVERY_DAY = frozenset(range(7))
IRREVERSIBLE = frozenset({"file.delete", "file.truncate"})
"""What midwatch's own actuators say of their verbs, for lint and inline tests; a decision asks the actuator itself."""
_WILD = re.compile(r"[*?\[]")


def beginning(pattern: str) -> str:
    """The part of a glob before its first wildcard."""
    found = _WILD.search(pattern)
    return pattern[: found.start()] if found else pattern


def literal(pattern: str) -> bool:
    """Whether a glob stands for one text only."""
    return _WILD.search(pattern) is None


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time: one from `span`, or the same hours of the `days`, as the clocks of `tz` show them."""

    name: str
    span: tuple[float, float] | None = None
    """Unix seconds; the end is not part of it."""
    hours: tuple[int, int] = (0, 1440)
    """Minutes of the day; an end before the start lies on the next day."""
    days: frozenset[int] = EVERY_DAY
    """Days on which it begins; 0 is Monday."""
    tz: ZoneInfo | None = None

    def holds(self, at: float) -> bool | None:
        """None for a moment that no calendar knows."""
        try:
            local = datetime.fromtimestamp(at, self.tz or UTC)
        except (ValueError, OverflowError, OSError):
            return None
        if self.span is not None:
            return self.span[0] <= at < self.span[1]
        minute, today = local.hour * 60 + local.minute, local.weekday()
        start, end = self.hours
        if start < end:
            return start <= minute < end and today in self.days
        return (minute >= start and today in self.days) or (minute < end and (today - 1) % 7 in self.days)


@dataclass(frozen=True, slots=True)
class When:
    """What must be so besides action and target. Many rules share one, so it is judged once a decision."""

    severities: frozenset[int] = frozenset(range(4))
    proposers: frozenset[str] = frozenset()
    """Empty: whoever."""
    during: Window | None = None
    not_during: Window | None = None
    irreversible: bool = True
    """Whether it speaks of requests whose effect cannot be taken back."""

    def missing(self, request: Request) -> tuple[str, ...] | None:
        """The conditions that the request does not meet; None when that cannot be told."""
        missing = []
        if request.severity not in self.severities:
            missing.append("severity")
        if self.proposers and request.proposed_by not in self.proposers:
            missing.append("proposed_by")
        if request.irreversible and not self.irreversible:
            missing.append("irreversible")
        for name, window, wanted in (("during", self.during, True), ("not_during", self.not_during, False)):
            if window is not None:
                holds = window.holds(request.at)
                if holds is None:
                    return None
                missing += [name] if holds is not wanted else []
        return tuple(missing)

    @property
    def always(self) -> bool:
        return self == When()


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `most` attempts in any `period` seconds, per target or for the whole rule."""

    most: int
    period: float
    per: Literal["target", "rule"]
    text: str
    """As it was written, for messages."""


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """At most `most` different targets of a group within `within` seconds."""

    group: str
    patterns: tuple[str, ...]
    most: int
    within: float
    text: str

    def covers(self, target: str) -> bool:
        return any(resource.matches(pattern, target) for pattern in self.patterns)


# Compared and hashed by identity: there is one Rule per id, and comparing twenty fields would be the dearest part of a decision.
@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One rule, with every name in it resolved."""

    id: str
    effect: Effect
    where: str
    layer: Literal["vendor", "site"]
    actions: tuple[str, ...]
    """Action globs."""
    targets: tuple[str, ...] = ()
    """Resource globs; empty: every target."""
    when: When = field(default_factory=When)
    shadow: bool = False
    rates: tuple[Rate, ...] = ()
    blast_radius: BlastRadius | None = None
    most: Mapping[str, int] = field(default_factory=dict)
    """Name of a measure → the most that may be touched."""
    probation: int = 0
    trusted: bool = False
    """Evidence must be trusted for it to act unasked."""
    terms: Terms = field(default_factory=Terms)
    quiet: Window | None = None
    verify: Proof | None = None
    reason: str = ""
    digest: str = ""
    """SHA-256 of its text, its names resolved."""
    voice: str = field(init=False)
    """What it can bring about: an effect, `shadow` for a permission that is only noted, `note` for such a denial."""
    beginnings: tuple[str, ...] = field(init=False)
    """Of each target glob the part before its first wildcard: few targets share it, and to compare it is cheap."""

    def __post_init__(self) -> None:
        quiet = "note" if self.effect == "deny" else "shadow"
        object.__setattr__(self, "voice", quiet if self.shadow else self.effect)
        object.__setattr__(self, "beginnings", tuple(map(beginning, self.targets)))

    def speaks_of(self, action: str) -> bool:
        return any(fnmatchcase(action, pattern) for pattern in self.actions)

    def covers(self, target: str) -> bool:
        if not self.targets:
            return True
        for prefix, pattern in zip(self.beginnings, self.targets, strict=True):
            if target.startswith(prefix) and resource.matches(pattern, target):
                return True
        return False

    @property
    def horizon(self) -> float:
        """Seconds of history that its limits need."""
        spans = [rate.period for rate in self.rates]
        spans += [self.blast_radius.within] if self.blast_radius else []
        spans += [PROBATION_MEMORY] if self.probation else []
        return max(spans, default=0.0)


@dataclass(frozen=True, slots=True)
class InlineTest:
    """A question that a policy file asks of itself, with the answer it expects."""

    where: str
    request: Request
    effect: Effect
    rule: str = ""
    """Empty: whichever."""
    shadow: bool | None = None
    """None: either."""
    mode: Mode = Mode.ACT
    votes: tuple[str, ...] = ()
    past: tuple[Past, ...] | None = None
    """None: every probation is over and no limit is used up."""
