"""Canonical JSON, plans, requests: what is stored comes back as it was."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.actions import ACTIONS, speaks_of
from daemon.model.canonical import canonical
from daemon.model.domain import Diagnosis, Mode, Proof, Proposal, Remedy, Severity, Signal
from daemon.model.message import Message
from daemon.model.plan import Plan
from daemon.model.policy import Facts, Past, Request

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
PARAMS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
WORD = st.text(max_size=8)
TIME = st.floats(0, 1e9)
PROOF = st.builds(Proof, clear=st.lists(WORD, max_size=2).map(tuple), clear_for=TIME, within=TIME)
PROPOSAL = st.builds(
    Proposal, action=WORD, target=WORD, params=PARAMS, source=WORD, reason=WORD, tainted=st.booleans()
)
REMEDY = st.builds(
    Remedy, steps=st.lists(PROPOSAL, min_size=1, max_size=2).map(tuple), proof=PROOF, settle=TIME
)
DIAGNOSIS = st.builds(
    Diagnosis,
    cause=WORD,
    by=WORD,
    summary=WORD,
    confidence=st.floats(0, 1),
    root=WORD,
    evidence=st.lists(st.integers(1), max_size=3).map(tuple),
    remedies=st.lists(REMEDY, max_size=2).map(tuple),
)
PLAN = st.builds(
    Plan,
    diagnosis=DIAGNOSIS,
    no=st.lists(WORD, max_size=2).map(tuple),
    look_from=WORD,
    failed=WORD,
    keys=st.lists(WORD, max_size=2).map(tuple),
    proofs=st.lists(PROOF, max_size=2).map(tuple),
)
REQUEST = st.builds(
    Request,
    action=WORD,
    target=WORD,
    params=PARAMS,
    severity=st.sampled_from(Severity),
    proposed_by=st.sampled_from(["runbook", "model", "person"]),
    tainted=st.booleans(),
    irreversible=st.booleans(),
    size=st.dictionaries(WORD, st.integers(0), max_size=2),
    at=TIME,
    incident=WORD,
)
PAST = st.builds(Past, WORD, WORD, WORD, WORD, TIME, st.none() | WORD, st.none() | st.booleans())
FACTS = st.builds(
    Facts, st.sampled_from(Mode), st.lists(PAST, max_size=2).map(tuple), st.lists(WORD, max_size=2).map(tuple)
)


@given(JSON)
def test_canonical_text_is_json_and_the_same_each_time(value: object) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text
    assert text.isascii()


@given(PARAMS)
def test_the_order_of_keys_does_not_matter(params: dict[str, object]) -> None:
    assert canonical(dict(reversed(params.items()))) == canonical(params)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": object()}, {1, 2}, b"x"])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical(value)


@given(PLAN)
def test_a_plan_survives_its_row(plan: Plan) -> None:
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(REQUEST, FACTS)
def test_a_verdicts_input_survives_the_journal(request: Request, facts: Facts) -> None:
    assert Request.from_json(json.loads(canonical(request.to_json()))) == request
    assert Facts.from_json(json.loads(canonical(facts.to_json()))) == facts


def test_a_message_survives_the_outbox() -> None:
    message = Message("ask", "i-1", "t", "error", "s", {"a": [1]}, "h", "d", "a1", 1.0)
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message


def test_words_for_severity_and_mode() -> None:
    assert [severity.word for severity in Severity] == ["info", "warning", "error", "critical"]
    assert Severity.parse("critical") > Severity.parse("error")
    assert Mode.parse("act") > Mode.parse("observe")
    for parse in (Severity.parse, Mode.parse):
        with pytest.raises(ValueError, match="one of"):
            parse("loud")


def test_the_same_trouble_has_the_same_fingerprint_whatever_was_read() -> None:
    one = Signal("down", "service:api", Severity.ERROR, "firing", 1.0, "s", "k", values={"x": 1})
    other = Signal("down", "service:api", Severity.WARNING, "cleared", 2.0, "t", "k")
    assert one.fingerprint == other.fingerprint == "down|service:api|k"


def test_what_a_policy_may_speak_of() -> None:
    assert all(speaks_of(action) for action in ACTIONS)
    assert all(
        speaks_of(pattern)
        for pattern in ("unit.*", "*.restart", "*.*", "*", "command.*", "command.restart-api")
    )
    assert not any(speaks_of(pattern) for pattern in ("unit.explode", "shell.run", "Unit.restart"))
    assert speaks_of("command.a*", frozenset({"abc"}))
    assert not speaks_of("command.x*", frozenset({"abc"}))
