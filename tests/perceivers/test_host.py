from __future__ import annotations

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.perceiver_tools import open_for_reading, real_tools
from pydantic import ValidationError

from daemon.clock import ManualClock
from perceivers.base import Observation, PerceiverBlind, Spec, Tools
from perceivers.host import Host, Settings, choose, parse_mounts

SPACE = os.statvfs_result((4096, 4096, 1000, 300, 250, 100, 40, 40, 0, 255))
FILES = {
    "stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 50 0 50 350 50 0 0 0 0 0\ncpu1 50 0 50 350 50 0 0 0 0 0\nintr 1\n",
    "loadavg": "3.00 1.00 0.50 2/300 4711\n",
    "meminfo": "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  250 kB\nCached: 7 kB\nSwapTotal:  400 kB\nSwapFree:  100 kB\n",
    "sys/fs/file-nr": "1200\t200\t4000\n",
    "self/net/dev": (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"
        "    lo:  9 9 9 9 0 0 0 0  9 9 9 9 0 0 0 0\n"
        "  eth0: 10 1 2 3 0 0 0 0 20 2 4 5 0 0 0 0\n"
        "  eth1:10 1 1 1 0 0 0 0 20 2 1 1 0 0 0 0\n"
    ),
    "uptime": "86400.50 1000.00\n",
    "pressure/cpu": "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "pressure/memory": "some avg10=1.00 avg60=0 avg300=0 total=1\nfull avg10=0.50 avg60=0 avg300=0 total=0\n",
    "pressure/io": "some avg10=50.00 avg60=0 avg300=0 total=1\nfull avg10=25.00 avg60=0 avg300=0 total=0\n",
    "self/mountinfo": "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n",
}


