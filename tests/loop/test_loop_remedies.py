"""From a diagnosis through its remedies: what is tried, in which order, what is taken back, and when a person is called."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes.ship import ALLOW, APP, Ship, remedy

from actuators.base import Action, Outcome, Result
from daemon.model.domain import Mode, State
from daemon.reason import runbooks
from daemon.reason.runbooks import RunbookReasoner

NO_START = (
    ALLOW
    + '[[rule]]\nid = "no-start"\neffect = "deny"\naction = ["command.start"]\nreason = "asked not to"\n'
)


async def test_a_fault_is_diagnosed_repaired_proven_and_told_to_nobody_who_was_not_told_before(
    ship: Ship,
) -> None:
    ship.heals("restart")
    incident = await ship.fire()

    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}"]
    assert await ship.reason(incident) == f"repaired: command.restart on {APP}"
    kinds = await ship.kinds(
        "incident.opened", "diagnosis", "verdict", "intent", "outcome", "proof", "incident.resolved"
    )
    assert kinds == [
        "incident.opened",
        "diagnosis",
        "verdict",
        "intent",
        "outcome",
        "proof",
        "incident.resolved",
    ]
    assert await ship.told("resolve") == []
    (attempt,) = await ship.attempts()
    assert attempt.verified is True


async def test_what_goes_away_by_itself_is_left_alone(ship: Ship) -> None:
    incident = await ship.fire()
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert await ship.reason(incident) == "it went away before anything was done"
    assert ship.hands.did == []


async def test_an_unknown_cause_is_handed_over_with_the_evidence(ship: Ship) -> None:
    ship.reasoner = RunbookReasoner([])
    ship.embark()
    incident = await ship.fire(summary="http 500, 12 of 12")
    await ship.note("config-changed", APP)

    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    knows = f"no runbook knows config-changed, service-down on {APP}; nothing to try"
    assert await ship.reason(incident) == knows
    ((channel, message),) = await ship.messages("trigger")
    assert (channel, message["summary"]) == ("ops", knows)
    assert message["details"]["signals"][0] == "http 500, 12 of 12"
    (diagnosis,) = await ship.journal("diagnosis")
    assert (diagnosis["cause"], len(diagnosis["evidence"])) == ("unknown", 2)


async def test_a_denied_remedy_gives_way_to_the_next_one(ship: Ship) -> None:
    ship.rules(NO_START)
    ship.remedies(remedy("start"), remedy("restart"))
    ship.heals("restart")
    incident = await ship.fire()
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}"]


@pytest.mark.parametrize("way", ["denied", "refused", "shadow"])
async def test_when_nothing_may_be_done_a_person_hears_what_and_why(ship: Ship, way: str) -> None:
    if way == "denied":
        ship.rules(NO_START)
    elif way == "refused":
        ship.hands.not_ready["start"] = "its unit is masked"
    else:
        ship.mode = Mode.OBSERVE
    ship.remedies(remedy("start"))
    incident = await ship.fire()

    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    (told,) = await ship.told("trigger")
    says = {
        "denied": f"command.start on {APP} denied by no-start at {ship.directory}/site.toml:7: asked not to",
        "refused": f"command.start on {APP} refused: its unit is masked",
        "shadow": f"would do command.start on {APP}, but mode is observe",
    }
    assert says[way] in told
    assert ship.hands.did == []


async def test_a_policy_of_no_rules_denies_with_what_would_have_to_change(ship: Ship) -> None:
    ship.rules(
        '[[rule]]\nid = "db-only"\neffect = "allow"\naction = ["command.*"]\ntarget = ["service:db"]\n'
    )
    incident = await ship.fire()
    await ship.sail(incident, State.ESCALATED)
    reason = await ship.reason(incident)
    assert f"no rule allows command.restart on {APP}" in reason
    assert "nearly: db-only: target" in reason


async def test_a_remedy_that_fails_is_taken_back_last_step_first_and_the_next_one_tried(ship: Ship) -> None:
    ship.remedies(remedy("restore", "reload", within=10), remedy("restart"))
    ship.heals("restart")
    incident = await ship.fire()

    assert await ship.sail(incident) is State.RESOLVED
    did = ["restore", "reload", "undo reload", "undo restore", "restart"]
    assert ship.hands.did == [f"{what} {APP}" for what in did]
    verified = {attempt.action: attempt.verified for attempt in await ship.attempts() if not attempt.undo_of}
    assert verified == {"command.restore": False, "command.reload": False, "command.restart": True}


@pytest.mark.parametrize("result", [Result.FAILED, Result.TIMED_OUT, Result.REFUSED])
async def test_a_step_that_fails_ends_its_remedy_and_what_was_done_is_taken_back(
    ship: Ship, result: Result
) -> None:
    ship.remedies(remedy("restore", "reload"), remedy("restart"))
    ship.hands.outcomes["reload"] = Outcome(result, "syntax error")
    ship.heals("restart")
    incident = await ship.fire()

    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"{what} {APP}" for what in ("restore", "reload", "undo restore", "restart")]


async def test_what_cannot_be_taken_back_is_left_as_it_is(ship: Ship) -> None:
    ship.hands.undoable = frozenset()
    ship.remedies(remedy("start", within=5), remedy("restart"))
    ship.heals("restart")
    incident = await ship.fire()
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"start {APP}", f"restart {APP}"]


async def test_a_step_that_may_not_follow_has_what_was_done_before_it_taken_back(ship: Ship) -> None:
    ship.rules(NO_START)
    ship.remedies(remedy("restore", "start"))
    incident = await ship.fire()

    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert ship.hands.did == [f"restore {APP}", f"undo restore {APP}"]
    assert "denied by no-start" in await ship.reason(incident)


@pytest.mark.parametrize("result", [Result.FAILED, Result.UNKNOWN, Result.REFUSED])
async def test_when_taking_back_fails_a_person_is_called_and_nothing_more_is_tried(
    ship: Ship, result: Result
) -> None:
    ship.remedies(remedy("restore", within=5), remedy("restart"))
    ship.hands.outcomes["undo restore"] = Outcome(result, "the backup is gone")
    incident = await ship.fire()

    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert "taking command.restore back failed: the backup is gone" in await ship.reason(incident)
    assert ship.hands.did == [f"restore {APP}", f"undo restore {APP}"]


async def test_at_most_three_remedies_are_tried(ship: Ship) -> None:
    verbs = ("start", "restart", "restore", "reload")
    ship.remedies(*(remedy(verb, within=5) for verb in verbs))
    incident = await ship.fire()

    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert [done for done in ship.hands.did if "undo" not in done] == [f"{verb} {APP}" for verb in verbs[:3]]
    reason = await ship.reason(incident)
    assert "3 remedies were tried; no more without a person" in reason
    assert reason.count("did not help") == 3


async def test_what_nobody_can_tell_goes_to_a_person(ship: Ship) -> None:
    ship.hands.outcomes["restart"] = Outcome(Result.UNKNOWN, "the connection broke")
    incident = await ship.fire()
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert await ship.reason(incident) == "command.restart: the connection broke"


async def test_a_second_incident_on_the_same_target_waits_for_its_turn(ship: Ship) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(action: Action) -> None:
        begun.set()
        await go_on.wait()

    ship.hands.on_apply = slowly
    ship.heals("restart")
    first = asyncio.ensure_future(ship.sail(await ship.fire(), State.VERIFYING))
    await begun.wait()
    # Not connected in the graph, but its remedy has the same target.
    second = await ship.fire(resource="service:api")
    assert await ship.steps(second, 3) == [1.0, 1.0, 1.0]
    assert (await ship.state(second), ship.hands.did) == (State.INVESTIGATING, [f"restart {APP}"])

    go_on.set()
    await first
    await ship.step(second)
    assert ship.hands.did == [f"restart {APP}"] * 2


# tried before -------------------------------------------------------------------------------------------------------

RUNBOOK = """
schema = 1
[[runbook]]
id      = "crashed"
signals = ["service-down"]
cause   = "it crashed"
remedy  = [
  { steps = [{ action = "command.start" }], proof = { within = "5s" } },
  { steps = [{ action = "command.restore" }, { action = "command.restart" }], proof = { within = "5s" } },
]
test = [{ signals = ["service-down"] }]
"""


def with_runbook(ship: Ship, directory: Path) -> None:
    path = directory / "runbooks.toml"
    path.write_text(RUNBOOK)
    ship.reasoner = RunbookReasoner(runbooks.load([path]))
    ship.embark()


async def test_what_failed_is_not_tried_again_when_the_incident_is_reopened(
    ship: Ship, tmp_path: Path
) -> None:
    with_runbook(ship, tmp_path)
    ship.heals("restart")
    incident = await ship.fire()
    assert await ship.sail(incident) is State.RESOLVED

    ship.hands.did.clear()
    ship.clock.advance(60)
    assert await ship.fire() == incident
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restore {APP}", f"restart {APP}"]


async def test_an_earlier_diagnosis_leaves_its_attempts_alone(ship: Ship) -> None:
    """A later remedy has the same number as one that was proven before: neither its steps nor its proof are that one's."""
    ship.remedies(remedy("restore", "reload", within=10))
    ship.heals("reload")
    incident = await ship.fire()
    assert await ship.sail(incident) is State.RESOLVED

    ship.hands.did.clear()
    ship.world.on_look = None
    await ship.fire()
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert ship.hands.did == [
        f"{what} {APP}" for what in ("restore", "reload", "undo reload", "undo restore")
    ]
    assert [attempt.verified for attempt in await ship.attempts() if not attempt.undo_of] == [
        True,
        True,
        False,
        False,
    ]


