"""What holds midwatch back is obeyed within one step, said once, and what is broken is repaired when it goes."""

from __future__ import annotations

import pytest
from fakes.ship import APP, Ship, remedy

from actuators.base import Action
from daemon.act.holds import switch_off, switch_on
from daemon.model.domain import Mode, State


async def set_hold(ship: Ship, kind: str, lasts: float | None = None) -> None:
    if kind == "file":
        ship.hold_file.touch()
    else:
        await ship.store.write(lambda tx: switch_on(tx, ship.clock, kind, "anna", "release", lasts))


async def end_hold(ship: Ship, kind: str) -> None:
    if kind == "file":
        ship.hold_file.unlink()
    else:
        await ship.store.write(lambda tx: switch_off(tx, kind, "anna"))


HOLDS = pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("pause", "paused by anna: release"),
        ("hold:deploy", "held (deploy) by anna: release"),
        ("file", "held: path:"),
    ],
)


@HOLDS
async def test_a_hold_is_obeyed_told_once_and_repaired_when_it_goes(ship: Ship, kind: str, says: str) -> None:
    await set_hold(ship, kind)
    ship.heals("restart")
    incident = await ship.fire()
    assert await ship.steps(incident, 5) == [1.0] * 5
    (told,) = await ship.told("trigger")
    assert told.startswith(f"ops: nothing is done: {says}")
    assert (ship.hands.did, await ship.kinds("intent")) == ([], [])

    await end_hold(ship, kind)
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}"]
    assert len(await ship.told("resolve")) == 1


@HOLDS
async def test_a_hold_is_obeyed_and_not_told_again_after_a_restart(ship: Ship, kind: str, says: str) -> None:
    await set_hold(ship, kind)
    incident = await ship.fire()
    await ship.step(incident)
    ship.embark()
    assert await ship.step(incident) == 1.0
    assert len(await ship.told("trigger")) == 1
    assert ship.hands.did == []


@HOLDS
@pytest.mark.parametrize("steps", range(1, 9))
async def test_whenever_a_hold_begins_nothing_is_intended_after_it(
    ship: Ship, kind: str, says: str, steps: int
) -> None:
    ship.remedies(remedy("restore", "reload", within=1))
    incident = await ship.fire()
    await ship.steps(incident, steps)
    intended = len(await ship.attempts())
    await set_hold(ship, kind)
    for _ in range(6):
        await ship.step(incident)
        ship.clock.advance(1)
    assert len(await ship.attempts()) == intended
    assert len(ship.hands.did) == intended


async def test_a_pause_between_two_steps_waits_and_then_goes_on_with_the_second(ship: Ship) -> None:
    ship.remedies(remedy("restore", "reload"))
    ship.heals("reload")
    incident = await ship.fire()

    async def pause(action: Action) -> None:
        ship.hands.on_apply = None
        await set_hold(ship, "pause")

    ship.hands.on_apply = pause
    await ship.steps(incident, 8)
    assert (await ship.state(incident), ship.hands.did) == (State.ACTING, [f"restore {APP}"])
    await end_hold(ship, "pause")
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restore {APP}", f"reload {APP}"]
    assert (await ship.row(incident)).held is None


async def test_what_a_failed_remedy_did_is_not_taken_back_during_a_hold(ship: Ship) -> None:
    ship.remedies(remedy("restart", within=5), remedy("start"))
    ship.heals("start")
    incident = await ship.fire()
    await ship.sail(incident, State.VERIFYING)
    await set_hold(ship, "file")
    for _ in range(30):
        await ship.step(incident)
        ship.clock.advance(1)
    assert ship.hands.did == [f"restart {APP}"]
    assert len(await ship.told("trigger")) == 1

    await end_hold(ship, "file")
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}", f"undo restart {APP}", f"start {APP}"]


async def test_what_goes_away_during_a_hold_is_over(ship: Ship) -> None:
    await set_hold(ship, "pause")
    incident = await ship.fire()
    await ship.step(incident)
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED


async def test_a_hold_that_runs_out_needs_nobody(ship: Ship) -> None:
    await set_hold(ship, "hold:deploy", lasts=600)
    ship.heals("restart")
    incident = await ship.fire()
    assert await ship.step(incident) == 1.0
    ship.clock.advance(600)
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}"]


async def test_another_hold_is_told_of_too(ship: Ship) -> None:
    await set_hold(ship, "hold:deploy")
    incident = await ship.fire()
    await ship.step(incident)
    await set_hold(ship, "pause")
    await ship.steps(incident, 3)
    assert [
        text.partition(": nothing is done: ")[2].partition(" by")[0] for text in await ship.told("trigger")
    ] == [
        "held (deploy)",
        "paused",
    ]


async def test_while_only_observing_people_are_told_what_would_be_done(ship: Ship) -> None:
    ship.mode = Mode.OBSERVE
    incident = await ship.fire()
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert f"would do command.restart on {APP}, but mode is observe" in await ship.reason(incident)
    assert (ship.hands.did, await ship.told("ask")) == ([], [])
