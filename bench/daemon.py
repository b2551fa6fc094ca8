"""A real midwatch process for a bench: started from a configuration of its own, ready when it says so, gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HEAD = """
schema = 1
mode = "act"
packs = ["host", "service"]

[daemon]
state = "{dir}/state"
socket = "{dir}/admin.sock"
policies = "{dir}/policies.d"
grace = "0s"
ballast = "0B"
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that said READY. `ready_after` is seconds from the start of the process."""

    pid: int
    ready_after: float
    directory: Path


@contextmanager
def running(directory: Path, config: str, policy: str = "schema = 1\n") -> Iterator[Running]:
    """Start midwatch over `config` (the head is added) and wait for READY as systemd would."""
    write(directory, config, policy)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        address = str(directory / "notify.sock")
        Path(address).unlink(missing_ok=True)
        notified.bind(address)
        notified.settimeout(30)
        began = time.perf_counter()
        with (directory / "out").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "daemon", "--config", str(directory / "config.toml")],
                env={**os.environ, "NOTIFY_SOCKET": address},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            while b"READY=1" not in notified.recv(4096):
                pass
            yield Running(process.pid, time.perf_counter() - began, directory)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def write(directory: Path, config: str, policy: str) -> None:
    (directory / "policies.d").mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "config.toml").write_text(HEAD.format(dir=directory) + config)
    (directory / "policies.d" / "bench.toml").write_text(policy)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, from /proc/PID/stat (fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1024
