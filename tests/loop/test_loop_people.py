"""What people do and hear: closing, merging, calling, and the end of it, once for each channel that was told."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.ship import ALLOW, APP, ASK, Fixed, Ship, remedy

from actuators.base import Action
from daemon.escalate.oncall import OnCall, Step
from daemon.model.domain import Severity, State

WEB = "service:web"


async def escalated(ship: Ship, **more: Any) -> str:
    ship.remedies()
    incident = await ship.fire(**more)
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    return incident


# over ---------------------------------------------------------------------------------------------------------------


async def test_the_end_is_told_once_to_each_channel_that_was_told(ship: Ship) -> None:
    incident = await escalated(ship, severity=Severity.CRITICAL)
    assert [channel for channel, _ in await ship.messages("trigger")] == ["ops", "pager"]
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert await ship.step(incident) is None
    assert await ship.told("resolve") == ["ops: it is over", "pager: it is over"]


async def test_an_end_that_was_told_is_not_told_again_when_nothing_was_said_since(ship: Ship) -> None:
    incident = await escalated(ship)
    await ship.clear()
    await ship.sail(incident)
    assert await ship.fire() == incident
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert len(await ship.told("resolve")) == 1


async def test_trouble_that_was_told_again_has_its_end_told_again(ship: Ship) -> None:
    incident = await escalated(ship)
    await ship.clear()
    await ship.sail(incident)
    await ship.fire()
    await ship.sail(incident, State.ESCALATED)
    await ship.clear()
    await ship.sail(incident)
    assert len(await ship.told("trigger")) == len(await ship.told("resolve")) == 2


async def test_a_channel_that_was_only_asked_hears_of_the_end_too(ship: Ship) -> None:
    ship.people_channels = {"anna": ("anna-phone",)}
    ship.rules(ASK.replace("{ expires", '{ from = ["anna"], expires'))
    ship.embark()
    incident = await ship.fire()
    await ship.sail(incident, State.WAITING)
    await ship.clear()
    await ship.sail(incident)
    assert await ship.told("resolve") == ["anna-phone: it went away by itself"]


# a person closes it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["check", "apply", "look", "diagnose"])
async def test_what_a_person_closed_meanwhile_stays_closed(ship: Ship, when: str) -> None:
    fixed = ship.remedies(remedy("restart"))
    incident = await ship.fire()

    async def close(*what: object) -> None:
        await ship.close(incident)

    if when == "check":
        ship.hands.before_check = close
    elif when == "apply":
        ship.hands.on_apply = close
    elif when == "look":
        ship.world.on_look = close
    else:
        fixed.on_diagnose = close
    assert await ship.sail(incident) is State.RESOLVED
    assert await ship.step(incident) is None
    assert await ship.reason(incident) == "anna closed it"
    assert ship.hands.did == ([f"restart {APP}"] if when == "apply" else [])
    assert (await ship.locks(), await ship.told("resolve")) == ([], [])


@pytest.mark.parametrize("number", range(1, 8))
async def test_closed_between_any_two_steps_nothing_more_is_done(ship: Ship, number: int) -> None:
    ship.remedies(remedy("restart", within=1), remedy("start"))
    incident = await ship.fire()
    for _ in range(number):
        ship.clock.advance(await ship.step(incident) or 0)
    done = list(ship.hands.did)
    await ship.close(incident)
    assert await ship.step(incident) is None
    assert (await ship.state(incident), ship.hands.did) == (State.RESOLVED, done)


async def test_what_was_closed_and_came_again_during_an_action_begins_anew(ship: Ship) -> None:
    incident = await ship.fire()

    async def close(action: Action) -> None:
        ship.hands.on_apply = None
        await ship.close(incident)
        await ship.clear()
        await ship.fire()

    ship.hands.on_apply = close
    assert await ship.sail(incident, State.OPEN) is State.OPEN
    assert await ship.locks() == []


async def test_a_refusal_that_comes_too_late_does_not_move_a_closed_incident(ship: Ship) -> None:
    incident = await ship.fire()

    async def close(action: Action) -> None:
        await ship.close(incident)

    ship.hands.before_check = close
    ship.hands.not_ready["restart"] = "gone"
    assert await ship.sail(incident) is State.RESOLVED
    assert await ship.kinds("proposal.refused") == []


# merged, and deeper -------------------------------------------------------------------------------------------------


async def test_an_incident_that_is_merged_while_its_target_is_looked_at_does_not_act(ship: Ship) -> None:
    ship.remedies(remedy("restart", target=WEB))
    symptom = await ship.fire(resource=WEB)

    async def root(action: Action) -> None:
        ship.hands.before_check = None
        await ship.fire(resource="service:db")

    ship.hands.before_check = root
    assert await ship.step(symptom) == 0
    row = await ship.row(symptom)
    assert (row.resource, row.state, ship.hands.did) == ("service:db", "open", [])


async def test_an_incident_that_became_part_of_another_is_over_and_says_so(ship: Ship) -> None:
    ship.rules(ASK)
    ship.remedies(remedy("restart"))
    web, jobs = await ship.fire(resource=WEB), await ship.fire(resource="service:jobs")
    for incident in (web, jobs):
        await ship.sail(incident, State.WAITING)
    await ship.fire()  # what both of them hang on

    assert await ship.step(jobs) is None
    assert (await ship.state(jobs), await ship.reason(jobs)) == (
        State.RESOLVED,
        f"it is one trouble with {web}",
    )
    assert await ship.told("resolve") == [f"ops: it is one trouble with {web}"]
    assert not (await ship.vote(jobs)).counted
    assert await ship.step(jobs) is None
    await ship.step(web)
    assert (await ship.row(web)).resource == APP


async def test_an_incident_that_becomes_part_of_another_while_its_target_is_looked_at_does_not_act(
    ship: Ship,
) -> None:
    ship.hold_file.touch()
    web, jobs = await ship.fire(resource=WEB), await ship.fire(resource="service:jobs")
    await ship.step(jobs)  # people are told of the hold, so the incident stays on record
    ship.hold_file.unlink()

    async def root(action: Action) -> None:
        ship.hands.before_check = None
        await ship.fire()

    ship.hands.before_check = root
    assert await ship.sail(jobs) is State.RESOLVED
    assert (await ship.reason(jobs), ship.hands.did) == (f"it is one trouble with {web}", [])


async def test_an_incident_that_is_no_more_is_let_go(ship: Ship) -> None:
    assert await ship.step("i-20990101-0001") is None


async def test_a_root_found_deeper_while_something_is_done_is_not_lost(ship: Ship) -> None:
    """What is being done is finished and taken back; the rest of the story starts from the deeper root."""
    fixed = ship.remedies(remedy("restart", within=5))

    async def deeper(action: Action) -> None:
        ship.hands.on_apply = None
        await ship.fire(resource="service:db")

    ship.hands.on_apply = deeper
    incident = await ship.fire(resource=WEB)
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert (await ship.row(incident)).resource == "service:db"
    assert ship.hands.did == [f"restart {APP}", f"undo restart {APP}"]
    assert len(fixed.cases) == 1


# calling ------------------------------------------------------------------------------------------------------------


async def test_people_are_called_until_somebody_answers(ship: Ship) -> None:
    ship.oncall = OnCall((Step(("phone",)), Step(("boss",), after=600.0)), repeat=900.0)
    ship.embark()
    incident = await escalated(ship)
    assert await ship.step(incident) == 600.0
    ship.clock.advance(600)
    assert await ship.step(incident) == 900.0
    assert [channel for channel, _ in await ship.messages("trigger")] == ["ops", "phone", "boss"]

    await ship.set(incident, acked_by="anna")
    ship.clock.advance(900)
    assert await ship.step(incident) is None
    assert len(await ship.messages("trigger")) == 3


async def test_a_fault_of_our_own_is_told_and_changes_nothing(ship: Ship) -> None:
    incident = await ship.fire()
    await ship.loop.stumbled(incident, "KeyError: 'x'")
    assert await ship.told("trigger") == [
        "ops: midwatch does not get on with this, look yourself: KeyError: 'x'"
    ]
    assert await ship.state(incident) is State.OPEN
    await ship.close(incident)
    await ship.loop.stumbled(incident, "again")
    await ship.loop.stumbled("i-nowhere", "again")
    assert len(await ship.told("trigger")) == 1


async def test_a_reload_takes_effect_with_the_next_proposal(ship: Ship) -> None:
    ship.rules("")
    ship.reasoner = Fixed([remedy("start"), remedy("restart")])
    ship.embark()
    incident = await ship.fire()
    await ship.step(incident)
    ship.rules(ALLOW)
    await ship.step(incident)
    assert ship.hands.did == [f"restart {APP}"]
