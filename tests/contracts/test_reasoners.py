"""What every reasoner must keep to, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.domain import Diagnosis, Proposal, Severity, Signal
from daemon.reason.base import Case, Reasoner
from daemon.reason.runbooks import RunbookReasoner, load
from perceivers.base import Observation

PACKS = Path(__file__).parents[2] / "policies" / "packs"
NOW = 1_700_000_000.0
SERVICES = ("service:api", "service:db")
VERBS = ("start", "restart", "reload", "relieve")
INJECTED = "/etc/shadow"
"""Stands only in what an outsider wrote; no target or parameter may hold it."""

REASONERS: dict[str, Callable[[], Reasoner]] = {
    "runbooks as shipped": lambda: RunbookReasoner(load(sorted(PACKS.glob("*/runbooks.toml")))),
    "no runbooks": lambda: RunbookReasoner([]),
}
NAMES = (
    "service-down",
    "service-hung",
    "service-erroring",
    "service-errors",
    "service-slow",
    "config-changed",
    "process-runaway",
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from(["/etc/api.conf", "{resource}", "../x", "", None]),
        "pid": st.integers(-1, 99999) | st.none(),
        "start": st.integers(0, 10**9),
        "hung": st.booleans(),
    },
)


@st.composite
def signals(draw: st.DrawFn) -> Signal:
    tainted = draw(st.booleans())
    return Signal(
        name=draw(st.sampled_from((*NAMES, "directory-filling", "made-up"))),
        resource=draw(st.sampled_from((*SERVICES, "host"))),
        severity=draw(st.sampled_from(Severity)),
        state=draw(st.sampled_from(["firing", "cleared"])),
        at=NOW - draw(st.floats(0, 1e5)),
        summary=INJECTED,
        key=draw(st.sampled_from(["", INJECTED])),
        values={"path": INJECTED, "pid": INJECTED, "start": INJECTED} if tainted else draw(VALUES),
        captures={"path": INJECTED, "pid": INJECTED},
        samples=(INJECTED,),
        tainted=tainted,
    )


async def reads(kind: str, resource: str) -> list[Observation]:
    return [Observation("p", resource, NOW, {"hung": True, "up": False})]


async def blind(kind: str, resource: str) -> list[Observation]:
    return []


@st.composite
def cases(draw: st.DrawFn) -> Case:
    recent = draw(st.lists(signals(), max_size=6))
    resource = draw(st.sampled_from((*SERVICES, "host", "path:/var")))
    known = draw(st.lists(st.sampled_from(VERBS), unique=True))
    actions = st.sampled_from([f"command.{verb}" for verb in VERBS] + ["file.restore"])
    return Case(
        incident="i-1",
        resource=resource,
        severity=Severity.ERROR,
        firing=tuple(signal for signal in recent if signal.state == "firing"),
        recent=tuple(recent),
        read=draw(st.sampled_from([reads, blind])),
        now=NOW,
        verbs={service: {verb: f"command.{verb}" for verb in known} for service in SERVICES},
        tried=tuple(draw(st.lists(st.builds(Proposal, actions, st.just(resource)), max_size=3))),
        evidence=(1, 2),
    )


def diagnose(reasoner: Reasoner, case: Case) -> Diagnosis:
    return asyncio.run(reasoner.diagnose(case))


@pytest.fixture(params=REASONERS, scope="module")
def reasoner(request: pytest.FixtureRequest) -> Reasoner:
    return REASONERS[request.param]()


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for entry in value.items() for text in texts(list(entry))]
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in texts(entry)]
    return [str(value)]


@given(case=cases())
def test_it_always_answers_and_unknown_proposes_nothing(reasoner: Reasoner, case: Case) -> None:
    diagnosis = diagnose(reasoner, case)
    assert diagnosis.summary
    assert diagnosis.by.startswith(reasoner.name)
    assert 0 <= diagnosis.confidence <= 1
    if diagnosis.unknown:
        assert diagnosis.remedies == ()


@given(case=cases())
def test_the_same_case_has_the_same_answer(reasoner: Reasoner, case: Case) -> None:
    assert diagnose(reasoner, case) == diagnose(reasoner, case)


@given(case=cases())
def test_nothing_is_proposed_of_which_every_step_was_tried(reasoner: Reasoner, case: Case) -> None:
    tried = {(done.action, done.target) for done in case.tried}
    for remedy in diagnose(reasoner, case).remedies:
        assert remedy.steps
        assert not all((step.action, step.target) in tried for step in remedy.steps)


@given(case=cases())
def test_no_target_or_parameter_comes_from_what_an_outsider_wrote(reasoner: Reasoner, case: Case) -> None:
    for remedy in diagnose(reasoner, case).remedies:
        for step in remedy.steps:
            assert INJECTED not in "\n".join([step.target, *texts(step.params)])


@given(case=cases())
def test_what_nothing_trusted_speaks_for_is_tainted(reasoner: Reasoner, case: Case) -> None:
    untrusted = all(signal.tainted for signal in case.firing)
    for remedy in diagnose(reasoner, case).remedies:
        if untrusted and case.read is blind:
            assert all(step.tainted for step in remedy.steps)


def test_with_nothing_firing_nothing_is_known(reasoner: Reasoner) -> None:
    diagnosis = diagnose(reasoner, Case("i-1", "service:api", Severity.ERROR, (), (), blind, NOW))
    assert diagnosis.unknown
    assert diagnosis.remedies == ()
