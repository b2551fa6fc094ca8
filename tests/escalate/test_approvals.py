"""Approvals: counted once from each who may, final in their no, used once, and gone with the boot."""

from __future__ import annotations

import asyncio
import re
from itertools import count
from typing import Any

import pytest
from fakes.escalations import journaled
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from daemon.clock import ManualClock
from daemon.errors import ActionRefused
from daemon.escalate import approvals
from daemon.escalate.approvals import Vote
from daemon.model.policy import Terms
from daemon.store.store import Store, Tx
from daemon.store.tables import APPROVAL

DIGEST = "d" * 64
_numbers = count()


class Desk:
    """Asks and answers in transactions of their own."""

    def __init__(self, store: Store, clock: ManualClock, incident: str = "i-1") -> None:
        self.store = store
        self.clock = clock
        self.incident = incident

    async def ask(self, terms: Terms | None = None) -> str:
        return await self.store.write(lambda tx: self._ask(tx, terms))

    def _ask(self, tx: Tx, terms: Terms | None) -> str:
        return approvals.ask(
            tx,
            self.clock,
            incident=self.incident,
            digest=DIGEST,
            action="command.restart-api",
            target="service:api",
            params={},
            rule="restarts",
            wanted=terms,
        )

    async def vote(self, approval: str, person: str = "anna", yes: bool = True, reason: str = "") -> Vote:
        return await self.store.write(
            lambda tx: approvals.vote(tx, self.clock, approval, person, yes, reason)
        )

    async def consume(self, approval: str, digest: str = DIGEST) -> None:
        await self.store.write(lambda tx: approvals.consume(tx, approval, digest))

    async def lapse(self) -> str:
        return await self.store.write(lambda tx: approvals.lapse(tx, self.clock, self.incident))

    async def row(self, approval: str) -> Any:
        return await self.store.read(
            lambda conn: conn.execute(select(APPROVAL).where(APPROVAL.c.id == approval)).one()
        )


@pytest.fixture
def desk(store: Store, clock: ManualClock) -> Desk:
    return Desk(store, clock)


