"""What people ask and tell, through the real client, socket, server, desk and store."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable
from typing import Any

import pytest
from fakes.desk import TOKEN, RunningDesk, place
from sqlalchemy import select, update

from daemon.api.client import Client, Problem, path
from daemon.clock import ManualClock
from daemon.model.domain import Severity, Signal
from daemon.store.journal import set_meta
from daemon.store.store import Store, Tx
from daemon.store.tables import ATTEMPT, INCIDENT, JOURNAL, OUTBOX

ME = getpass.getuser()


async def refused(desk: RunningDesk, work: Callable[[Client], Any], status: int) -> str:
    with pytest.raises(Problem) as caught:
        await desk.by(work)
    assert caught.value.status == status
    return str(caught.value)


def kinds(found: Any) -> list[str]:
    return [line["kind"] for line in found["timeline"]]


async def attempt(store: Store, incident: str, key: str, result: str | None = None) -> None:
    """An intended action, as the gate writes it."""
    row = {
        "key": key,
        "incident": incident,
        "remedy": 0,
        "step": 0,
        "action": "command.restart-api",
        "target": "service:api",
        "params": {"how": "hard"},
        "check_state": {},
        "check_size": {},
        "rule": "r",
        "rule_digest": "",
        "proposed_by": "runbook",
        "boot_id": "boot-1",
        "boottime": 1.0,
        "reason": "",
        "detail": {},
        "result": result,
    }
    await store.write(lambda tx: tx.conn.execute(ATTEMPT.insert().values(**row, at=tx.now)))


async def test_an_empty_watch_has_nothing_to_say(desk: RunningDesk) -> None:
    status = await desk.by(lambda client: client.get("/status"))
    assert set(status) == {"for_you", "wrong", "did", "firing", "held", "blind", "unwatched", "reach", "self"}
    assert not any(
        status[part] for part in ("for_you", "wrong", "did", "firing", "held", "blind", "unwatched")
    )
    assert status["reach"] == {"channels": ["ops"], "undelivered": 0, "waiting": 0}
    assert status["self"]["mode"] == "act"
    assert status["self"]["observe_only"] == ""


async def test_status_puts_what_is_gravest_first(desk: RunningDesk, store: Store) -> None:
    first = await desk.incident()
    asked = await desk.asked(first)
    grave = Signal("disk-full", "path:/var", Severity.CRITICAL, "firing", desk.clock.wall(), "no space")
    second = await store.write(lambda tx: place(tx, grave))
    desk.myself.blindness["logs"] = "permission denied"
    status = await desk.by(lambda client: client.get("/status"))
    assert [incident["id"] for incident in status["wrong"]] == [second, first]
    assert [question["id"] for question in status["for_you"]] == [asked]
    assert status["for_you"][0]["expires_at"] == desk.clock.wall() + 3600
    assert status["blind"] == {"logs": "permission denied"}


async def test_two_approvals_at_once_count_once(desk: RunningDesk) -> None:
    asked = await desk.asked(await desk.incident())
    ask = path("approvals", asked, "approve")
    answers = await asyncio.gather(
        *(desk.by(lambda client: client.post(ask)) for _ in range(2)), return_exceptions=True
    )
    counted = [answer for answer in answers if isinstance(answer, dict)]
    lost = [answer for answer in answers if isinstance(answer, Problem)]
    assert len(counted) == 1
    assert counted[0]["state"] == "approved"
    assert [problem.status for problem in lost] == [409]
    found = await desk.by(lambda client: client.get(path("approvals", asked)))
    assert found["votes"] == [ME]


async def test_a_vote_wakes_the_lane_of_its_incident(desk: RunningDesk) -> None:
    incident = await desk.incident()
    asked = await desk.asked(incident)
    answer = await desk.by(
        lambda client: client.post(path("approvals", asked, "reject"), {"reason": "not now"})
    )
    assert answer["state"] == "rejected"
    assert desk.woken == [incident]


async def test_a_token_votes_as_its_person(desk: RunningDesk) -> None:
    asked = await desk.asked(await desk.incident(), approvers=("anna",))
    ask = path("approvals", asked, "approve")
    assert "may not answer" in await refused(desk, lambda client: client.post(ask), 409)
    answer = await desk.by(lambda client: client.post(ask), TOKEN)
    assert answer["state"] == "approved"


async def test_a_quorum_waits_for_the_second(desk: RunningDesk) -> None:
    asked = await desk.asked(await desk.incident(), quorum=2)
    ask = path("approvals", asked, "approve")
    assert (await desk.by(lambda client: client.post(ask)))["state"] == "pending"
    assert "already" in await refused(desk, lambda client: client.post(ask), 409)
    assert (await desk.by(lambda client: client.post(ask), TOKEN))["state"] == "approved"


async def test_an_expired_question_takes_no_answer(desk: RunningDesk, clock: ManualClock) -> None:
    asked = await desk.asked(await desk.incident())
    clock.advance(3601)
    assert "expired" in await refused(
        desk, lambda client: client.post(path("approvals", asked, "approve")), 409
    )


async def test_acknowledging_is_told_once(desk: RunningDesk, store: Store) -> None:
    incident = await desk.incident()
    await store.write(lambda tx: tx.conn.execute(_sent(tx, incident)))
    for _ in range(2):
        answer = await desk.by(lambda client: client.post(path("incidents", incident, "ack")))
        assert answer == {"incident": incident, "acked_by": ME}
    found = await desk.by(lambda client: client.get(path("incidents", incident)))
    assert found["acked_by"] == ME
    assert [message["event"] for message in found["messages"]] == ["trigger", "acknowledge"]
    assert kinds(found).count("incident.acknowledged") == 1
    assert desk.woken == [incident, incident]


def _sent(tx: Tx, incident: str) -> Any:
    """A message that told a channel of the incident."""
    row = {
        "id": "msg_1",
        "channel": "ops",
        "incident": incident,
        "event": "trigger",
        "message": {},
        "state": "sent",
    }
    return OUTBOX.insert().values(**row, tries=1, due=tx.now, created=tx.now, error="")


async def test_resolving_ends_questions_and_wakes_the_lane(desk: RunningDesk) -> None:
    incident = await desk.incident()
    asked = await desk.asked(incident)
    await desk.by(
        lambda client: client.post(path("incidents", incident, "resolve"), {"reason": "planned work"})
    )
    found = await desk.by(lambda client: client.get(path("incidents", incident)))
    assert found["state"] == "resolved"
    assert found["reason"] == f"{ME} closed it: planned work"
    assert [question["state"] for question in found["approvals"]] == ["void"]
    assert desk.woken == [incident]
    assert "void" in await refused(desk, lambda client: client.post(path("approvals", asked, "approve")), 409)
    assert "over already" in await refused(
        desk, lambda client: client.post(path("incidents", incident, "resolve")), 409
    )
    assert "over already" in await refused(
        desk, lambda client: client.post(path("incidents", incident, "ack")), 409
    )


async def test_an_action_under_way_is_not_resolved_over(desk: RunningDesk, store: Store) -> None:
    incident = await desk.incident()
    await attempt(store, incident, "ab" * 32)
    told = await refused(desk, lambda client: client.post(path("incidents", incident, "resolve")), 409)
    assert "under way (abababababab)" in told
    assert (await desk.by(lambda client: client.get(path("incidents", incident))))["state"] == "open"


async def test_holds_are_listed_until_they_run_out(desk: RunningDesk, clock: ManualClock) -> None:
    await desk.by(
        lambda client: client.post(path("holds", "backup"), {"for": "10m", "reason": "nightly dump"})
    )
    await desk.by(lambda client: client.post("/pause", {"reason": "moving racks"}))
    (desk.path.parent / "hold").touch()
    held = await desk.by(lambda client: client.get("/holds"))
    assert [hold["name"] for hold in held] == ["pause", "hold:backup", "condition"]
    assert held[1] == {
        "name": "hold:backup",
        "by": ME,
        "reason": "nightly dump",
        "at": clock.wall(),
        "until": clock.wall() + 600,
    }
    clock.advance(601)
    assert [hold["name"] for hold in await desk.by(lambda client: client.get("/holds"))] == [
        "pause",
        "condition",
    ]


async def test_releasing_wakes_what_was_held(desk: RunningDesk) -> None:
    incident = await desk.incident()
    await desk.by(lambda client: client.post(path("holds", "backup")))
    await desk.by(lambda client: client.post(path("holds", "backup", "release")))
    assert desk.woken == [incident]
    assert "no hold 'backup'" in await refused(
        desk, lambda client: client.post(path("holds", "backup", "release")), 404
    )


async def test_holds_do_not_pile_up(desk: RunningDesk, clock: ManualClock, store: Store) -> None:
    for number in range(100):
        await desk.by(lambda client, number=number: client.post(path("holds", f"h{number}"), {"for": "1m"}))  # type: ignore[misc]
    assert "release some" in await refused(desk, lambda client: client.post(path("holds", "more")), 409)
    clock.advance(61)
    await desk.by(lambda client: client.post(path("holds", "more")))
    assert [hold["name"] for hold in await desk.by(lambda client: client.get("/holds"))] == ["hold:more"]


async def test_resume_ends_a_pause_and_observing_only(desk: RunningDesk, store: Store) -> None:
    assert "not paused" in await refused(desk, lambda client: client.post("/resume"), 409)
    await desk.by(lambda client: client.post("/pause"))
    await desk.by(lambda client: client.post("/resume"))
    assert await desk.by(lambda client: client.get("/holds")) == []
    await store.write(lambda tx: set_meta(tx.conn, "observe_only", "the journal was damaged"))
    store.observe_only = "the journal was damaged"
    assert (await desk.by(lambda client: client.get("/status")))["self"][
        "observe_only"
    ] == "the journal was damaged"
    await desk.by(lambda client: client.post("/resume"))
    assert store.observe_only == ""


async def test_the_timeline_tells_what_cleared_and_counts_what_is_left_out(
    desk: RunningDesk, store: Store, clock: ManualClock
) -> None:
    incident = await desk.incident()
    clock.advance(5)
    clear = Signal("service-down", "service:api", Severity.ERROR, "cleared", clock.wall(), "http 200")
    other = Signal("service-down", "service:db", Severity.ERROR, "cleared", clock.wall(), "tcp")
    await store.write(lambda tx: (place(tx, other), place(tx, clear)))
    found = await desk.by(lambda client: client.get(path("incidents", incident)))
    assert kinds(found) == ["incident.opened", "incident.signal", "incident.signal"]
    assert found["timeline"][-1]["payload"]["how"] == "cleared"
    assert found["earlier"] == 0
    await store.write(lambda tx: [tx.record("proof", {"number": number}, incident) for number in range(520)])
    found = await desk.by(lambda client: client.get(path("incidents", incident)))
    assert len(found["timeline"]) == 500
    assert found["earlier"] == 23
    assert found["timeline"][-1]["payload"] == {"number": 519}


async def test_explain_finds_the_verdicts_by_incident_approval_and_attempt(
    desk: RunningDesk, store: Store
) -> None:
    incident = await desk.incident()
    asked = await desk.asked(incident)
    await attempt(store, incident, "cd" * 32, "succeeded")
    mine = {"action": "command.restart-api", "target": "service:api", "params": {"how": "hard"}}
    verdict = {"effect": "deny", "rule": "never", "where": "a.toml:3"}

    def judged(tx: Tx) -> None:
        tx.record("verdict", {"request": mine, "facts": {}, "verdict": verdict}, incident)
        tx.record("proposal.refused", {**mine, "target": "service:db", "reason": "unknown"}, incident)

    await store.write(judged)
    whole = await desk.by(lambda client: client.get(path("explain", incident)))
    assert [line["kind"] for line in whole["verdicts"]] == ["verdict", "proposal.refused"]
    for name in (asked, "cdcdcdcdcdcd", "cd" * 32):
        part = await desk.by(lambda client, name=name: client.get(path("explain", name)))  # type: ignore[misc]
        assert part["incident"] == incident
        assert [line["payload"]["verdict"] for line in part["verdicts"]] == [verdict]
    await attempt(store, incident, "cdcdcdcd" + "0" * 56)
    assert "several" in await refused(desk, lambda client: client.get(path("explain", "cdcdcdc")), 409)


async def test_what_is_unknown_is_said_with_where_to_look(desk: RunningDesk) -> None:
    unknown = {
        "/incidents/i-1": "midwatch incidents",
        "/approvals/a-1": "midwatch status",
        "/explain/a_%25b": "midwatch status",
        "/messages/m": "midwatch incidents show",
    }
    for where, hint in unknown.items():
        assert hint in await refused(desk, lambda client, where=where: client.get(where), 404)  # type: ignore[misc]
    for where in (
        "/incidents/i-1/ack",
        "/incidents/i-1/resolve",
        "/approvals/a-1/approve",
        "/approvals/a-1/reject",
        "/channels/sms/test",
    ):
        await refused(desk, lambda client, where=where: client.post(where), 404)  # type: ignore[misc]
    assert "configured: api" in await refused(desk, lambda client: client.post("/perceivers/x/poll"), 404)


async def test_a_test_message_is_queued_and_can_be_followed(desk: RunningDesk, store: Store) -> None:
    queued = await desk.by(lambda client: client.post(path("channels", "ops", "test")))
    assert desk.sent == 1
    found = await desk.by(lambda client: client.get(path("messages", queued["message"])))
    assert (found["state"], found["event"], found["channel"]) == ("pending", "test", "ops")
    await store.write(lambda tx: tx.conn.execute(update(OUTBOX).values(state="failed", error="refused")))
    assert (await desk.by(lambda client: client.get("/status")))["reach"]["undelivered"] == 1


async def test_incidents_that_are_over_are_listed_on_request(desk: RunningDesk) -> None:
    incident = await desk.incident()
    await desk.by(lambda client: client.post(path("incidents", incident, "resolve")))
    assert await desk.by(lambda client: client.get("/incidents")) == []
    everything = await desk.by(lambda client: client.get("/incidents?all=1"))
    assert [(found["id"], found["severity"]) for found in everything] == [(incident, "error")]


async def test_every_write_is_on_record_with_its_person(desk: RunningDesk, store: Store) -> None:
    incident = await desk.incident()
    await desk.by(lambda client: client.post("/pause", {"reason": "r"}))
    await desk.by(lambda client: client.post("/resume"))
    await desk.by(lambda client: client.post(path("incidents", incident, "resolve")))
    journal = JOURNAL
    rows = await store.read(
        lambda conn: conn.execute(select(journal.c.kind, journal.c.payload).order_by(journal.c.seq)).all()
    )
    told = {row.kind: row.payload for row in rows}
    for kind in ("control.set", "control.cleared", "incident.resolved"):
        assert ME in told[kind]
    state = await store.read(lambda conn: conn.execute(select(INCIDENT.c.state)).scalar_one())
    assert state == "resolved"
