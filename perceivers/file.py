"""Watches a file (its content, mode, owner, size, age) or a directory (what it holds, how much, how old)."""

from __future__ import annotations

import asyncio
import fnmatch
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from perceivers.base import Batch, Bytes, Kind, Observation, Perceiver, PerceiverBlind, Scalar, Spec, Tools
from perceivers.inotify import Inotify

BLOCK = 256 * 1024
"""Bytes hashed, and ENTRIES looked at, before others on the loop have their turn."""
ENTRIES = 500
PAUSE = 1.0
"""Seconds between two wake-ups: a file that is being written is not hashed over and over."""


class FileSettings(BaseModel):
    """What to watch of a path."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: str
    """The absolute path of a file or a directory. It need not be there."""
    hash: bool = True
    """Read the file to see whether its content changed."""
    largest: Bytes = Field(default=64 * 2**20, ge=0)
    """Files larger than this are not hashed."""
    match: list[str] = Field(default_factory=lambda: ["*"], min_length=1, max_length=50)
    """Directory: globs on the names of the files that count, at any depth."""
    most_entries: int = Field(default=50_000, ge=1, le=5_000_000)
    """Directory: so many entries are looked at in one poll."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/") or "\0" in path:
            raise ValueError("`path` must be absolute, as /etc/app/config.toml")
        return path.rstrip("/") or "/"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was there when something could last be said about it."""

    exists: bool
    mode: int | None = None
    owner: int | None = None
    group: int | None = None
    signature: tuple[int, ...] = ()
    """While this is the same, so is the content."""
    content: str | None = None
    """SHA-256; of a directory, a digest of its files' names, sizes and times."""


@dataclass(slots=True)
class _Look:
    """One poll under way."""

    values: dict[str, Scalar]
    seen: Seen
    content_known: bool = True
    reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Sum:
    """What a directory holds."""

    files: int = 0
    size: int = 0
    newest: float = 0.0
    digest: int = 0
    truncated: bool = False
    unreadable: str = ""

    def add(self, path: str, found: os.stat_result) -> None:
        self.files += 1
        self.size += found.st_size
        self.newest = max(self.newest, found.st_mtime)
        # A sum, because a directory gives its entries in any order.
        entry = f"{path}\0{found.st_size}\0{found.st_mtime_ns}".encode(errors="surrogateescape")
        self.digest = (self.digest + int.from_bytes(hashlib.sha256(entry).digest())) % 2**256


class FilePerceiver:
    """Compares with what it saw last; the first sight is no change."""

    kind = "file"

    def __init__(self, spec: Spec, tools: Tools) -> None:
        assert isinstance(spec.settings, FileSettings)
        self.name = spec.name
        self.resource = spec.resource
        self._settings = spec.settings
        self._path = spec.settings.path
        self._tools = tools
        self._last: Seen | None = None
        self._inotify: Inotify | None = None

    async def poll(self) -> Batch:
        self._watch_directories()
        look = await self._look()
        last, seen = self._last, look.seen
        values = {"path": self._path, **look.values, **_changes(last, seen, look.content_known)}
        if not look.content_known and last is not None and seen.exists:
            # What could not be read shows no change: the next reading is compared with the last known content.
            seen = Seen(True, seen.mode, seen.owner, seen.group, last.signature, last.content)
        self._last = seen
        at = self._tools.wall()
        seen_now = Observation(self.name, self.resource, at, values, unreadable="; ".join(look.reasons))
        return Batch([seen_now], {"path": self._path, **asdict(seen), "signature": list(seen.signature)})

    def restore(self, cursor: Mapping[str, Any]) -> None:
        if cursor.get("path") == self._path:
            kept = {name: value for name, value in cursor.items() if name != "path"}
            self._last = Seen(**{**kept, "signature": tuple(kept["signature"])})

    def wake_on(self, wake: Callable[[], None]) -> None:
        names = {os.path.basename(self._path), os.path.basename(os.path.realpath(self._path))}
        self._inotify = Inotify(wake, names.__contains__, PAUSE)
        self._watch_directories()

    async def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def _watch_directories(self) -> None:
        if self._inotify is not None:
            self._inotify.watch({os.path.dirname(self._path), os.path.dirname(os.path.realpath(self._path))})

    async def _look(self) -> _Look:
        try:
            found = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return _Look({"exists": False}, Seen(exists=False))
        except PermissionError as exc:
            raise PerceiverBlind(
                f"{self._path}: {exc.strerror}; let the daemon's user search (x) every directory above it"
            ) from exc
        values: dict[str, Scalar] = {
            "exists": True,
            "mode": f"{stat.S_IMODE(found.st_mode):04o}",
            "owner": _user(found.st_uid),
            "group": _group(found.st_gid),
            "size_bytes": found.st_size,
            "age": max(0.0, self._tools.wall() - found.st_mtime),
        }
        look = _Look(
            values, Seen(True, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, _signature(found))
        )
        if stat.S_ISDIR(found.st_mode):
            await self._look_inside(look, found)
        else:
            await self._look_at_content(look, found)
        return look

    # a file ----------------------------------------------------------------------------------------------------------

    async def _look_at_content(self, look: _Look, found: os.stat_result) -> None:
        last = self._last
        if last is not None and last.content is not None and last.signature == look.seen.signature:
            content: str | None = last.content
        elif reason := self._not_hashed(found):
            content = None
            look.reasons.append(reason)
        else:
            content = await self._hash(look)
        look.values["sha256"] = content
        look.content_known = content is not None
        seen = look.seen
        look.seen = Seen(True, seen.mode, seen.owner, seen.group, seen.signature, content)

    def _not_hashed(self, found: os.stat_result) -> str:
        if not stat.S_ISREG(found.st_mode):
            return f"{self._path} is not a regular file"
        if not self._settings.hash:
            return "`hash` is off"
        if found.st_size > self._settings.largest:
            return f"{self._path} has {found.st_size} bytes; files above {self._settings.largest} are not hashed (`largest`)"
        return ""

    async def _hash(self, look: _Look) -> str | None:
        """SHA-256 of the file that was looked at; None if it cannot be read, or was changing meanwhile."""
        try:
            fd = self._tools.open(self._path)
        except OSError as exc:
            look.reasons.append(
                f"{self._path}: {exc.strerror}; let the daemon's user read it: setfacl -m u:USER:r {self._path}"
            )
            return None
        try:
            digest = await _digest(fd, self._settings.largest)
            if _signature(os.fstat(fd)) == look.seen.signature:
                return digest
            look.reasons.append(f"{self._path} was being written; the next poll looks again")
        except OSError as exc:
            look.reasons.append(f"{self._path}: {exc.strerror}")
        finally:
            os.close(fd)
        return None

    # a directory -----------------------------------------------------------------------------------------------------

    async def _look_inside(self, look: _Look, found: os.stat_result) -> None:
        total = await self._walk(found.st_dev)
        look.values |= {"size_bytes": total.size, "files": total.files, "truncated": total.truncated}
        if total.files:
            look.values["age"] = max(0.0, self._tools.wall() - total.newest)
        if total.unreadable:
            look.reasons.append(f"{total.unreadable}; the numbers are a lower bound")
        seen = look.seen
        look.content_known = not total.truncated
        look.seen = Seen(True, seen.mode, seen.owner, seen.group, (), f"{total.digest:064x}")

    async def _walk(self, device: int) -> _Sum:
        total = _Sum()
        for count, entry in enumerate(_entries(self._path, device, total)):
            if count == self._settings.most_entries:
                total.truncated = True
                total.unreadable = total.unreadable or f"more than {count} entries (`most_entries`)"
                break
            if self._counts(entry):
                _add(entry, total)
            if count % ENTRIES == ENTRIES - 1:
                await asyncio.sleep(0)
        return total

    def _counts(self, entry: os.DirEntry[str]) -> bool:
        return entry.is_file(follow_symlinks=False) and any(
            fnmatch.fnmatchcase(entry.name, glob) for glob in self._settings.match
        )


