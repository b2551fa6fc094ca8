"""What every story of the loop starts from: a ship that may do everything, with one remedy to try."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.ship import Ship

from daemon.clock import ManualClock
from daemon.store.store import Store


@pytest.fixture
def ship(store: Store, clock: ManualClock, tmp_path: Path) -> Ship:
    return Ship(store, clock, tmp_path)