async def test_what_was_repaired_and_came_back_counts_as_tried(ship: Ship) -> None:
    ship.heals("restart")
    incident = await ship.fire()
    for _ in range(3):
        assert await ship.sail(incident) is State.RESOLVED
        ship.hands.did.clear()
        assert await ship.fire() == incident
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert ship.hands.did == []
    assert "3 remedies were tried" in await ship.reason(incident)


async def test_a_remedy_whose_second_step_failed_is_not_proposed_again(ship: Ship) -> None:
    fixed = ship.remedies(remedy("restore", "reload"))
    ship.hands.outcomes["reload"] = Outcome(Result.FAILED, "syntax error")
    incident = await ship.fire()
    await ship.sail(incident, State.ESCALATED)
    await ship.set(incident, state="open", diagnosis=None)

    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert {step.action for step in fixed.cases[-1].tried} == {"command.restore", "command.reload"}
    assert await ship.reason(incident) == f"{APP} crashed; nothing to try"


async def test_what_may_have_happened_is_not_proposed_again(ship: Ship) -> None:
    ship.hands.outcomes["restart"] = Outcome(Result.UNKNOWN, "the connection broke")
    incident = await ship.fire()
    await ship.sail(incident, State.ESCALATED)
    await ship.set(incident, state="open", diagnosis=None)
    await ship.sail(incident, State.ESCALATED)
    assert ship.hands.did == [f"restart {APP}"]


