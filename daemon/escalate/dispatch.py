"""The dispatcher: the only one that sends. It works off the outbox, one lane per channel.

At least once: a row is marked after its service took the message, so a crash between the two sends it again, under the same id.
In order: of one incident on one channel only the oldest message is tried, so a resolve never overtakes its trigger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnClause, Connection, Row, case, func, literal_column, select, update

from daemon.clock import Clock
from daemon.errors import DeliveryError, StoreError
from daemon.escalate.base import Channel, Channels
from daemon.escalate.outbox import LATE, LATE_TRIES, enqueue
from daemon.escalate.text import plain
from daemon.model.domain import Severity, State
from daemon.model.message import Message
from daemon.store.crashpoints import point
from daemon.store.store import Store, Tx
from daemon.store.tables import INCIDENT, OUTBOX

log = logging.getLogger(__name__)

FIRST_WAIT = 2.0
"""Seconds before the second try; doubled with each further one."""
LONGEST_WAIT = 300.0
JITTER = 0.2
"""Share by which a wait is made longer or shorter, so that many hosts do not come back at once."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a service that asks for more is tried again all the same."""
GIVE_UP = 86_400.0
"""Seconds after which a message is given up."""
LEAST_TRIES = 8
"""But not before so many tries: a clock set forward, or a machine switched off for a day, must not cost a message."""
MOST_AT_ONCE = 4
"""Channels that send at the same time."""
LONGEST_SEND = 60.0
"""Seconds for one try; channels have shorter limits of their own."""
LONGEST_REST = 30.0
"""Seconds between two looks at the outbox when nobody says that there is something in it."""
LONGEST_ERROR = 300
MOST_STRAYS = 100

Rest = Callable[[asyncio.Event, float | None], Awaitable[None]]
"""Waits until the event is set or the seconds are over; None: nothing is due."""


async def rest(woken: asyncio.Event, seconds: float | None) -> None:
    """Wait until woken, at most `seconds` and at most LONGEST_REST: the row says when it is due, this only looks at it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_REST if seconds is None else min(seconds, LONGEST_REST)):
            await woken.wait()


class Dispatcher:
    """Sends what is in the outbox. A new configuration means a new dispatcher; rows outlive it."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        channels: Channels,
        *,
        fallback: Callable[[str], Sequence[str]] = lambda channel: (),
        jitter: Callable[[], float] = random.random,
        rest: Rest = rest,
    ) -> None:
        """`fallback` names the channels to tell when a grave message does not get through on one; where it knows no other one, all
        others are told. `jitter` gives 0 to 1; `rest` waits."""
        self._store = store
        self._clock = clock
        self._channels = channels
        self._fallback = fallback
        self._jitter = jitter
        self._rest = rest
        self._woken = [asyncio.Event() for _ in range(len(channels) + 1)]
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._quiet: dict[str, float] = {}
        """Channel → boot time until which its service wants to hear nothing (Retry-After)."""
        self._taken: set[str] = set()
        """Messages that a service took and that could not be marked yet: they are marked later, not sent again."""

    async def run(self) -> None:
        """Send until cancelled. What was under way then is sent again later, under the same id."""
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(self._lane(self._woken[0], self._give_up_strays), name="outbox strays")
            for woken, channel in zip(self._woken[1:], self._channels.values(), strict=True):
                lanes.create_task(self._lane(woken, self._stepper(channel)), name=f"outbox {channel.name}")

    def wake(self) -> None:
        """Look at the outbox now."""
        for woken in self._woken:
            woken.set()

    async def _lane(self, woken: asyncio.Event, step: Callable[[], Awaitable[float | None]]) -> None:
        failures = 0
        while True:
            woken.clear()
            try:
                wait = await step()
                failures = 0
            except StoreError as exc:
                failures += 1
                log.error("the outbox waits: %s", exc)
                wait = _backoff(failures)
            if wait != 0:
                await self._rest(woken, wait)

    def _stepper(self, channel: Channel) -> Callable[[], Awaitable[float | None]]:
        return lambda: self._step(channel)

    async def _step(self, channel: Channel) -> float | None:
        """Try the channel's next message; gives the seconds until there is something to do, None when there is nothing."""
        quiet = self._quiet.get(channel.name, 0.0) - self._clock.boottime()
        if quiet > 0:
            return quiet
        row = await self._store.read(lambda conn: _next(conn, channel.name, self._clock.wall()))
        if row is None:
            return None
        if row.wait > 0:
            return float(row.wait)
        async with self._room:
            failure = None if row.id in self._taken else await self._try(channel, row)
        if failure is None:
            await self._sent(row)
        else:
            await self._not_sent(row, failure)
        return 0

    async def _try(self, channel: Channel, row: Row[Any]) -> DeliveryError | None:
        point("outbox_before_send")
        try:
            async with asyncio.timeout(LONGEST_SEND):
                await channel.send(row.id, Message.from_json(row.message))
        except DeliveryError as exc:
            return exc
        except TimeoutError:
            return DeliveryError(f"not sent within {LONGEST_SEND:g} s")
        except Exception as exc:
            # The edge of the dispatcher: a fault in a channel must cost this try, not all that is to be said.
            log.exception("channel %s failed on message %s", channel.name, row.id)
            return DeliveryError(f"a fault in the channel ({type(exc).__name__}); see the daemon's log")
        point("outbox_after_send")
        return None

    async def _sent(self, row: Row[Any]) -> None:
        self._taken.add(row.id)
        await self._store.write(lambda tx: _mark_sent(tx, row))
        self._taken.discard(row.id)

    async def _not_sent(self, row: Row[Any], failure: DeliveryError) -> None:
        wait = self._wait(row.tries + 1, failure)
        if failure.retry_after is not None:
            self._quiet[row.channel] = self._clock.boottime() + wait
        if await self._store.write(lambda tx: self._mark_failure(tx, row, failure, tx.now + wait)):
            self.wake()

    def _wait(self, tries: int, failure: DeliveryError) -> float:
        """Seconds until the next try: never sooner than the service asked for, nor than our own patience."""
        own = _backoff(tries) * (1 - JITTER + 2 * JITTER * self._jitter())
        return max(own, min(failure.retry_after or 0.0, LONGEST_RETRY_AFTER))

    def _mark_failure(self, tx: Tx, row: Row[Any], failure: DeliveryError, due: float) -> bool:
        """True when others are to be told instead."""
        tries = row.tries + 1
        over = failure.permanent or (tries >= LEAST_TRIES and tx.now - row.created > GIVE_UP)
        error = plain(str(failure), LONGEST_ERROR)
        state = "failed" if over else "pending"
        _change(tx, row, state=state, tries=tries, due=due, error=error)
        if over:
            tx.record("message.failed", {**_shown(row), "tries": tries, "error": error}, row.incident)
        # Once: the row was not late before this try, and is so from now on.
        if not (over or _late(tries, due, row.created)) or _late(row.tries, row.due, row.created):
            return False
        self._tell_others(tx, row, error)
        return True

    def _tell_others(self, tx: Tx, row: Row[Any], error: str) -> None:
        """Say elsewhere that a grave message does not get through, so that nobody is left untold."""
        message = Message.from_json(row.message)
        grave = Severity.parse(message.severity) >= Severity.ERROR
        if not grave or "undelivered" in message.details or _outdated(tx.conn, message):
            return
        others = self._others(row.channel)
        summary = f"could not reach {row.channel} ({error}). {message.summary}"
        note = replace(message, summary=summary, details={"undelivered": row.id, **message.details})
        for name in others:
            enqueue(tx, name, note)
        tx.record("message.undelivered", {**_shown(row), "error": error, "told": others}, row.incident)

    def _others(self, channel: str) -> list[str]:
        named = [name for name in self._fallback(channel) if name != channel]
        return named or [name for name in self._channels if name != channel]

    async def _give_up_strays(self) -> float | None:
        """Messages for channels that are no longer configured would wait for ever, and nobody would know."""
        strays = await self._store.read(lambda conn: _strays(conn, tuple(self._channels)))
        gone = DeliveryError("no channel of this name is configured any more", permanent=True)
        for row in strays:
            await self._not_sent(row, gone)
        return 0 if strays else None


