"""What keeps the hands still."""

from __future__ import annotations

from pathlib import Path

from daemon.act.holds import Holds, switch_off, switch_on
from daemon.clock import ManualClock
from daemon.store.store import Store


async def on(store: Store, clock: ManualClock, name: str, lasts: float | None = None, why: str = "") -> None:
    await store.write(lambda tx: switch_on(tx, clock, name, "anna", why, lasts))


async def off(store: Store, name: str) -> bool:
    return await store.write(lambda tx: switch_off(tx, name, "ben"))


async def test_a_pause_is_named_before_every_hold(store: Store, clock: ManualClock) -> None:
    holds = Holds((), clock)
    assert await store.read(holds.switched) == ""
    await on(store, clock, "hold:deploy", why="release 7")
    assert await store.read(holds.switched) == "held (deploy) by anna: release 7"
    await on(store, clock, "pause")
    assert await store.read(holds.switched) == "paused by anna"
    assert await off(store, "pause")
    assert await off(store, "hold:deploy")
    assert await store.read(holds.switched) == ""
    assert not await off(store, "hold:deploy")


async def test_a_hold_runs_out_by_itself_whatever_the_wall_clock_says(
    store: Store, clock: ManualClock
) -> None:
    holds = Holds((), clock)
    await on(store, clock, "hold:deploy", lasts=600)
    clock.step_wall(86400)
    clock.advance(599)
    assert await store.read(holds.switched)
    clock.advance(1)
    assert await store.read(holds.switched) == ""


async def test_a_hold_outlives_a_reboot(store: Store, clock: ManualClock) -> None:
    await on(store, clock, "hold:deploy", lasts=600)
    clock.reboot("boot-2", downtime=60)
    assert await store.read(Holds((), clock).switched)
    clock.advance(541)
    assert await store.read(Holds((), clock).switched) == ""


async def test_holding_again_replaces_the_hold(store: Store, clock: ManualClock) -> None:
    await on(store, clock, "hold:deploy", lasts=60, why="first")
    await on(store, clock, "hold:deploy", lasts=6000, why="second")
    clock.advance(100)
    assert await store.read(Holds((), clock).switched) == "held (deploy) by anna: second"


def test_a_hold_file_holds_while_it_exists_and_a_directory_while_something_lies_in_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    place = tmp_path / "hold"
    holds = Holds([f"path:{place}"], clock)
    assert holds.outside() == ""
    place.touch()
    assert holds.outside() == f"held: path:{place}"
    place.unlink()
    place.mkdir()
    assert holds.outside() == ""
    (place / "backup").touch()
    assert holds.outside()


def test_a_dangling_link_is_a_hold_file_too(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "hold").symlink_to("nowhere")
    assert Holds([f"path:{tmp_path}/hold"], clock).outside()


def test_a_place_that_cannot_be_looked_at_holds(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "loop").symlink_to("loop")
    condition = f"path:{tmp_path}/loop/hold"
    assert (
        Holds([condition], clock).outside().startswith(f"held: {condition} cannot be read: Too many levels")
    )


def test_a_fresh_boot_holds(clock: ManualClock) -> None:
    holds = Holds(["boot < 10m"], clock)
    assert holds.outside() == ""
    clock.reboot("boot-2")
    assert holds.outside() == "held: boot < 10m"
    clock.advance(595)
    assert holds.outside() == ""
