"""The clocks."""

from __future__ import annotations

import time
from pathlib import Path

from daemon.clock import ManualClock, SystemClock


def test_the_systems_clocks_are_the_systems() -> None:
    clock = SystemClock()
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(clock.wall() - time.time()) < 60
    assert clock.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(wall=100.0, boottime=10.0, boot_id="b")
    assert (clock.wall(), clock.boottime(), clock.boot_id) == (100.0, 10.0, "b")
    clock.advance(5)
    clock.step_wall(-50)
    assert (clock.wall(), clock.boottime()) == (55.0, 15.0)
    clock.reboot("c", downtime=30)
    assert (clock.wall(), clock.boottime(), clock.boot_id) == (85.0, 5.0, "c")