def _backoff(tries: int) -> float:
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(tries - 1, 16)))


def _next(conn: Connection, channel: str, now: float) -> Row[Any] | None:
    """The channel's most urgent row, with `wait`, the seconds until it may be tried. Of an incident only its oldest row is looked at;
    messages of no incident do not wait for each other."""
    mine = (OUTBOX.c.channel == channel) & (OUTBOX.c.state == "pending")
    rowid: ColumnClause[int] = literal_column(
        "outbox.rowid"
    )  # the order of insertion, whatever the clock did meanwhile
    oldest = (
        select(func.min(rowid))
        .where(mine)
        .group_by(func.coalesce(OUTBOX.c.incident, OUTBOX.c.id))
        .correlate(None)
    )
    left = OUTBOX.c.due - now
    # New ones first. A due time beyond all that we ever set means that the clock was set back: it counts no more.
    wait = case(
        (OUTBOX.c.tries == 0, -LONGEST_RETRY_AFTER), (left > 2 * LONGEST_RETRY_AFTER, 0.0), else_=left
    )
    query = select(OUTBOX, wait.label("wait")).where(rowid.in_(oldest)).order_by("wait", rowid)
    return conn.execute(query.limit(1)).first()


def _strays(conn: Connection, known: Sequence[str]) -> list[Row[Any]]:
    query = select(OUTBOX).where(OUTBOX.c.state == "pending", OUTBOX.c.channel.not_in(known))
    return list(conn.execute(query.limit(MOST_STRAYS)))


def _late(tries: int, due: float, created: float) -> bool:
    return tries >= LATE_TRIES or due - created > LATE


def _outdated(conn: Connection, message: Message) -> bool:
    """A late word of trouble must not open again elsewhere what is over by now."""
    state = conn.execute(select(INCIDENT.c.state).where(INCIDENT.c.id == message.incident)).scalar()
    return state == State.RESOLVED and message.event != "resolve"


def _mark_sent(tx: Tx, row: Row[Any]) -> None:
    _change(tx, row, state="sent", tries=row.tries + 1, sent_at=tx.now, error="")
    tx.record("message.sent", {**_shown(row), "tries": row.tries + 1}, row.incident)


def _change(tx: Tx, row: Row[Any], **values: Any) -> None:
    tx.conn.execute(update(OUTBOX).where(OUTBOX.c.id == row.id).values(**values))


def _shown(row: Row[Any]) -> dict[str, Any]:
    return {"message": row.id, "channel": row.channel, "event": row.event}
