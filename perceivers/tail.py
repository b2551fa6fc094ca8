"""Follows files by identity through rename, recreation, truncation and restarts, and gives each whole line once."""

from __future__ import annotations

import errno
import glob
import grp
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

BLOCK = 256 * 1024
"""Bytes read at a time: more is no faster."""
LONGEST_LINE = 64 * 1024
"""Bytes after which a line is not waited for any longer: its head is taken, the rest skipped to the newline."""
GUARD = 32
"""Bytes before the place that are read again each time. If they changed, the file was truncated, even if it has grown larger since."""
GRACE = 5.0
"""Seconds for which a file that lost its name is still read: a writer goes on in it until it is told to open the new one."""
MOST_LEFT = 32
"""Files without their name that are still followed; beyond that the oldest is given up."""
MOST_NAMES = 10_000
"""Names looked at in a directory."""
_NUMBERED = re.compile(r"\.([0-9]{1,5})\Z")
_DATED = re.compile(r"[.-]([0-9]{6,}[0-9._T:-]*|[0-9]{4}-[0-9._T:-]+)\Z")


class Identity(NamedTuple):
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file was read."""

    offset: int = 0
    guard: bytes = b""
    """The bytes before `offset`, at most GUARD."""
    skipping: bool = False
    """Within a line whose head was already taken (or that was begun before anybody looked): go on after its newline."""

    def after(self, consumed: bytes, skipping: bool = False) -> Place:
        guard = (self.guard + consumed[-GUARD:])[-GUARD:]
        return Place(self.offset + len(consumed), guard, skipping)


class Step(NamedTuple):
    """What one read gave."""

    lines: bytes
    """Whole lines, each ended by a newline."""
    place: Place
    partial: bytes = b""
    """A line whose newline has not come yet; the place stays before it."""
    at_end: bool = False


def step(fd: int, place: Place, buffer: bytearray) -> Step:
    """Read on from a place. Raises OSError."""
    kept = len(place.guard)
    # Guard and news come with the same system call, so no truncation fits in between.
    size = os.preadv(fd, [buffer], place.offset - kept)
    if size < kept or not buffer.startswith(place.guard):
        return Step(b"", beginning(fd))
    data = bytes(memoryview(buffer)[kept:size])
    start = data.find(b"\n") + 1 if place.skipping else 0
    if place.skipping and not start:
        return Step(b"", place.after(data, skipping=True), at_end=not data)
    end = data.rfind(b"\n") + 1
    if end > start:
        return Step(data[start:end], place.after(data[:end]))
    if len(data) - start >= LONGEST_LINE:
        return Step(data[start : start + LONGEST_LINE] + b"\n", place.after(data, skipping=True))
    if start:
        return Step(b"", place.after(data[:start]))
    return Step(b"", place, partial=data, at_end=True)


def beginning(fd: int) -> Place:
    """Where a file's content begins: behind the hole that a writer makes who goes on at its old place after a truncation."""
    try:
        first = os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno not in (errno.ENXIO, errno.EINVAL):  # nothing but a hole; a file system without holes
            raise
        first = 0
    return Place(first, bytes(min(first, GUARD)))


def end(fd: int) -> Place:
    """Where a file ends now. A line begun before counts as old, the rest of it too."""
    size = os.fstat(fd).st_size
    guard = os.pread(fd, min(size, GUARD), size - min(size, GUARD))
    return Place(size, guard, skipping=bool(guard) and not guard.endswith(b"\n"))


@dataclass(slots=True, eq=False)
class Tail:
    """One file that is followed under whatever name it has."""

    identity: Identity
    path: str
    """The name under which it was followed last."""
    place: Place = Place()
    fd: int | None = None
    from_end: bool = False
    """Its place is the end, once it can be opened."""
    left: float | None = None
    """Monotonic seconds when it was seen to have lost its name."""
    replaced: bool = False
    """Another file has its name now."""
    quiet: tuple[int, float] = (0, 0.0)
    """Where the partial line ended, and since when (monotonic seconds)."""

    def as_json(self) -> dict[str, Any]:
        return {
            "inode": self.identity.inode,
            "device": self.identity.device,
            "offset": self.place.offset,
            "guard": self.place.guard.hex(),
            "skipping": self.place.skipping,
        }


def tail_from(path: str, kept: Mapping[str, Any]) -> Tail:
    """The reverse of `Tail.as_json`."""
    place = Place(kept["offset"], bytes.fromhex(kept["guard"]), kept["skipping"])
    return Tail(Identity(kept["device"], kept["inode"]), path, place)


