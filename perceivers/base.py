"""What a perceiver is: pure types, no effects on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from annotated_types import Unit
from pydantic import BaseModel

Scalar = float | int | str | bool | None
Seconds = Annotated[float, Unit("s")]
"""In files people write `10s`; the configuration hands over seconds."""
Bytes = Annotated[int, Unit("B")]


@dataclass(frozen=True, slots=True)
class Observation:
    """One timed reading of a Resource. The perceiver extracts, it never judges.

    A log observation is one rule's hits since the last poll, never a line: floods are bounded by construction.
    """

    perceiver: str
    resource: str
    at: float
    """Unix seconds."""
    values: Mapping[str, Scalar] = field(default_factory=dict)
    """Trusted readings in base units (seconds, bytes, shares of 1), names documented by each perceiver. A thing that could not be read
    is None with a reason in `unreadable`, never 0."""
    key: str = ""
    """Tells several things read by one perceiver apart: a path, a mount, a pid, or a log rule's captured key."""
    rule: str = ""
    """Log: the name of the signal rule that hit."""
    count: int = 0
    """Log: hits since the last poll, for this `key`."""
    first: float = 0.0
    last: float = 0.0
    samples: tuple[str, ...] = ()
    """Log: at most three lines, cut to 512 characters, control characters replaced."""
    captures: Mapping[str, str] = field(default_factory=dict)
    """Log: named groups of the first hit; outsiders can write these."""
    unreadable: str = ""
    """Why a thing could not be read, if so: permission, gone, timeout."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll saw. `cursor` (plain JSON, or None when there is nothing to keep) is stored in the same transaction as what
    follows from the observations; after a crash the perceiver is given the stored one by `restore`."""

    observations: Sequence[Observation] = ()
    cursor: Mapping[str, Any] | None = None


class Perceiver(Protocol):
    """Reads one thing on a schedule.

    The contract, proven by one suite over all of them: `poll` changes nothing on the host; it is cancelled when it overruns and must
    bear that; trouble of the thing watched is an Observation, only blindness (cannot look at all) is raised, as OSError or
    PerceiverBlind; `restore(batch.cursor)` followed by `poll` gives what a perceiver that never stopped would give, each log line once.
    """

    name: str
    kind: str
    resource: str

    async def poll(self) -> Batch: ...

    def restore(self, cursor: Mapping[str, Any]) -> None: ...

    def wake_on(self, wake: Callable[[], None]) -> None:
        """Call `wake` when a poll would find something new. A perceiver without an event source does nothing here."""
        ...

    async def close(self) -> None: ...


class PerceiverBlind(Exception):
    """The perceiver cannot look at all; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A log rule: what a line must match to count as a hit of `name`."""

    name: str
    match: str
    """A regular expression with named groups."""
    key: str = ""
    """The named group whose values are counted apart; empty: all hits together."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How the operator wants one perceiver."""

    name: str
    resource: str
    settings: BaseModel
    """An instance of the kind's own `settings` class."""
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Tools:
    """What a perceiver is given."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]
    open: Callable[[str], int]
    """Open a regular file (or a directory, or a /proc entry) for reading: gives a descriptor, raises OSError; never blocks on a FIFO."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What the registry holds for each kind of perceiver."""

    name: str
    settings: type[BaseModel]
    """Strict (`extra="forbid"`, frozen) settings; durations are `Seconds`, sizes `Bytes`."""
    build: Callable[[Spec, Tools], Perceiver]
    values: Mapping[str, str]
    """Every value name an Observation may carry → its meaning and unit; signals may refer only to these."""
    rules: bool = False
    """Whether its signals may have `match`."""
