"""The host itself: processor, memory, pressure, network, and every file system that is mounted."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, field_validator

from perceivers.base import Batch, Kind, Observation, PerceiverBlind, Scalar, Spec, Tools
from perceivers.procfs import SHORTEST, TICK, ProcFile

MOST_MOUNTS = 200
"""File systems told of; a host with more should name those that matter."""
MOST_STUCK = 16
"""Network file systems that may be waited for at once."""
PATIENCE = 2.0
"""Seconds that a network file system may take to answer."""

# fmt: off
PSEUDO = frozenset((
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
    "erofs", "fuse.gvfsd-fuse", "fuse.lxcfs", "fuse.portal", "fusectl", "hugetlbfs", "iso9660", "mqueue", "nfsd",
    "nsfs", "proc", "pstore", "ramfs", "rpc_pipefs", "securityfs", "selinuxfs", "squashfs", "sysfs", "tracefs",
))
"""File system types that hold no space of their own, or are always full (images)."""
REMOTE = frozenset((
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs",
))
"""File system types behind which another machine stands; `fuse.*` counts as well: a program stands behind it."""
# fmt: on
MEMORY_PLACES = frozenset(("/tmp", "/var/tmp", "/dev/shm"))  # noqa: S108 - nothing is written there
"""Where a tmpfs is one that programs fill; elsewhere it is the system's own."""
READ_ONLY = frozenset(("ro", "emergency_ro"))


class Settings(BaseModel):
    """What the operator may say about `host`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mounts: list[str] = []
    """Mount points to tell of, network ones included; empty: all real local ones."""
    ignore: list[str] = []
    """Globs of mount points that are left out."""

    @field_validator("mounts")
    @classmethod
    def _absolute(cls, mounts: list[str]) -> list[str]:
        for mount in mounts:
            if os.path.normpath(mount) != mount or not mount.startswith("/"):
                raise ValueError(
                    f"{mount!r} is no mount point: write an absolute path, without a trailing '/'"
                )
        return mounts


# readings of the whole host ----------------------------------------------------------------------------------------------


class _Processor:
    """Shares of the processor's time since the last reading."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._shares: dict[str, float] = {}

    def __call__(self, data: bytes) -> dict[str, float]:
        # user nice system idle iowait irq softirq steal; guests are already counted in user and nice.
        times = [int(field) for field in data[: data.index(b"\n")].split()[1:9]]
        now = (sum(times), times[3], times[4])
        if self._before is None or now[0] < self._before[0]:
            self._before = now
        total, idle, iowait = (new - old for new, old in zip(now, self._before, strict=True))
        if total * TICK >= SHORTEST * data.count(b"\ncpu"):
            # The kernel's idle and iowait may run backwards by a few ticks.
            waited = _share(iowait, total)
            self._shares = {"cpu_used": 1.0 - min(1.0, _share(idle, total) + waited), "cpu_iowait": waited}
            self._before = now
        if not self._shares:
            raise ValueError("needs a second reading")
        return self._shares


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def _load(data: bytes) -> dict[str, float]:
    load = float(data.split(maxsplit=1)[0])
    return {"load_1m": load, "load_per_cpu": load / (os.cpu_count() or 1)}


_AVERAGE = re.compile(rb"^(some|full) avg10=([0-9.]+)", re.MULTILINE)


def _pressure(name: str) -> Callable[[bytes], dict[str, float]]:
    def parse(data: bytes) -> dict[str, float]:
        averages = dict(_AVERAGE.findall(data))
        return {f"psi_{name}_{kind}": float(averages[kind.encode()]) / 100 for kind in PRESSURES[name]}

    return parse


PRESSURES: Mapping[str, tuple[str, ...]] = {
    "cpu": ("some",),
    "memory": ("some", "full"),
    "io": ("some", "full"),
}


# The kernel's order of lines is fixed, and one search is much cheaper than fifty pairs.
_MEMORY = re.compile(
    rb"MemTotal: +(\d+) kB.*?\nMemAvailable: +(\d+) kB.*?\nSwapTotal: +(\d+) kB\nSwapFree: +(\d+) kB",
    re.DOTALL,
)