@dataclass(slots=True)
class Tails:
    """All files behind one path or glob."""

    pattern: str
    most: int
    open: Callable[[str], int]
    from_start: bool
    followed: list[Tail] = field(default_factory=list)
    begun: bool = False
    """Files that appear from now on are new from their first byte."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Path → why it could not be looked at, as of the last `look`."""
    written: float | None = None
    """Unix seconds of the last write to any file that is there; None: there is none."""
    _retired: list[Tail] = field(default_factory=list)

    def look(self, now: float) -> None:
        """Find out which file has which name at monotonic time `now`, and open what can be opened."""
        # What was retired by the last poll may be closed only now: until its batch is committed, `restore` may ask for it again.
        _close(self._retired)
        self._retired = []
        self.unreadable = {}
        present = self._present()
        known = {tail.identity: tail for tail in self.followed}
        for identity, path in present.items():
            self._meet(identity, path, known)
        for tail in self.followed:
            if tail.identity not in present and tail.left is None:
                tail.left = now
        names = set(present.values())
        for tail in [
            tail
            for tail in self.followed
            if tail.left is not None and not tail.replaced and tail.path in names
        ]:
            self._replace(tail, present, now)
        for tail in self.followed:
            if tail.fd is None:
                self._open(tail)
        self._bound()

    def finishing(self, tail: Tail, now: float) -> bool:
        """Whether the file is to be given up once it is read to its end."""
        if tail.left is None or tail.fd is None or now - tail.left < GRACE:
            return False
        return tail.replaced or self.is_glob or os.fstat(tail.fd).st_nlink == 0

    def retire(self, tail: Tail) -> None:
        self.followed.remove(tail)
        self._retired.append(tail)

    def reopen(self, tail: Tail) -> None:
        """Do without the descriptor, which is of no use any more (NFS), and get another by the next `look`."""
        _close([tail])

    @property
    def is_glob(self) -> bool:
        return any(char in self.pattern for char in "*?[")

    def cursor(self) -> dict[str, Any]:
        return {
            "path": self.pattern,
            "files": {tail.path: tail.as_json() for tail in self.followed if not tail.replaced},
            "rotated": [{"path": tail.path, **tail.as_json()} for tail in self.followed if tail.replaced],
        }

    def restore(self, cursor: Mapping[str, Any]) -> None:
        """Go back to where `cursor` was taken. One taken of another path says nothing."""
        if cursor.get("path") != self.pattern:
            return
        known = {tail.identity: tail for tail in (*self.followed, *self._retired)}
        tails = [tail_from(path, kept) for path, kept in cursor["files"].items()]
        for kept in cursor["rotated"]:
            tails.append(tail_from(kept["path"], kept))
            tails[-1].replaced = True
        for tail in tails:
            before = known.pop(tail.identity, None)
            if before is not None:
                # The descriptor may be all that is left of a deleted file.
                tail.fd, tail.left = before.fd, before.left
        _close(known.values())
        self.followed, self._retired, self.begun = tails, [], True

    def close(self) -> None:
        _close((*self.followed, *self._retired))

    def _present(self) -> dict[Identity, str]:
        """The files that are there, each under one name; those already followed first when there are too many."""
        present: dict[Identity, str] = {}
        self.written = None
        for path in self._paths():
            try:
                found = os.stat(path)
            except FileNotFoundError:
                continue
            except OSError as exc:
                self.unreadable[path] = why(path, exc)
                continue
            if not stat.S_ISREG(found.st_mode):
                self.unreadable[path] = f"{path} is not a regular file"
                continue
            present.setdefault(Identity(found.st_dev, found.st_ino), path)
            self.written = max(found.st_mtime, self.written or 0.0)
        return self._at_most(present)

    def _paths(self) -> list[str]:
        if not self.is_glob:
            return [self.pattern]
        paths = sorted(islice(glob.iglob(self.pattern), MOST_NAMES))
        directory = os.path.dirname(self.pattern)
        # glob passes over what it may not read without a word.
        if not paths and os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK):
            self.unreadable[directory] = why(
                directory, PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            )
        return paths

    def _at_most(self, present: dict[Identity, str]) -> dict[Identity, str]:
        if len(present) <= self.most:
            return present
        self.unreadable[self.pattern] = (
            f"{len(present)} files match, at most {self.most} are followed (`most_files`)"
        )
        known = {tail.identity for tail in self.followed}
        chosen = sorted(present, key=lambda identity: identity not in known)[: self.most]
        return {identity: present[identity] for identity in chosen}

    def _meet(self, identity: Identity, path: str, known: Mapping[Identity, Tail]) -> None:
        """Give a file that is there its tail: a new one, if it was never met."""
        tail = known.get(identity) or self._met_before_boot(identity, path)
        if tail is None:
            tail = Tail(identity, path, from_end=not self.begun and not self.from_start)
            self.followed.append(tail)
        tail.identity, tail.path, tail.left, tail.replaced = identity, path, None, False

    def _met_before_boot(self, identity: Identity, path: str) -> Tail | None:
        """A device may have another number after a boot; then inode, name and content tell that the file is the same."""
        for tail in self.followed:
            if (tail.fd, tail.path, tail.identity.inode) == (None, path, identity.inode) and self._is_open(
                tail, path, sure=False
            ):
                return tail
        return None

    def _replace(self, old: Tail, present: Mapping[Identity, str], now: float) -> None:
        """Another file has the name. What had it in between, and lost it again before anybody looked, is followed too."""
        old.replaced = True
        known = {identity.inode for identity in (*present, *(tail.identity for tail in self.followed))}
        for path, inode in rotated_after(old):
            between = Tail(Identity(old.identity.device, inode), old.path, left=now, replaced=True)
            if inode not in known and self._is_open(between, path, sure=True):
                self.followed.append(between)

    def _open(self, tail: Tail) -> None:
        """Open a tail's file under its name, or under whatever name its directory has for it."""
        if tail.left is None:
            self._is_open(tail, tail.path, sure=True)
            return
        base = os.path.basename(tail.path)
        for entry in _siblings(tail.path):
            if entry.inode() != tail.identity.inode:
                continue
            own = entry.name.startswith(base)
            rotated = own and _age(entry.name.removeprefix(base)) is not None
            if self._is_open(tail, entry.path, sure=rotated or (own and not tail.place.guard)):
                return

    def _is_open(self, tail: Tail, path: str, sure: bool) -> bool:
        """Open `path` if it is the tail's file. Not `sure`: inodes are used again, so the bytes before the place must be the same."""
        try:
            fd = self.open(path)
        except FileNotFoundError:
            return False
        except OSError as exc:
            self.unreadable[path] = why(path, exc)
            return False
        if not _is(fd, tail) or not (sure or _holds_guard(fd, tail.place)):
            os.close(fd)
            return False
        tail.fd = fd
        if tail.from_end:
            tail.place, tail.from_end = end(fd), False
        elif tail.place.offset == 0:
            tail.place = beginning(fd)
        return True

    def _bound(self) -> None:
        """Give up what is lost, and the oldest of too many."""
        left = [tail for tail in self.followed if tail.left is not None]
        lost = [tail for tail in left if tail.fd is None and tail.replaced]
        kept = [tail for tail in left if tail not in lost]
        for tail in lost + kept[: max(0, len(kept) - MOST_LEFT)]:
            self.retire(tail)


