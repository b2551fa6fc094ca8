"""The only place that touches files for actuators. No path is trusted: it is opened without passing a single symbolic link, and what
was opened is looked at, never what stands under the name now. Everything raises OSError and says which path and why."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

LIMIT = 16 * 2**20
"""Bytes of a file that are read at most, unless the caller says otherwise."""
MOST_ENTRIES = 100_000
"""Entries of a directory that are looked at; a larger one is refused."""

_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Opener = Callable[[str, int], int]
"""Path and flags → descriptor."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file's content, and whose it was, all from one descriptor."""

    data: bytes
    mode: int
    uid: int
    gid: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory and what stood behind it."""

    name: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    plain: bool
    """A regular file with no other name."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of the entries that were to be removed."""

    gone: tuple[Entry, ...]
    changed: int = 0
    """So many are something else by now, or gone already: left alone."""
    error: str = ""
    """Why it ended early."""


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def open_strictly(path: str, flags: int) -> int:
    """Open an existing path; no component of it may be a symbolic link."""
    try:
        return open_by_kernel(path, flags)
    except OSError as exc:
        # A kernel before 5.6, or an old container's filter, does not know the call. The slow way is as strict.
        if exc.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return open_by_walking(path, flags)


def open_by_kernel(path: str, flags: int) -> int:
    """By openat2, which resolves the whole path at once."""
    below = "/".join(_components(path)) or "."
    how = _How(flags, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    root = os.open("/", _LOOK | os.O_DIRECTORY)
    try:
        opened: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            root,
            os.fsencode(below),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        code = ctypes.get_errno()
    finally:
        os.close(root)
    if opened < 0:
        raise _error(code, path)
    return opened


def open_by_walking(path: str, flags: int) -> int:
    """Component by component, each without following."""
    at = os.open("/", _LOOK | os.O_DIRECTORY)
    *folders, name = _components(path) or ["."]
    try:
        for folder in folders:
            below = os.open(folder, _LOOK | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        opened = os.open(name, flags | os.O_NOFOLLOW, dir_fd=at)
    except OSError as exc:
        raise _error(exc.errno or 0, path) from None
    finally:
        os.close(at)
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(opened).st_mode):
        # With O_PATH, O_NOFOLLOW gives the link itself instead of refusing it.
        os.close(opened)
        raise _error(errno.ELOOP, path)
    return opened


def _components(path: str) -> list[str]:
    if path == "/":
        return []
    parts = path.split("/")
    if not path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts[1:]):
        raise OSError(
            errno.EINVAL, "a path must be absolute, without '.', '..', '//' or a trailing '/'", path
        )
    return parts[1:]


def _error(code: int, path: str) -> OSError:
    text = (
        "a symbolic link stands in the way; write the real path" if code == errno.ELOOP else os.strerror(code)
    )
    return OSError(code, text, path)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _opened_file(path: str, opener: Opener) -> int:
    # Looked at before it is opened: opening a device can have an effect, and opening a FIFO wakes its writer.
    with _closing(opener(path, _LOOK)) as seen:
        _must_be_plain(os.fstat(seen), path)
        return _reopen(seen)


def _within(at: int, name: str) -> Opener:
    return lambda path, flags: os.open(name, flags | os.O_NOFOLLOW, dir_fd=at)


def _reopen(seen: int) -> int:
    return os.open(f"/proc/self/fd/{seen}", _READ)


