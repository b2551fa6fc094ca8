"""The gate: every answer it gives, what it writes down for it, and that limits hold however many ask at once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from fakes.policies import policy
from fakes.ship import ALLOW, APP, ASK, Ship
from hypothesis import given
from hypothesis import strategies as st

from actuators.base import Action
from daemon.act.holds import switch_on
from daemon.clock import ManualClock
from daemon.escalate import approvals
from daemon.gate import Passage
from daemon.model.domain import Mode, Proposal, Severity
from daemon.model.policy import Facts, Request
from daemon.policy.engine import decide
from daemon.store.store import Store, Tx

RESTART = Proposal("command.restart", APP)


@pytest.fixture
def ship(store: Store, clock: ManualClock, tmp_path: Path) -> Ship:
    return Ship(store, clock, tmp_path)


async def judge(ship: Ship, proposal: Proposal = RESTART, incident: str = "i-1", **more: Any) -> Passage:
    return await ship.gate.judge(incident, proposal, Severity.ERROR, **more)


async def approved(ship: Ship, passage: Passage, incident: str = "i-1") -> str:
    """Ask what the gate wants asked, and have anna say yes."""
    action = passage.action
    assert action is not None

    def work(tx: Tx) -> str:
        about: dict[str, Any] = {"action": action.id, "target": action.target, "params": {}}
        asked = approvals.ask(
            tx,
            ship.clock,
            incident=incident,
            digest=passage.digest,
            rule="ask-first",
            wanted=None,
            **about,
        )
        approvals.vote(tx, ship.clock, asked, "anna", True, "")
        return asked

    return await ship.store.write(work)


# allowed ------------------------------------------------------------------------------------------------------------


async def test_an_allowed_proposal_is_an_intent_with_its_lock_before_anything_is_done(ship: Ship) -> None:
    passage = await judge(ship)

    assert passage.way == "intended"
    (attempt,) = await ship.attempts()
    assert (attempt.key, attempt.action, attempt.target) == (passage.key, "command.restart", APP)
    assert (attempt.result, attempt.rule) == (None, "allow-all")
    assert await ship.locks() == [APP]
    assert await ship.kinds("verdict", "intent") == ["verdict", "intent"]
    assert ship.hands.did == []


async def test_a_verdict_is_journaled_with_all_that_it_rests_on_and_can_be_had_again(ship: Ship) -> None:
    await judge(ship)
    await ship.executor.run((await ship.attempts())[0].key)
    passage = await judge(ship)

    told = (await ship.journal("verdict"))[-1]
    again = decide(ship.policy, Request.from_json(told["request"]), Facts.from_json(told["facts"]))
    assert again == passage.verdict
    assert told["verdict"]["rule"] == "allow-all"
    assert told["verdict"]["where"].endswith("site.toml:3")
    assert told["facts"]["mode"] == "act"


async def test_the_target_is_judged_under_its_canonical_name(ship: Ship) -> None:
    ship.hands.aliases = {"unit:ssh.service": "unit:sshd.service"}
    await judge(ship, Proposal("command.restart", "unit:ssh.service"))

    assert await ship.locks() == ["unit:sshd.service"]
    assert (await ship.journal("verdict"))[0]["request"]["target"] == "unit:sshd.service"


async def test_what_follows_from_the_answer_is_committed_with_it_or_not_at_all(ship: Ship) -> None:
    def then(tx: Tx, passage: Passage) -> None:
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        await judge(ship, then=then)
    assert (await ship.attempts(), await ship.locks(), await ship.kinds("verdict", "intent")) == ([], [], [])


# not allowed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "mode", "way", "says"),
    [
        ("", Mode.ACT, "denied", "no rule speaks of command.restart"),
        (ALLOW + '[[rule]]\nid = "no"\neffect = "deny"\naction = ["*.*"]\n', Mode.ACT, "denied", "no denies"),
        (ALLOW, Mode.OBSERVE, "shadow", "mode is observe"),
        (ALLOW, Mode.SHADOW, "shadow", "mode is shadow"),
        (ALLOW + 'mode = "shadow"\n', Mode.ACT, "shadow", "allow-all is in shadow"),
        (ALLOW, Mode.ASK, "ask", "mode is ask"),
        (ASK, Mode.ACT, "ask", "ask-first asks a person"),
    ],
)
async def test_what_policy_does_not_let_pass_leaves_a_verdict_and_nothing_else(
    ship: Ship, rules: str, mode: Mode, way: str, says: str
) -> None:
    ship.rules(rules)
    ship.mode = mode
    passage = await judge(ship)

    assert (passage.way, says in passage.reason) == (way, True)
    assert (await ship.attempts(), await ship.locks()) == ([], [])
    assert len(await ship.journal("verdict")) == 1


@pytest.mark.parametrize(
    ("proposal", "says"),
    [
        (Proposal("command.restrat", APP), "no action 'command.restrat'; the nearest are command.restart"),
        (Proposal("unit.restart", APP), "no action 'unit.restart'"),
        (
            Proposal("command.restart", "service:apq"),
            "service:apq is not in the inventory; the nearest are app",
        ),
        (Proposal("command.restart", "service:APP"), "service:APP"),
        (Proposal("command.restart", "nonsense"), "nonsense"),
        (Proposal("command.restart", APP, {"shell": "rm"}), "it takes no shell; it takes copy"),
    ],
)
async def test_what_does_not_exist_is_refused_with_what_does(
    ship: Ship, proposal: Proposal, says: str
) -> None:
    passage = await judge(ship, proposal)

    assert passage.way == "refused"
    assert says in passage.reason
    (told,) = await ship.journal("proposal.refused")
    assert (told["action"], told["target"]) == (proposal.action, proposal.target)
    assert await ship.kinds("verdict", "intent") == []


async def test_an_alias_may_not_lead_out_of_the_inventory(ship: Ship) -> None:
    ship.hands.aliases = {APP: "service:other"}
    assert (await judge(ship)).way == "refused"


async def test_preconditions_that_do_not_hold_refuse(ship: Ship) -> None:
    ship.hands.not_ready["restart"] = "nginx -t fails"
    passage = await judge(ship)

    assert (passage.way, passage.reason) == ("refused", "nginx -t fails")
    assert await ship.kinds("verdict") == []


# held, busy, stale --------------------------------------------------------------------------------------------------


async def test_a_pause_holds_everything_and_says_who(ship: Ship) -> None:
    await ship.store.write(lambda tx: switch_on(tx, ship.clock, "pause", "anna", "release", None))
    passage = await judge(ship)

    assert (passage.way, passage.reason) == ("held", "paused by anna: release")
    assert await ship.attempts() == []


async def test_a_hold_file_holds(ship: Ship) -> None:
    ship.hold_file.touch()
    assert (await judge(ship)).way == "held"
    ship.hold_file.unlink()
    assert (await judge(ship)).way == "intended"


async def test_one_target_is_worked_on_for_one_incident_at_a_time(ship: Ship) -> None:
    first = await judge(ship)
    second = await judge(ship, incident="i-2")
    assert (second.way, second.reason) == ("busy", f"{APP} is being worked on for i-1")

    await ship.executor.run(first.key)
    assert (await judge(ship, incident="i-2")).way == "intended"


async def test_what_another_did_while_the_target_was_looked_at_makes_that_look_worthless(ship: Ship) -> None:
    other = await judge(ship)

    async def meanwhile(action: Action) -> None:
        ship.hands.before_check = None
        await ship.executor.run(other.key)

    ship.hands.before_check = meanwhile
    passage = await judge(ship, incident="i-2")
    assert (passage.way, passage.reason) == ("busy", f"{APP} was worked on while it was looked at")


async def test_a_target_that_is_not_ready_because_another_works_on_it_is_busy_not_refused(ship: Ship) -> None:
    await judge(ship)
    ship.hands.not_ready["restart"] = "it is stopping"
    assert (await judge(ship, incident="i-2")).way == "busy"


@pytest.mark.parametrize("target", [APP, "service:nowhere"])
async def test_a_question_that_lost_its_ground_changes_nothing(ship: Ship, target: str) -> None:
    followed: list[Passage] = []
    passage = await judge(
        ship,
        Proposal("command.restart", target),
        stale=lambda tx: True,
        then=lambda tx, passage: followed.append(passage),
    )
    assert (passage.way, followed) == ("stale", [])
    assert await ship.kinds("verdict", "intent", "proposal.refused") == []


# approvals ----------------------------------------------------------------------------------------------------------


async def test_an_approval_is_used_up_in_the_transaction_of_the_intent(ship: Ship) -> None:
    ship.rules(ASK)
    approval = await approved(ship, await judge(ship))

    passage = await judge(ship, approval=approval)
    assert (passage.way, passage.reason) == ("intended", "approved by anna")
    assert (await ship.asked("i-1")).state == "used"

    await ship.executor.run(passage.key)
    assert (await judge(ship, approval=approval)).way == "ask"


async def test_an_approval_is_not_used_up_when_the_intent_fails(ship: Ship) -> None:
    ship.rules(ASK)
    approval = await approved(ship, await judge(ship))

    def then(tx: Tx, passage: Passage) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await judge(ship, approval=approval, then=then)
    assert (await ship.asked("i-1")).state == "approved"


@pytest.mark.parametrize("change", ["state", "action", "target", "params"])
async def test_an_approval_counts_for_exactly_this_action_in_this_state(ship: Ship, change: str) -> None:
    ship.rules(ASK)
    approval = await approved(ship, await judge(ship))
    others = {
        "action": Proposal("command.start", APP),
        "target": Proposal("command.restart", "service:db"),
        "params": Proposal("command.restart", APP, {"copy": "x"}),
    }
    if change == "state":
        ship.hands.states[APP] = "other"

    passage = await judge(ship, others.get(change, RESTART), approval=approval)
    assert passage.way == "ask"
    assert (await ship.asked("i-1")).state == "approved"


async def test_an_approval_of_something_else_does_not_stand_in_the_way_of_a_rule_that_allows(
    ship: Ship,
) -> None:
    ship.rules(ASK)
    approval = await approved(ship, await judge(ship))
    ship.rules(ALLOW)
    ship.hands.states[APP] = "other"

    assert (await judge(ship, approval=approval)).way == "intended"
    assert (await ship.asked("i-1")).state == "approved"


async def test_a_deny_beats_an_approval(ship: Ship) -> None:
    ship.rules(ASK)
    approval = await approved(ship, await judge(ship))
    ship.rules(ASK + '[[rule]]\nid = "no"\neffect = "deny"\naction = ["*.*"]\n')

    assert (await judge(ship, approval=approval)).way == "denied"
    assert (await ship.asked("i-1")).state == "approved"


# limits -------------------------------------------------------------------------------------------------------------

LIMITED = """
[groups]
fleet = ["service:app", "service:web", "service:db", "service:api"]
[[rule]]
id           = "limited"
effect       = "allow"
action       = ["command.*"]
rate         = ["{per_target}/1h per target", "{per_rule}/24h per rule"]
blast_radius = {{ group = "fleet", max = {wide}, within = "1h" }}
"""
TARGETS = ("service:app", "service:web", "service:db", "service:api")


async def rush(ship: Ship, asked: list[str], dice: random.Random) -> list[Passage]:
    """Everybody at once, each as often as it is told to come back, those who may act acting at once or later."""

    async def one(number: int, target: str) -> Passage:
        while True:
            await asyncio.sleep(dice.random() / 1000)
            passage = await judge(ship, Proposal("command.restart", target), f"i-{number}")
            if passage.way == "intended":
                await asyncio.sleep(dice.random() / 1000)
                await ship.executor.run(passage.key)
            if passage.way != "busy":
                return passage

    return list(await asyncio.gather(*(one(number, target) for number, target in enumerate(asked))))


@given(
    asked=st.lists(st.sampled_from(TARGETS), min_size=2, max_size=12),
    per_target=st.integers(1, 3),
    per_rule=st.integers(1, 6),
    wide=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
async def test_no_limit_is_ever_exceeded_however_many_ask_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[str],
    per_target: int,
    per_rule: int,
    wide: int,
    seed: int,
) -> None:
    directory = tmp_path_factory.mktemp("limits")
    clock = ManualClock()
    store = await Store.open(directory / "midwatch.db", clock, ballast_size=0)
    try:
        ship = Ship(store, clock, directory)
        ship.policy = policy(directory, LIMITED.format(per_target=per_target, per_rule=per_rule, wide=wide))
        passages = await rush(ship, asked, random.Random(seed))
        touched = [attempt.target for attempt in await ship.attempts()]
        left = await ship.locks()
    finally:
        await store.close()

    assert len(touched) == sum(passage.way == "intended" for passage in passages) >= 1
    assert len(touched) <= per_rule
    assert max(touched.count(target) for target in TARGETS) <= per_target
    assert len(set(touched)) <= wide
    assert left == []


async def test_a_cooldown_lets_one_of_many_pass_and_the_next_one_after_it(ship: Ship) -> None:
    ship.rules(ALLOW + 'cooldown = "10m"\n')
    passages = await rush(ship, [APP] * 8, random.Random(1))
    assert [passage.way for passage in passages].count("intended") == 1

    ship.clock.advance(599)
    assert (await judge(ship)).way == "denied"
    ship.clock.advance(1)
    assert (await judge(ship)).way == "intended"


async def test_age_is_measured_on_the_boot_clock_and_by_the_wall_only_over_a_reboot(ship: Ship) -> None:
    ship.rules(ALLOW + 'cooldown = "10m"\n')
    await ship.executor.run((await judge(ship)).key)
    ship.clock.step_wall(86400)
    assert (await judge(ship)).way == "denied"

    ship.clock.reboot("boot-2", downtime=0)
    ship.clock.step_wall(-2 * 86400)
    assert (await judge(ship)).way == "denied"
    ship.clock.step_wall(3 * 86400)
    assert (await judge(ship)).way == "intended"


async def test_an_attempt_that_was_refused_touched_nothing_and_counts_for_nothing(ship: Ship) -> None:
    ship.rules(ALLOW + 'cooldown = "10m"\n')
    passage = await judge(ship)
    ship.hands.not_ready["restart"] = "gone"
    await ship.executor.run(passage.key)
    ship.hands.not_ready.clear()
    assert (await judge(ship)).way == "intended"


async def test_the_newest_attempts_come_first_also_when_the_wall_clock_was_set_back(ship: Ship) -> None:
    ship.rules(ALLOW + 'rate = ["9/1h per target"]\n')
    for back in (0, -3600, 0):
        ship.clock.step_wall(back)
        ship.clock.advance(10)
        await ship.executor.run((await judge(ship)).key)
    await judge(ship)
    ages = [past["age"] for past in (await ship.journal("verdict"))[-1]["facts"]["past"]]
    assert ages == sorted(ages)
    assert len(ages) == 3
