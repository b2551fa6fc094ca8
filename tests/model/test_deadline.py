"""A moment in the future, over restarts, clock steps and reboots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.clock import ManualClock, deadline, remaining
from daemon.model.deadline import Deadline


def test_within_a_boot_only_the_boot_clock_counts() -> None:
    clock = ManualClock()
    due = deadline(clock, 600)
    clock.step_wall(-86400)
    assert remaining(clock, due) == 600
    clock.step_wall(10 * 86400)
    clock.advance(599)
    assert remaining(clock, due) == 1
    clock.advance(1)
    assert remaining(clock, due) == 0


def test_after_a_reboot_the_wall_clock_counts() -> None:
    clock = ManualClock()
    due = deadline(clock, 600)
    clock.reboot("boot-2", downtime=100)
    assert remaining(clock, due) == 500
    clock.advance(500)
    assert remaining(clock, due) == 0


def test_after_a_reboot_with_the_clock_set_back_it_still_ends() -> None:
    clock = ManualClock(boottime=100)
    due = deadline(clock, 600)
    clock.reboot("boot-2")
    clock.step_wall(-10 * 365 * 86400)
    assert remaining(clock, due) == 695
    clock.advance(695)
    assert remaining(clock, due) <= 0


def test_after_a_reboot_with_the_clock_set_forward_it_is_over() -> None:
    clock = ManualClock()
    due = deadline(clock, 600)
    clock.reboot("boot-2")
    clock.step_wall(86400)
    assert remaining(clock, due) < 0


@given(
    uptime=st.floats(1, 1e7),
    wait=st.floats(0, 1e6),
    before=st.floats(0, 1e6),
    downtime=st.floats(1, 1e6),
    after=st.floats(0, 1e6),
)
def test_with_an_honest_clock_a_reboot_changes_nothing(
    uptime: float, wait: float, before: float, downtime: float, after: float
) -> None:
    clock = ManualClock(boottime=uptime)
    due = deadline(clock, wait)
    clock.advance(before)
    clock.reboot("boot-2", downtime + 5)
    clock.advance(after)
    left = wait - before - downtime - 5 - after
    assert remaining(clock, due) <= left + 0.01
    if left > 0:
        assert abs(remaining(clock, due) - left) < 0.01


@given(st.floats(0, 1e9), st.floats(0, 1e10))
def test_text_keeps_it(boottime: float, wall: float) -> None:
    due = Deadline("2b1c-9", round(boottime, 3), round(wall, 3))
    assert Deadline.from_text(due.to_text()) == due
