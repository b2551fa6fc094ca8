"""Which incident a signal ends up in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, insert, select, update

from daemon.clock import ManualClock
from daemon.incidents import correlate
from daemon.incidents.correlate import Placed, Placement
from daemon.incidents.graph import Graph
from daemon.model.domain import Severity, Signal, State
from daemon.store.store import Store, Tx
from daemon.store.tables import APPROVAL, INCIDENT, JOURNAL, SIGNAL

GRAPH = Graph(
    {
        "service:web": ["service:api"],
        "service:api": ["service:db"],
        "service:jobs": ["service:db"],
        "service:mail": ["service:relay"],
        "service:report": ["service:db", "service:relay"],
    },
    {"path:/etc/api.toml": "service:api"},
)


class Place:
    """A store with signals put into it one by one."""

    def __init__(
        self, store: Store, clock: ManualClock, rules: Placement | None = None, graph: Graph = GRAPH
    ) -> None:
        self.store = store
        self.clock = clock
        self.rules = rules or Placement()
        self.graph = graph

    async def fire(self, resource: str, name: str = "down", **more: Any) -> Placed:
        return await self._place(resource, name, "firing", **more)

    async def clear(self, resource: str, name: str = "down", **more: Any) -> Placed:
        return await self._place(resource, name, "cleared", **more)

    async def _place(self, resource: str, name: str, state: Any, **more: Any) -> Placed:
        self.clock.advance(1)
        severity = more.pop("severity", Severity.ERROR)
        signal = Signal(name, resource, severity, state, self.clock.wall(), f"{name} on {resource}", **more)

        def work(tx: Tx) -> Placed:
            return correlate.place(tx, signal, self.graph, self.rules, tx.record("signal", {"name": name}))

        return await self.store.write(work)

    async def incidents(self) -> list[Row[Any]]:
        return await self.store.read(correlate.open_incidents)

    async def home(self, resource: str, name: str = "down", key: str = "") -> str | None:
        fingerprint = Signal(name, resource, Severity.ERROR, "firing", 0.0, "", key).fingerprint
        query = select(SIGNAL.c.incident).where(SIGNAL.c.fingerprint == fingerprint)
        home: str | None = await self.store.read(lambda conn: conn.execute(query).scalar())
        return home

    async def set(self, incident: str | None, **values: Any) -> None:
        await self.store.write(
            lambda tx: tx.conn.execute(update(INCIDENT).where(INCIDENT.c.id == incident).values(**values))
        )

    async def resolve(self, incident: str | None) -> None:
        await self.set(incident, state="resolved", resolved_at=self.clock.wall())

    async def kinds(self, incident: str | None) -> list[str]:
        query = select(JOURNAL.c.kind).where(JOURNAL.c.incident == incident).order_by(JOURNAL.c.seq)
        return await self.store.read(lambda conn: list(conn.execute(query).scalars()))


@pytest.fixture
def place(store: Store, clock: ManualClock) -> Place:
    return Place(store, clock)


# dedup, reopen ---------------------------------------------------------------------------------------------------------


async def test_the_same_trouble_is_one_incident(place: Place) -> None:
    first = await place.fire("service:db")
    assert first.how == "opened"
    assert await place.fire("service:db") == Placed(first.incident, "joined")
    await place.clear("service:db")
    assert await place.fire("service:db") == Placed(first.incident, "joined")
    assert len(await place.incidents()) == 1
    row = (await place.incidents())[0]
    assert (row.resource, row.title, row.state) == ("service:db", "down on service:db", "open")


async def test_another_finding_on_the_same_resource_joins_and_raises_the_severity(place: Place) -> None:
    first = await place.fire("service:db", "slow", severity=Severity.WARNING)
    assert (await place.fire("service:db", "down", severity=Severity.CRITICAL)).incident == first.incident
    assert (await place.incidents())[0].severity == Severity.CRITICAL
    await place.fire("service:db", "odd", severity=Severity.WARNING)
    assert (await place.incidents())[0].severity == Severity.CRITICAL


async def test_shortly_after_its_end_it_is_opened_again_and_later_it_is_a_new_one(place: Place) -> None:
    first = (await place.fire("service:db")).incident
    await place.set(first, attempts=2, acked_by="anna")
    await place.clear("service:db")
    await place.resolve(first)
    place.clock.advance(500)
    assert await place.fire("service:db") == Placed(first, "reopened")
    row = (await place.incidents())[0]
    assert (row.reopened, row.attempts, row.acked_by, row.resolved_at) == (1, 2, None, None)
    await place.clear("service:db")
    await place.resolve(first)
    place.clock.advance(700)
    again = await place.fire("service:db")
    assert again.how == "opened"
    assert again.incident != first


async def test_what_clears_is_on_the_incidents_record(place: Place) -> None:
    first = await place.fire("service:db")
    assert await place.clear("service:db") == Placed(first.incident, "cleared")
    await place.clear("service:db")
    assert await place.clear("service:api") == Placed(None, "cleared")
    assert await place.kinds(first.incident) == ["incident.opened", "incident.signal", "incident.signal"]


async def test_numbers_go_on_when_the_clock_is_set_back(place: Place) -> None:
    first = (await place.fire("service:db")).incident
    place.clock.step_wall(-5 * 86400)
    second = (await place.fire("service:relay")).incident
    place.clock.step_wall(5 * 86400)
    third = (await place.fire("host")).incident
    assert [str(name)[-5:] for name in (first, second, third)] == ["-0001", "-0002", "-0003"]


# root before symptom ------------------------------------------------------------------------------------------------------


async def test_a_symptom_joins_the_incident_of_its_cause(place: Place) -> None:
    root = await place.fire("service:db")
    assert await place.fire("service:web") == Placed(root.incident, "joined")
    assert await place.fire("path:/etc/api.toml", "changed") == Placed(root.incident, "joined")
    assert (await place.incidents())[0].resource == "service:db"


async def test_a_cause_takes_over_the_incidents_of_its_symptoms(place: Place) -> None:
    web = await place.fire("service:web", severity=Severity.CRITICAL)
    jobs = await place.fire("service:jobs")
    assert web.incident != jobs.incident
    root = await place.fire("service:db", severity=Severity.WARNING)
    assert root == Placed(web.incident, "joined")
    (row,) = await place.incidents()
    assert (row.resource, row.title, row.severity) == ("service:db", "down on service:db", Severity.CRITICAL)
    assert {await place.home(name) for name in ("service:web", "service:jobs", "service:db")} == {
        web.incident
    }
    assert await place.kinds(jobs.incident) == ["incident.opened", "incident.signal", "incident.merged"]


async def test_what_belongs_to_a_service_stands_for_it(place: Place) -> None:
    opened = await place.fire("path:/etc/api.toml", "broken")
    (row,) = await place.incidents()
    assert (row.resource, row.title) == ("service:api", "broken on path:/etc/api.toml")
    assert await place.fire("service:api") == Placed(opened.incident, "joined")


async def test_two_causes_stay_apart_though_one_symptom_hangs_on_both(place: Place) -> None:
    report = await place.fire("service:report")
    db = await place.fire("service:db")
    relay = await place.fire("service:relay")
    assert db.incident == report.incident
    assert relay.how == "opened"
    assert await place.fire("service:report", "slow") == Placed(db.incident, "joined")
    assert len(await place.incidents()) == 2


async def test_what_lies_beside_is_other_trouble(place: Place) -> None:
    assert (await place.fire("service:api")).incident != (await place.fire("service:jobs")).incident


@pytest.mark.parametrize("state", [State.INVESTIGATING, State.WAITING, State.ESCALATED])
async def test_a_deeper_cause_is_investigated_anew_and_old_questions_are_void(
    place: Place, state: State
) -> None:
    symptom = (await place.fire("service:web")).incident
    await place.set(symptom, state=state.value, diagnosis={"x": 1})
    await place.store.write(lambda tx: approval(tx, "a1", symptom))
    await place.fire("service:db")
    (row,) = await place.incidents()
    assert (row.id, row.state, row.diagnosis) == (symptom, State.OPEN, None)
    assert await approvals(place) == {"a1": "void"}


async def test_what_a_person_took_is_left_to_the_person(place: Place) -> None:
    symptom = (await place.fire("service:web")).incident
    await place.set(symptom, state="escalated", acked_by="anna")
    await place.fire("service:db")
    (row,) = await place.incidents()
    assert (row.state, row.resource) == ("escalated", "service:db")


async def test_what_is_being_done_is_finished_first(place: Place) -> None:
    web = (await place.fire("service:web")).incident
    jobs = (await place.fire("service:jobs")).incident
    await place.set(jobs, state="acting", diagnosis={"x": 1})
    root = await place.fire("service:db")
    assert root == Placed(jobs, "joined")
    (row,) = await place.incidents()
    assert (row.state, row.diagnosis, row.resource) == ("acting", {"x": 1}, "service:db")
    assert await place.home("service:web") == jobs != web


async def test_two_that_are_both_at_work_stay_apart(place: Place) -> None:
    web = (await place.fire("service:web")).incident
    jobs = (await place.fire("service:jobs")).incident
    await place.set(web, state="acting")
    await place.set(jobs, state="verifying")
    await place.fire("service:db")
    assert {row.id for row in await place.incidents()} == {web, jobs}
    assert await place.home("service:jobs") == jobs


async def test_a_merged_incident_that_people_heard_of_stays_to_be_closed(place: Place) -> None:
    web = (await place.fire("service:web")).incident
    jobs = (await place.fire("service:jobs")).incident
    await place.set(jobs, state="waiting")
    await place.store.write(lambda tx: approval(tx, "a1", jobs))
    root = await place.fire("service:db")
    assert root == Placed(web, "joined", (str(jobs),))
    assert [row.id for row in await place.incidents()] == [web]
    gone = await place.store.read(
        lambda conn: conn.execute(select(INCIDENT).where(INCIDENT.c.id == jobs)).one()
    )
    assert (gone.state, gone.merged_into) == ("waiting", web)
    assert await place.store.read(lambda conn: correlate.all_clear(conn, str(jobs), place.clock.wall()))
    assert await approvals(place) == {"a1": "void"}
    assert await place.fire("service:jobs", "slow") == Placed(web, "joined")


def approval(tx: Tx, name: str, incident: str | None) -> None:
    row: dict[str, Any] = {
        "id": name,
        "incident": incident,
        "digest": "",
        "action": "unit.restart",
        "target": "unit:x.service",
    }
    row |= {
        "params": {},
        "rule": "r",
        "approvers": [],
        "quorum": 1,
        "votes": [],
        "state": "pending",
        "boot_id": "b",
        "due": "",
    }
    tx.conn.execute(insert(APPROVAL).values(**row, asked_at=tx.now, reason=""))


async def approvals(place: Place) -> dict[str, str]:
    found = APPROVAL
    rows = await place.store.read(lambda conn: conn.execute(select(found.c.id, found.c.state)).all())
    return {row.id: row.state for row in rows}


# grace ---------------------------------------------------------------------------------------------------------------------


async def test_in_the_grace_nothing_is_opened_and_afterwards_what_still_fires_is(
    store: Store, clock: ManualClock
) -> None:
    place = Place(store, clock, Placement(grace_until=clock.wall() + 60))
    for resource in ("service:web", "service:jobs", "service:relay", "service:db"):
        assert await place.fire(resource) == Placed(None, "grace")
    await place.fire("host", "changed", severity=Severity.INFO)
    await place.clear("service:relay")
    clock.advance(60)
    opened = await store.write(lambda tx: correlate.held_back(tx, GRAPH, place.rules))
    (row,) = await place.incidents()
    assert opened == [row.id, *opened[1:]]
    assert row.resource == "service:db"
    assert await store.write(lambda tx: correlate.held_back(tx, GRAPH, place.rules)) == []


async def test_the_grace_holds_for_logs_as_well_but_an_open_incident_takes_its_own(
    store: Store, clock: ManualClock
) -> None:
    place = Place(store, clock)
    old = (await place.fire("service:db")).incident
    place.rules = Placement(grace_until=clock.wall() + 60)
    assert await place.fire("service:relay", "traceback", tainted=True) == Placed(None, "grace")
    assert await place.fire("service:db") == Placed(old, "joined")
    assert await place.fire("service:web") == Placed(old, "joined")


async def test_after_the_grace_the_same_trouble_goes_on_in_its_incident(
    store: Store, clock: ManualClock
) -> None:
    place = Place(store, clock)
    old = (await place.fire("service:db")).incident
    await place.clear("service:db")
    await place.resolve(old)
    place.rules = Placement(grace_until=clock.wall() + 60)
    assert await place.fire("service:db") == Placed(None, "grace")
    clock.advance(60)
    assert await store.write(lambda tx: correlate.held_back(tx, GRAPH, place.rules)) == [old]
    assert (await place.incidents())[0].reopened == 1


async def test_what_a_person_closed_while_it_fired_is_not_opened_by_a_restart(place: Place) -> None:
    first = (await place.fire("service:db")).incident
    place.clock.advance(5)
    await place.resolve(first)
    assert await place.store.write(lambda tx: correlate.held_back(tx, GRAPH, place.rules)) == []


# context, flapping, bounds ---------------------------------------------------------------------------------------------------


async def test_what_is_only_informational_opens_nothing_and_keeps_nothing_open(place: Place) -> None:
    assert await place.fire("service:db", "changed", severity=Severity.INFO) == Placed(None, "context")
    opened = (await place.fire("service:api")).incident
    assert await place.fire("path:/etc/api.toml", "changed", severity=Severity.INFO) == Placed(
        opened, "context"
    )
    await place.clear("service:api")
    assert await place.store.read(lambda conn: correlate.all_clear(conn, str(opened), place.clock.wall()))


async def test_what_flaps_must_be_quiet_before_it_counts_as_clear(place: Place) -> None:
    opened = (await place.fire("service:db")).incident
    hows = []
    for _ in range(5):
        await place.clear("service:db")
        hows.append((await place.fire("service:db")).how)
    assert hows == ["joined", "joined", "joined", "flapping", "flapping"]

    async def clear() -> bool:
        return await place.store.read(lambda conn: correlate.all_clear(conn, str(opened), place.clock.wall()))

    await place.clear("service:db")
    assert not await clear()
    place.clock.advance(119)
    assert not await clear()
    place.clock.advance(1)
    assert await clear()
    place.clock.step_wall(-3600)
    assert await clear(), "a clock set back must not keep it open"


async def test_firing_again_without_having_cleared_is_no_flap(place: Place) -> None:
    await place.fire("service:db")
    assert {(await place.fire("service:db")).how for _ in range(10)} == {"joined"}


async def test_slow_repetition_is_no_flap(place: Place) -> None:
    hows = set()
    for _ in range(8):
        hows.add((await place.fire("service:db")).how)
        await place.clear("service:db")
        place.clock.advance(300)
    assert "flapping" not in hows


async def test_in_a_flood_of_unrelated_trouble_the_newest_incident_takes_the_rest(
    store: Store, clock: ManualClock
) -> None:
    place = Place(store, clock, Placement(most_open=3))
    for number in range(6):
        last = await place.fire(f"path:/{number}")
    incidents = await place.incidents()
    assert len(incidents) == 3
    assert last == Placed(incidents[-1].id, "joined")


async def test_what_nobody_watches_any_more_is_cleared(place: Place) -> None:
    kept = (await place.fire("service:db", "down", perceiver="p")).incident
    lost = (await place.fire("host", "old-rule", perceiver="p", key="k")).incident
    own = (await place.fire("service:relay", "own", perceiver="")).incident

    def watched(name: str, resource: str, key: str) -> bool:
        return name == "down"

    assert await place.store.write(lambda tx: correlate.retire(tx, watched)) == [lost]
    fires = await place.store.read(
        lambda conn: {i: len(correlate.firing(conn, str(i))) for i in (kept, lost, own)}
    )
    assert fires == {kept: 1, lost: 0, own: 1}


# the whole ---------------------------------------------------------------------------------------------------------------------

LEAVES = 40


def outage() -> tuple[
    Graph, list[tuple[str, str, str]], list[tuple[str, str, str]], list[tuple[str, str, str]]
]:
    """A database that takes forty services in three layers with it, and two faults that have nothing to do with it."""
    depends_on: dict[str, list[str]] = {
        "service:relay": [],
        "service:mail": ["service:relay"],
        "service:list": ["service:relay"],
    }
    for number in range(LEAVES):
        below = "service:db" if number < 8 else f"service:s{number % 8}"
        depends_on[f"service:s{number}"] = [below, "service:dns"]
    owners = {f"path:/srv/s{number}": f"service:s{number}" for number in range(LEAVES)}
    names = ("down", "slow", "errors", "timeouts")
    signals = [
        (f"service:s{n}", name, key) for n in range(LEAVES) for name in names for key in ("", "a", "b")
    ]
    signals += [(path, "stale", "") for path in owners][: 500 - len(signals) - 3]
    signals += [("service:db", name, "") for name in names[:3]]
    relay = [("service:relay", "down", ""), ("service:mail", "errors", "x"), ("service:list", "slow", "")]
    disk = [("host", "disk-full", "/"), ("host", "inodes-full", "/var")]
    return Graph(depends_on, owners), signals, relay, disk


@pytest.mark.parametrize("seed", range(6))
async def test_five_hundred_signals_of_one_outage_and_two_other_faults_are_three_incidents(
    tmp_path: Path, clock: ManualClock, seed: int
) -> None:
    graph, big, relay, disk = outage()
    assert len(big) == 500
    signals = [*big, *relay, *disk]
    random.Random(seed).shuffle(signals)
    store = await Store.open(tmp_path / "midwatch.db", clock, ballast_size=0)

    def work(tx: Tx) -> None:
        for resource, name, key in signals:
            signal = Signal(name, resource, Severity.ERROR, "firing", tx.now, name, key)
            correlate.place(tx, signal, graph, Placement(), tx.record("signal", {"name": name}))

    await store.write(work)
    place = Place(store, clock, graph=graph)
    incidents = {row.id: row.resource for row in await place.incidents()}
    assert sorted(incidents.values()) == ["host", "service:db", "service:relay"]

    async def homes(part: Sequence[tuple[str, str, str]]) -> set[str]:
        return {incidents[str(await place.home(*which))] for which in part}

    assert await homes(big) == {"service:db"}
    assert await homes(relay) == {"service:relay"}
    assert await homes(disk) == {"host"}
    assert await store.read(lambda conn: len(conn.execute(select(INCIDENT)).all())) == 3
    await store.close()
