"""Runbooks: what a person knows about a kind of fault, written so that no model is needed to use it.

A runbook applies when one of its `signals` fires on the incident's root Resource, every `confirm` holds and nothing in `unless` fires there.
Of several, the one with the most confirmations wins, then the one with the most exceptions: it knows the most about this fault. Its
remedies stand least invasive first; what already failed is left out, and once nothing is left the next runbook that applies has its turn.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Unit
from pydantic import BaseModel, ConfigDict, Field, model_validator

from daemon.model.actions import ACTIONS, speaks_of
from daemon.model.signals import parse_when

Seconds = Annotated[float, Unit("s")]
VERBS = ("start", "restart", "reload", "stop", "relieve")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepSettings(_Strict):
    """One action: an action id with its target, or a `verb` that the service's inventory entry maps to one."""

    verb: Literal["start", "restart", "reload", "stop", "relieve"] | None = None
    action: str | None = None
    target: str = "{resource}"
    """A Resource; `{resource}`, `{service}` and `{SIGNAL.VALUE}` are filled in from the incident's trusted evidence."""
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of(self) -> StepSettings:
        if (self.verb is None) == (self.action is None):
            raise ValueError("a step has either `verb` or `action`")
        if self.action is not None and ("*" in self.action or not speaks_of(self.action)):
            raise ValueError(
                f"there is no action {self.action!r}; it is command.NAME or one of {', '.join(sorted(ACTIONS))}"
            )
        return self


class ProofSettings(_Strict):
    clear: list[str] = Field(default_factory=list)
    clear_for: Seconds = 3.0
    within: Seconds = 60.0


class RemedySettings(_Strict):
    steps: list[StepSettings] = Field(min_length=1)
    settle: Seconds = 0.0
    proof: ProofSettings = ProofSettings()


class Confirm(_Strict):
    """A read that must agree: a signal seen lately on the root or its files, or a fresh poll of the root's perceivers of one kind."""

    signal: str | None = None
    within: Seconds = 3600.0
    read: str | None = None
    when: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Confirm:
        if (self.signal is None) == (self.read is None) or (self.read is None) != (self.when is None):
            raise ValueError("a confirmation is either `signal` (and `within`) or `read` with `when`")
        if self.when is not None and parse_when(self.when).kind != "value":
            raise ValueError(
                f"{self.when!r} needs a history; one fresh reading can only show a word or FIELD OP VALUE"
            )
        return self


class Expect(_Strict):
    applies: bool = True
    actions: list[list[str]] | None = None
    """The action ids of each remedy, in order."""


class RunbookTest(_Strict):
    """A made-up incident on a service `app` (verbs mapped to `command.VERB-app`) and what the runbook must say to it."""

    signals: list[str]
    values: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Signal name → its values."""
    reads: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Perceiver kind → what a fresh poll gives."""
    resource: str = "service:app"
    verbs: list[str] = Field(default_factory=lambda: list(VERBS))
    expect: Expect = Expect()


class Runbook(_Strict):
    id: str = Field(pattern=r"^[a-z][a-z0-9-]{1,63}$")
    signals: list[str] = Field(min_length=1)
    unless: list[str] = Field(default_factory=list)
    confirm: list[Confirm] = Field(default_factory=list)
    cause: str = Field(min_length=3)
    """What is wrong, as one sentence for a person."""
    confidence: float = Field(default=0.8, ge=0, le=1)
    remedy: list[RemedySettings] = Field(default_factory=list)
    """Empty: this fault is always told, never repaired."""
    test: list[RunbookTest] = Field(min_length=1)


class RunbookFile(_Strict):
    # The name that people write is `schema`; pydantic has a method of that name.
    version: Literal[1] = Field(alias="schema")
    runbook: list[Runbook] = Field(default_factory=list)
