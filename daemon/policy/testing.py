"""Runs the inline tests of policy files: the sentences that their author would say aloud."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.model.policy import Facts, Past, Request, Verdict
from daemon.policy.engine import Policy, decide
from daemon.policy.rules import PROBATION_MEMORY, InlineTest


@dataclass(frozen=True, slots=True)
class TestResult:
    """How one inline test ended."""

    __test__ = False

    where: str
    """FILE:LINE of the test."""
    passed: bool
    message: str
    """What was asked and answered; when it failed also what was expected."""


def run_tests(policy: Policy) -> list[TestResult]:
    return [_run(policy, test) for test in policy.tests]


def _run(policy: Policy, test: InlineTest) -> TestResult:
    past = _stood(policy, test.request) if test.past is None else test.past
    verdict = decide(policy, test.request, Facts(test.mode, past, test.votes))
    wrong = _wrong(test, verdict)
    answer = f"{test.request.action} {test.request.target} -> {_spell(verdict)}"
    return TestResult(test.where, not wrong, f"{answer}; expected {wrong}" if wrong else answer)


def _wrong(test: InlineTest, verdict: Verdict) -> str:
    """What was expected and is not so; empty when all is."""
    wrong: list[str] = [] if verdict.effect == test.effect else [test.effect]
    wrong += [f"by {test.rule}"] if test.rule and verdict.rule != test.rule else []
    if test.shadow is not None and verdict.shadow != test.shadow:
        wrong.append("in shadow" if test.shadow else "not in shadow")
    return ", ".join(wrong)


def _spell(verdict: Verdict) -> str:
    where = f" at {verdict.where}" if verdict.where else ""
    shadow = " in shadow" if verdict.shadow else ""
    near = f" [nearly: {', '.join(verdict.near_misses)}]" if verdict.near_misses else ""
    return f"{verdict.effect}{shadow} by {verdict.rule}{where} ({'; '.join(verdict.reasons) or 'no reason given'}){near}"


def _stood(policy: Policy, request: Request) -> tuple[Past, ...]:
    """A past in which every probation on this target is over, so long ago that no limit counts it any more."""
    return tuple(
        Past(rule.id, rule.digest, request.action, request.target, PROBATION_MEMORY, "succeeded", True)
        for rule in policy.rules
        for _ in range(rule.probation)
    )