def _memory(data: bytes) -> dict[str, float]:
    found = _MEMORY.search(data)
    if found is None:
        raise LookupError("MemAvailable")
    total, available, swap, swap_free = map(int, found.groups())
    return {
        "memory_available": available / total,
        "memory_available_bytes": available * 1024,
        "swap_used": _share(swap - swap_free, swap),
    }


def _handles(data: bytes) -> dict[str, float]:
    allocated, free, most = (int(field) for field in data.split())
    return {"handles_used": (allocated - free) / most}


def _network(data: bytes) -> dict[str, float]:
    errors = drops = 0
    for line in data.splitlines()[2:]:
        name, _, counters = line.partition(b":")
        if name.strip() != b"lo":
            fields = counters.split()
            errors += int(fields[2]) + int(fields[10])
            drops += int(fields[3]) + int(fields[11])
    return {"net_errors": errors, "net_drops": drops}


def _uptime(data: bytes) -> dict[str, float]:
    return {"uptime": float(data.split(maxsplit=1)[0])}


class _Source(NamedTuple):
    """A file of /proc, the values it gives, and how they are read out of it."""

    file: ProcFile
    names: Sequence[str]
    parse: Callable[[bytes], dict[str, float]]


def _sources(open_: Callable[[str], int]) -> list[_Source]:
    table: list[tuple[str, Sequence[str], Callable[[bytes], dict[str, float]]]] = [
        ("/proc/stat", ("cpu_used", "cpu_iowait"), _Processor()),
        ("/proc/loadavg", ("load_1m", "load_per_cpu"), _load),
        ("/proc/meminfo", ("memory_available", "memory_available_bytes", "swap_used"), _memory),
        ("/proc/sys/fs/file-nr", ("handles_used",), _handles),
        ("/proc/self/net/dev", ("net_errors", "net_drops"), _network),
        ("/proc/uptime", ("uptime",), _uptime),
    ]
    for name, kinds in PRESSURES.items():
        table.append((f"/proc/pressure/{name}", [f"psi_{name}_{kind}" for kind in kinds], _pressure(name)))
    return [_Source(ProcFile(path, open_), names, parse) for path, names, parse in table]


# file systems ------------------------------------------------------------------------------------------------------------


class Mount(NamedTuple):
    """One line of mountinfo."""

    path: str
    type: str
    device: str
    read_only: bool

    @property
    def remote(self) -> bool:
        """Whether asking it may take for ever."""
        return self.type in REMOTE or self.type.startswith("fuse.")

    @property
    def real(self) -> bool:
        """Whether its space is worth telling of when nobody named it."""
        if self.type == "tmpfs":
            return self.path in MEMORY_PLACES
        # An overlay below the root is a container's, on the space of a disk that is told of anyway.
        return self.type not in PSEUDO and (self.type != "overlay" or self.path == "/")


def parse_mounts(data: bytes) -> dict[str, Mount]:
    """Mount point → what is mounted there; a later mount hides an earlier one."""
    found = {}
    for line in data.decode(errors="surrogateescape").splitlines():
        # id parent major:minor root path options [fields...] - type source options
        left, _, right = line.partition(" - ")
        fields, (type_, _, options) = left.split(" "), right.split(" ", 2)
        path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        flags = {*fields[5].split(","), *options.split(",")}
        found[path] = Mount(path, type_, fields[2], bool(flags & READ_ONLY))
    return found


def choose(mounts: Mapping[str, Mount], ignore: Sequence[str]) -> list[Mount]:
    """The real ones, each device once: of bind mounts the one with the shortest path."""
    found: dict[str, Mount] = {}
    for mount in sorted(mounts.values(), key=lambda mount: (len(mount.path), mount.path)):
        ignored = any(fnmatchcase(mount.path, glob) for glob in ignore)
        # A single file can be bound somewhere, too; containers do so with /etc/hosts.
        if (
            mount.real
            and not ignored
            and mount.device not in found
            and (mount.remote or os.path.isdir(mount.path))
        ):
            found[mount.device] = mount
    return sorted(found.values())


