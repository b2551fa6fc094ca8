"""What is over and old goes; the chain stays provable and what is under way stays."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select

from daemon.clock import ManualClock
from daemon.store import journal
from daemon.store.store import Store, Tx
from daemon.store.tables import INCIDENT, JOURNAL, OUTBOX, SIGNAL

DAY = 86400.0


def incident(tx: Tx, name: str, state: str, resolved_at: float | None) -> None:
    values = {
        "severity": 2,
        "resource": "host",
        "title": "",
        "opened_at": tx.now,
        "changed_at": tx.now,
        "remedy": 0,
        "step": 0,
    }
    values |= {"attempts": 0, "reason": "", "oncall_step": 0, "reopened": 0}
    tx.conn.execute(insert(INCIDENT).values(id=name, state=state, resolved_at=resolved_at, **values))
    signal(tx, f"of {name}", name)
    message(tx, f"of {name}", name, "sent")


def signal(tx: Tx, name: str, of: str | None, state: str = "cleared") -> None:
    values: dict[str, Any] = {
        "key": "",
        "severity": 2,
        "at": tx.now,
        "fired_at": tx.now,
        "summary": "",
        "tainted": False,
        "seq": 1,
    }
    row: dict[str, Any] = {
        "fingerprint": name,
        "name": name,
        "resource": "host",
        "state": state,
        "incident": of,
        "flaps": 0,
        "values": {},
    }
    tx.conn.execute(insert(SIGNAL).values(**row, **values))


def message(tx: Tx, name: str, of: str | None, state: str) -> None:
    row: dict[str, Any] = {
        "id": name,
        "channel": "ops",
        "incident": of,
        "event": "trigger",
        "state": state,
        "tries": 1,
        "due": 0.0,
        "created": tx.now,
    }
    tx.conn.execute(insert(OUTBOX).values(**row, error="", message={}))


def names(conn: Connection) -> tuple[set[str], set[str], set[str]]:
    found = [
        set(conn.execute(select(column)).scalars())
        for column in (INCIDENT.c.id, SIGNAL.c.fingerprint, OUTBOX.c.id)
    ]
    return found[0], found[1], found[2]


async def test_what_ended_long_ago_is_dropped_with_all_that_belonged_to_it(
    store: Store, clock: ManualClock
) -> None:
    def life(tx: Tx) -> None:
        incident(tx, "over", "resolved", tx.now)
        incident(tx, "open", "escalated", None)
        signal(tx, "context", None)
        signal(tx, "still there", None, "firing")
        message(tx, "test", None, "sent")
        message(tx, "waiting", None, "pending")

    await store.write(life)
    clock.advance(89 * DAY)
    await store.write(lambda tx: incident(tx, "lately", "resolved", tx.now))
    clock.advance(2 * DAY)
    await store.keep_house(90 * DAY)
    incidents, signals, messages = await store.read(names)
    assert incidents == {"open", "lately"}
    assert signals == {"of open", "of lately", "still there"}
    assert messages == {"of open", "of lately", "waiting"}


async def test_rows_go_in_whole_segments_and_the_chain_stays_provable(
    store: Store, clock: ManualClock
) -> None:
    for _ in range(10):
        for _ in range(5):
            await store.write(lambda tx: tx.record("x", {"filler": "y" * 100}))
        clock.advance(DAY)
        await store.keep_house(3.5 * DAY)
        report = await store.read(journal.verify)
        assert report.problems == []
    rows = await store.read(lambda conn: conn.execute(select(func.count()).select_from(JOURNAL)).scalar_one())
    assert report.segments == 10
    assert rows < 30
    assert rows + report.dropped == int(report.head.partition(":")[0])


async def test_a_flood_of_rows_is_bounded_whatever_its_age(store: Store) -> None:
    def flood(tx: Tx) -> None:
        for _ in range(journal.MOST_SEGMENTS + 3):
            tx.record("x", {})
            journal.seal(tx.conn, tx.now, rows=1)
        journal.drop_before(tx.conn, tx.now, 1e9)

    await store.write(flood)
    report = await store.read(journal.verify)
    assert report.problems == []
    assert report.dropped == 3
