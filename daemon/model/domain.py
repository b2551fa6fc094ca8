"""The values that flow through midwatch, each frozen. One word per thing; GLOSSARY.md says the same for readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Literal

Scalar = float | int | str | bool | None
ProposedBy = Literal["runbook", "model", "person"]


class Severity(IntEnum):
    INFO = 0
    WARNING = 1
    ERROR = 2
    CRITICAL = 3

    @property
    def word(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, word: str) -> Severity:
        try:
            return cls[word.upper()]
        except KeyError:
            raise ValueError(f"{word!r} is no severity: one of info, warning, error, critical") from None


class Mode(IntEnum):
    """The host-wide ceiling over every rule: what an `allow` may at most become."""

    OBSERVE = 0
    """Look, judge, tell. Nothing is proposed to a person for approval, nothing is done."""
    SHADOW = 1
    """As observe, and each decision that would have acted is recorded as such."""
    ASK = 2
    """Every action is asked for, also where a rule allows it."""
    ACT = 3

    @classmethod
    def parse(cls, word: str) -> Mode:
        try:
            return cls[word.upper()]
        except KeyError:
            raise ValueError(f"{word!r} is no mode: one of observe, shadow, ask, act") from None


class State(StrEnum):
    """Where an incident stands. `escalated` is not final; `resolved` is."""

    OPEN = "open"
    INVESTIGATING = "investigating"
    WAITING = "waiting"
    ACTING = "acting"
    VERIFYING = "verifying"
    RESOLVED = "resolved"
    ESCALATED = "escalated"


@dataclass(frozen=True, slots=True)
class Signal:
    """A detector's finding that Observations are abnormal (`firing`) or normal again (`cleared`)."""

    name: str
    """The contract name, such as `service-down`."""
    resource: str
    severity: Severity
    state: Literal["firing", "cleared"]
    at: float
    """Unix seconds."""
    summary: str
    """One sentence for a person; text from outside is already neutralised."""
    key: str = ""
    """Tells signals of one name on one resource apart: a captured value, a path."""
    perceiver: str = ""
    values: Mapping[str, Scalar] = field(default_factory=dict)
    """What was read when it fired: trusted values only, usable by runbooks as `{NAME.KEY}`."""
    captures: Mapping[str, str] = field(default_factory=dict)
    """Text that an outsider may have written (named groups of a log rule). Never a source of targets."""
    samples: tuple[str, ...] = ()
    count: int = 1
    tainted: bool = False
    """True when the finding rests on text that an outsider can write."""

    @property
    def fingerprint(self) -> str:
        """Equal for findings that are the same trouble."""
        return f"{self.name}|{self.resource}|{self.key}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A typed action that somebody would like to be done; it has no effect."""

    action: str
    """KIND.VERB, such as `command.restart-api`."""
    target: str
    """A Resource."""
    params: Mapping[str, Any] = field(default_factory=dict)
    proposed_by: ProposedBy = "runbook"
    source: str = ""
    """The runbook's id, the model's run, or the person's name."""
    reason: str = ""
    tainted: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """What must be seen before a fault counts as gone."""

    clear: tuple[str, ...] = ()
    """Signal names that must be clear on the incident; empty: every signal of the incident."""
    clear_for: float = 3.0
    """Seconds for which it must stay so."""
    within: float = 60.0
    """Seconds after which it counts as failed."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """Proposals that make sense only together, in this order, proven once and undone together in reverse."""

    steps: tuple[Proposal, ...]
    proof: Proof = field(default_factory=Proof)
    settle: float = 0.0
    """Seconds after the last step before the proof is looked at: dependants fail for a moment after a restart."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The chosen cause. `cause == "unknown"` is a valid answer; then `remedies` is empty."""

    cause: str
    by: str
    """The reasoner and its source: `runbook:service-crashed`, `none`."""
    summary: str
    confidence: float = 1.0
    root: str = ""
    """The Resource at fault, when it is not the one that showed the symptom."""
    evidence: tuple[int, ...] = ()
    """Journal sequence numbers."""
    remedies: tuple[Remedy, ...] = ()
    """Least invasive first."""

    @property
    def unknown(self) -> bool:
        return self.cause == "unknown"
