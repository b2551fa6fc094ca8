"""Files of the services: put a last good copy back, remove old files from a directory that the admin named."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

from actuators.base import Action, Check, Outcome, Probe, Result, Tools
from actuators.safefs import Entry, why
from actuators.shared import carried_through, only, outdated, path_of, verb_of

MOST_BACKUPS = 64
"""Backups kept for undo; the oldest go first."""
NAMES_TOLD = 20
"""Names of removed files that an Outcome lists."""
DAY = 86400.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Verb(Protocol):
    """One verb of `file`. All of it blocks, and may raise OSError."""

    def resolve(self, action: Action) -> Action: ...

    def check(self, action: Action) -> Check: ...

    def apply(self, action: Action, check: Check) -> Outcome: ...

    def verify(self, action: Action, outcome: Outcome) -> bool: ...

    def undo(self, action: Action, check: Check) -> Outcome: ...

    def probe(self, action: Action, check: Check) -> Probe: ...


class Restore:
    """`file.restore`: a kept copy takes the place of a service's file."""

    def __init__(self, tools: Tools) -> None:
        self._files = tools.files
        self._copies = tools.copies
        self._scratch = tools.scratch
        self._last_good = tools.last_good
        self._kept = {path for service in tools.services.values() for path in service.get("files", ())}

    def resolve(self, action: Action) -> Action:
        path = path_of(action.target)
        if path not in self._kept:
            known = ", ".join(f"path:{kept}" for kept in sorted(self._kept)[:8]) or "none"
            raise ValueError(f"no copies of it are kept; there are copies of: {known}")
        only(action, ("copy",))
        copy = action.params.get("copy", "last-good")
        if copy == "last-good":
            copy = self._last_good(path)
            if copy is None:
                raise ValueError("there is no last good copy of it yet")
        if not isinstance(copy, str) or not _SHA256.fullmatch(copy):
            raise ValueError('copy must be "last-good" or a SHA-256 in lower case')
        return replace(action, params={"copy": copy})

    def check(self, action: Action) -> Check:
        path, copy = path_of(action.target), action.params["copy"]
        data = self._files.fetch(self._copies, copy)
        now = self._files.load(path)
        if now.sha256 == copy:
            return Check(False, f"{path} is already the last good copy")
        state = {"sha256": now.sha256, "mode": now.mode, "uid": now.uid, "gid": now.gid}
        size = {"files": 1, "bytes": len(data)}
        return Check(True, f"would put the copy {copy[:12]} in the place of {path}", state, size)

    def apply(self, action: Action, check: Check) -> Outcome:
        path, copy = path_of(action.target), action.params["copy"]
        data = self._files.fetch(self._copies, copy)
        now = self._files.load(path)
        if now.sha256 != check.state.get("sha256"):
            return Outcome(Result.REFUSED, f"{path} changed since it was judged")
        self._files.put(self._scratch, now.data)
        self._files.prune(self._scratch, MOST_BACKUPS)
        self._files.replace(path, data)
        return Outcome(Result.SUCCEEDED, "", {"backup": now.sha256, "copy": copy, "bytes": len(data)})

    def verify(self, action: Action, outcome: Outcome) -> bool:
        return self._current(action) == str(action.params["copy"])

    def undo(self, action: Action, check: Check) -> Outcome:
        backup = str(check.state.get("sha256"))
        current = self._current(action)
        if current not in (backup, action.params["copy"]):
            return Outcome(
                Result.FAILED, f"{action.target} changed since the copy was put there; it is left alone"
            )
        if current != backup:
            self._files.replace(path_of(action.target), self._files.fetch(self._scratch, backup))
        return Outcome(Result.UNDONE, "", {"sha256": backup})

    def probe(self, action: Action, check: Check) -> Probe:
        answers: Mapping[str, Probe] = {
            str(check.state.get("sha256")): "did-not",
            str(action.params["copy"]): "happened",
        }
        return answers.get(self._current(action), "cannot-tell")

    def _current(self, action: Action) -> str:
        return self._files.load(path_of(action.target)).sha256


