"""What an actuator is: pure types, no effects. Everything that changes the host goes through one.

The life of an action: `resolve` makes it canonical before anybody judges it; `check` reads the preconditions; `apply` has the effect;
`verify` says whether the effect is there; `undo` takes it back; `probe` answers, after a crash, whether an effect happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from annotated_types import Unit

if TYPE_CHECKING:
    from actuators.runner import Runner
    from actuators.safefs import Entry, Loaded, Removal

Seconds = Annotated[float, Unit("s")]
"""In files people write `10s`; the configuration hands over seconds."""
Bytes = Annotated[int, Unit("B")]


class Result(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    UNDONE = "undone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Action:
    """One exact thing to do. After `resolve` it is canonical: equal actions are equal values."""

    id: str
    """KIND.VERB, such as `file.restore`."""
    target: str
    """A Resource."""
    params: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    """The idempotency key of the attempt; empty while nothing is intended yet."""


@dataclass(frozen=True, slots=True)
class Check:
    """The preconditions, read just now."""

    ok: bool
    reason: str = ""
    """Why not, or one sentence on what would be done."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """The target's state as plain JSON: stored with the intent, handed to `probe` and `undo`, compared right before acting."""
    size: Mapping[str, int] = field(default_factory=dict)
    """How much would be touched, for a rule's `max`: `files`, `bytes`, ... Empty: not measurable."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended. Never raised, always returned; also for a cancelled try."""

    result: Result
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON: exit code, output tail, what `undo` needs."""
    verified: bool | None = None


Probe = Literal["happened", "did-not", "cannot-tell"]


class Actuator(Protocol):
    """One KIND of action, all its verbs.

    The contract, proven by one suite over all of them: `resolve` and `check` change nothing; `resolve` is idempotent and raises
    ActionRefused-like ValueError for what it does not accept, naming what it does; `apply` twice with one key has the effect of once
    or refuses; `verify` after a successful `apply` is true; `undo` after `apply` restores what `check` saw, or the verb is
    listed in `irreversible` or not in `undoable`, and then it refuses; no method raises for what the host does, it returns an Outcome.
    """

    kind: str
    verbs: Mapping[str, str]
    """Verb → one sentence that says what it does."""
    irreversible: frozenset[str]
    """Verbs whose effect destroys something that cannot be had back."""
    undoable: frozenset[str]
    """Verbs that `undo` can take back."""

    async def resolve(self, action: Action) -> Action:
        """The canonical form: full parameters with defaults, canonical target. Raises ValueError with what is accepted."""
        ...

    async def check(self, action: Action) -> Check: ...

    async def apply(self, action: Action, check: Check) -> Outcome: ...

    async def verify(self, action: Action, check: Check, outcome: Outcome) -> bool: ...

    async def undo(self, action: Action, check: Check, outcome: Outcome) -> Outcome: ...

    async def probe(self, action: Action, check: Check) -> Probe:
        """After a crash between intent and outcome: did the effect happen? `did-not` only when nothing is in flight any more."""
        ...

    async def close(self) -> None: ...


class Files(Protocol):
    """What actuators may do with files; the module `actuators.safefs` is it. All of them raise OSError."""

    def load(self, path: str, limit: int = ...) -> Loaded: ...

    def replace(self, path: str, data: bytes) -> None: ...

    def listing(self, directory: str, most: int = ...) -> list[Entry]: ...

    def remove(self, directory: str, entries: Iterable[Entry]) -> Removal: ...

    def put(self, directory: str, data: bytes) -> str: ...

    def fetch(self, directory: str, sha256: str, limit: int = ...) -> bytes: ...

    def prune(self, directory: str, most: int) -> None: ...


def _no_copy(path: str) -> str | None:
    return None


def _no_secret(source: Mapping[str, Any]) -> str:
    raise ValueError("no secret can be read here")


@dataclass(frozen=True, slots=True)
class Tools:
    """What an actuator is given: nothing else reaches the host."""

    run: Runner
    """Starts processes."""
    files: Files
    """Touches files."""
    settings: Mapping[str, Mapping[str, Any]]
    """The configuration tables that concern it: `commands`, `directories`, `calls`, each name → its keys as plain values."""
    wall: Callable[[], float]
    """Unix seconds; how old a file is."""
    copies: str = ""
    """The directory with last good copies, named by SHA-256."""
    last_good: Callable[[str], str | None] = _no_copy
    """Path → SHA-256 of its last good copy."""
    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The inventory: name → its keys; `files` are the paths that `file.restore` may put back."""
    scratch: str = ""
    """A directory of the daemon's own for backups that `undo` needs."""
    secret: Callable[[Mapping[str, Any]], str] = _no_secret
    """`{credential|file|env: ...}` → the secret, read when it is needed. Raises OSError or ValueError."""
