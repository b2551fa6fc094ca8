"""The reasoner that needs no model: picks the runbook that knows most about the case."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config.strict import validate
from daemon.config.toml import load as load_toml
from daemon.errors import ConfigError, Problem
from daemon.model.domain import Diagnosis, Proof, Proposal, Remedy, Severity, Signal
from daemon.model.runbook import Confirm, RemedySettings, Runbook, RunbookFile, RunbookTest, StepSettings
from daemon.model.signals import parse_when
from daemon.reason.base import Case, unknown
from perceivers.base import Observation

log = logging.getLogger(__name__)
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_.-]*)\}")


class _Missing(LookupError):
    """A placeholder for which the evidence has no value."""


def load(paths: Iterable[Path]) -> list[Runbook]:
    """Read runbook files. Raises ConfigError with every problem found, ids used twice among them."""
    found: dict[str, tuple[Runbook, str]] = {}
    problems: list[Problem] = []
    for path in paths:
        doc = load_toml(path)
        try:
            books = validate(RunbookFile, doc.data, doc, ()).runbook
        except ConfigError as exc:
            problems += exc.problems
            continue
        for index, book in enumerate(books):
            where = doc.where("runbook", index, "id")
            if book.id in found:
                problems.append(
                    Problem(where, f"runbook {book.id!r} exists already", f"first at {found[book.id][1]}")
                )
            found[book.id] = (book, where)
    if problems:
        raise ConfigError(problems)
    return [book for book, _ in found.values()]


class RunbookReasoner:
    """Applies runbooks, the most specific first."""

    name = "runbook"

    def __init__(self, runbooks: Sequence[Runbook]) -> None:
        self._books = sorted(runbooks, key=lambda book: (-len(book.confirm), -len(book.unless), book.id))

    async def diagnose(self, case: Case) -> Diagnosis:
        """The first runbook that applies and has something left to try; one without remedies says that this fault is only told."""
        first: Diagnosis | None = None
        for book in self._books:
            if await applies(book, case):
                found = _diagnosis(book, case)
                if found.remedies or not book.remedy:
                    return found
                first = first or found
        return first or self._unknown(case)

    def _unknown(self, case: Case) -> Diagnosis:
        names = ", ".join(sorted({signal.name for signal in case.firing}))
        return unknown(self.name, f"no runbook knows {names or 'this'} on {case.resource}", case.evidence)


async def applies(book: Runbook, case: Case) -> bool:
    """Whether the runbook speaks of this case: cheap conditions first, fresh reads last."""
    here = {signal.name for signal in case.firing if case.at_root(signal)}
    if here.isdisjoint(book.signals) or not here.isdisjoint(book.unless):
        return False
    for confirm in sorted(book.confirm, key=lambda item: item.read is not None):
        if not await _confirmed(confirm, case):
            return False
    return True


async def _confirmed(confirm: Confirm, case: Case) -> bool:
    if confirm.read is not None and confirm.when is not None:
        condition = parse_when(confirm.when)
        return any(condition.holds(seen.values) for seen in await case.read(confirm.read, case.resource))
    lately = (signal for signal in case.recent if case.now - signal.at <= confirm.within)
    return any(signal.name == confirm.signal and case.at_root(signal) for signal in lately)


def _diagnosis(book: Runbook, case: Case) -> Diagnosis:
    remedies = tuple(_remedies(book, case))
    idle = book.remedy and not remedies
    return Diagnosis(
        cause=book.id,
        by=f"runbook:{book.id}",
        summary=f"{book.cause}; nothing is left to try" if idle else book.cause,
        confidence=book.confidence,
        root=case.resource,
        evidence=case.evidence,
        remedies=remedies,
    )


def _remedies(book: Runbook, case: Case) -> Iterable[Remedy]:
    found: list[tuple[Proposal, ...]] = []
    for settings in book.remedy:
        try:
            steps = tuple(_proposal(step, book, case) for step in settings.steps)
        except _Missing as exc:
            log.debug("runbook %s: a remedy is left out: %s", book.id, exc)
            continue
        # Two verbs of a service may well mean one action.
        if steps not in found and not all(_was_tried(step, case) for step in steps):
            found.append(steps)
            yield Remedy(steps, _proof(settings), settings.settle)


def _was_tried(step: Proposal, case: Case) -> bool:
    """What was done has every parameter, what is proposed only those that the runbook names."""
    return any(
        (step.action, step.target) == (done.action, done.target)
        and step.params.items() <= done.params.items()
        for done in case.tried
    )


def _proof(settings: RemedySettings) -> Proof:
    return Proof(tuple(settings.proof.clear), settings.proof.clear_for, settings.proof.within)


def _proposal(step: StepSettings, book: Runbook, case: Case) -> Proposal:
    values = _values(case)
    return Proposal(
        action=step.action or _mapped(str(step.verb), case),
        target=_fill(step.target, values),
        params={
            name: _fill(value, values) if isinstance(value, str) else value
            for name, value in step.params.items()
        },
        proposed_by="runbook",
        source=book.id,
        reason=book.cause,
        tainted=_tainted(book, case),
    )


def _tainted(book: Runbook, case: Case) -> bool:
    """Whether nothing but text that an outsider can write made this runbook apply; a fresh reading that agrees is no such text."""
    if any(confirm.read for confirm in book.confirm):
        return False
    return all(
        signal.tainted for signal in case.firing if signal.name in book.signals and case.at_root(signal)
    )


def _mapped(verb: str, case: Case) -> str:
    try:
        return case.verbs[case.resource][verb]
    except KeyError:
        raise _Missing(
            f'{case.resource} says nothing of {verb!r}; add `{verb} = "ACTION"` to its entry'
        ) from None


def _values(case: Case) -> dict[str, str]:
    """What placeholders may name: trusted readings at the root only. Text that an outsider wrote (captures, samples) is not among them,
    nor is anything that a signal resting on such text carries."""
    values: dict[str, str] = {"resource": case.resource}
    if case.resource.startswith("service:"):
        values["service"] = case.resource.removeprefix("service:")
    # Newest first in `recent`, so the oldest is written first and the newest stays; what fires now counts most.
    for signal in (*reversed(case.recent), *case.firing):
        if case.at_root(signal) and not signal.tainted:
            values |= {
                f"{signal.name}.{name}": str(value)
                for name, value in signal.values.items()
                if value is not None
            }
    return values


def _fill(text: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise _Missing(f"nothing in the evidence is called {match[0]}")
        return values[match[1]]

    return _PLACEHOLDER.sub(value, text)


@dataclass(frozen=True, slots=True)
class TestResult:
    """How one inline test of a runbook ended; `problem` is empty when it passed."""

    runbook: str
    number: int
    problem: str


async def run_tests(runbooks: Sequence[Runbook]) -> list[TestResult]:
    """Run every inline test against all the runbooks together, so that one which shadows another is seen."""
    reasoner = RunbookReasoner(runbooks)
    results = []
    for book in runbooks:
        for number, test in enumerate(book.test, 1):
            diagnosis = await reasoner.diagnose(_case(test))
            results.append(TestResult(book.id, number, _judge(book, test, diagnosis)))
    return results


def _judge(book: Runbook, test: RunbookTest, diagnosis: Diagnosis) -> str:
    if (diagnosis.cause == book.id) != test.expect.applies:
        return (
            f"expected {'this runbook' if test.expect.applies else 'another answer'}, got {diagnosis.cause}"
        )
    got = [[step.action for step in remedy.steps] for remedy in diagnosis.remedies]
    if test.expect.actions is not None and got != test.expect.actions:
        return f"expected {test.expect.actions}, got {got}"
    return ""


def _case(test: RunbookTest) -> Case:
    now = 1_700_000_000.0

    def signal(name: str) -> Signal:
        return Signal(
            name, test.resource, Severity.ERROR, "firing", now, name, values=test.values.get(name, {})
        )

    async def read(kind: str, resource: str) -> list[Observation]:
        values: Mapping[str, Any] | None = test.reads.get(kind)
        return [] if values is None else [Observation("test", resource, now, values)]

    signals = tuple(signal(name) for name in test.signals)
    name = test.resource.partition(":")[2]
    verbs = {test.resource: {verb: f"command.{verb}-{name}" for verb in test.verbs}}
    return Case("test", test.resource, Severity.ERROR, signals, signals, read, now, verbs)
