"""What people may ask of the daemon and tell it. Reads give plain JSON; writes are rows and a wake-up: only the loop acts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, delete, func, select, text, update

from daemon.act.holds import PAUSE, Holds, switch_off, switch_on
from daemon.clock import Clock, remaining
from daemon.errors import MidwatchError
from daemon.escalate import approvals, outbox
from daemon.loop.people import People
from daemon.loop.rows import find_incident, open_attempt, unfinished
from daemon.model.deadline import Deadline
from daemon.model.domain import Severity, State
from daemon.model.message import Message
from daemon.store.store import Store, Tx
from daemon.store.tables import APPROVAL, ATTEMPT, CONTROL, INCIDENT, JOURNAL, OUTBOX, SIGNAL

LONGEST_TIMELINE = 500
"""Newest journal rows of one incident that are shown; `earlier` counts the rest."""
MOST_HOLDS = 100
LATELY = 86400.0
"""Seconds back from now for which `status` says what was done."""
SHORTEST_KEY = 6
"""Characters of an attempt's key that are enough to name it, if no other begins so."""
HOLD_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
T = TypeVar("T")


class NotFound(MidwatchError):
    """There is nothing of that name."""


class Refused(MidwatchError):
    """It exists, but what was asked of it cannot be done now."""


class Self(Protocol):
    """What the daemon knows about itself; the app fills it."""

    def facts(self) -> Mapping[str, Any]:
        """`version`, `host`, `pid`, `mode`, `uptime` (seconds), `perceivers` (how many), `rules` (how many), `policy` (its digest),
        `policy_trouble` (why everything is denied, else empty), `config` (its path), `changed_on_disk` (files of the configuration and
        policy that read otherwise than what is in force)."""
        ...

    def blind(self) -> Mapping[str, str]:
        """Perceiver → why it cannot look."""
        ...

    async def perceive(self, name: str) -> list[Mapping[str, Any]]:
        """Poll one perceiver now; its observations as plain JSON. Raises NotFound."""
        ...

    async def reload(self) -> Mapping[str, Any]:
        """Build anew, test, swap; what changed. Raises ConfigError or PolicyError, and then the old one stays in force."""
        ...

    def channels(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the desk works with."""

    store: Store
    clock: Clock
    holds: Holds
    people: People
    wake: Callable[[str], None]
    """Have the incident's lane look now."""
    sent: Callable[[], None]
    """Tell the outbox that there is something to send."""
    myself: Self


class Desk:
    """The one implementation behind the socket, the pages and the command line. `docs/commands.md` documents every answer."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store
        self._clock = parts.clock

    # reading -----------------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """For you, wrong, did, held, blind, unwatched, reach, self."""
        since = self._clock.wall() - LATELY
        rows, reach = await self._store.read(lambda conn: (_status(conn, since), _reach(conn, since)))
        myself = self._parts.myself
        return {
            **rows,
            "held": await self.holds(),
            "blind": dict(myself.blind()),
            "unwatched": [],
            "reach": {"channels": myself.channels(), **reach},
            "self": {**myself.facts(), "observe_only": self._store.observe_only},
        }

    async def holds(self) -> list[dict[str, Any]]:
        """What keeps the hands still: the pause, people's holds, and the configured condition that is true."""
        query = select(CONTROL).order_by(CONTROL.c.name != PAUSE, CONTROL.c.name)
        rows = await self._store.read(lambda conn: conn.execute(query).all())
        outside = self._parts.holds.outside()
        condition = (
            [{"name": "condition", "by": "", "reason": outside, "at": None, "until": None}] if outside else []
        )
        return [_control(row) for row in rows if self._in_force(row.due)] + condition

    def _in_force(self, due: str | None) -> bool:
        return due is None or remaining(self._clock, Deadline.from_text(due)) > 0

    async def incidents(self, everything: bool = False) -> list[dict[str, Any]]:
        """The newest 200; those that are over only with `everything`."""
        query = select(INCIDENT).order_by(INCIDENT.c.opened_at.desc()).limit(200)
        if not everything:
            query = query.where(INCIDENT.c.state != State.RESOLVED)
        rows = await self._store.read(lambda conn: conn.execute(query).all())
        return [_incident(row) for row in rows]

    async def incident(self, incident: str) -> dict[str, Any]:
        """One incident with its signals, approvals, attempts, messages and its timeline from the journal. Raises NotFound."""

        def read(conn: Connection) -> dict[str, Any]:
            row = _found(conn, incident)
            timeline, earlier = _timeline(conn, incident)
            return {
                **_incident(row),
                "diagnosis": row.diagnosis,
                "signals": [_signal(found) for found in _of(conn, SIGNAL, incident, SIGNAL.c.fired_at)],
                "approvals": [
                    _approval(found) for found in _of(conn, APPROVAL, incident, APPROVAL.c.asked_at)
                ],
                "attempts": [_attempt(found) for found in _of(conn, ATTEMPT, incident, ATTEMPT.c.at)],
                "messages": [_message(found) for found in _of(conn, OUTBOX, incident, OUTBOX.c.created)],
                "timeline": timeline,
                "earlier": earlier,
            }

        return await self._store.read(read)

    async def explain(self, name: str) -> dict[str, Any]:
        """Why something was or was not done: the verdicts on an incident, on what an approval asks, or on what an attempt did.

        Raises NotFound.
        """

        def read(conn: Connection) -> dict[str, Any]:
            incident, asked = _subject(conn, name)
            kinds = ("verdict", "proposal.refused")
            query = select(JOURNAL).where(JOURNAL.c.incident == incident, JOURNAL.c.kind.in_(kinds))
            rows = [_line(row) for row in conn.execute(query.order_by(JOURNAL.c.seq).limit(LONGEST_TIMELINE))]
            return {
                "id": name,
                "incident": incident,
                "verdicts": [row for row in rows if asked is None or _speaks_of(row, asked)],
            }

        return await self._store.read(read)

    async def approvals(self) -> list[dict[str, Any]]:
        """The newest hundred, answered ones included."""
        query = select(APPROVAL).order_by(APPROVAL.c.asked_at.desc()).limit(100)
        rows = await self._store.read(lambda conn: conn.execute(query).all())
        return [_approval(row) for row in rows]

    async def approval(self, approval: str) -> dict[str, Any]:
        return _approval(await self._store.read(lambda conn: _asked(conn, approval)))

    async def delivery(self, message: str) -> dict[str, Any]:
        """How far a message has come. Raises NotFound."""
        row = await self._store.read(
            lambda conn: conn.execute(select(OUTBOX).where(OUTBOX.c.id == message)).first()
        )
        if row is None:
            raise NotFound(
                f"there is no message {message!r}; the queue of an incident is in `midwatch incidents show ID --json`"
            )
        return _message(row)

    # writing -----------------------------------------------------------------------------------------------------

    async def vote(self, approval: str, person: str, yes: bool, reason: str = "") -> dict[str, Any]:
        """Approve or reject. The loop acts on it later; the answer says only that the vote counted. Raises Refused, NotFound."""

        def work(tx: Tx) -> tuple[str, Any]:
            row = _asked(tx.conn, approval)
            return row.incident, approvals.vote(tx, self._clock, approval, person, yes, reason)

        incident, result = await self._write(work)
        self._parts.wake(incident)
        if not result.counted:
            raise Refused(result.reason)
        return {"approval": approval, "counted": True, "state": result.state, "reason": result.reason}

    async def acknowledge(self, incident: str, person: str) -> dict[str, Any]:
        """Somebody has it: no more calls, and everybody who was told hears that. Twice by one person is once."""

        def work(tx: Tx) -> None:
            row = _unfinished(tx.conn, incident)
            if row.acked_by == person:
                return
            taken = {"acked_by": person, "oncall_due": None, "changed_at": tx.now}
            tx.conn.execute(update(INCIDENT).where(INCIDENT.c.id == incident).values(**taken))
            tx.record("incident.acknowledged", {"by": person}, incident)
            self._parts.people.pass_on(tx, _found(tx.conn, incident), "acknowledge", f"{person} has it")

        await self._write(work)
        self._parts.wake(incident)
        return {"incident": incident, "acked_by": person}

    async def resolve(self, incident: str, person: str, reason: str) -> dict[str, Any]:
        """A person says that it is over. Not while an action is under way: what it did must be known first. Raises Refused, NotFound."""
        said = f"{person} closed it" + (f": {reason}" if reason else "")

        def work(tx: Tx) -> None:
            row = _unfinished(tx.conn, incident)
            if key := open_attempt(tx.conn, incident):
                raise Refused(
                    f"an action of {incident} is under way ({key[:12]}); resolve it once its outcome is known"
                )
            for asked in _of(tx.conn, APPROVAL, incident, APPROVAL.c.asked_at):
                if asked.state in ("pending", "approved"):
                    self._parts.people.drop(tx, asked.id, said)
            self._parts.people.resolve(tx, row, said)

        await self._write(work)
        self._parts.wake(incident)
        return {"incident": incident, "state": State.RESOLVED.value, "reason": said}

    async def hold(self, name: str, person: str, reason: str, lasts: float | None) -> dict[str, Any]:
        """Keep the hands still under a name; `lasts` in seconds, None until it is released."""
        if not HOLD_NAME.fullmatch(name):
            raise MidwatchError(
                f"{name!r} is no name for a hold: small letters, digits, `.`, `_` and `-`, at most 64"
            )

        def work(tx: Tx) -> None:
            self._sweep(tx)
            if tx.conn.execute(select(func.count()).select_from(CONTROL)).scalar_one() >= MOST_HOLDS:
                raise Refused(f"there are {MOST_HOLDS} holds already; release some first")
            switch_on(tx, self._clock, f"hold:{name}", person, reason, lasts)

        await self._write(work)
        return {"hold": name, "by": person, "for": lasts}

    def _sweep(self, tx: Tx) -> None:
        """Holds that ran out by themselves are of no use to anybody any more."""
        over = [row.name for row in tx.conn.execute(select(CONTROL)) if not self._in_force(row.due)]
        tx.conn.execute(delete(CONTROL).where(CONTROL.c.name.in_(over)))

    async def release(self, name: str, person: str) -> dict[str, Any]:
        """Raises NotFound."""
        if not await self._write(lambda tx: switch_off(tx, f"hold:{name}", person)):
            raise NotFound(f"there is no hold {name!r}; see `midwatch hold`")
        await self._wake_all()
        return {"released": name}

    async def pause(self, person: str, reason: str) -> dict[str, Any]:
        """Nothing acts until somebody resumes."""
        await self._write(lambda tx: switch_on(tx, self._clock, PAUSE, person, reason, None))
        return {"paused": True, "by": person}

    async def resume(self, person: str) -> dict[str, Any]:
        """End the pause, and an observe-only start after damage. Raises Refused when there is neither."""

        def work(tx: Tx) -> None:
            if not switch_off(tx, PAUSE, person) and not self._store.observe_only:
                raise Refused("midwatch is not paused; `midwatch hold` lists what else holds it")

        await self._write(work)
        if self._store.observe_only:
            await self._store.resume()
        await self._wake_all()
        return {"paused": False, "by": person}

    async def notify_test(self, channel: str, person: str) -> dict[str, Any]:
        """Queue a test message; gives its id for `delivery`. Raises NotFound."""
        channels = self._parts.myself.channels()
        if channel not in channels:
            raise NotFound(
                f"there is no channel {channel!r}; configured: {', '.join(channels) or 'none, add [channels.NAME]'}"
            )
        host = str(self._parts.myself.facts().get("host", ""))
        message = Message(
            event="test",
            incident="",
            title="a test by midwatch",
            severity=Severity.INFO.word,
            summary=f"{person} asked for a test message; nothing is wrong",
            host=host,
            dedup=f"midwatch/{host}/test",
            at=self._clock.wall(),
        )
        return {
            "channel": channel,
            "message": await self._write(lambda tx: outbox.enqueue(tx, channel, message)),
        }

    async def perceive(self, name: str) -> list[Mapping[str, Any]]:
        return await self._parts.myself.perceive(name)

    async def reload(self) -> Mapping[str, Any]:
        return await self._parts.myself.reload()

    async def _write(self, work: Callable[[Tx], T]) -> T:
        done = await self._store.write(work)
        self._parts.sent()
        return done

    async def _wake_all(self) -> None:
        for incident in await self._store.read(unfinished):
            self._parts.wake(incident)


# rows --------------------------------------------------------------------------------------------------------------


def _found(conn: Connection, incident: str) -> Row[Any]:
    row = find_incident(conn, incident)
    if row is None:
        raise NotFound(f"there is no incident {incident!r}; see `midwatch incidents`")
    return row


def _unfinished(conn: Connection, incident: str) -> Row[Any]:
    row = _found(conn, incident)
    if row.state == State.RESOLVED:
        raise Refused(f"{incident} is over already: {row.reason}")
    return row


def _asked(conn: Connection, approval: str) -> Row[Any]:
    row = conn.execute(select(APPROVAL).where(APPROVAL.c.id == approval)).first()
    if row is None:
        raise NotFound(f"there is no approval {approval!r}; see `midwatch status`")
    return row


def _of(conn: Connection, rows: Any, incident: str, order: Any) -> Sequence[Row[Any]]:
    """The incident's newest 200 rows of a table, oldest first; what has one moment stands as it was written."""
    newest = select(rows).where(rows.c.incident == incident).order_by(order.desc(), text("rowid DESC"))
    return conn.execute(newest.limit(200)).all()[::-1]


def _status(conn: Connection, since: float) -> dict[str, list[dict[str, Any]]]:
    pending = select(APPROVAL).where(APPROVAL.c.state == "pending").order_by(APPROVAL.c.asked_at)
    wrong = select(INCIDENT).where(INCIDENT.c.state != State.RESOLVED)
    gravest = (INCIDENT.c.severity.desc(), INCIDENT.c.opened_at)
    did = select(ATTEMPT).where(ATTEMPT.c.at > since).order_by(ATTEMPT.c.at.desc()).limit(20)
    firing = select(SIGNAL).where(SIGNAL.c.state == "firing").order_by(SIGNAL.c.severity.desc()).limit(50)
    return {
        "for_you": [_approval(row) for row in conn.execute(pending)],
        "wrong": [_incident(row) for row in conn.execute(wrong.order_by(*gravest))],
        "did": [_attempt(row) for row in conn.execute(did)],
        "firing": [_signal(row) for row in conn.execute(firing)],
    }


def _reach(conn: Connection, since: float) -> dict[str, int]:
    """How many messages reached nobody (given up, or tried in vain for long), and how many are still to be sent."""
    waiting = select(func.count()).where(OUTBOX.c.state == "pending")
    return {
        "undelivered": len(outbox.undelivered(conn, since)),
        "waiting": conn.execute(waiting).scalar_one(),
    }


def _timeline(conn: Connection, incident: str) -> tuple[list[dict[str, Any]], int]:
    """The incident's newest journal rows in order, and how many came before."""
    mine = JOURNAL.c.incident == incident
    number = conn.execute(select(func.count()).select_from(JOURNAL).where(mine)).scalar_one()
    newest = conn.execute(
        select(JOURNAL).where(mine).order_by(JOURNAL.c.seq.desc()).limit(LONGEST_TIMELINE)
    ).all()
    return [_line(found) for found in reversed(newest)], number - len(newest)


def _subject(conn: Connection, name: str) -> tuple[str, Mapping[str, Any] | None]:
    """(incident, the action in question or None for all of them) of an incident's, an approval's or an attempt's id."""
    if find_incident(conn, name) is not None:
        return name, None
    row = conn.execute(select(APPROVAL).where(APPROVAL.c.id == name)).first() or _by_key(conn, name)
    if row is None:
        raise NotFound(
            f"{name!r} is no incident, approval or attempt; see `midwatch status` and `midwatch incidents`"
        )
    return row.incident, {"action": row.action, "target": row.target, "params": row.params}


def _by_key(conn: Connection, start: str) -> Row[Any] | None:
    if len(start) < SHORTEST_KEY:
        return None
    rows = conn.execute(
        select(ATTEMPT).where(ATTEMPT.c.key.startswith(start, autoescape=True)).limit(2)
    ).all()
    if len(rows) > 1:
        raise Refused(f"several attempts begin with {start}; give more of the key")
    return rows[0] if rows else None


def _speaks_of(line: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    said = line["payload"].get("request", line["payload"])
    return all(said.get(name) == asked[name] for name in asked)


def _incident(row: Any) -> dict[str, Any]:
    kept = (
        "id",
        "state",
        "resource",
        "title",
        "opened_at",
        "changed_at",
        "resolved_at",
        "reason",
        "acked_by",
        "held",
        "attempts",
        "reopened",
    )
    return {**_only(row, kept), "severity": Severity(row.severity).word}


def _approval(row: Any) -> dict[str, Any]:
    kept = (
        "id",
        "incident",
        "action",
        "target",
        "params",
        "rule",
        "approvers",
        "quorum",
        "votes",
        "state",
        "asked_at",
        "decided_by",
        "reason",
    )
    return {**_only(row, kept), "expires_at": Deadline.from_text(row.due).wall}


def _attempt(row: Any) -> dict[str, Any]:
    kept = (
        "key",
        "incident",
        "action",
        "target",
        "params",
        "rule",
        "at",
        "ended_at",
        "result",
        "reason",
        "verified",
        "undo_of",
    )
    return _only(row, kept)


def _signal(row: Any) -> dict[str, Any]:
    kept = ("name", "resource", "key", "state", "at", "fired_at", "incident", "summary", "values", "tainted")
    return {**_only(row, kept), "severity": Severity(row.severity).word}


def _message(row: Any) -> dict[str, Any]:
    return _only(row, ("id", "channel", "event", "state", "tries", "created", "sent_at", "error", "message"))


def _control(row: Any) -> dict[str, Any]:
    return {
        **_only(row, ("name", "by", "reason", "at")),
        "until": None if row.due is None else Deadline.from_text(row.due).wall,
    }


def _line(row: Any) -> dict[str, Any]:
    return {"seq": row.seq, "at": row.at, "kind": row.kind, "payload": json.loads(row.payload)}


def _only(row: Any, kept: Sequence[str]) -> dict[str, Any]:
    return {name: row._mapping[name] for name in kept}
