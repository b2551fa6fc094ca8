"""Last good copies: what is kept, what counts as good, and what does not."""

from __future__ import annotations

import pytest
from fakes.ship import APP, Ship

from daemon.clock import ManualClock
from daemon.loop.copies import MOST_COPIES, Copies, Kept
from daemon.store.store import Store
from daemon.store.tables import COPY
from perceivers.base import Observation

CONF = "/etc/app.conf"
OTHER = "/etc/other.conf"
QUIET = 600.0


class Shelf:
    """The copies of two files of one service; the directory is a set of hashes."""

    def __init__(self, ship: Ship) -> None:
        self.ship = ship
        self.kept: set[str] = set()
        self.readable = True
        self.begin()

    def begin(self) -> None:
        files = {CONF: Kept(APP, QUIET), OTHER: Kept(APP, QUIET)}
        self.copies = Copies(
            self.ship.store, self.ship.clock, self.ship.graph, files, self._keep, self.kept.difference_update
        )

    def _keep(self, path: str, sha256: str) -> bool:
        if self.readable:
            self.kept.add(sha256)
        return self.readable

    async def see(self, sha256: str | None, path: str = CONF) -> None:
        await self.copies.saw([Observation("files", APP, 0.0, {"path": path, "sha256": sha256})])

    async def wait(self, seconds: float = QUIET) -> str | None:
        self.ship.clock.advance(seconds)
        await self.copies.tick()
        return self.copies.last_good(CONF)


@pytest.fixture
def shelf(ship: Ship) -> Shelf:
    return Shelf(ship)


async def test_a_content_is_kept_when_it_is_seen_and_good_once_it_was_quiet(shelf: Shelf) -> None:
    await shelf.see("a")
    assert (shelf.kept, await shelf.wait(QUIET - 1)) == ({"a"}, None)
    assert await shelf.wait(1) == "a"
    assert [row["sha256"] for row in await shelf.ship.journal("copy.good")] == ["a"]


async def test_only_the_files_of_the_inventory_are_kept(shelf: Shelf) -> None:
    await shelf.see("a", "/etc/passwd")
    assert shelf.kept == set()


async def test_what_is_seen_again_unchanged_is_not_written_again(shelf: Shelf) -> None:
    for _ in range(3):
        await shelf.see("a")
    assert len(await shelf.ship.journal("copy.kept")) == 1


@pytest.mark.parametrize(
    ("resource", "good"), [(APP, None), ("path:/etc/app.conf", None), ("service:db", "a")]
)
async def test_nothing_becomes_good_while_something_is_wrong_with_the_service(
    shelf: Shelf, resource: str, good: str | None
) -> None:
    await shelf.see("a")
    await shelf.ship.fire(resource=resource)
    assert await shelf.wait() == good


async def test_quiet_begins_anew_when_the_fault_is_over(shelf: Shelf) -> None:
    await shelf.see("a")
    await shelf.ship.fire()
    shelf.ship.clock.advance(QUIET)
    await shelf.ship.clear()
    assert await shelf.wait(QUIET - 1) is None
    assert await shelf.wait(1) == "a"


async def test_information_disturbs_no_quiet(shelf: Shelf) -> None:
    await shelf.see("a")
    await shelf.ship.note("config-changed", "path:/etc/app.conf")
    assert await shelf.wait() == "a"


async def test_a_bad_content_does_not_take_the_good_ones_place(shelf: Shelf) -> None:
    await shelf.see("a")
    assert await shelf.wait() == "a"
    await shelf.see("b")
    await shelf.ship.fire()
    assert await shelf.wait() == "a"
    await shelf.see("a")
    await shelf.ship.clear()
    assert await shelf.wait() == "a"


async def test_a_content_is_judged_by_the_time_since_it_came_back(shelf: Shelf) -> None:
    await shelf.see("a")
    await shelf.wait(QUIET - 1)
    await shelf.see("b")
    await shelf.wait(1)
    await shelf.see("a")
    assert await shelf.wait(QUIET - 1) is None
    assert await shelf.wait(1) == "a"


@pytest.mark.parametrize("seen", ["b", None])
async def test_what_was_replaced_by_something_that_cannot_be_kept_or_read_does_not_become_good(
    shelf: Shelf, seen: str | None
) -> None:
    await shelf.see("a")
    shelf.readable = False
    await shelf.see(seen)
    assert await shelf.wait() is None
    shelf.readable = True
    await shelf.see("b")
    assert await shelf.wait() == "b"


async def test_a_bounded_number_is_kept_and_the_good_one_always(shelf: Shelf) -> None:
    await shelf.see("good")
    await shelf.wait()
    for number in range(2 * MOST_COPIES):
        shelf.ship.clock.advance(1)
        await shelf.see(f"c{number}")
    rows = await shelf.ship.store.read(lambda conn: conn.execute(COPY.select()).all())
    newest = {f"c{number}" for number in range(MOST_COPIES, 2 * MOST_COPIES)}
    assert {row.sha256 for row in rows} == {"good", *newest} == shelf.kept


async def test_a_content_that_another_file_has_too_stays(shelf: Shelf) -> None:
    await shelf.see("same", OTHER)
    await shelf.see("same")
    for number in range(MOST_COPIES + 1):
        shelf.ship.clock.advance(1)
        await shelf.see(f"c{number}")
    assert "same" in shelf.kept


async def test_the_last_good_copy_is_known_after_a_restart(
    shelf: Shelf, store: Store, clock: ManualClock
) -> None:
    await shelf.see("a")
    await shelf.wait()
    await shelf.see("b")
    await shelf.wait()
    await shelf.see("c")
    shelf.begin()
    assert shelf.copies.last_good(CONF) is None
    await shelf.copies.restore()
    assert shelf.copies.last_good(CONF) == "b"
    assert shelf.copies.last_good(OTHER) is None
