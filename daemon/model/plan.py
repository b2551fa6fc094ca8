"""A diagnosis as it is kept in the incident's row: which remedies there are and how far the current one has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from daemon.model.domain import Diagnosis, Proof, Proposal, Remedy


@dataclass(frozen=True, slots=True)
class Plan:
    """A diagnosis with its progress. Plain JSON on disk."""

    diagnosis: Diagnosis
    no: tuple[str, ...] = ()
    """Why remedies were not done or did not help, in order: what a person is told in the end."""
    look_from: str = ""
    """Deadline text: the proof is not looked at before (settle time)."""
    failed: str = ""
    """Why the current remedy failed; set until everything it did is undone."""
    keys: tuple[str, ...] = ()
    """The attempts of the current remedy, one a step: an incident may be diagnosed anew and have others of the same number."""
    proofs: tuple[Proof, ...] = ()
    """What policy demands on top of the runbook's proof."""

    def but(self, **changes: Any) -> Plan:
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        diagnosis = dict(data["diagnosis"])
        diagnosis["remedies"] = tuple(_remedy(remedy) for remedy in diagnosis["remedies"])
        diagnosis["evidence"] = tuple(diagnosis["evidence"])
        return cls(
            Diagnosis(**diagnosis),
            no=tuple(data["no"]),
            look_from=data["look_from"],
            failed=data["failed"],
            keys=tuple(data["keys"]),
            proofs=tuple(_proof(proof) for proof in data["proofs"]),
        )


def _remedy(data: Mapping[str, Any]) -> Remedy:
    return Remedy(tuple(Proposal(**step) for step in data["steps"]), _proof(data["proof"]), data["settle"])


def _proof(data: Mapping[str, Any]) -> Proof:
    return Proof(tuple(data["clear"]), data["clear_for"], data["within"])
