"""Durations, sizes and shares as people write them: `90s`, `10m`, `20GiB`, `34%`."""

from __future__ import annotations

import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%]*)\s*\Z")


def _split(text: str, units: dict[str, float] | dict[str, int], what: str) -> float:
    match = _NUMBER.match(text)
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is no {what}: write a number and one of {', '.join(units)}")
    return float(match[1]) * units[match[2]]


def seconds(text: str) -> float:
    """`"10m"` → 600.0. A number needs its unit: bare numbers are refused, nobody remembers which one is meant."""
    return _split(text, SECONDS, "duration")


def size(text: str) -> int:
    """`"20GiB"` → bytes."""
    return int(_split(text, BYTES, "size"))


def share(text: str) -> float:
    """`"34%"` → 0.34."""
    value = _split(text, {"%": 0.01}, "share")
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is no share: 0% to 100%")
    return value


def quantity(text: str) -> float:
    """A number with any unit known here, in base units (seconds, bytes, a share of 1), or a bare number."""
    return _split(text, {"": 1.0, "%": 0.01, **SECONDS, **BYTES}, "quantity")


def spell_seconds(value: float) -> str:
    """600.0 → `10m`: the largest unit that divides it, for messages."""
    for unit in ("w", "d", "h", "m"):
        if value >= SECONDS[unit] and value % SECONDS[unit] == 0:
            return f"{value / SECONDS[unit]:.0f}{unit}"
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


def spell_bytes(value: float) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value >= BYTES[unit]:
            return f"{value / BYTES[unit]:.1f} {unit}"
    return f"{value:.0f} B"
