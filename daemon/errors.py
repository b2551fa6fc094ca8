"""Every error that midwatch raises on purpose.

MidwatchError
├── ConfigError          bad configuration or runbook; carries where and what is accepted     (exit 78)
├── PolicyError          a policy file that cannot be used                                    (deny all, tell a person)
├── ResourceError        a text that is no Resource
├── ActionRefused        an action that may not or cannot be done as asked; final
├── StoreError           the journal cannot be read or written
│   ├── StoreFull        no space; goes on once space is there
│   └── StoreDamaged     the file is no longer a sound database
├── DeliveryError        a channel did not take a message; `permanent` says whether to retry
└── NotRunning           no daemon answers on the socket                                      (exit 3)
"""

from __future__ import annotations

from dataclasses import dataclass


class MidwatchError(Exception):
    """Base of all errors raised on purpose; its text is fit to be shown to an operator."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file that people edit: where, what, and what to do about it."""

    where: str
    """`FILE:LINE`, or the file alone when there is no line."""
    what: str
    hint: str = ""
    """What is accepted, or the next command to type."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class _Problems(MidwatchError):
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class ConfigError(_Problems):
    """The configuration (or a runbook) cannot be used; `problems` lists everything found, not just the first."""


class PolicyError(_Problems):
    """The policy files cannot be used; `problems` lists everything found."""


class ResourceError(MidwatchError, ValueError):
    """The text is not a Resource `KIND:NAME`."""


class ActionRefused(MidwatchError):
    """The action may not or cannot be done as asked: unknown, malformed, outside its bounds. Trying again will not help."""


class StoreError(MidwatchError):
    """The journal cannot be read or written."""


class StoreFull(StoreError):
    """The file system has no space left for the journal."""


class StoreDamaged(StoreError):
    """The file is not a sound database any more."""


class DeliveryError(MidwatchError):
    """A channel did not take a message."""

    def __init__(self, message: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        self.permanent = permanent
        """True when trying again cannot help (a refused key, a malformed request)."""
        self.retry_after = retry_after
        """Seconds to wait as told by the other side (Retry-After), if it said so."""
        super().__init__(message)


class NotRunning(MidwatchError):
    """No daemon answers on the socket."""
