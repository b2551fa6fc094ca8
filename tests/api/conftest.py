"""A running desk on a socket of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakes.desk import RunningDesk

from daemon.clock import ManualClock
from daemon.store.store import Store


@pytest.fixture
async def desk(store: Store, clock: ManualClock) -> AsyncIterator[RunningDesk]:
    async with RunningDesk(store, clock) as running:
        yield running
