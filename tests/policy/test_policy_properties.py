"""What holds for every policy, request and past, however odd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from daemon.model.domain import Mode, Proof, Severity
from daemon.model.policy import Facts, Past, Request, Terms, Verdict
from daemon.policy.engine import Policy, decide
from daemon.policy.load import load
from daemon.policy.rules import BlastRadius, Rate, Rule, When, Window

ACTIONS = ("unit.restart", "unit.stop", "file.delete", "command.restart-api")
TARGETS = ("unit:a.service", "unit:b.service", "path:/srv/a", "service:api")
PEOPLE = ("anna", "ben", "eve")
WINDOW = Window("w", span=(0.0, 1000.0))

numbers = st.one_of(st.floats(), st.floats(0, 10_000), st.sampled_from([math.nan, math.inf, 0.0, -1.0]))
actions = st.sampled_from(ACTIONS)
targets = st.sampled_from(TARGETS)
votes = st.lists(st.sampled_from(PEOPLE), max_size=4).map(tuple)
ELECTORATES = [((), 1), ((), 2), (("anna",), 1), (("anna", "ben"), 2), (("ben", "eve"), 1), (PEOPLE, 3)]
terms = st.sampled_from(ELECTORATES).map(lambda one: Terms(*one))
rates = st.builds(
    Rate, st.integers(1, 3), st.floats(1, 5000), st.sampled_from(["target", "rule"]), st.just("rate")
)
blasts = st.builds(
    BlastRadius, st.just("g"), st.just(("unit:*",)), st.integers(0, 2), st.floats(1, 5000), st.just("blast")
)
whens = st.builds(
    When,
    st.frozensets(st.sampled_from(list(Severity)), min_size=2),
    st.one_of(st.just(frozenset[str]()), st.just(frozenset({"model"}))),
    st.sampled_from([None, None, WINDOW]),
    st.sampled_from([None, None, WINDOW]),
    st.booleans(),
)


@st.composite
def rule(draw: st.DrawFn, /, name: str, **fixed: Any) -> Rule:
    drawn = {
        "effect": draw(st.sampled_from(["allow", "require-approval", "deny"])),
        "actions": draw(
            st.lists(st.sampled_from([*ACTIONS, "unit.*", "*"]), min_size=1, unique=True).map(tuple)
        ),
        "targets": draw(
            st.lists(st.sampled_from([*TARGETS, "unit:*", "path:/srv/*"]), unique=True).map(tuple)
        ),
        "when": draw(whens),
        "shadow": draw(st.booleans()),
        "rates": draw(st.lists(rates, max_size=2).map(tuple)),
        "blast_radius": draw(st.one_of(st.none(), blasts)),
        "most": draw(st.dictionaries(st.sampled_from(["files", "bytes"]), st.integers(0, 100), max_size=1)),
        "probation": draw(st.integers(0, 2)),
        "trusted": draw(st.booleans()),
        "terms": draw(terms),
        "quiet": draw(st.sampled_from([None, WINDOW])),
        "verify": draw(st.sampled_from([None, Proof(("down",))])),
    }
    return Rule(
        id=name, where=f"{name}.toml:1", layer="site", digest=f"digest of {name}", **{**drawn, **fixed}
    )


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    return [draw(rule(f"r{n}")) for n in range(draw(st.integers(0, 4)))]


requests = st.builds(
    Request,
    action=st.one_of(actions, st.text(max_size=20)),
    target=st.one_of(targets, targets, st.text(max_size=20)),
    params=st.just({}),
    severity=st.sampled_from(list(Severity)),
    proposed_by=st.sampled_from(["runbook", "model", "person"]),
    tainted=st.booleans(),
    irreversible=st.booleans(),
    size=st.dictionaries(st.sampled_from(["files", "bytes"]), st.integers()),
    at=numbers,
)
pasts = st.builds(
    Past,
    rule=st.sampled_from(["r0", "r1", "gone"]),
    rule_digest=st.sampled_from(["digest of r0", "digest of r1", "", "another"]),
    action=actions,
    target=targets,
    age=numbers,
    result=st.sampled_from([None, "succeeded", "failed", "refused"]),
    verified=st.sampled_from([None, True, False]),
)
facts = st.builds(Facts, st.sampled_from(list(Mode)), st.lists(pasts, max_size=8).map(tuple), votes)


def power(verdict: Verdict) -> int:
    """How much a verdict lets happen: nothing, a note, a question, the action."""
    if verdict.effect == "deny":
        return 0
    return 1 if verdict.shadow else 2 + (verdict.effect == "allow")


@given(rules(), requests, facts)
def test_decide_always_answers_and_is_pure(given_rules: list[Rule], request: Request, known: Facts) -> None:
    policy = Policy(tuple(given_rules))
    verdict = decide(policy, request, known)
    assert verdict == decide(policy, request, known)
    assert verdict.rule == "default" or verdict.rule in {one.id for one in given_rules}
    assert len(verdict.near_misses) <= 5
    assert (verdict.approvals is not None) == (verdict.effect == "require-approval")
    assert verdict.reasons or verdict.effect == "allow"
    assert not (verdict.shadow and verdict.effect == "deny")


@given(rules(), requests, facts, st.randoms())
def test_the_order_of_rules_never_matters(
    given_rules: list[Rule], request: Request, known: Facts, random: Any
) -> None:
    shuffled = list(given_rules)
    random.shuffle(shuffled)
    assert decide(Policy(tuple(shuffled)), request, known) == decide(
        Policy(tuple(given_rules)), request, known
    )


def _matches(one: Rule, request: Request) -> bool:
    return one.speaks_of(request.action) and one.covers(request.target) and one.when.missing(request) == ()


@given(rules(), requests, facts)
def test_deny_wins_and_nothing_matching_is_deny(
    given_rules: list[Rule], request: Request, known: Facts
) -> None:
    verdict = decide(Policy(tuple(given_rules)), request, known)
    matching = [one for one in given_rules if _matches(one, request)]
    denies = [one.id for one in matching if one.effect == "deny" and not one.shadow]
    if denies:
        assert (verdict.effect, verdict.rule) == ("deny", min(denies))
    if not [one for one in matching if one.effect != "deny"]:
        assert verdict.effect == "deny"


@given(rules(), rule("x", effect="deny"), requests, facts)
def test_another_deny_never_allows_more(
    given_rules: list[Rule], deny: Rule, request: Request, known: Facts
) -> None:
    before = decide(Policy(tuple(given_rules)), request, known)
    after = decide(Policy((*given_rules, deny)), request, known)
    assert power(after) <= power(before)


restraints = st.one_of(
    rates.map(lambda one: {"rates": (one,)}),
    blasts.map(lambda one: {"blast_radius": one}),
    st.integers(0, 100).map(lambda most: {"most": {"files": most}}),
    st.just({"probation": 2}),
    st.just({"trusted": True}),
)


@given(rules(), st.data(), requests, facts)
def test_another_limit_never_allows_more(
    given_rules: list[Rule], data: st.DataObject, request: Request, known: Facts
) -> None:
    assume(given_rules)
    at = data.draw(st.integers(0, len(given_rules) - 1))
    plain = replace(given_rules[at], rates=(), blast_radius=None, most={}, probation=0, trusted=False)
    tight = replace(plain, **data.draw(restraints))
    others: Sequence[Rule] = [*given_rules[:at], *given_rules[at + 1 :]]
    before = decide(Policy((*others, plain)), request, known)
    after = decide(Policy((*others, tight)), request, known)
    assert power(after) <= power(before)


@given(rules(), requests, facts)
def test_votes_never_beat_a_deny_and_what_is_asked_for_is_enough(
    given_rules: list[Rule], request: Request, known: Facts
) -> None:
    policy = Policy(tuple(given_rules))
    unasked = decide(policy, request, replace(known, votes=()))
    asked = decide(policy, request, replace(known, votes=PEOPLE))
    if unasked.effect == "deny":
        assert asked.effect == "deny"
    if unasked.approvals is not None:
        people = unasked.approvals.from_ or PEOPLE
        if len(people) >= unasked.approvals.quorum:
            enough = replace(known, votes=tuple(people[: unasked.approvals.quorum]))
            assert decide(policy, request, enough).effect == "allow"


@given(st.permutations(range(6)), st.integers(0, 6), requests, facts)
def test_the_order_of_files_never_matters(order: list[int], cut: int, request: Request, known: Facts) -> None:
    effects = ("allow", "require-approval", "deny")
    texts = [
        f'[[rule]]\nid = "r{n}"\neffect = "{effects[n % 3]}"\naction = ["unit.restart"]\n'
        f'target = ["unit:{"ab"[n // 3]}.service"]\nseverity = ">={"warning" if n % 2 else "critical"}"\n'
        for n in range(6)
    ]
    with TemporaryDirectory() as name:
        first, second, whole = (Path(name) / f"{part}.toml" for part in ("1", "2", "whole"))
        first.write_text("schema = 1\n" + "".join(texts[n] for n in order[:cut]))
        second.write_text("schema = 1\n" + "".join(texts[n] for n in order[cut:]))
        whole.write_text("schema = 1\n" + "".join(texts))
        verdicts = [
            decide(load([], files), request, known) for files in ([first, second], [second, first], [whole])
        ]
    plain = [replace(one, where="", notes=()) for one in verdicts]
    assert plain[0] == plain[1] == plain[2]
    assert verdicts[0] == verdicts[1]
