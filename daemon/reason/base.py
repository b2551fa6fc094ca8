"""The Reasoner protocol and what a reasoner is shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from daemon.model.domain import Diagnosis, Proposal, Severity, Signal
from perceivers.base import Observation

Read = Callable[[str, str], Awaitable[Sequence[Observation]]]
"""(perceiver kind, Resource) → fresh Observations. A read changes nothing."""


@dataclass(frozen=True, slots=True)
class Case:
    """One incident as a reasoner sees it. Reads are its only reach into the world."""

    incident: str
    resource: str
    """The Resource at fault as far as known."""
    severity: Severity
    firing: tuple[Signal, ...]
    recent: tuple[Signal, ...]
    """Signals lately seen on the same root, newest first, the informational ones and `firing` among them."""
    read: Read
    now: float
    verbs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Service Resource → verb → action id."""
    tried: tuple[Proposal, ...] = ()
    """What already failed in this incident, as it was done: canonical, with every parameter."""
    evidence: tuple[int, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    """Resource → the service that it belongs to: a file, a unit."""

    def at_root(self, signal: Signal) -> bool:
        """Whether the signal speaks of the Resource at fault or of something that belongs to it, not of a symptom elsewhere."""
        return self.resource in (signal.resource, self.owners.get(signal.resource))


class Reasoner(Protocol):
    """Finds a cause and proposes remedies. It has no effect, and its answer is only a proposal.

    The contract, proven by one suite: `diagnose` never raises for what a case holds, answers `unknown` (and then proposes nothing) when
    nothing fits, gives the same answer to the same case, proposes no remedy of which every step was tried, takes targets and parameters
    from the inventory and from trusted evidence only, marks as tainted what nothing trusted speaks for, and asks nothing but `case.read`.
    """

    name: str

    async def diagnose(self, case: Case) -> Diagnosis: ...


def unknown(by: str, summary: str, evidence: tuple[int, ...] = ()) -> Diagnosis:
    return Diagnosis("unknown", by, summary, confidence=0.0, evidence=evidence)
