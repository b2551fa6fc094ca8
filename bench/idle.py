"""The daemon at rest over an ordinary host: CPU share and memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.daemon import cpu_seconds, resident_mib, running
from bench.figures import Figure

WARM = 12.0
"""Seconds until every perceiver has polled at least once."""
SPAN = 60.0
CPU_LIMIT = 1.0
"""Per cent of one core."""
MEMORY_LIMIT = 80.0


def measure(directory: Path) -> list[Figure]:
    with _server() as port, running(directory / "idle", _config(directory / "idle", port)) as daemon:
        time.sleep(WARM)
        before, began = cpu_seconds(daemon.pid), time.perf_counter()
        time.sleep(SPAN)
        spent = (cpu_seconds(daemon.pid) - before) / (time.perf_counter() - began) * 100
        memory = resident_mib(daemon.pid)
    return [
        Figure("idle, CPU", spent, CPU_LIMIT, "%", "limit, of one core"),
        Figure("idle, resident", memory, MEMORY_LIMIT, "MiB", "limit"),
    ]


def _config(directory: Path, port: int) -> str:
    """1 host at 5 s, 20 process at 10 s, 20 http and tcp at 30 s, 6 logs."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = ['[perceivers.host]\nkind = "host"\nevery = "5s"\n']
    for n in range(20):
        parts.append(
            f'[perceivers.process-{n}]\nkind = "process"\ncommand = "worker-{n} --serve"\nevery = "10s"\n'
        )
    for n in range(10):
        parts.append(
            f'[perceivers.http-{n}]\nkind = "http"\nurl = "http://127.0.0.1:{port}/"\nevery = "30s"\n'
        )
        parts.append(f'[perceivers.tcp-{n}]\nkind = "tcp"\naddress = "127.0.0.1:{port}"\nevery = "30s"\n')
    for n in range(6):
        (directory / f"{n}.log").touch()
        signal = f'[{{ name = "errors-{n}", match = "ERROR", count = "5 in 10m" }}]'
        parts.append(
            f'[perceivers.log-{n}]\nkind = "log"\npath = "{directory}/{n}.log"\nevery = "5s"\nsignals = {signal}\n'
        )
    return "\n".join(parts)


@contextmanager
def _server() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Silent: the bench prints figures only."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
