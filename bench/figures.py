"""One printed figure: what was measured, beside the yardstick of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` and `yardstick` in the same unit; the ratio is what counts, for machines differ."""

    name: str
    value: float
    yardstick: float
    unit: str
    against: str
    """What the yardstick is."""
    limit: bool = True
    """Whether it is a limit to keep; otherwise a peer to compare with."""

    @property
    def met(self) -> bool:
        return not self.limit or self.value <= self.yardstick

    def row(self) -> str:
        verdict = "" if not self.limit else "   met" if self.met else "   NOT MET"
        against = f"{self.against} ({self.yardstick:.2f} {self.unit})"
        return f"{self.name:<36} {self.value:>8.2f} {self.unit:<4} {self.value / self.yardstick:>6.2f} x {against}{verdict}"


def middle(values: Sequence[float]) -> float:
    return share(values, 0.5)


def share(values: Sequence[float], part: float) -> float:
    """The value below which `part` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
