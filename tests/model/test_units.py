"""Numbers with units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.units import BYTES, SECONDS, quantity, seconds, share, size, spell_bytes, spell_seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("10s", 10), ("1.5m", 90), ("250ms", 0.25), ("2h", 7200), ("1d", 86400), ("1w", 604800), (" 3 s ", 3)],
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["10", "s", "-1s", "1e3s", "10 parsecs", "10M", "", "1s2", "٣s", "1_0s", ".5s", "inf s"]
)
def test_what_is_no_duration_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and one of ms, s, m, h, d, w"):
        seconds(text)


def test_sizes_shares_and_quantities() -> None:
    assert (size("20GiB"), size("1.5KB"), size("7B")) == (20 * 2**30, 1500, 7)
    assert share("34%") == pytest.approx(0.34)
    assert (quantity("500"), quantity("2s"), quantity("1KiB")) == (500.0, 2.0, 1024.0)
    assert quantity("90%") == pytest.approx(0.9)
    for text in ("101%", "0.5", "-1%"):
        with pytest.raises(ValueError, match="share"):
            share(text)


@given(st.floats(0, 1e9), st.sampled_from(list(SECONDS)))
def test_what_is_spelled_can_be_read_again(number: float, unit: str) -> None:
    value = round(number * SECONDS[unit], 3)
    assert seconds(spell_seconds(value)) == pytest.approx(value, abs=0.001)


@given(st.integers(0, 10**18), st.sampled_from(list(BYTES)))
def test_sizes_are_spelled_in_the_largest_unit(number: int, unit: str) -> None:
    assert size(spell_bytes(number)) == pytest.approx(number, rel=0.06)
    assert size(f"{number % 1000}{unit}") == number % 1000 * BYTES[unit]


def test_spelling() -> None:
    spelled = [spell_seconds(value) for value in (0, 0.25, 90, 600, 7200, 604800, 1234567, 0.0)]
    assert spelled == ["0s", "0.25s", "90s", "10m", "2h", "1w", "1234567s", "0s"]