async def test_an_id_can_be_said_on_the_phone(desk: Desk) -> None:
    ids = [await desk.ask() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(re.fullmatch("a-[a-z2-9]{4,}", id) and not set("01ilo") & set(id) for id in ids)


async def test_a_yes_grants_what_was_asked_once(desk: Desk) -> None:
    id = await desk.ask()
    assert await desk.vote(id, reason="known\x1b[31m fault") == Vote(
        True, "approved; it is checked once more and then done", "approved"
    )
    row = await desk.row(id)
    assert (row.votes, row.decided_by, row.reason) == (["anna"], "anna", "known [31m fault")
    await desk.consume(id)
    assert (await desk.row(id)).state == "used"
    with pytest.raises(ActionRefused, match="is used"):
        await desk.consume(id)


async def test_a_yes_allows_nothing_else(desk: Desk) -> None:
    id = await desk.ask()
    await desk.vote(id)
    with pytest.raises(ActionRefused, match="another state"):
        await desk.consume(id, "e" * 64)
    assert (await desk.row(id)).state == "approved"
    with pytest.raises(ActionRefused, match="there is no approval"):
        await desk.consume("a-none")


async def test_an_open_question_allows_nothing(desk: Desk) -> None:
    id = await desk.ask()
    with pytest.raises(ActionRefused, match="is pending"):
        await desk.consume(id)


async def test_only_those_named_may_answer(desk: Desk) -> None:
    id = await desk.ask(Terms(from_=("anna", "ben")))
    for yes in (True, False):
        refused = await desk.vote(id, "carl", yes)
        assert refused == Vote(
            False, f"carl may not answer {id}; the rule restarts names anna, ben", "pending"
        )
    assert (await desk.vote(id, "ben")).state == "approved"


async def test_a_quorum_is_of_distinct_people(desk: Desk) -> None:
    id = await desk.ask(Terms(quorum=2))
    assert await desk.vote(id, "anna") == Vote(True, "1 more person must say yes", "pending")
    again = await desk.vote(id, "anna")
    assert not again.counted
    assert "said yes" in again.reason
    assert (await desk.vote(id, "ben")).state == "approved"
    assert (await desk.row(id)).decided_by == "anna, ben"


async def test_the_first_no_is_final(desk: Desk) -> None:
    id = await desk.ask(Terms(quorum=2))
    await desk.vote(id, "anna")
    assert (await desk.vote(id, "ben", yes=False, reason="not tonight")).state == "rejected"
    late = await desk.vote(id, "carl")
    assert not late.counted
    assert "is rejected by ben: not tonight" in late.reason
    with pytest.raises(ActionRefused):
        await desk.consume(id)


async def test_a_yes_may_be_taken_back_while_the_question_is_open(desk: Desk) -> None:
    id = await desk.ask(Terms(quorum=2))
    await desk.vote(id, "anna")
    assert (await desk.vote(id, "anna", yes=False)).state == "rejected"


async def test_silence_is_no(desk: Desk) -> None:
    id = await desk.ask(Terms(expires=60))
    desk.clock.advance(59)
    assert await desk.lapse() == "pending"
    desk.clock.step_wall(-86_400)
    desk.clock.advance(1)
    late = await desk.vote(id)
    assert not late.counted
    assert late.state == "expired"
    assert "nobody answered in time" in late.reason
    assert await desk.lapse() == "expired"


async def test_time_alone_ends_it_too(desk: Desk) -> None:
    await desk.ask(Terms(expires=60))
    desk.clock.advance(60)
    assert await desk.lapse() == "expired"
    assert await desk.lapse() == "expired"
    assert len(await journaled(desk.store, "approval.expired")) == 1


@pytest.mark.parametrize("granted", [False, True])
async def test_no_approval_survives_a_reboot(desk: Desk, granted: bool) -> None:
    id = await desk.ask()
    if granted:
        await desk.vote(id)
    desk.clock.reboot("boot-2")
    if granted:
        with pytest.raises(ActionRefused, match="restarted"):
            await desk.consume(id)
    else:
        late = await desk.vote(id)
        assert not late.counted
        assert "the machine was restarted since" in late.reason
    assert await desk.lapse() == "void"


async def test_a_used_one_stays_used_over_a_reboot(desk: Desk) -> None:
    id = await desk.ask()
    await desk.vote(id)
    await desk.consume(id)
    desk.clock.reboot("boot-2")
    assert await desk.lapse() == "used"


@pytest.mark.parametrize("granted", [False, True])
async def test_a_new_question_takes_the_place_of_the_old_one(desk: Desk, granted: bool) -> None:
    old = await desk.ask()
    if granted:
        await desk.vote(old)
    new = await desk.ask()
    assert (await desk.row(old)).state == "void"
    assert not (await desk.vote(old, "ben")).counted
    with pytest.raises(ActionRefused):
        await desk.consume(old)
    assert await desk.lapse() == "pending"
    assert (await desk.vote(new)).state == "approved"
    assert await desk.lapse() == "approved"


async def test_another_incident_keeps_its_question(desk: Desk) -> None:
    mine = await desk.ask()
    await Desk(desk.store, desk.clock, "i-2").ask()
    assert (await desk.row(mine)).state == "pending"


async def test_there_may_be_nothing(desk: Desk) -> None:
    assert await desk.lapse() == ""
    assert not (await desk.vote("a-none")).counted


async def test_every_vote_is_on_record(desk: Desk) -> None:
    id = await desk.ask(Terms(from_=("anna",)))
    await desk.vote(id, "ben", reason="let me")
    await desk.vote(id, "anna", yes=False)
    await desk.vote(id, "anna")
    votes = await journaled(desk.store, "approval.vote")
    assert [(vote["person"], vote["yes"], vote["counted"], vote["state"]) for vote in votes] == [
        ("ben", True, False, "pending"),
        ("anna", False, True, "rejected"),
        ("anna", True, False, "rejected"),
    ]
    assert [fact["digest"] for fact in await journaled(desk.store, "approval.asked")] == [DIGEST]


Ballot = tuple[str, bool]
BALLOTS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([True, True, True, False])), max_size=20
)


@given(ballots=BALLOTS, quorum=st.integers(1, 4), approvers=st.sets(st.sampled_from("abcdef")))
async def test_whoever_votes_at_once_the_quorum_holds(
    store: Store, clock: ManualClock, ballots: list[Ballot], quorum: int, approvers: set[str]
) -> None:
    """Everybody votes and twenty try to use the approval, all at once."""
    desk = Desk(store, clock, f"i-{next(_numbers)}")
    id = await desk.ask(Terms(tuple(sorted(approvers)), quorum))
    votes = asyncio.gather(*(desk.vote(id, person, yes) for person, yes in ballots))
    uses = asyncio.gather(*(desk.consume(id) for _ in range(20)), return_exceptions=True)
    answers, used = await votes, await uses
    later = await asyncio.gather(*(desk.consume(id) for _ in range(2)), return_exceptions=True)

    row = await desk.row(id)
    yes = [person for (person, yes), answer in zip(ballots, answers, strict=True) if yes and answer.counted]
    no = [
        person for (person, yes), answer in zip(ballots, answers, strict=True) if not yes and answer.counted
    ]
    assert row.votes == yes
    assert len(set(yes)) == len(yes) <= quorum
    assert len(no) <= 1
    assert all(not approvers or person in approvers for person in yes + no)
    granted = len(yes) == quorum
    assert sum(isinstance(answer, ActionRefused) for answer in [*used, *later]) == 22 - granted
    assert row.state == ("used" if granted else "rejected" if no else "pending")
