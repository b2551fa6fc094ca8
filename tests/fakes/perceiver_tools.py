"""The Tools of a perceiver in tests: the real host's files, and a clock that the test moves or the real one."""

from __future__ import annotations

import os
import time

from daemon.clock import ManualClock
from perceivers.base import Tools


def open_for_reading(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def real_tools() -> Tools:
    return Tools(time.time, time.monotonic, open_for_reading)


def tools_on(clock: ManualClock) -> Tools:
    return Tools(clock.wall, clock.boottime, open_for_reading)
