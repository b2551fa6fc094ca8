"""What policy is asked and what it answers. The decision itself is pure: everything it may look at stands in Request and Facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from daemon.model.domain import Mode, Proof, ProposedBy, Severity

Effect = Literal["allow", "require-approval", "deny"]


@dataclass(frozen=True, slots=True)
class Request:
    """One canonical action that somebody would like to be done."""

    action: str
    target: str
    params: Mapping[str, Any]
    severity: Severity
    """Of the incident."""
    proposed_by: ProposedBy
    tainted: bool
    """Only text that an outsider can write speaks for it."""
    irreversible: bool
    """Its effect destroys something that cannot be had back."""
    size: Mapping[str, int]
    """How much it would touch (`files`, `bytes`, ...), as measured just now; a missing name was not measurable."""
    at: float
    """Unix seconds: windows are judged at this moment."""
    incident: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "params": dict(self.params),
            "size": dict(self.size),
            "severity": self.severity.word,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        return cls(**{**data, "severity": Severity.parse(data["severity"])})


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier attempt: what cooldown, rate, blast radius and probation count."""

    rule: str
    rule_digest: str
    action: str
    target: str
    age: float
    """Seconds ago."""
    result: str | None
    """An Outcome's result; None while it is under way."""
    verified: bool | None
    """Whether the incident's proof was seen after it; None while nobody knows."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision may take into account besides the request and the rules."""

    mode: Mode
    past: tuple[Past, ...] = ()
    """Newest first, at least `Policy.horizon` seconds back. Undoing is not among them."""
    votes: tuple[str, ...] = ()
    """The people who said yes to exactly this action in exactly this state."""

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode.name.lower(),
            "past": [asdict(past) for past in self.past],
            "votes": list(self.votes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Facts:
        return cls(
            Mode.parse(data["mode"]), tuple(Past(**past) for past in data["past"]), tuple(data["votes"])
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """How an approval is to be had."""

    from_: tuple[str, ...] = ()
    """The people who may answer; empty: anybody known."""
    quorum: int = 1
    expires: float = 3600.0
    """Seconds; unanswered by then it counts as no."""
    quiet: bool = False
    """Within the rule's quiet window right now: the question waits for its end before it disturbs anybody."""
    escalate_after: float | None = None
    """Seconds without an answer after which the on-call steps begin as well."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Policy's answer, with everything a person needs to see why and what would have to change."""

    effect: Effect
    rule: str
    """The id of the deciding rule; `default` when none spoke for it."""
    where: str = ""
    """FILE:LINE of that rule; empty for `default`."""
    reasons: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()
    """Rules that would have decided otherwise but for one condition, as `ID: CONDITION`."""
    shadow: bool = False
    """What is not denied is only noted, never run: the rule, or the host's mode, says so."""
    rule_digest: str = ""
    """SHA-256 of the deciding rule's text: an edited rule is another rule."""
    approvals: Terms | None = None
    """Set when the effect is `require-approval`."""
    verify: Proof | None = None
    """Proof that the rule demands on top of the runbook's."""
    notes: tuple[str, ...] = field(default=())
    """What else spoke: rules that were overridden."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
