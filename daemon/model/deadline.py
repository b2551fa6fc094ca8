"""A moment in the future that means the same after a restart, a clock step or a reboot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """`boottime` (seconds of CLOCK_BOOTTIME) counts within the boot `boot_id`; `wall` (unix seconds) is all that is left after a reboot.

    After a reboot the wall clock may have been set since, so the stricter reading holds, which is the earlier one: a deadline bounds a
    permission or a wait, so early is the safe side. Two things are certain without it: it was set for no longer than `boottime`, for the
    old boot began at 0, and at least the uptime of the new boot has passed.
    """

    boot_id: str
    boottime: float
    wall: float

    def remaining(self, boot_id: str, boottime: float, wall: float) -> float:
        """Seconds left at the given reading of the clocks; zero or less once reached."""
        by_boot = self.boottime - boottime
        return by_boot if boot_id == self.boot_id else min(by_boot, self.wall - wall)

    def to_text(self) -> str:
        return f"{self.boot_id} {self.boottime:.3f} {self.wall:.3f}"

    @classmethod
    def from_text(cls, text: str) -> Deadline:
        boot_id, boottime, wall = text.split(" ")
        return cls(boot_id, float(boottime), float(wall))
