"""One policy decision with its explanation, over a thousand rules."""

from __future__ import annotations

import time
from pathlib import Path

from bench.figures import Figure, middle
from daemon.model.domain import Mode, Severity
from daemon.model.policy import Facts, Request
from daemon.policy.engine import decide
from daemon.policy.load import load

RULES = 1000
LIMIT = 100.0
ASKED = 2000


def measure(directory: Path) -> list[Figure]:
    path = directory / "rules.toml"
    path.write_text("schema = 1\n" + "".join(_rule(n) for n in range(RULES)))
    policy = load(vendor=[], site=[path])
    facts = Facts(Mode.ACT)
    taken = []
    for n in range(ASKED):
        request = Request(
            "unit.restart",
            f"unit:app-{n % RULES}.service",
            {},
            Severity.ERROR,
            "runbook",
            False,
            False,
            {},
            0.0,
        )
        began = time.perf_counter()
        verdict = decide(policy, request, facts)
        taken.append((time.perf_counter() - began) * 1e6)
        if verdict.effect != "allow":
            raise RuntimeError(f"wrong verdict: {verdict}")
    return [Figure("policy decision, 1000 rules, p50", middle(taken), LIMIT, "us", "limit")]


def _rule(n: int) -> str:
    return f'[[rule]]\nid = "r{n}"\neffect = "allow"\naction = ["unit.restart"]\ntarget = ["unit:app-{n}.service"]\n'
