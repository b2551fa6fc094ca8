"""The executor: an effect only after its intent, its outcome after it, and at most once whatever is interrupted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes.ship import APP, Ship

from actuators.base import Action, Outcome, Probe, Result
from daemon.clock import ManualClock
from daemon.model.domain import Proposal, Severity
from daemon.store.store import Store

RESTART = Proposal("command.restart", APP)


@pytest.fixture
def ship(store: Store, clock: ManualClock, tmp_path: Path) -> Ship:
    return Ship(store, clock, tmp_path)


async def intend(ship: Ship, incident: str = "i-1", target: str = APP) -> str:
    passage = await ship.gate.judge(incident, Proposal("command.restart", target), Severity.ERROR)
    assert passage.way == "intended"
    return passage.key


async def test_the_intent_is_on_record_before_the_effect_and_the_outcome_after_it(ship: Ship) -> None:
    seen: list[list[str]] = []

    async def look(action: Action) -> None:
        seen.append([*await ship.kinds("intent", "outcome"), *await ship.locks()])

    ship.hands.on_apply = look
    key = await intend(ship)
    outcome = await ship.executor.run(key)

    assert seen == [["intent", APP]]
    assert outcome.result is Result.SUCCEEDED
    assert await ship.kinds("intent", "outcome") == ["intent", "outcome"]
    assert (await ship.locks(), ship.hands.keys) == ([], [key])
    (attempt,) = await ship.attempts()
    assert (attempt.result, attempt.ended_at) == ("succeeded", ship.clock.wall())


async def test_equal_actions_have_keys_of_their_own(ship: Ship) -> None:
    keys = []
    for incident in ("i-1", "i-1", "i-2"):
        keys.append(await intend(ship, incident))
        await ship.executor.run(keys[-1])
    assert len(set(keys)) == 3


@pytest.mark.parametrize("change", ["state", "ready"])
async def test_a_target_that_changed_since_it_was_judged_is_left_alone(ship: Ship, change: str) -> None:
    key = await intend(ship)
    if change == "state":
        ship.hands.states[APP] = "other"
    else:
        ship.hands.not_ready["restart"] = "it is gone"
    outcome = await ship.executor.run(key)

    assert outcome.result is Result.REFUSED
    assert outcome.reason in ("the target changed since it was judged", "it is gone")
    assert (ship.hands.did, await ship.locks()) == ([], [])


async def test_a_state_that_json_spells_otherwise_is_the_same_state(ship: Ship) -> None:
    ship.hands.states[APP] = ("a", {"b": (1, 2)})
    assert (await ship.executor.run(await intend(ship))).result is Result.SUCCEEDED


@pytest.mark.parametrize("result", [Result.FAILED, Result.TIMED_OUT, Result.REFUSED, Result.UNKNOWN])
async def test_however_an_effect_ends_its_outcome_is_on_record_and_the_lock_is_free(
    ship: Ship, result: Result
) -> None:
    ship.hands.outcomes["restart"] = Outcome(result, "exit 3", {"exit": 3})
    assert (await ship.executor.run(await intend(ship))).result is result
    (attempt,) = await ship.attempts()
    assert (attempt.result, attempt.reason, attempt.detail) == (result, "exit 3", {"exit": 3})
    assert await ship.locks() == []


async def test_an_effect_that_is_not_there_afterwards_failed(ship: Ship) -> None:
    ship.hands.vain = {"restart"}
    outcome = await ship.executor.run(await intend(ship))
    assert (outcome.result, outcome.reason) == (Result.FAILED, "the effect is not there after the action")


@pytest.mark.parametrize("undone", [False, True])
async def test_told_to_stop_in_the_midst_of_an_effect_the_effect_ends_and_its_outcome_is_on_record(
    ship: Ship, undone: bool
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(action: Action) -> None:
        begun.set()
        await go_on.wait()

    key = await intend(ship)
    if undone:
        await ship.executor.run(key)
    ship.hands.on_apply = slowly
    work = asyncio.ensure_future(ship.executor.undo(key) if undone else ship.executor.run(key))
    await begun.wait()
    work.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert [attempt.result for attempt in await ship.attempts()][-1] == ("undone" if undone else "succeeded")
    assert await ship.locks() == []


# interrupted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "result"),
    [("happened", Result.SUCCEEDED), ("did-not", Result.FAILED), ("cannot-tell", Result.UNKNOWN)],
)
async def test_an_interrupted_attempt_is_probed_and_never_run(
    ship: Ship, answer: Probe, result: Result
) -> None:
    key = await intend(ship)
    ship.embark()
    ship.hands.answer = answer
    assert (await ship.executor.settle(key)).result is result
    assert (ship.hands.probes, ship.hands.did, await ship.locks()) == ([key], [], [])


@pytest.mark.parametrize(
    ("answer", "result"),
    [("happened", Result.FAILED), ("did-not", Result.UNDONE), ("cannot-tell", Result.UNKNOWN)],
)
async def test_an_interrupted_undoing_is_settled_by_a_probe_of_what_it_undoes(
    ship: Ship, answer: Probe, result: Result
) -> None:
    key = await intend(ship)
    await ship.executor.run(key)

    async def crash(action: Action) -> None:
        raise RuntimeError("killed")

    ship.hands.on_apply = crash
    with pytest.raises(RuntimeError):
        await ship.executor.undo(key)
    (undo,) = [attempt for attempt in await ship.attempts() if attempt.undo_of]
    assert (undo.undo_of, undo.result, await ship.locks()) == (key, None, [APP])

    ship.hands.answer = answer
    assert (await ship.executor.settle(undo.key)).result is result
    assert (ship.hands.probes, await ship.locks()) == ([key], [])


async def test_an_action_that_is_no_more_configured_cannot_be_probed_so_nobody_knows(ship: Ship) -> None:
    key = await intend(ship)
    ship.hands.verbs = {"start": "the only one left"}
    outcome = await ship.executor.settle(key)
    assert outcome.result is Result.UNKNOWN
    assert "there is no action 'command.restart'" in outcome.reason
    assert await ship.locks() == []


# undoing ------------------------------------------------------------------------------------------------------------


async def test_taking_back_is_an_effect_with_an_intent_of_its_own(ship: Ship) -> None:
    key = await intend(ship)
    await ship.executor.run(key)
    outcome = await ship.executor.undo(key)

    assert outcome is not None
    assert outcome.result is Result.UNDONE
    assert ship.hands.did == [f"restart {APP}", f"undo restart {APP}"]
    assert [row["undo_of"] for row in await ship.journal("intent")] == [None, key]
    done, undo = await ship.attempts()
    assert (done.result, undo.result, undo.undo_of) == ("succeeded", "undone", key)
    assert await ship.locks() == []


async def test_taking_back_waits_while_another_works_on_the_target(ship: Ship) -> None:
    mine = await intend(ship)
    await ship.executor.run(mine)
    other = await intend(ship, "i-2")

    assert await ship.executor.undo(mine) is None
    assert ship.hands.did == [f"restart {APP}"]
    await ship.executor.run(other)
    assert await ship.executor.undo(mine) is not None


async def test_what_is_not_configured_any_more_cannot_be_taken_back(ship: Ship) -> None:
    assert ship.executor.undoable("command.restart")
    ship.hands.verbs = {}
    assert not ship.executor.undoable("command.restart")


async def test_one_lock_a_target_however_many_want_it(ship: Ship) -> None:
    at_work: dict[str, int] = {}

    async def counted(action: Action) -> None:
        at_work[action.target] = at_work.get(action.target, 0) + 1
        assert at_work[action.target] == 1
        await asyncio.sleep(0.001)
        at_work[action.target] -= 1

    async def one(number: int) -> None:
        target = (APP, "service:db")[number % 2]
        proposal = Proposal("command.restart", target)
        while (passage := await ship.gate.judge(f"i-{number}", proposal, Severity.ERROR)).way == "busy":
            await asyncio.sleep(0.001)
        assert passage.way == "intended"
        await ship.executor.run(passage.key)

    ship.hands.on_apply = counted
    await asyncio.gather(*(one(number) for number in range(10)))
    assert len(ship.hands.did) == 10
    assert await ship.locks() == []