@dataclass(slots=True)
class _Question:
    """A file system that was asked, and what it said."""

    asked_at: float
    answer: asyncio.Future[os.statvfs_result | OSError]


class _Remote:
    """Asks file systems that may never answer: each in a thread of its own, and not again while it owes an answer."""

    def __init__(self, tools: Tools, statvfs: Callable[[str], os.statvfs_result], patience: float) -> None:
        self._patience = patience
        self._monotonic = tools.monotonic
        self._statvfs = statvfs
        self._questions: dict[str, _Question] = {}

    async def ask(self, path: str) -> os.statvfs_result:
        """Raises OSError; TimeoutError when there is no answer."""
        question = self._questions.get(path)
        if question is not None and not question.answer.done():
            raise TimeoutError(f"no answer for {self._monotonic() - question.asked_at:.0f}s")
        question = self._questions[path] = self._start(path)
        await asyncio.wait([question.answer], timeout=self._patience)
        if not question.answer.done():
            raise TimeoutError(f"no answer within {self._patience:g}s")
        del self._questions[path]
        answer = question.answer.result()
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _start(self, path: str) -> _Question:
        self._questions = {path: asked for path, asked in self._questions.items() if not asked.answer.done()}
        if len(self._questions) >= MOST_STUCK:
            raise TimeoutError(f"not asked: {MOST_STUCK} other file systems owe an answer")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[os.statvfs_result | OSError] = loop.create_future()

        def work() -> None:
            try:
                said: os.statvfs_result | OSError = self._statvfs(path)
            except OSError as exc:
                said = exc
            # The loop may be gone by the time a dead server comes back.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(answer.set_result, said)

        # A daemon thread: a thread of a pool would be waited for when we want to leave.
        threading.Thread(target=work, name=f"statvfs {path}", daemon=True).start()
        return _Question(self._monotonic(), answer)


def _space(found: os.statvfs_result) -> dict[str, Scalar]:
    """As df counts: what is kept for root is neither used nor free."""
    used = found.f_blocks - found.f_bfree
    values: dict[str, Scalar] = {"disk_free_bytes": found.f_bavail * found.f_frsize}
    if used + found.f_bavail > 0:
        values["disk_used"] = used / (used + found.f_bavail)
    if found.f_files > 0:
        values["inodes_used"] = 1 - found.f_ffree / found.f_files
    return values


UNREAD: Mapping[str, Scalar] = {"disk_used": None, "disk_free_bytes": None, "inodes_used": None}


