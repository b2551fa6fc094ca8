"""Policies from text, and the requests and facts that they are asked with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daemon.model.domain import Mode, Severity
from daemon.model.policy import Facts, Past, Request, Verdict
from daemon.policy.engine import Policy, decide
from daemon.policy.load import load

NOON = 1_704_283_200.0
"""Wednesday, 2024-01-03, noon UTC."""


def written(directory: Path, text: str, name: str = "site.toml") -> Path:
    """A policy file with that text after `schema = 1`."""
    path = directory / name
    path.write_text(f"schema = 1\n{text}")
    return path


def policy(directory: Path, text: str, **known: Any) -> Policy:
    """The policy of one site file."""
    return load([], [written(directory, text)], **known)


def request(action: str = "unit.restart", target: str = "unit:api.service", **changes: Any) -> Request:
    plain: dict[str, Any] = {
        "params": {},
        "severity": Severity.ERROR,
        "proposed_by": "runbook",
        "tainted": False,
        "irreversible": False,
        "size": {},
        "at": NOON,
    }
    return Request(action, target, **{**plain, **changes})


def past(age: float = 60.0, target: str = "unit:api.service", **changes: Any) -> Past:
    plain: dict[str, Any] = {
        "rule": "r",
        "rule_digest": "",
        "action": "unit.restart",
        "result": "succeeded",
        "verified": True,
    }
    return Past(target=target, age=age, **{**plain, **changes})


def ask(
    rules: Policy,
    asked: Request | None = None,
    *before: Past,
    mode: Mode = Mode.ACT,
    votes: tuple[str, ...] = (),
) -> Verdict:
    return decide(rules, asked or request(), Facts(mode, before, votes))
