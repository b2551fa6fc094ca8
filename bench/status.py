"""CPU time of `midwatch status`, beside an interpreter that imports only what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.daemon import running
from bench.figures import Figure, middle

ROUNDS = 9
LIMIT = 0.3
YARDSTICK = "import click, http.client, json"


def measure(directory: Path) -> list[Figure]:
    with running(directory / "status", ""):
        socket = str(directory / "status" / "admin.sock")
        command = [str(Path(sys.executable).with_name("midwatch")), "status", "--socket", socket]
        spent, bare = [], []
        for _ in range(ROUNDS):
            spent.append(_cpu(command))
            bare.append(_cpu([sys.executable, "-c", YARDSTICK]))
    return [
        Figure("midwatch status, CPU", middle(spent), LIMIT, "s", "limit"),
        Figure("midwatch status, CPU", middle(spent), middle(bare), "s", f"`{YARDSTICK}` alone", limit=False),
    ]


def _cpu(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime
