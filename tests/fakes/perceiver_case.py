"""What the one contract suite over all perceivers wants to know about each kind.

A module `fakes/perceiver_cases_*.py` exports `CASES: list[Case]`; `tests/contracts/test_perceivers.py` runs them all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from perceivers.base import Kind, Observation, Spec


@dataclass(frozen=True, slots=True)
class Scene:
    """A small piece of world with something to look at."""

    spec: Spec
    happen: Callable[[], Awaitable[None]]
    """Make something new to be seen; called several times, and done when it returns. Nothing new is possible: do nothing."""
    spoil: Callable[[], Awaitable[None]]
    """Bring the thing watched into trouble: gone, refused, unreadable."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of perceiver in one scene."""

    name: str
    kind: Kind
    scene: Callable[[Path], AbstractAsyncContextManager[Scene]]
    """Given an empty directory of its own. A poll must leave what lies below it as it is."""
    troubled: Callable[[Sequence[Observation]], bool]
    """Whether the observations of the poll after `spoil` tell of the trouble."""
    moving: frozenset[str] = frozenset()
    """Names of values that two polls of the same state may read differently: times, loads, shares since the last poll."""
