"""What a reasoner is shown of an incident."""

from __future__ import annotations

from fakes.ship import APP, Ship

from daemon.loop.casebook import RECENT, Casebook, Inventory
from daemon.reason.base import Case


async def case(ship: Ship, incident: str) -> Case:
    casebook = Casebook(
        ship.store, ship.clock, ship.world, Inventory(ship.graph, {APP: {"start": "command.start"}})
    )
    return await casebook.case(await ship.row(incident))


async def test_what_fires_and_what_was_lately_seen_on_the_root_and_its_files(ship: Ship) -> None:
    await ship.note("config-changed", "path:/etc/app.conf", values={"path": "/etc/app.conf"})
    await ship.note("config-changed", "path:/etc/other.conf")
    await ship.note("deployed", "unit:app.service")
    ship.clock.advance(60)
    incident = await ship.fire(values={"status": 500})

    shown = await case(ship, incident)
    assert [(signal.name, signal.values) for signal in shown.firing] == [("service-down", {"status": 500})]
    assert {(signal.name, signal.resource) for signal in shown.recent} == {
        ("service-down", APP),
        ("config-changed", "path:/etc/app.conf"),
        ("deployed", "unit:app.service"),
    }
    assert shown.recent[0].name == "service-down"
    assert len(shown.evidence) == 1
    assert shown.verbs == {APP: {"start": "command.start"}}


async def test_what_is_long_over_is_no_evidence_but_what_still_fires_is(ship: Ship) -> None:
    await ship.note("config-changed", "path:/etc/app.conf")
    await ship.clear("config-changed", "path:/etc/app.conf")
    incident = await ship.fire()
    ship.clock.advance(RECENT + 1)

    shown = await case(ship, incident)
    assert [signal.name for signal in shown.firing] == ["service-down"]
    assert [signal.name for signal in shown.recent] == ["service-down"]


async def test_what_the_root_hangs_on_is_looked_at_with_all_its_parts(ship: Ship) -> None:
    casebook = Casebook(ship.store, ship.clock, ship.world, Inventory(ship.graph))
    assert not await casebook.brewing_below("service:web")
    assert ship.world.looked == [((APP, "path:/etc/app.conf", "unit:app.service", "service:db"), None)]
    ship.world.brews = True
    assert await casebook.brewing_below("service:web")
    assert not await casebook.brewing_below("service:db")


async def test_a_reasoner_reads_through_the_same_way_in(ship: Ship) -> None:
    incident = await ship.fire()
    shown = await case(ship, incident)
    assert await shown.read("http", APP) == []
    assert ship.world.looked == [((APP,), "http")]


async def test_everything_that_an_incident_speaks_of_is_looked_at(ship: Ship) -> None:
    incident = await ship.fire()
    await ship.fire("service-slow", "service:web")
    casebook = Casebook(ship.store, ship.clock, ship.world, Inventory(ship.graph))
    await casebook.look_at_all(incident)
    assert [set(resources) for resources, _ in ship.world.looked] == [{APP, "service:web"}]
