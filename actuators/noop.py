"""Doing nothing, on the record: to rehearse a remedy, or to let a proof alone decide."""

from __future__ import annotations

from collections.abc import Mapping

from actuators.base import Action, Check, Outcome, Probe, Result, Tools
from actuators.shared import only, verb_of


class NoopActuator:
    """See actuators.base.Actuator."""

    kind = "noop"

    def __init__(self) -> None:
        self.verbs: Mapping[str, str] = {"": "does nothing"}
        self.irreversible: frozenset[str] = frozenset()
        self.undoable: frozenset[str] = frozenset()

    async def resolve(self, action: Action) -> Action:
        verb_of(action, self.kind, self.verbs)
        only(action, ())
        return action

    async def check(self, action: Action) -> Check:
        return Check(True, "would do nothing")

    async def apply(self, action: Action, check: Check) -> Outcome:
        return Outcome(Result.SUCCEEDED)

    async def verify(self, action: Action, check: Check, outcome: Outcome) -> bool:
        return True

    async def undo(self, action: Action, check: Check, outcome: Outcome) -> Outcome:
        return Outcome(Result.REFUSED, "nothing was done, so there is nothing to take back")

    async def probe(self, action: Action, check: Check) -> Probe:
        return "happened"

    async def close(self) -> None:
        return None


def build(tools: Tools) -> NoopActuator:
    return NoopActuator()