class Host:
    """Perceives the host: one Observation for the whole (key ""), and one for each file system (key = mount point)."""

    kind = "host"

    def __init__(
        self,
        spec: Spec,
        tools: Tools,
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
        patience: float = PATIENCE,
    ) -> None:
        assert isinstance(spec.settings, Settings)
        self.name, self.resource = spec.name, spec.resource
        self._settings = spec.settings
        self._tools = tools
        self._statvfs = statvfs
        self._remote = _Remote(tools, statvfs, patience)
        self._sources = _sources(tools.open)
        self._mountinfo = ProcFile("/proc/self/mountinfo", tools.open)
        self._mounted: tuple[bytes, list[Mount], list[str]] = (b"", [], [])

    async def poll(self) -> Batch:
        whole = self._whole()
        mounts, missing = self._mounts()
        local = [self._mount(mount) for mount in mounts if not mount.remote]
        remote = [self._far_mount(mount) for mount in mounts if mount.remote]
        far = await asyncio.gather(*remote) if remote else ()
        return Batch([whole, *local, *far, *map(self._missing, missing)])

    def restore(self, cursor: Mapping[str, Any]) -> None:
        """Nothing is kept: shares and counters begin anew."""

    def wake_on(self, wake: Callable[[], None]) -> None:
        """No source."""

    async def close(self) -> None:
        for source in self._sources:
            source.file.close()
        self._mountinfo.close()

    def _whole(self) -> Observation:
        values: dict[str, Scalar] = {}
        trouble = []
        for source in self._sources:
            try:
                values |= source.parse(source.file.read())
            except (OSError, ValueError, LookupError) as exc:
                values |= dict.fromkeys(source.names)
                trouble.append(f"{', '.join(source.names)}: {_reason(exc, source.file.path)}")
        if all(value is None for value in values.values()):
            raise PerceiverBlind(f"/proc cannot be read at all ({trouble[0]}); is it mounted?")
        return self._observation("", values, "; ".join(trouble))

    def _mounts(self) -> tuple[list[Mount], list[str]]:
        """What to tell of, and which of the named mounts are not there."""
        data = self._mountinfo.read()
        if data != self._mounted[0]:
            found = parse_mounts(data)
            named = self._settings.mounts
            chosen = (
                [found[path] for path in named if path in found]
                if named
                else choose(found, self._settings.ignore)
            )
            self._mounted = (data, chosen[:MOST_MOUNTS], [path for path in named if path not in found])
        return self._mounted[1], self._mounted[2]

    def _mount(self, mount: Mount) -> Observation:
        try:
            return self._told(mount, self._statvfs(mount.path))
        except OSError as exc:
            return self._told(mount, exc)

    async def _far_mount(self, mount: Mount) -> Observation:
        if mount.path not in self._settings.mounts:
            named = f"a network file system ({mount.type}) is read only when `mounts` names it"
            return self._told(mount, OSError(named))
        try:
            return self._told(mount, await self._remote.ask(mount.path))
        except OSError as exc:
            return self._told(mount, exc)

    def _told(self, mount: Mount, found: os.statvfs_result | OSError) -> Observation:
        facts: dict[str, Scalar] = {"path": mount.path, "mounted": True, "read_only": mount.read_only}
        if isinstance(found, OSError):
            return self._observation(mount.path, {**facts, **UNREAD}, _reason(found, mount.path))
        return self._observation(mount.path, {**facts, **_space(found)}, "")

    def _missing(self, path: str) -> Observation:
        values: dict[str, Scalar] = {"path": path, "mounted": False, "read_only": None, **UNREAD}
        return self._observation(path, values, "nothing is mounted there")

    def _observation(self, key: str, values: Mapping[str, Scalar], trouble: str) -> Observation:
        return Observation(self.name, self.resource, self._tools.wall(), values, key=key, unreadable=trouble)


def _reason(exc: Exception, path: str) -> str:
    if isinstance(exc, LookupError):
        return f"{path} does not tell it"
    return exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)


KIND = Kind(
    name="host",
    settings=Settings,
    build=Host,
    values={
        "cpu_used": "share of all processors' time in use since the last poll",
        "cpu_iowait": "share of all processors' time idle with a disk request open, since the last poll",
        "load_1m": "processes that run or wait to, average of one minute",
        "load_per_cpu": "load_1m for each processor",
        "psi_cpu_some": "share of the last 10 s in which some process waited for a processor",
        "psi_memory_some": "share of the last 10 s in which some process waited for memory",
        "psi_memory_full": "share of the last 10 s in which all processes waited for memory",
        "psi_io_some": "share of the last 10 s in which some process waited for a disk",
        "psi_io_full": "share of the last 10 s in which all processes waited for a disk",
        "memory_available": "share of the memory that programs can still get",
        "memory_available_bytes": "bytes of memory that programs can still get",
        "swap_used": "share of the swap space in use; 0 without any",
        "handles_used": "share of the system's open file handles in use",
        "net_errors": "packets in error since boot, all interfaces but lo (a counter: use rate())",
        "net_drops": "packets dropped since boot, all interfaces but lo (a counter: use rate())",
        "uptime": "seconds since boot",
        "disk_used": "share of a file system's space in use, as df tells it (per mount)",
        "disk_free_bytes": "bytes that ordinary users can still write (per mount)",
        "inodes_used": "share of a file system's inodes in use; missing where there is no such limit (per mount)",
        "read_only": "whether a file system is mounted read-only (per mount)",
        "mounted": "false for a mount that `mounts` names and that is not there (per mount)",
        "path": "the mount point (per mount)",
    },
)
