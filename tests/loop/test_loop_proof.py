"""The proof: what must be seen after a remedy, from when, for how long and by when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fakes.ship import ALLOW, APP, Ship, remedy

from actuators.base import Action
from daemon.model.domain import State


async def acted(ship: Ship) -> tuple[str, float]:
    """An incident whose remedy has just been done, and when."""
    incident = await ship.fire()
    await ship.sail(incident, State.VERIFYING)
    return incident, ship.clock.wall()


async def test_the_fault_must_be_clear_for_long_enough(ship: Ship) -> None:
    ship.remedies(remedy("restart", clear_for=5))
    incident, begun = await acted(ship)
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.clock.wall() - begun == pytest.approx(5.0, abs=0.5)


async def test_a_fault_that_comes_back_within_that_time_is_not_gone(ship: Ship) -> None:
    ship.remedies(remedy("restart", clear_for=5, within=20))
    incident, _ = await acted(ship)

    async def flicker(resources: Sequence[str]) -> None:
        await (ship.fire if int(ship.clock.wall()) % 4 == 0 else ship.clear)()

    ship.world.on_look = flicker
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert "did not help" in await ship.reason(incident)


async def test_a_proof_not_seen_in_time_fails(ship: Ship) -> None:
    ship.remedies(remedy("restart", within=30))
    incident, begun = await acted(ship)
    await ship.sail(incident, State.ESCALATED)
    assert ship.clock.wall() - begun == pytest.approx(30.0, abs=0.5)
    assert f"command.restart on {APP} did not help: service-down on {APP} still fires" in await ship.reason(
        incident
    )


@pytest.mark.parametrize(("runbook", "service", "waits"), [(4.0, 0.0, 4.0), (0.0, 6.0, 6.0), (4.0, 6.0, 6.0)])
async def test_nothing_is_looked_at_before_the_dust_has_settled(
    ship: Ship, runbook: float, service: float, waits: float
) -> None:
    ship.settles = {APP: service}
    ship.remedies(remedy("restart", settle=runbook))
    incident, _ = await acted(ship)
    ship.world.looked.clear()
    assert await ship.step(incident) == waits
    assert ship.world.looked == []
    ship.clock.advance(waits)
    await ship.step(incident)
    assert ship.world.looked == [((APP,), None)]


async def test_the_time_for_the_proof_begins_when_the_dust_has_settled(ship: Ship) -> None:
    ship.remedies(remedy("restart", settle=10, within=10))
    incident, begun = await acted(ship)
    await ship.sail(incident, State.ESCALATED)
    assert ship.clock.wall() - begun == pytest.approx(20.0, abs=0.5)


async def test_only_the_named_signals_must_be_clear_but_symptoms_have_until_the_end(ship: Ship) -> None:
    """The root clears first, what hangs on it a moment later."""
    ship.remedies(remedy("restart", clear=["service-down"], clear_for=1, within=30))
    incident = await ship.fire()
    await ship.fire("service-slow", "service:web")

    async def look(resources: Sequence[str]) -> None:
        if ship.hands.did:
            await ship.clear()
            if ship.clock.wall() > done + 10:
                await ship.clear("service-slow", "service:web")

    ship.world.on_look = look
    await ship.sail(incident, State.VERIFYING)
    done = ship.clock.wall()
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.clock.wall() > done + 10


async def test_another_fault_that_remains_after_the_proof_is_looked_at_anew(ship: Ship) -> None:
    fixed = ship.remedies(remedy("restart", clear=["service-down"], within=10))
    ship.heals("restart")
    incident = await ship.fire()
    await ship.fire("disk-full", APP, summary="no space on /var")

    await ship.sail(incident, State.VERIFYING)
    assert await ship.sail(incident, State.OPEN) is State.OPEN
    assert await ship.reason(incident) == f"repaired: command.restart on {APP}; but no space on /var"
    (attempt,) = await ship.attempts()
    assert attempt.verified is True
    await ship.step(incident)
    assert [signal.name for signal in fixed.cases[-1].firing] == ["disk-full"]


async def test_information_does_not_stand_in_the_way_of_a_proof(ship: Ship) -> None:
    ship.heals("restart")
    incident = await ship.fire()
    await ship.note("config-changed", APP)
    assert await ship.sail(incident) is State.RESOLVED


# what policy demands ------------------------------------------------------------------------------------------------


def demanding(ship: Ship, verify: str) -> None:
    ship.rules(ALLOW + f"verify = {verify}\n")


async def test_what_policy_demands_comes_on_top_of_the_runbooks_proof(ship: Ship) -> None:
    demanding(ship, '{ signal = "service-down", clear_for = "30s", within = "2m" }')
    ship.remedies(remedy("restart", clear_for=2, within=10))
    incident, begun = await acted(ship)
    await ship.clear()
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.clock.wall() - begun == pytest.approx(30.0, abs=0.5)


async def test_each_proof_has_a_time_of_its_own(ship: Ship) -> None:
    """The runbook's must be seen within its ten seconds, whatever longer one policy grants its own."""
    demanding(ship, '{ signal = "service-down", clear_for = "30s", within = "2m" }')
    ship.remedies(remedy("restart", clear_for=2, within=10))
    incident, begun = await acted(ship)
    await ship.sail(incident, State.ESCALATED)
    assert ship.clock.wall() - begun == pytest.approx(10.0, abs=0.5)


async def test_policy_may_want_the_proof_sooner(ship: Ship) -> None:
    demanding(ship, '{ signal = "service-down", clear_for = "1s", within = "5s" }')
    ship.remedies(remedy("restart", clear_for=1, within=60))
    incident, begun = await acted(ship)
    await ship.sail(incident, State.ESCALATED)
    assert ship.clock.wall() - begun == pytest.approx(5.0, abs=0.5)


async def test_what_one_remedys_rule_demands_is_not_demanded_of_the_next(ship: Ship) -> None:
    demanding(ship, '{ signal = "service-down", clear_for = "30s", within = "40s" }')
    ship.remedies(remedy("start", within=5), remedy("restart", clear_for=1, within=20))
    incident = await ship.fire()
    await ship.sail(incident, State.VERIFYING)
    ship.rules(ALLOW)
    ship.heals("restart")
    done = ship.clock.wall()
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.clock.wall() - done < 20


async def test_a_clock_set_back_after_the_fault_cleared_does_not_undo_a_good_repair(ship: Ship) -> None:
    ship.remedies(remedy("restart", clear_for=5, within=20))
    incident, _ = await acted(ship)
    await ship.clear()
    ship.clock.step_wall(-3600)
    assert await ship.sail(incident) is State.RESOLVED
    assert ship.hands.did == [f"restart {APP}"]


async def test_the_proof_goes_on_after_a_restart(ship: Ship) -> None:
    ship.remedies(remedy("restart", clear_for=5, within=20))
    incident, begun = await acted(ship)
    ship.clock.advance(10)
    ship.embark()
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert ship.clock.wall() - begun == pytest.approx(20.0, abs=0.5)


async def test_what_comes_up_while_the_effect_is_had_counts(ship: Ship) -> None:
    async def worse(action: Action) -> None:
        await ship.fire("service-slow", APP)

    ship.hands.on_apply = worse
    ship.heals("restart")
    ship.remedies(remedy("restart", within=10))
    incident = await ship.fire()
    assert await ship.sail(incident, State.ESCALATED) is State.ESCALATED
    assert "service-slow on service:app still fires" in await ship.reason(incident)
