"""The action ids that midwatch knows of: a policy may speak of each, also where this host has no actuator for it."""

from __future__ import annotations

from fnmatch import fnmatchcase

ACTIONS = frozenset(
    {
        "unit.start", "unit.stop", "unit.restart", "unit.reload",
        "process.signal",
        "file.restore", "file.delete", "file.truncate", "file.rotate",
        "http.call",
        "net.ban", "net.unban",
        "container.restart",
        "noop",
    }
)  # fmt: skip
"""`command.NAME` is as open as the admin's `[commands]`: see `speaks_of`."""
KINDS = frozenset(action.partition(".")[0] for action in ACTIONS) | {"command"}


def speaks_of(pattern: str, commands: frozenset[str] | None = None) -> bool:
    """Whether an action glob can match any action: one of ACTIONS, or a `command.NAME` (of `commands`, when those are known)."""
    if any(fnmatchcase(action, pattern) for action in ACTIONS):
        return True
    names = commands if commands is not None else frozenset({pattern.partition(".")[2]})
    return any(fnmatchcase(f"command.{name}", pattern) for name in names)