class Delete:
    """`file.delete`: old files of a directory from `[directories]` are removed, no others, nothing below it."""

    def __init__(self, tools: Tools) -> None:
        self._files = tools.files
        self._wall = tools.wall
        self._rules: dict[str, dict[str, Any]] = {}
        for name, keys in tools.settings.get("directories", {}).items():
            if keys["path"] in self._rules:
                raise ValueError(f"directories.{name}: there is another entry for {keys['path']}")
            self._rules[keys["path"]] = _rule(keys)

    def resolve(self, action: Action) -> Action:
        rule = self._rules.get(path_of(action.target))
        if rule is None:
            known = ", ".join(f"path:{path}" for path in sorted(self._rules)) or "none"
            raise ValueError(f"files may be removed only from the directories of the configuration: {known}")
        only(action, tuple(rule))
        for name, value in action.params.items():
            if value != rule[name]:
                raise ValueError(f"{name} is what the configuration says ({rule[name]!r}); leave it out")
        return replace(action, params=rule)

    def check(self, action: Action) -> Check:
        old = self._old(action, self._wall())
        if not old:
            return Check(False, f"there is nothing old enough to remove in {path_of(action.target)}")
        size = {"files": len(old), "bytes": sum(entry.size for entry in old)}
        return Check(
            True,
            f"would remove {len(old)} files, {size['bytes']} bytes",
            {**size, "digest": _digest(old)},
            size,
        )

    def apply(self, action: Action, check: Check) -> Outcome:
        at = self._wall()
        old = self._old(action, at)
        if _digest(old) != check.state.get("digest"):
            return Outcome(Result.REFUSED, "the files to remove changed since they were judged")
        removal = self._files.remove(path_of(action.target), old)
        detail = {
            "files": len(removal.gone),
            "bytes": sum(entry.size for entry in removal.gone),
            "names": [_plain(entry.name) for entry in removal.gone[:NAMES_TOLD]],
            "left": removal.changed,
            "at": at,
        }
        if removal.error:
            reason = f"removed {len(removal.gone)} of {len(old)}, then: {_plain(removal.error)}"
            return Outcome(Result.FAILED, reason, detail)
        return Outcome(Result.SUCCEEDED, "", detail)

    def verify(self, action: Action, outcome: Outcome) -> bool:
        # At the time of the removal: what became old since then was never to be removed.
        return not self._old(action, float(outcome.detail.get("at", self._wall())))

    def undo(self, action: Action, check: Check) -> Outcome:
        return Outcome(Result.REFUSED, "removed files cannot be had back")

    def probe(self, action: Action, check: Check) -> Probe:
        old = self._old(action, self._wall())
        if not old:
            return "happened"
        return "did-not" if _digest(old) == check.state.get("digest") else "cannot-tell"

    def _old(self, action: Action, at: float) -> list[Entry]:
        """The files that may go, oldest first. What is no plain file, or has another name elsewhere, is never among them."""
        keep = action.params["keep"]
        cutoff = (at - max(keep["days"] * DAY, keep["age"])) * 1e9
        entries = [
            entry
            for entry in self._files.listing(path_of(action.target))
            if entry.plain and _matches(entry.name, action.params["match"])
        ]
        entries.sort(key=lambda entry: (entry.mtime_ns, entry.name))
        ripe = entries[: max(0, len(entries) - keep["newest"])]
        return [entry for entry in ripe if entry.mtime_ns <= cutoff]


def _rule(keys: Mapping[str, Any]) -> dict[str, Any]:
    keep = keys.get("keep") or {}
    wanted = {"newest": keep.get("newest", 0), "days": keep.get("days", 0.0), "age": keep.get("age", 0.0)}
    return {"match": list(keys["match"]), "keep": wanted}


def _matches(name: str, globs: list[str]) -> bool:
    """As a shell does: a leading dot must be written."""
    fit = [glob for glob in globs if glob.startswith(".") or not name.startswith(".")]
    return any(fnmatchcase(name, glob) for glob in fit)


def _digest(entries: list[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{_plain(entry.name)}\0{entry.inode}\0{entry.size}\0{entry.mtime_ns}\n".encode())
    return digest.hexdigest()


def _plain(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


class FileActuator:
    """See actuators.base.Actuator."""

    kind = "file"

    def __init__(self, tools: Tools) -> None:
        self._verbs: dict[str, _Verb] = {"restore": Restore(tools), "delete": Delete(tools)}
        self.verbs: Mapping[str, str] = {
            "restore": "puts the last good copy of a service's file in its place",
            "delete": "removes old files from a directory of the configuration",
        }
        self.irreversible = frozenset({"delete"})
        self.undoable = frozenset({"restore"})

    async def resolve(self, action: Action) -> Action:
        return self._of(action).resolve(action)

    async def check(self, action: Action) -> Check:
        if changed := await outdated(self, action):
            return Check(False, changed)
        try:
            return await asyncio.to_thread(self._of(action).check, action)
        except OSError as exc:
            return Check(False, why(exc))

    async def apply(self, action: Action, check: Check) -> Outcome:
        verb = self._of(action)
        return await carried_through(_done(lambda: verb.apply(action, check)))

    async def verify(self, action: Action, check: Check, outcome: Outcome) -> bool:
        if outcome.result is not Result.SUCCEEDED:
            return False
        try:
            return await asyncio.to_thread(self._of(action).verify, action, outcome)
        except OSError:
            return False

    async def undo(self, action: Action, check: Check, outcome: Outcome) -> Outcome:
        verb = self._of(action)
        return await carried_through(_done(lambda: verb.undo(action, check)))

    async def probe(self, action: Action, check: Check) -> Probe:
        try:
            return await asyncio.to_thread(self._of(action).probe, action, check)
        except OSError:
            return "cannot-tell"

    async def close(self) -> None:
        return None

    def _of(self, action: Action) -> _Verb:
        return self._verbs[verb_of(action, self.kind, self.verbs)]


async def _done(effect: Callable[[], Outcome]) -> Outcome:
    try:
        return await asyncio.to_thread(effect)
    except OSError as exc:
        return Outcome(Result.FAILED, why(exc))


def build(tools: Tools) -> FileActuator:
    """Raises ValueError when two directories of the configuration are the same."""
    return FileActuator(tools)
