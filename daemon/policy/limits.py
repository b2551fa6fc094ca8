"""Limits: cooldown, rate, blast radius, size, and the probation of a rule. All from what the facts say, nothing remembered here."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from daemon.model.policy import Past, Request
from daemon.model.units import spell_bytes, spell_seconds
from daemon.policy.rules import PROBATION_MEMORY, BlastRadius, Rate, Rule

MOST_NAMED = 5
"""Targets that a message names."""


def broken(rule: Rule, request: Request, past: tuple[Past, ...]) -> Iterator[str]:
    """The rule's limits that the request would not keep, each as a sentence that says when it is free again."""
    for name, most in rule.most.items():
        yield from _too_much(name, most, request)
    if not past:
        return
    for rate in rule.rates:
        yield from _too_often(rate, rule, request, past)
    if rule.blast_radius is not None:
        yield from _too_wide(rule.blast_radius, rule, request, past)


def _too_much(name: str, most: int, request: Request) -> Iterator[str]:
    spell = spell_bytes if name == "bytes" else str
    if name not in request.size:
        yield f"max {name}: how many it would touch could not be measured, at most {spell(most)} may be"
    # Not `>`: what compares with nothing (NaN) must not pass.
    elif not request.size[name] <= most:
        yield f"max {name}: it would touch {spell(request.size[name])}, at most {spell(most)} may be"


def _too_often(rate: Rate, rule: Rule, request: Request, past: tuple[Past, ...]) -> Iterator[str]:
    ages = sorted(
        one.age
        for one in past
        if _counts(one, rate.period)
        and (rate.per == "rule" or one.target == request.target)
        and _in_scope(one, rule, request)
    )
    if len(ages) >= rate.most:
        yield f"{rate.text}: used up, free again in {_left(rate.period - ages[rate.most - 1])}"


def _too_wide(blast: BlastRadius, rule: Rule, request: Request, past: tuple[Past, ...]) -> Iterator[str]:
    if not blast.covers(request.target):
        return
    others: dict[str, float] = {}
    for one in past:
        counts = one.target != request.target and _counts(one, blast.within)
        if counts and blast.covers(one.target) and rule.speaks_of(one.action):
            others[one.target] = min(one.age, others.get(one.target, one.age))
    if len(others) >= blast.most:
        ages = sorted(others.values())
        free = f"free again in {_left(blast.within - ages[blast.most - 1])}" if blast.most else "never free"
        yield f"{blast.text}: already touched {', '.join(sorted(others)[:MOST_NAMED]) or 'none'}; {free}"


def _in_scope(one: Past, rule: Rule, request: Request) -> bool:
    if rule.digest and one.rule_digest == rule.digest:
        # What this very rule decided lies in its scope; asking its globs again is what would cost.
        return True
    return (one.action == request.action or rule.speaks_of(one.action)) and rule.covers(one.target)


def _counts(one: Past, period: float) -> bool:
    """A refused attempt touched nothing; one under way counts. An age that compares with nothing counts: strict is safe."""
    return one.result != "refused" and not one.age >= period


def _left(seconds: float) -> str:
    return spell_seconds(float(ceil(seconds))) if 0 < seconds < float("inf") else "an unknown time"


def proven(rule: Rule, request: Request, past: tuple[Past, ...]) -> int:
    """How often this very rule was proven right on this target since it last failed there."""
    count = 0
    for one in past:
        if one.rule_digest != rule.digest or one.target != request.target or not one.age <= PROBATION_MEMORY:
            continue
        if one.verified is False:
            break
        count += one.verified is True
    return count
