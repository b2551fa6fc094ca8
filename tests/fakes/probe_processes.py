"""Real child processes that do nothing, under a command line that no other process has."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


class Sleepers:
    """Some `sleep`s with one mark in their command lines."""

    def __init__(self) -> None:
        # sleep adds up its arguments, so that a fraction marks it without changing it.
        self.mark = f"0.{uuid4().int % 10**18:018d}"
        self.running: list[subprocess.Popen[bytes]] = []

    @property
    def pattern(self) -> str:
        return rf"sleep 1000 {self.mark.replace('.', '[.]')}"

    def start(self) -> int:
        """The pid of one more, once it sleeps: until then it still loads, and opens and closes files."""
        self.running.append(subprocess.Popen(["sleep", "1000", self.mark]))
        pid = self.running[-1].pid
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return pid

    def kill(self, reap: bool = True) -> None:
        """Kill the oldest; without `reap` it stays a zombie."""
        child = self.running.pop(0) if reap else self.running[0]
        child.kill()
        if reap:
            child.wait()


@contextmanager
def sleepers() -> Iterator[Sleepers]:
    found = Sleepers()
    try:
        yield found
    finally:
        while found.running:
            found.kill()
