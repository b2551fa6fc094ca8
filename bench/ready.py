"""From the start of the process to READY, beside the import of the same modules alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.daemon import running
from bench.figures import Figure, middle

ROUNDS = 5
LIMIT = 0.5
"""Seconds beyond the imports."""
IMPORTS = "import daemon.app.run; from daemon.app import registry; registry.kinds(); registry.actuator_builders(); print(flush=True)"


def measure(directory: Path) -> list[Figure]:
    ready, imports = [], []
    for number in range(ROUNDS):
        imports.append(_imports())
        with running(directory / f"ready-{number}", "") as daemon:
            ready.append(daemon.ready_after)
    return [
        Figure("READY", middle(ready), middle(imports) + LIMIT, "s", "importing the same modules + 0.5 s"),
        Figure("READY", middle(ready), middle(imports), "s", "importing the same modules", limit=False),
    ]


def _imports() -> float:
    """Until the imports are done; the end of the process is not part of it."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", IMPORTS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return time.perf_counter() - began
