"""Asking people: what becomes of the question, and of the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes.ship import ALLOW, APP, ASK, Ship, remedy

from actuators.base import Outcome, Result
from daemon.act.holds import switch_on
from daemon.escalate.oncall import OnCall, Step
from daemon.model.domain import State

ASK_RELOAD = (
    ALLOW
    + """
[[rule]]
id     = "reload-asks"
effect = "require-approval"
action = ["command.reload"]
"""
)


async def waiting(ship: Ship, rules: str = ASK) -> str:
    ship.rules(rules)
    incident = await ship.fire()
    assert await ship.sail(incident, State.WAITING) is State.WAITING
    return incident


async def test_asked_approved_done(ship: Ship) -> None:
    ship.heals("restart")
    incident = await waiting(ship)
    asked = await ship.asked(incident)
    (question,) = await ship.told("ask")
    assert (
        question == f"ops: {APP} crashed. May command.restart be done on {APP}? midwatch approve {asked.id}"
    )
    assert ship.hands.did == []

    await ship.vote(incident)
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}"]
    assert (await ship.asked(incident)).state == "used"
    assert await ship.told("resolve") == [f"ops: repaired: command.restart on {APP}"]


async def test_the_question_names_rule_and_line_and_goes_to_those_who_may_answer(ship: Ship) -> None:
    ship.people_channels = {"anna": ("anna-phone",), "ben": ("ben-phone",)}
    ship.embark()
    await waiting(ship, ASK.replace("{ expires", '{ from = ["anna", "ben"], quorum = 2, expires'))
    messages = await ship.messages("ask")
    assert [channel for channel, _ in messages] == ["anna-phone", "ben-phone"]
    assert messages[0][1]["details"]["rule"] == f"ask-first at {ship.directory}/site.toml:3"
    assert messages[0][1]["approval"] is not None


async def test_as_many_must_say_yes_as_the_rule_says(ship: Ship) -> None:
    incident = await waiting(ship, ASK.replace("{ expires", "{ quorum = 2, expires"))
    await ship.vote(incident, person="anna")
    await ship.steps(incident, 2)
    assert await ship.state(incident) is State.WAITING
    await ship.vote(incident, person="ben")
    await ship.step(incident)
    assert ship.hands.did == [f"restart {APP}"]


async def test_a_no_goes_to_a_person(ship: Ship) -> None:
    ship.remedies(remedy("restart"), remedy("start"))
    incident = await waiting(ship)
    await ship.vote(incident, yes=False)
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert await ship.reason(incident) == f"anna said no: command.restart on {APP}"
    assert ship.hands.did == []


async def test_silence_is_a_no(ship: Ship) -> None:
    incident = await waiting(ship)
    assert await ship.step(incident) == 3600.0
    ship.clock.advance(3600)
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert await ship.reason(incident) == f"nobody answered in time: command.restart on {APP}"
    assert not (await ship.vote(incident)).counted
    assert ship.hands.did == []


async def test_approved_twice_at_once_acts_once(ship: Ship) -> None:
    ship.heals("restart")
    incident = await waiting(ship)
    votes = await asyncio.gather(*(ship.vote(incident, person=name) for name in ("anna", "ben")))
    assert sorted(vote.counted for vote in votes) == [False, True]
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}"]


@pytest.mark.parametrize("answered", [False, True])
async def test_an_approval_outlives_a_restart(ship: Ship, answered: bool) -> None:
    ship.heals("restart")
    incident = await waiting(ship)
    if answered:
        await ship.vote(incident)
    ship.embark()
    if not answered:
        await ship.vote(incident)
    assert await ship.sail(incident) is State.RESOLVED
    assert len(await ship.told("ask")) == 1


@pytest.mark.parametrize("answered", [False, True])
async def test_an_approval_does_not_outlive_a_reboot_and_is_asked_for_again(
    ship: Ship, answered: bool
) -> None:
    incident = await waiting(ship)
    first = await ship.asked(incident)
    if answered:
        await ship.vote(incident)
    ship.clock.reboot("boot-2")
    ship.embark()
    await ship.step(incident)
    assert await ship.sail(incident, State.WAITING) is State.WAITING

    second = await ship.asked(incident)
    assert (second.id != first.id, second.state, ship.hands.did) == (True, "pending", [])
    assert len(await ship.told("ask")) == 2


async def test_approved_too_late_nothing_is_done_and_people_hear_of_it(ship: Ship) -> None:
    incident = await waiting(ship)
    await ship.vote(incident)

    async def look(resources: object) -> None:
        await ship.clear()

    ship.world.on_look = look
    assert await ship.sail(incident) is State.RESOLVED
    assert await ship.told("resolve") == ["ops: approved too late: the fault is gone; nothing was done"]
    assert ((await ship.asked(incident)).state, ship.hands.did) == ("void", [])


async def test_a_question_whose_fault_is_gone_cannot_be_answered_any_more(ship: Ship) -> None:
    incident = await waiting(ship)
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert not (await ship.vote(incident)).counted
    assert await ship.reason(incident) == "it went away by itself"


async def test_a_no_stays_a_no_also_when_the_fault_is_gone(ship: Ship) -> None:
    incident = await waiting(ship)
    await ship.vote(incident, yes=False)
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert (await ship.asked(incident)).state == "rejected"


async def test_a_state_that_changed_since_it_was_asked_is_asked_again(ship: Ship) -> None:
    incident = await waiting(ship)
    first = await ship.asked(incident)
    await ship.vote(incident)
    ship.hands.states[APP] = "other"
    await ship.step(incident)

    assert await ship.state(incident) is State.WAITING
    assert (await ship.asked(incident)).id != first.id
    assert ship.hands.did == []


async def test_when_the_rules_allow_it_by_now_the_old_answer_is_not_needed_and_not_left_lying(
    ship: Ship,
) -> None:
    incident = await waiting(ship)
    await ship.vote(incident)
    ship.rules(ALLOW)
    ship.hands.states[APP] = "other"
    await ship.step(incident)
    assert ship.hands.did == [f"restart {APP}"]
    assert (await ship.asked(incident)).state == "void"


async def test_when_the_rules_deny_it_by_now_a_yes_does_not_help(ship: Ship) -> None:
    incident = await waiting(ship)
    await ship.vote(incident)
    ship.rules("")
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert ((await ship.asked(incident)).state, ship.hands.did) == ("void", [])


async def test_a_yes_during_a_pause_waits_for_its_end(ship: Ship) -> None:
    incident = await waiting(ship)
    await ship.store.write(lambda tx: switch_on(tx, ship.clock, "pause", "ben", "", None))
    await ship.vote(incident)
    assert await ship.steps(incident, 3) == [1.0, 1.0, 1.0]
    assert (await ship.asked(incident)).state == "approved"
    assert len(await ship.told("trigger")) == 1


# a step in the midst of a remedy ------------------------------------------------------------------------------------


async def half_done(ship: Ship) -> str:
    ship.rules(ASK_RELOAD)
    ship.remedies(remedy("restore", "reload"), remedy("restart"))
    incident = await ship.fire()
    assert await ship.sail(incident, State.WAITING) is State.WAITING
    assert ship.hands.did == [f"restore {APP}"]
    return incident


async def test_a_later_step_may_ask_on_its_own(ship: Ship) -> None:
    ship.heals("reload")
    incident = await half_done(ship)
    await ship.vote(incident)
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restore {APP}", f"reload {APP}"]


@pytest.mark.parametrize("silent", [False, True])
async def test_a_no_in_the_midst_takes_back_what_was_done_and_is_not_gone_around(
    ship: Ship, silent: bool
) -> None:
    incident = await half_done(ship)
    if silent:
        ship.clock.advance(86400)
    else:
        await ship.vote(incident, yes=False)
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert ship.hands.did == [f"restore {APP}", f"undo restore {APP}"]
    assert ("nobody answered" if silent else "anna said no") in await ship.reason(incident)


async def test_after_a_reboot_the_same_step_is_asked_again(ship: Ship) -> None:
    ship.heals("reload")
    incident = await half_done(ship)
    ship.clock.reboot("boot-2")
    ship.embark()
    await ship.step(incident)
    assert await ship.sail(incident, State.WAITING) is State.WAITING
    await ship.vote(incident)
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restore {APP}", f"reload {APP}"]


async def test_an_approved_remedy_that_fails_goes_on_like_any_other(ship: Ship) -> None:
    ship.hands.outcomes["reload"] = Outcome(Result.FAILED, "syntax error")
    ship.heals("restart")
    incident = await half_done(ship)
    await ship.vote(incident)
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did[-2:] == [f"undo restore {APP}", f"restart {APP}"]


# quiet hours and calling ----------------------------------------------------------------------------------------------

QUIET = """
[windows]
night = { hours = "22:00-07:00", tz = "UTC" }
""" + ASK.replace("{ expires", '{ quiet = "night", expires')
MIDNIGHT = 1_704_240_000.0


async def test_in_quiet_hours_the_question_keeps_until_the_morning(ship: Ship) -> None:
    ship.clock.step_wall(MIDNIGHT - ship.clock.wall())
    ship.rules(QUIET)
    incident = await ship.fire()
    await ship.sail(incident, State.INVESTIGATING)
    assert await ship.step(incident) == 60.0
    assert (await ship.row(incident)).held == "quiet hours of ask-first"
    assert (await ship.told("ask"), await ship.told("trigger")) == ([], [])

    ship.clock.advance(7 * 3600)
    assert await ship.sail(incident, State.WAITING) is State.WAITING
    assert len(await ship.told("ask")) == 1
    assert (await ship.row(incident)).held is None


async def test_what_goes_away_in_quiet_hours_disturbs_nobody(ship: Ship) -> None:
    ship.clock.step_wall(MIDNIGHT - ship.clock.wall())
    ship.rules(QUIET)
    incident = await ship.fire()
    await ship.steps(incident, 3)
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert (await ship.told("ask"), await ship.told("resolve")) == ([], [])


async def test_a_question_that_nobody_answers_begins_to_call_people(ship: Ship) -> None:
    ship.oncall = OnCall((Step(("phone",)), Step(("boss",), after=300.0)))
    ship.embark()
    incident = await waiting(ship, ASK.replace("{ expires", '{ escalate_after = "10m", expires'))
    assert await ship.step(incident) == 600.0
    calls: list[Any] = []
    for _ in range(2):
        ship.clock.advance(600 if not calls else 300)
        await ship.step(incident)
        calls = await ship.told("trigger")
    asked = await ship.asked(incident)
    says = f"May command.restart be done on {APP}? midwatch approve {asked.id}"
    assert calls == [f"phone: {says}", f"boss: {says}"]


async def test_a_later_question_without_it_calls_nobody(ship: Ship) -> None:
    ship.oncall = OnCall((Step(("phone",)),))
    ship.embark()
    incident = await waiting(ship, ASK.replace("{ expires", '{ escalate_after = "10m", expires'))
    ship.rules(ASK)
    await ship.vote(incident)
    ship.hands.states[APP] = "other"
    await ship.step(incident)
    ship.clock.advance(1200)
    await ship.step(incident)
    assert await ship.told("trigger") == []