def rotated_after(tail: Tail) -> Iterator[tuple[str, int]]:
    """(path, inode) of the files that had the tail's name after it and lost it again, oldest first: known by their numbers or dates."""
    base = os.path.basename(tail.path)
    named = {
        entry.path: (entry.inode(), _age(entry.name.removeprefix(base)))
        for entry in _siblings(tail.path)
        if entry.name.startswith(base)
    }
    own = next((age for inode, age in named.values() if inode == tail.identity.inode and age), None)
    if own is None:
        return
    newer = sorted(
        (age, path, inode) for path, (inode, age) in named.items() if age and age[0] == own[0] and age > own
    )
    yield from ((path, inode) for _, path, inode in newer)


def _age(suffix: str) -> tuple[str, int, str] | None:
    """Orders the names of one scheme by age, oldest first: `.2` before `.1`, `-20260101` before `-20260102`."""
    if numbered := _NUMBERED.fullmatch(suffix):
        return ("number", -int(numbered[1]), "")
    if dated := _DATED.fullmatch(suffix):
        return ("date", 0, dated[1])
    return None


def _siblings(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(os.path.dirname(path) or ".") as entries:
            yield from islice(entries, MOST_NAMES)
    except FileNotFoundError:
        return


def _is(fd: int, tail: Tail) -> bool:
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and found.st_ino == tail.identity.inode


def _holds_guard(fd: int, place: Place) -> bool:
    kept = len(place.guard)
    return kept > 0 and os.pread(fd, kept, place.offset - kept) == place.guard


def _close(tails: Iterable[Tail]) -> None:
    for tail in tails:
        if tail.fd is not None:
            os.close(tail.fd)
            tail.fd = None


def why(path: str, exc: OSError) -> str:
    """Why a path cannot be read, and what would help."""
    reason = f"{path}: {(exc.strerror or str(exc)).lower()}"
    if not isinstance(exc, PermissionError):
        return reason
    return f"{reason}; let the daemon's user read it: {_group_hint(path)}setfacl -m u:USER:r {path}"


def _group_hint(path: str) -> str:
    try:
        found = os.stat(path)
        name = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return "every directory above must be searchable (x); then "
    return f"usermod -aG {name} USER, or " if found.st_mode & stat.S_IRGRP and found.st_gid != 0 else ""
