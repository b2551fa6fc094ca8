"""What several actuators do the same way: match targets, refuse parameters, remember keys, carry an effect through."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Coroutine, Iterable
from fnmatch import fnmatchcase
from typing import Any

from actuators.base import Action, Actuator, Outcome

MOST_KEYS = 4096
"""Idempotency keys remembered by one actuator."""


def covered(target: str, globs: Iterable[str]) -> bool:
    """Whether one of the Resource globs speaks of the target; a `*` never reaches over the kind."""
    kind = target.partition(":")[0]
    return any(glob.partition(":")[0] == kind and fnmatchcase(target, glob) for glob in globs)


def verb_of(action: Action, kind: str, verbs: Collection[str]) -> str:
    """The VERB of KIND.VERB. Raises ValueError with the verbs there are."""
    found, _, verb = action.id.partition(".")
    if found != kind or verb not in verbs:
        known = ", ".join(f"{kind}.{name}" if name else kind for name in sorted(verbs)) or "none"
        raise ValueError(f"there is no action {action.id!r}; there are: {known}")
    return verb


def only(action: Action, accepted: Collection[str]) -> None:
    """Raises ValueError for a parameter that is not accepted, naming those that are."""
    for name in action.params:
        if name not in accepted:
            raise ValueError(f"there is no parameter {name!r}; accepted: {', '.join(accepted) or 'none'}")


async def outdated(actuator: Actuator, action: Action) -> str:
    """Why the action is no longer what `resolve` would give, empty when it is: the configuration may have changed since."""
    try:
        same = await actuator.resolve(action) == action
    except ValueError as exc:
        return str(exc)
    return "" if same else "the configuration changed since it was resolved"


def path_of(target: str) -> str:
    """The path in `path:/X`. Raises ValueError."""
    kind, _, path = target.partition(":")
    if kind != "path" or not path.startswith("/"):
        raise ValueError("the target must be path:/ABSOLUTE/PATH")
    return path


def printable(text: str) -> str:
    """The text with control characters replaced, so that no terminal and no log obeys it."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


class Once:
    """Remembers keys, so that one attempt never has its effect twice within this process.

    Across processes the journal does: an open intent is probed, never run again. The oldest keys are forgotten first.
    """

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._keys: OrderedDict[str, None] = OrderedDict()

    def refusal(self, key: str) -> str:
        """Use up the key; gives why that cannot be done, empty when it can."""
        if not key:
            return "it has no idempotency key: nothing was intended"
        if key in self._keys:
            return "an attempt with this key was already carried out"
        self._keys[key] = None
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)
        return ""


async def carried_through(effect: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Carry an effect to its end, also when the caller is cancelled meanwhile: what was begun ends as an Outcome.

    Every effect has a time limit of its own, so this ends.
    """
    task = asyncio.ensure_future(effect)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
