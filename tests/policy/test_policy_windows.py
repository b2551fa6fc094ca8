from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fakes.policies import ask, policy, request

RULE = '[[rule]]\nid = "r"\neffect = "allow"\naction = ["unit.restart"]\nduring = "w"\n'


def holds(directory: Path, window: str, moment: str, tz: str = "Europe/Berlin") -> bool:
    rules = policy(directory, f"[windows]\nw = {window}\n{RULE}")
    at = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(tz)).timestamp()
    return ask(rules, request(at=at)).effect == "allow"


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2024-01-03T21:59:59", False),
        ("2024-01-03T22:00:00", True),
        ("2024-01-04T00:00:00", True),
        ("2024-01-04T06:59:59", True),
        ("2024-01-04T07:00:00", False),
        ("2024-07-03T22:00:00", True),
        ("2024-07-04T07:00:00", False),
    ],
)
def test_hours_over_midnight_follow_the_clocks_of_the_zone(tmp_path: Path, moment: str, inside: bool) -> None:
    assert holds(tmp_path, '{ hours = "22:00-07:00", tz = "Europe/Berlin" }', moment) is inside


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2024-01-05T21:00:00", False),
        ("2024-01-05T23:00:00", True),
        ("2024-01-06T03:00:00", True),
        ("2024-01-06T23:00:00", False),
        ("2024-01-05T03:00:00", False),
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_begins(tmp_path: Path, moment: str, inside: bool) -> None:
    window = '{ hours = "22:00-07:00", days = ["fri"], tz = "Europe/Berlin" }'
    assert holds(tmp_path, window, moment) is inside


@pytest.mark.parametrize(
    ("moment", "inside"),
    [("2024-01-05T23:59:59", False), ("2024-01-06T00:00:00", True), ("2024-01-07T23:59:59", True)],
)
def test_whole_days(tmp_path: Path, moment: str, inside: bool) -> None:
    assert holds(tmp_path, '{ days = ["sat", "sun"], tz = "Europe/Berlin" }', moment) is inside


def test_hours_to_midnight(tmp_path: Path) -> None:
    window = '{ hours = "18:30-24:00", tz = "UTC" }'
    assert holds(tmp_path, window, "2024-01-03T23:59:59", "UTC")
    assert not holds(tmp_path, window, "2024-01-03T00:00:00", "UTC")
    assert not holds(tmp_path, window, "2024-01-03T18:29:59", "UTC")


def test_from_and_to(tmp_path: Path) -> None:
    window = "{ from = 2026-12-18T00:00:00Z, to = 2027-01-04T00:00:00+01:00 }"
    assert holds(tmp_path, window, "2026-12-18T00:00:00", "UTC")
    assert not holds(tmp_path, window, "2026-12-17T23:59:59", "UTC")
    assert holds(tmp_path, window, "2027-01-03T22:59:59", "UTC")
    assert not holds(tmp_path, window, "2027-01-03T23:00:00", "UTC")
