"""From a line written to a log to the effect: the action is a signal to a waiting process, so nothing but midwatch lies between."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from bench.daemon import running
from bench.figures import Figure, middle, share

RECEIVER = """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print("waiting", flush=True)
while True:
    signal.sigwait({signal.SIGUSR1})
    print(time.perf_counter(), flush=True)
"""
"""perf_counter is CLOCK_MONOTONIC here, one clock for all processes."""
FAULTS = 60
PATIENCE = 10.0
SETTLE = 2.0
P50, P95 = 5.0, 20.0
"""Milliseconds, to which twice the fdatasync of the same run is added: signal and intent are each on disk before the effect."""

SERVICE = """
[services.s{n}]

[perceivers.s{n}]
kind = "log"
path = "{dir}/{n}/service.log"
resource = "service:s{n}"
every = "30s"
signals = [{{ name = "fault", match = "FAULT" }}]
"""

RUNBOOK = """
schema = 1

[[runbook]]
id = "bench"
signals = ["fault"]
cause = "a bench asks for a signal"
remedy = [{{ steps = [{{ action = "process.signal", target = "process:{pid}@{start}", params = {{ signal = "USR1" }} }}] }}]
test = [{{ signals = ["fault"], expect = {{ actions = [["process.signal"]] }} }}]
"""

POLICY = """
schema = 1

[[rule]]
id = "bench"
effect = "allow"
action = ["process.signal"]
target = ["process:*"]
"""


def measure(directory: Path) -> list[Figure]:
    place = directory / "fast"
    place.mkdir(parents=True)
    for n in range(FAULTS):
        (place / str(n)).mkdir()
        (place / str(n) / "service.log").touch()
    with subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        _write_runbook(place, receiver.pid)
        config = "".join(SERVICE.format(n=n, dir=place) for n in range(FAULTS))
        with running(place, config, POLICY):
            time.sleep(SETTLE)
            taken, syncs = _provoke(place, receiver.stdout)
        receiver.kill()
    sync = middle(syncs)
    return [
        Figure(
            "line written -> action, p50",
            middle(taken),
            P50 + 2 * sync,
            "ms",
            f"5 ms + 2 x fdatasync of {sync:.2f} ms",
        ),
        Figure(
            "line written -> action, p95",
            share(taken, 0.95),
            P95 + 2 * sync,
            "ms",
            f"20 ms + 2 x fdatasync of {sync:.2f} ms",
        ),
    ]


def _provoke(place: Path, arrivals: IO[str]) -> tuple[list[float], list[float]]:
    """Milliseconds from line to signal, and those of an fdatasync between faults."""
    taken, syncs = [], []
    for n in range(FAULTS):
        with (place / str(n) / "service.log").open("a") as log:
            began = time.perf_counter()
            log.write("FAULT\n")
        if not select.select([arrivals], [], [], PATIENCE)[0]:
            raise RuntimeError("no action within 10 s; see the daemon's output")
        taken.append((float(arrivals.readline()) - began) * 1000)
        time.sleep(0.1)
        syncs.append(_sync(place / "sync"))
    return taken, syncs


def _sync(path: Path) -> float:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, b"x" * 4096)
    began = time.perf_counter()
    os.fdatasync(handle)
    taken = time.perf_counter() - began
    os.close(handle)
    return taken * 1000


def _write_runbook(place: Path, pid: int) -> None:
    start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    (place / "runbooks.d").mkdir()
    (place / "runbooks.d" / "bench.toml").write_text(RUNBOOK.format(pid=pid, start=start))