class FakeProc:
    """A /proc made of ordinary files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock()
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tools(self) -> Tools:
        return Tools(
            self.clock.wall,
            self.clock.boottime,
            lambda path: open_for_reading(path.replace("/proc", str(self.root), 1)),
        )

    def host(
        self, settings: Settings | None = None, statvfs: Callable[[str], os.statvfs_result] = lambda _: SPACE
    ) -> Host:
        return Host(Spec("host", "host", settings or Settings()), self.tools(), statvfs, patience=0.05)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


async def whole(host: Host) -> Observation:
    return (await host.poll()).observations[0]


async def mounts(host: Host) -> dict[str, Observation]:
    return {seen.key: seen for seen in (await host.poll()).observations if seen.key}


async def test_it_reads_the_whole_host(proc: FakeProc) -> None:
    seen = await whole(proc.host())
    assert (seen.key, seen.resource) == ("", "host")
    expected = {
        "load_1m": 3.0,
        "load_per_cpu": 3.0 / (os.cpu_count() or 1),
        "memory_available": 0.25,
        "memory_available_bytes": 250 * 1024,
        "swap_used": 0.75,
        "handles_used": 0.25,
        "net_errors": 8,
        "net_drops": 10,
        "uptime": 86400.5,
        "psi_cpu_some": 0.125,
        "psi_memory_some": 0.01,
        "psi_memory_full": 0.005,
        "psi_io_some": 0.5,
        "psi_io_full": 0.25,
    }
    assert {name: seen.values[name] for name in expected} == pytest.approx(expected)


async def test_processor_shares_are_taken_between_two_polls(proc: FakeProc) -> None:
    host = proc.host()
    first = await whole(host)
    assert (first.values["cpu_used"], first.values["cpu_iowait"]) == (None, None)
    assert "second reading" in first.unreadable
    proc.write("stat", FILES["stat"].replace("100 0 100 700 100", "150 0 125 750 175"))
    second = await whole(host)
    assert second.values["cpu_used"] == pytest.approx(75 / 200)
    assert second.values["cpu_iowait"] == pytest.approx(75 / 200)
    assert second.unreadable == ""


async def test_a_moment_is_too_short_for_a_share(proc: FakeProc) -> None:
    host = proc.host()
    await whole(host)
    proc.write("stat", FILES["stat"].replace("100 0 100 700 100", "150 0 150 800 100"))
    assert (await whole(host)).values["cpu_used"] == pytest.approx(0.5)
    proc.write("stat", FILES["stat"].replace("100 0 100 700 100", "151 0 150 800 100"))
    assert (await whole(host)).values["cpu_used"] == pytest.approx(0.5)


async def test_counters_that_start_anew_give_no_nonsense(proc: FakeProc) -> None:
    host = proc.host()
    await whole(host)
    proc.write("stat", FILES["stat"].replace("100 0 100 700 100", "10 0 10 70 10"))
    assert (await whole(host)).values["cpu_used"] is None
    proc.write("stat", FILES["stat"].replace("100 0 100 700 100", "60 0 60 170 10"))
    assert (await whole(host)).values["cpu_used"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("pressure/io", None, "psi_io_some"),
        ("pressure/cpu", "", "psi_cpu_some"),
        ("meminfo", "MemTotal: 1000 kB\n", "memory_available"),
        ("loadavg", "garbage\n", "load_1m"),
        ("sys/fs/file-nr", "1 2\n", "handles_used"),
        ("self/net/dev", "a\nb\n eth0: 1 2\n", "net_errors"),
        ("stat", "", "cpu_used"),
    ],
)
async def test_what_cannot_be_read_is_none_with_a_reason(
    proc: FakeProc, name: str, text: str | None, value: str
) -> None:
    if text is None:
        (proc.root / name).unlink()
    else:
        proc.write(name, text)
    seen = await whole(proc.host())
    assert seen.values[value] is None
    assert value in seen.unreadable
    assert seen.values["uptime"] == 86400.5


async def test_without_swap_none_is_used(proc: FakeProc) -> None:
    proc.write("meminfo", "MemTotal: 10 kB\nMemAvailable: 5 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")
    assert (await whole(proc.host())).values["swap_used"] == 0.0


async def test_without_proc_it_is_blind(proc: FakeProc) -> None:
    for name in FILES:
        (proc.root / name).unlink()
    with pytest.raises(PerceiverBlind, match="mounted"):
        await proc.host().poll()


async def test_a_mount_is_told_as_df_tells_it(proc: FakeProc) -> None:
    seen = (await mounts(proc.host()))["/"]
    assert seen.values == {
        "path": "/",
        "mounted": True,
        "read_only": False,
        "disk_used": pytest.approx(700 / 950),
        "disk_free_bytes": 250 * 4096,
        "inodes_used": pytest.approx(0.6),
    }


async def test_df_says_the_same_of_the_real_root() -> None:
    host = Host(Spec("host", "host", Settings(mounts=["/"])), real_tools())
    seen = (await mounts(host))["/"]
    await host.close()
    told = subprocess.run(
        ["df", "--output=pcent", "/"], capture_output=True, check=True, text=True
    ).stdout.split()[-1]
    used = seen.values["disk_used"]
    assert isinstance(used, float)
    assert abs(math.ceil(used * 100) - int(told.removesuffix("%"))) <= 1


async def test_where_inodes_have_no_limit_none_are_told_of(proc: FakeProc) -> None:
    unlimited = os.statvfs_result((4096, 4096, 1000, 300, 250, 0, 0, 0, 0, 255))
    assert "inodes_used" not in (await mounts(proc.host(statvfs=lambda _: unlimited)))["/"].values


@pytest.mark.parametrize(
    "options",
    ["ro,relatime - ext4 /dev/vda rw", "rw - ext4 /dev/vda ro", "rw - ext4 /dev/vda rw,emergency_ro"],
)
async def test_a_read_only_file_system_is_seen(proc: FakeProc, options: str) -> None:
    host = proc.host()
    assert (await mounts(host))["/"].values["read_only"] is False
    proc.write("self/mountinfo", f"27 1 254:0 / / {options}\n")
    assert (await mounts(host))["/"].values["read_only"] is True


async def test_a_file_system_that_cannot_be_read_is_none_with_a_reason(proc: FakeProc) -> None:
    def broken(path: str) -> os.statvfs_result:
        raise OSError(5, "Input/output error")

    seen = (await mounts(proc.host(statvfs=broken)))["/"]
    assert (seen.values["disk_used"], seen.values["disk_free_bytes"], seen.values["inodes_used"]) == (
        None,
        None,
        None,
    )
    assert seen.unreadable == "Input/output error"


def lines(*mounted: tuple[str, str, str]) -> bytes:
    """(device, mount point, type) each."""
    return "".join(
        f"1 1 {device} / {path} rw shared:1 - {kind} src rw\n" for device, path, kind in mounted
    ).encode()


def test_only_real_file_systems_are_chosen(tmp_path: Path) -> None:
    for name in ("data", "bound", "my disk"):
        (tmp_path / name).mkdir()
    (tmp_path / "hosts").touch()
    found = parse_mounts(
        lines(
            ("0:1", "/proc", "proc"),
            ("0:2", "/run", "tmpfs"),
            ("0:3", "/tmp", "tmpfs"),
            ("0:4", "/var/lib/docker/overlay2/x/merged", "overlay"),
            ("8:1", "/", "ext4"),
            ("8:2", f"{tmp_path}/data", "xfs"),
            ("8:2", f"{tmp_path}/data/bound-again", "xfs"),
            ("8:3", f"{tmp_path}/hosts", "ext4"),
            ("8:4", f"{tmp_path}/my\\040disk", "ext4"),
            ("8:5", f"{tmp_path}/bound", "ext4"),
            ("0:5", "/mnt/nfs", "nfs4"),
            ("0:6", "/snap/core", "squashfs"),
        )
    )
    chosen = {mount.path for mount in choose(found, [f"{tmp_path}/bou*"])}
    assert chosen == {"/", "/mnt/nfs", f"{tmp_path}/data", f"{tmp_path}/my disk", "/tmp"}


def test_an_overlay_is_a_disk_only_as_the_root() -> None:
    assert [
        mount.path
        for mount in choose(parse_mounts(lines(("0:1", "/", "overlay"), ("0:2", "/usr", "overlay"))), [])
    ] == ["/"]


def test_a_later_mount_hides_an_earlier_one() -> None:
    assert parse_mounts(lines(("8:1", "/", "ext4"), ("8:2", "/", "xfs")))["/"].type == "xfs"


async def test_named_mounts_are_the_only_ones(proc: FakeProc) -> None:
    proc.write("self/mountinfo", lines(("8:1", "/", "ext4"), ("0:2", "/run", "tmpfs")).decode())
    found = await mounts(proc.host(Settings(mounts=["/run", "/srv/data"])))
    assert set(found) == {"/run", "/srv/data"}
    assert (found["/run"].values["mounted"], found["/srv/data"].values["mounted"]) == (True, False)
    assert found["/srv/data"].unreadable == "nothing is mounted there"


async def test_a_network_mount_that_nobody_named_is_not_asked(proc: FakeProc) -> None:
    asked = []

    def statvfs(path: str) -> os.statvfs_result:
        asked.append(path)
        return SPACE

    proc.write(
        "self/mountinfo",
        lines(("8:1", "/", "ext4"), ("0:9", "/mnt/nfs", "nfs4"), ("0:8", "/mnt/ssh", "fuse.sshfs")).decode(),
    )
    found = await mounts(proc.host(statvfs=statvfs))
    assert asked == ["/"]
    assert found["/mnt/nfs"].values["disk_used"] is None
    assert "nfs4" in found["/mnt/nfs"].unreadable
    assert "fuse.sshfs" in found["/mnt/ssh"].unreadable


@pytest.fixture
def dead_server() -> Iterator[threading.Event]:
    back = threading.Event()
    yield back
    back.set()


async def test_a_dead_network_mount_holds_nothing_up(proc: FakeProc, dead_server: threading.Event) -> None:
    asked = []

    def statvfs(path: str) -> os.statvfs_result:
        if path == "/mnt/nfs":
            asked.append(path)
            dead_server.wait(30)
        return SPACE

    proc.write("self/mountinfo", lines(("8:1", "/", "ext4"), ("0:9", "/mnt/nfs", "nfs4")).decode())
    host = proc.host(Settings(mounts=["/", "/mnt/nfs"]), statvfs)
    first = await mounts(host)
    assert first["/"].values["disk_used"] is not None
    assert first["/mnt/nfs"].values["disk_used"] is None
    assert "no answer" in first["/mnt/nfs"].unreadable
    again = [await mounts(host) for _ in range(5)]
    assert all("no answer" in seen["/mnt/nfs"].unreadable for seen in again)
    assert len(asked) == 1, "it is not asked again while it owes an answer"
    dead_server.set()
    deadline = time.monotonic() + 10
    while (await mounts(host))["/mnt/nfs"].values["disk_used"] is None:
        assert time.monotonic() < deadline


async def test_a_network_mount_that_fails_says_why(proc: FakeProc) -> None:
    def statvfs(path: str) -> os.statvfs_result:
        raise OSError(116, "Stale file handle")

    proc.write("self/mountinfo", lines(("0:9", "/mnt/nfs", "nfs4")).decode())
    found = await mounts(proc.host(Settings(mounts=["/mnt/nfs"]), statvfs))
    assert found["/mnt/nfs"].unreadable == "Stale file handle"


@pytest.mark.parametrize("mount", ["srv", "/srv/", "/srv/../etc", ""])
def test_a_mount_point_is_an_absolute_path(mount: str) -> None:
    with pytest.raises(ValidationError, match="mount point"):
        Settings(mounts=[mount])


async def test_a_poll_costs_less_than_a_millisecond() -> None:
    host = Host(Spec("host", "host", Settings()), real_tools())
    await host.poll()
    began = time.process_time()
    for _ in range(100):
        await host.poll()
    cost = (time.process_time() - began) / 100
    await host.close()
    assert cost < 0.001