def _entries(root: str, device: int, total: _Sum) -> Iterator[os.DirEntry[str]]:
    """Everything below `root` on its own device; symbolic links are not followed."""
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    yield entry
                    if entry.is_dir(follow_symlinks=False) and _on(device, entry):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError as exc:
            total.truncated = True
            total.unreadable = f"{directory}: {exc.strerror}"


def _on(device: int, entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_dev == device
    except FileNotFoundError:
        return False


def _add(entry: os.DirEntry[str], total: _Sum) -> None:
    try:
        total.add(entry.path, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return  # gone since the directory was read


async def _digest(fd: int, largest: int) -> str:
    digest = hashlib.sha256()
    at = 0
    # A file that grows while it is read has no end; more than `largest` is never needed.
    while at <= largest and (block := os.pread(fd, BLOCK, at)):
        digest.update(block)
        at += len(block)
        await asyncio.sleep(0)
    return digest.hexdigest()


def _signature(found: os.stat_result) -> tuple[int, ...]:
    # ctime too: mtime can be set at will.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _changes(last: Seen | None, seen: Seen, content_known: bool) -> dict[str, Scalar]:
    """What is different from the last sight. None: cannot tell."""
    if last is None:
        content: bool | None = False if content_known else None
        return {"content_changed": content, "mode_changed": False, "owner_changed": False, "changed": content}
    both = last.exists and seen.exists
    content = last.exists != seen.exists or (
        last.content != seen.content if content_known and last.content else False
    )
    if both and not content_known:
        content = None
    mode = both and last.mode != seen.mode
    owner = both and (last.owner, last.group) != (seen.owner, seen.group)
    changed = True if mode or owner else content
    return {"content_changed": content, "mode_changed": mode, "owner_changed": owner, "changed": changed}


@lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=256)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def build(spec: Spec, tools: Tools) -> Perceiver:
    return FilePerceiver(spec, tools)


KIND = Kind(
    name="file",
    settings=FileSettings,
    build=build,
    values={
        "path": "the path that is watched",
        "exists": "whether something is there",
        "changed": "whether content, mode or owner differ from the last sight",
        "content_changed": "whether the content differs (directory: names, sizes or times of its files); coming and going count",
        "mode_changed": "whether the permission bits differ",
        "owner_changed": "whether owner or group differ",
        "sha256": "of the content, hexadecimal; files only",
        "mode": "permission bits, octal, as 0644",
        "owner": "the user's name, or number if it has none",
        "group": "the group's name, or number if it has none",
        "size_bytes": "bytes of the file, or of all files in the directory",
        "files": "files in the directory that match; directories only",
        "truncated": "whether there was more than could be looked at: `size_bytes` and `files` are a lower bound; directories only",
        "age": "seconds since the file was last modified (directory: since its newest file was)",
    },
)