def _must_be_plain(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if status.st_nlink != 1:
        raise OSError(errno.EMLINK, "the file has more than one name (hard link)", path)


def load(path: str, limit: int = LIMIT, opener: Opener = open_strictly) -> Loaded:
    """Read a regular file with a single name. More than `limit` bytes are an error, whatever size it claims to have."""
    with _closing(_opened_file(path, opener)) as opened:
        status = os.fstat(opened)
        data = _bounded(opened, limit, path)
    return Loaded(data, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def _bounded(opened: int, limit: int, path: str) -> bytes:
    parts, left = [], limit + 1
    while left > 0 and (part := os.read(opened, min(left, 2**20))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise OSError(errno.EFBIG, f"the file is larger than {limit} bytes", path)
    return b"".join(parts)


def open_for_reading(path: str) -> int:
    """A descriptor of a regular file, a directory or a /proc entry, for those who only look. Symbolic links are followed; a FIFO,
    socket or device is refused unopened, so this never blocks."""
    with _closing(os.open(path, _LOOK)) as seen:
        mode = os.fstat(seen).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, "neither a regular file nor a directory", path)
        return _reopen(seen)


def replace(path: str, data: bytes) -> None:
    """Put `data` in the place of an existing file, at once or not at all, on disk when this returns. Mode, owner and extended
    attributes stay as they were; when they cannot, nothing is written."""
    folder, _, name = path.rpartition("/")
    with (
        _closing(open_strictly(folder or "/", _DIRECTORY)) as at,
        _closing(_opened_file(path, _within(at, name))) as old,
    ):
        _write(at, name, data, like=old)


def put(directory: str, data: bytes) -> str:
    """Keep `data` in one of the daemon's own directories, made when missing, under its SHA-256, which is returned. Only the owner can
    read it."""
    sha256 = hashlib.sha256(data).hexdigest()
    os.makedirs(directory, 0o700, exist_ok=True)
    with _closing(open_strictly(os.path.realpath(directory), _DIRECTORY)) as at:
        _write(at, sha256, data)
    return sha256


def keep(path: str, directory: str, limit: int = LIMIT) -> str:
    """Copy a file into one of the daemon's own directories, under the SHA-256 of its content, which is returned."""
    return put(directory, load(path, limit).data)


def fetch(directory: str, sha256: str, limit: int = LIMIT) -> bytes:
    """Read back what `put` kept; damage is an error."""
    loaded = load(f"{os.path.realpath(directory)}/{sha256}", limit)
    if loaded.sha256 != sha256:
        raise OSError(errno.EBADMSG, "the copy is damaged: its content does not match its name", sha256)
    return loaded.data


def _write(at: int, name: str, data: bytes, like: int | None = None) -> None:
    passing = f".midwatch-{secrets.token_hex(8)}"
    try:
        with _closing(os.open(passing, _CREATE, 0o600, dir_fd=at)) as made:
            _fill(made, data)
            if like is not None:
                _dress(made, like)
            os.fsync(made)
        os.rename(passing, name, src_dir_fd=at, dst_dir_fd=at)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(passing, dir_fd=at)
        raise
    os.fsync(at)


def _fill(made: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(made, rest) :]


def _dress(made: int, like: int) -> None:
    old, new = os.fstat(like), os.fstat(made)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(made, old.st_uid, old.st_gid)
    os.fchmod(made, stat.S_IMODE(old.st_mode))
    for name in _attributes(like):
        value = os.getxattr(like, name)
        if name not in _attributes(made) or os.getxattr(made, name) != value:
            os.setxattr(made, name, value)


def _attributes(opened: int) -> list[str]:
    try:
        return os.listxattr(opened)
    except OSError as exc:
        if exc.errno != errno.ENOTSUP:
            raise
        return []


def listing(directory: str, most: int = MOST_ENTRIES) -> list[Entry]:
    """What a directory holds, not what is below it. More than `most` entries are an error."""
    with _closing(open_strictly(directory, _DIRECTORY)) as at, os.scandir(at) as names:
        found = []
        for count, name in enumerate(names):
            if count >= most:
                raise OSError(errno.EFBIG, f"the directory has more than {most} entries", directory)
            if entry := _entry(at, name.name):
                found.append(entry)
        return found


def _entry(at: int, name: str) -> Entry | None:
    """What stands behind a name now; None when nothing does."""
    try:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None
    plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return Entry(name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, plain)


def remove(directory: str, entries: Iterable[Entry]) -> Removal:
    """Remove those of the entries that are still what they were; ends at the first that cannot be removed."""
    gone: list[Entry] = []
    changed = 0
    with _closing(open_strictly(directory, _DIRECTORY)) as at:
        for entry in entries:
            try:
                if _entry(at, entry.name) == entry:
                    os.unlink(entry.name, dir_fd=at)
                    gone.append(entry)
                else:
                    changed += 1
            except OSError as exc:
                return Removal(tuple(gone), changed, f"{entry.name}: {exc.strerror}")
        os.fsync(at)
    return Removal(tuple(gone), changed)


def prune(directory: str, most: int) -> None:
    """Leave only the `most` newest files in one of the daemon's own directories."""
    real = os.path.realpath(directory)
    oldest_last = sorted(
        (e for e in listing(real) if e.plain), key=lambda entry: entry.mtime_ns, reverse=True
    )
    remove(real, oldest_last[most:])


def why(exc: OSError) -> str:
    """The error as part of a sentence: path and reason."""
    return f"{exc.filename}: {exc.strerror}" if exc.filename is not None else str(exc.strerror or exc)