# root before symptom ------------------------------------------------------------------------------------------------


async def test_what_the_root_hangs_on_is_looked_at_before_anything_is_diagnosed(ship: Ship) -> None:
    fixed = ship.remedies(remedy("restart", target="service:db"))

    async def look(resources: object) -> None:
        ship.world.on_look = None
        await ship.fire("service-down", "service:db")

    ship.world.on_look = look
    incident = await ship.fire("service-down", APP)
    await ship.sail(incident, State.VERIFYING)
    assert ship.world.looked[0] == (("service:db",), None)
    assert [case.resource for case in fixed.cases] == ["service:db"]


async def test_trouble_brewing_below_is_waited_for_but_not_for_ever(ship: Ship) -> None:
    fixed = ship.remedies(remedy("restart"))
    ship.world.brews = True
    incident = await ship.fire()
    assert await ship.step(incident) == 0.5
    assert (await ship.state(incident), fixed.cases) == (State.OPEN, [])

    ship.clock.advance(60)
    await ship.step(incident)
    assert len(fixed.cases) == 1


async def test_a_flapping_fault_is_not_acted_upon_while_it_is_clear(ship: Ship) -> None:
    for _ in range(5):
        incident = await ship.fire()
        await ship.clear()
    assert await ship.step(incident) == 10.0
    assert (await ship.state(incident), ship.hands.did) == (State.OPEN, [])

    await ship.fire()
    await ship.sail(incident, State.VERIFYING)
    assert ship.hands.did == [f"restart {APP}"]


async def test_a_flapping_fault_that_stays_away_is_over_in_the_end(ship: Ship) -> None:
    ship.remedies()
    incident = await ship.fire()
    await ship.sail(incident, State.ESCALATED)
    for _ in range(5):
        await ship.fire()
        await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert await ship.reason(incident) == "it is over"


async def test_the_effect_is_never_had_twice_when_writing_its_outcome_fails(ship: Ship) -> None:
    async def crash(action: Action) -> None:
        raise RuntimeError("a fault of ours after the effect")

    ship.hands.on_apply = crash
    ship.hands.answer = "happened"
    ship.heals("restart")
    incident = await ship.fire()
    with pytest.raises(RuntimeError):
        await ship.sail(incident)
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}"]
    assert len(ship.hands.probes) == 1
