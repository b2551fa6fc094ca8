"""A log perceiver over real files, and a clock for it that moves only when told to."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceivers.base import Batch, Observation, Rule, Spec, Tools
from perceivers.log import LogPerceiver, LogSettings

PROBE = Rule("probe", r"probe (?P<n>\d+)", "n")


def open_for_reading(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


class LogWorld:
    """Polls, restarts and remembers how often each probe (`probe NUMBER`) was seen."""

    def __init__(self, path: Path, rules: tuple[Rule, ...] = (PROBE,), **settings: Any) -> None:
        self.path = path
        self.monotonic = 1000.0
        self.seen: dict[str, int] = {}
        self.batch = Batch()
        self._spec = Spec("log", "service:api", LogSettings(path=str(path), **settings), rules)
        self.tools = Tools(time.time, lambda: self.monotonic, open_for_reading)
        self.perceiver = LogPerceiver(self._spec, self.tools)

    async def poll(self) -> list[Observation]:
        """What the rules hit, one poll."""
        self.batch = await self.perceiver.poll()
        hits = [seen for seen in self.batch.observations if seen.rule]
        for seen in hits:
            self.seen[seen.key] = self.seen.get(seen.key, 0) + seen.count
        return hits

    async def die_and_restart(self) -> None:
        """As after kill -9: all that is left is the last cursor."""
        cursor: Mapping[str, Any] | None = self.batch.cursor
        await self.perceiver.close()
        self.perceiver = LogPerceiver(self._spec, self.tools)
        if cursor is not None:
            self.perceiver.restore(cursor)

    async def pass_grace(self) -> None:
        """Let the time pass after which a rotated file is given up, and poll."""
        self.monotonic += 6
        await self.poll()

    def write(self, *probes: int, to: Path | None = None) -> None:
        self.append(b"".join(b"a line with probe %d in it\n" % probe for probe in probes), to)

    def append(self, content: bytes, to: Path | None = None) -> None:
        with open(to or self.path, "ab") as file:
            file.write(content)

    def sibling(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def rotate(self, suffix: str = ".1", create: bool = True) -> Path:
        rotated = self.path.rename(self.sibling(suffix))
        if create:
            self.path.touch()
        return rotated


def once(*probes: int) -> dict[str, int]:
    return {str(probe): 1 for probe in probes}
