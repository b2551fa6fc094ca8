"""Whatever is interrupted, wherever: an effect is had at most once, and every incident comes to an end."""

from __future__ import annotations

import pytest
from fakes.ship import APP, Killed, Ship, remedy

from actuators.base import Action, Outcome, Probe, Result
from daemon.model.domain import State


async def killed_in(ship: Ship, effect: str) -> str:
    """An incident whose process died in the midst of this effect."""

    async def die(action: Action) -> None:
        if ship.hands.did[-1] == effect:
            ship.hands.on_apply = None
            raise Killed

    ship.hands.on_apply = die
    incident = await ship.fire()
    with pytest.raises(Killed):
        await ship.sail(incident)
    ship.embark()
    return incident


@pytest.mark.parametrize(
    ("answer", "state", "did"),
    [
        ("happened", State.RESOLVED, ["restart"]),
        ("did-not", State.RESOLVED, ["restart", "start"]),
        ("cannot-tell", State.ESCALATED, ["restart"]),
    ],
)
async def test_an_intent_left_open_is_probed_and_never_run(
    ship: Ship, answer: Probe, state: State, did: list[str]
) -> None:
    ship.hands.answer = answer
    ship.remedies(remedy("restart"), remedy("start"))
    ship.heals("restart" if answer == "happened" else "start")
    incident = await killed_in(ship, f"restart {APP}")

    assert await ship.sail(incident, State.ESCALATED) is state
    assert ship.hands.did == [f"{what} {APP}" for what in did]
    assert (len(ship.hands.probes), await ship.locks()) == (1, [])


async def test_an_intent_that_was_not_even_begun_is_probed_too(ship: Ship) -> None:
    ship.hands.answer = "did-not"
    incident = await ship.fire()
    await ship.killed_before_acting(incident)
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert (ship.hands.did, len(ship.hands.probes)) == ([], 1)


@pytest.mark.parametrize("result", [Result.SUCCEEDED, Result.FAILED, Result.UNKNOWN])
async def test_a_crash_between_the_outcome_and_what_follows_loses_nothing(ship: Ship, result: Result) -> None:
    ship.hands.outcomes["restart"] = Outcome(result, "so it went")
    ship.heals("restart" if result is Result.SUCCEEDED else "start")
    ship.remedies(remedy("restart"), remedy("start"))
    incident = await ship.fire()
    await ship.executor.run(await ship.killed_before_acting(incident))

    ends = {Result.SUCCEEDED: ["restart"], Result.FAILED: ["restart", "start"], Result.UNKNOWN: ["restart"]}
    await ship.sail(incident, State.ESCALATED)
    assert ship.hands.did == [f"{what} {APP}" for what in ends[result]]
    assert ship.hands.probes == []


async def test_a_crash_in_the_second_step_does_not_repeat_the_first(ship: Ship) -> None:
    ship.hands.answer = "happened"
    ship.remedies(remedy("restore", "reload"))
    ship.heals("reload")
    incident = await killed_in(ship, f"reload {APP}")
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restore {APP}", f"reload {APP}"]


@pytest.mark.parametrize(
    ("answer", "state"),
    [("did-not", State.RESOLVED), ("happened", State.ESCALATED), ("cannot-tell", State.ESCALATED)],
)
async def test_an_interrupted_undoing_is_settled_by_a_probe(ship: Ship, answer: Probe, state: State) -> None:
    ship.hands.answer = answer
    ship.remedies(remedy("restore", within=5), remedy("restart"))
    ship.heals("restart")
    incident = await killed_in(ship, f"undo restore {APP}")

    assert await ship.sail(incident, State.ESCALATED) is state
    assert ship.hands.did.count(f"undo restore {APP}") == 1
    assert (f"restart {APP}" in ship.hands.did) == (state is State.RESOLVED)


async def test_an_undoing_that_failed_before_a_crash_is_not_taken_for_done_after_it(ship: Ship) -> None:
    ship.remedies(remedy("restore", within=5), remedy("restart"))
    ship.hands.outcomes["undo restore"] = Outcome(Result.FAILED, "the backup is gone")
    incident = await ship.fire()
    while f"undo restore {APP}" not in ship.hands.did:
        ship.clock.advance(await ship.step(incident) or 0)
    await ship.set(incident, state="verifying")
    ship.embark()

    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert ship.hands.did == [f"restore {APP}", f"undo restore {APP}"]


async def test_an_undoing_waits_for_another_incident_that_works_on_the_target(ship: Ship) -> None:
    ship.remedies(remedy("restart", within=5))
    incident = await ship.fire()
    while not (await ship.row(incident)).diagnosis or not (await ship.row(incident)).diagnosis["failed"]:
        ship.clock.advance(await ship.step(incident) or 0)
    other = await ship.fire(resource="service:api")
    key = await ship.killed_before_acting(other)

    assert await ship.steps(incident, 2) == [1.0, 1.0]
    await ship.executor.run(key)
    await ship.step(incident)
    assert ship.hands.did == [f"restart {APP}", f"restart {APP}", f"undo restart {APP}"]


async def test_a_start_finds_every_incident_where_it_stood(ship: Ship) -> None:
    """Killed after each single step, the story is the same as without."""
    ship.remedies(remedy("restore", "reload", within=5), remedy("restart"))
    ship.heals("restart")
    ship.hands.answer = "did-not"
    incident = await ship.fire()
    for _ in range(200):
        if (wait := await ship.step(incident)) is None:
            break
        ship.clock.advance(wait)
        ship.embark()
    assert await ship.state(incident) is State.RESOLVED
    did = ["restore", "reload", "undo reload", "undo restore", "restart"]
    assert ship.hands.did == [f"{what} {APP}" for what in did]


async def test_an_actuator_that_is_gone_after_a_restart_goes_to_a_person(ship: Ship) -> None:
    incident = await ship.fire()
    await ship.killed_before_acting(incident)
    ship.hands.verbs = {"start": "the only one left"}
    ship.embark()
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert "there is no action 'command.restart'" in await ship.reason(incident)
    assert await ship.locks() == []


async def test_what_was_done_by_an_actuator_that_is_gone_cannot_be_taken_back(ship: Ship) -> None:
    ship.remedies(remedy("restart", within=5), remedy("start"))
    ship.heals("start")
    incident = await ship.fire()
    await ship.sail(incident, State.VERIFYING)
    ship.hands.verbs = {"start": "the only one left"}
    ship.embark()
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}", f"start {APP}"]
