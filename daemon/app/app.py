"""The daemon as an object: the journal, the socket, and the shift that stands watch. Tests start this, not a process."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, select

from daemon.act.executor import Executor
from daemon.api.desk import Desk, NotFound
from daemon.api.desk import Parts as DeskParts
from daemon.api.identity import People as Identities
from daemon.api.server import Api, Server
from daemon.app.assemble import Assembly, assemble, assemble_to_watch
from daemon.app.follow import Follower
from daemon.app.notify import notify
from daemon.app.shift import Shift, Ship
from daemon.clock import Clock, SystemClock, monotonic_usec
from daemon.config import secrets
from daemon.config.load import Config
from daemon.errors import ConfigError, MidwatchError, PolicyError, Problem
from daemon.model.domain import Severity, Signal
from daemon.policy.rules import Rule
from daemon.store.store import Store
from daemon.store.tables import SIGNAL

log = logging.getLogger(__name__)
BROKEN = "policy-broken"
"""The finding that the policy files cannot be used."""
LONGEST_TROUBLE = 500
"""Characters of what is wrong with them that are told; `midwatch check` tells all of it."""


class App:
    """One running midwatch. Also what the desk asks about the daemon itself (`daemon.api.desk.Self`)."""

    def __init__(self, path: Path, clock: Clock | None = None, executor: type[Executor] = Executor) -> None:
        """`executor` is there for tests that must see another one fail."""
        self._path = Path(os.path.abspath(path))
        self._executor = executor
        self._clock = clock or SystemClock()
        self._began = self._clock.boottime()
        self._relief = asyncio.Lock()
        """Held while one shift relieves another."""
        self._leaving = False
        self._open = AsyncExitStack()
        """What is to be closed at the end, last opened first."""
        self.lost = asyncio.Event()
        """Nobody stands watch any more: the process must end, so that its supervisor starts it anew."""

    async def start(self) -> None:
        """Read the files, open the journal, stand watch, answer on the socket. Raises ConfigError, StoreError, SocketTaken or OSError,
        and then nothing is left behind."""
        assembly = assemble_to_watch(self._path)
        config, settings = assembly.config, assembly.config.settings.daemon
        async with AsyncExitStack() as opened:
            self.store = await Store.open(
                config.places.state / "midwatch.db", self._clock, ballast_size=settings.ballast
            )
            self.store.on_damage = self._damaged
            opened.push_async_callback(self.store.close)
            server = Server(self, config.places.socket, _group(config))
            opened.push_async_callback(server.stop)
            grace_until = self._clock.wall() + settings.grace
            self._ship = Ship(self.store, self._clock, os.uname().nodename, grace_until, self._executor)
            await self._man(Shift(assembly, self._ship), _tokens(config))
            opened.push_async_callback(self._relieve)
            await server.start()
            self._open = opened.pop_all()
        self._follower = Follower(lambda: self.shift.assembly, self.reload_and_say, self._clock)
        self._following = asyncio.create_task(self._follower.run(), name="files")
        notify("READY=1", f"STATUS={self._standing()}")
        log.info("ready: %s, socket %s", self._standing(), config.places.socket)

    def _damaged(self) -> None:
        log.critical("the journal is damaged; midwatch ends, and the next start restores the last copy")
        self.lost.set()

    async def stop(self) -> None:
        """Finish the steps under way, then leave. What is unfinished is on disk."""
        notify("STOPPING=1")
        async with self._relief:
            self._leaving = True
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self._open.aclose()

    async def reload(self) -> Mapping[str, Any]:
        """Build the next shift from the files; relieve this one only when all of it is sound. Raises ConfigError or PolicyError, and
        then nothing has changed."""
        async with self._between_shifts():
            notify("RELOADING=1", f"MONOTONIC_USEC={monotonic_usec()}")
            try:
                told = await self._reload()
            finally:
                # Also when the old one stays in force: it is as ready as before.
                notify("READY=1", f"STATUS={self._standing()}")
        log.info("reloaded: %s", told)
        return told

    async def reload_and_say(self) -> None:
        """As `reload`, for those who cannot be answered: what became of it is in the log."""
        try:
            await self.reload()
        except (ConfigError, PolicyError) as exc:
            log.error("not reloaded, the old one stays in force: %s", exc)
        except MidwatchError as exc:
            log.error("not reloaded: %s", exc)
        except Exception:
            # The edge: whoever asked goes on asking.
            log.exception("the reload failed")

    def app(self) -> Any:
        """The ASGI application of the shift in force: a reload changes it under the server."""

        async def asgi(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            await self._api(scope, receive, send)

        return asgi

    # what the desk asks ------------------------------------------------------------------------------------------

    def facts(self) -> Mapping[str, Any]:
        assembly = self.shift.assembly
        return {
            "version": version("midwatch"),
            "host": self.shift.host,
            "pid": os.getpid(),
            "mode": self.shift.mode().name.lower(),
            "uptime": self._clock.boottime() - self._began,
            "perceivers": len(self.shift.perceivers),
            "channels": self.channels(),
            "rules": len(assembly.policy.rules),
            "policy": assembly.policy.digest,
            "policy_trouble": assembly.trouble,
            "config": str(assembly.config.path),
            "changed_on_disk": assembly.changed(),
            "last_good": self.shift.copies.good,
        }

    def blind(self) -> Mapping[str, str]:
        return self.shift.watch.blind()

    def channels(self) -> list[str]:
        return sorted(self.shift.channels)

    async def perceive(self, name: str) -> list[Mapping[str, Any]]:
        # A shift that was relieved must not look any more: what it saw would be seen twice.
        async with self._between_shifts():
            watched = self.shift.watch.watched
            if name not in watched:
                raise NotFound(
                    f"there is no perceiver {name!r}; configured: {', '.join(sorted(watched)) or 'none'}"
                )
            await self.shift.watch.poll(name)
            return [asdict(seen) for seen in watched[name].last]

    # one shift after the other -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _between_shifts(self) -> AsyncIterator[None]:
        """While this lasts nobody else relieves the shift. Raises MidwatchError when there is none any more."""
        async with self._relief:
            if self._leaving or self.lost.is_set():
                raise MidwatchError("midwatch is stopping; ask again once it has started anew")
            yield

    async def _reload(self) -> Mapping[str, Any]:
        before = self.shift.assembly
        # In a thread: to read and try many rules takes a while, and the watch goes on meanwhile.
        assembly = await asyncio.to_thread(assemble, self._path)
        if fixed := list(_fixed(before.config, assembly.config)):
            raise ConfigError(fixed)
        following, tokens = Shift(assembly, self._ship), _tokens(assembly.config)
        try:
            await self._relieve()
            await self._man(following, tokens)
        except BaseException:
            self.lost.set()
            raise
        self._follower.turn()
        told = {
            "newly_allowed": list(_newly_allowed(before, assembly)),
            "perceivers": len(following.perceivers),
        }
        await self.store.write(lambda tx: tx.record("reloaded", {**told, "policy": assembly.policy.digest}))
        return told

    async def _relieve(self) -> None:
        await self.shift.stop()

    async def _man(self, shift: Shift, tokens: Mapping[str, str]) -> None:
        """Have a shift take over, and people speak to it."""
        try:
            await shift.start()
        except BaseException:
            await shift.stop()
            raise
        # Nothing is waited for in between: no lane of the new shift moves before people's votes wake it.
        self.shift = shift
        self._api = Api(self._desk(shift), Identities(tokens)).app()
        await self._tell_policy(shift)

    def _desk(self, shift: Shift) -> Desk:
        return Desk(
            DeskParts(
                store=self.store,
                clock=self._clock,
                holds=shift.holds,
                people=shift.people,
                # Of whichever shift stands watch once the row is written.
                wake=lambda incident: self.shift.lanes.wake(incident),
                sent=lambda: self.shift.dispatcher.wake(),
                myself=self,
            )
        )

    async def _tell_policy(self, shift: Shift) -> None:
        """Trouble with the policy is told like any other trouble, and so is its end: also of what an earlier process told."""
        trouble = shift.assembly.trouble
        here = f"path:{shift.assembly.config.places.policies}"
        for resource in await self.store.read(_broken):
            if resource != here or not trouble:
                await shift.ingest.say(self._finding(resource, "cleared", "the policy is sound"))
        if trouble:
            log.error("everything is denied: %s", trouble)
            summary = f"the policy cannot be used, so everything is denied: {trouble[:LONGEST_TROUBLE]}"
            await shift.ingest.say(self._finding(here, "firing", summary))

    def _finding(self, resource: str, state: Literal["firing", "cleared"], summary: str) -> Signal:
        return Signal(BROKEN, resource, Severity.CRITICAL, state, self._clock.wall(), summary)

    def _standing(self) -> str:
        if self.shift.assembly.trouble:
            return "everything is denied: the policy cannot be used"
        return f"{len(self.shift.perceivers)} perceivers, mode {self.shift.mode().name.lower()}"


def _broken(conn: Connection) -> list[str]:
    """The Resources of policies that were told to be broken, and not yet to be sound again."""
    query = select(SIGNAL.c.resource).where(SIGNAL.c.name == BROKEN, SIGNAL.c.state == "firing")
    return [resource for (resource,) in conn.execute(query)]


def _tokens(config: Config) -> dict[str, str]:
    """Person → token. Raises ConfigError with every one that cannot be read."""
    tokens: dict[str, str] = {}
    problems: list[Problem] = []
    for name, person in config.settings.people.items():
        try:
            tokens |= {} if person.token is None else {name: secrets.read(person.token)}
        except ConfigError as exc:
            problems += [
                replace(problem, where=config.where("people", name, "token")) for problem in exc.problems
            ]
    if problems:
        raise ConfigError(problems)
    return tokens


def _group(config: Config) -> int | None:
    name = config.settings.daemon.group
    try:
        return None if name is None else grp.getgrnam(name).gr_gid
    except KeyError:
        where, hint = config.where("daemon", "group"), f"`groupadd --system {name}`, or take it out"
        raise ConfigError([Problem(where, f"there is no group `{name}`", hint)]) from None


def _fixed(before: Config, after: Config) -> Iterator[Problem]:
    """What a running daemon cannot take with it: where its journal and its socket are, who may use it, its room on the disk."""
    old, new = before.settings.daemon, after.settings.daemon
    pairs = {
        "state": (before.places.state, after.places.state),
        "socket": (before.places.socket, after.places.socket),
        "group": (old.group, new.group),
        "ballast": (old.ballast, new.ballast),
    }
    for key, (was, is_now) in pairs.items():
        if was != is_now:
            now = "not set" if was is None else was
            what = f"`{key}` cannot change while midwatch runs; it is {now} now"
            yield Problem(after.where("daemon", key), what, "restart midwatch, or change it back")


def _newly_allowed(before: Assembly, after: Assembly) -> Iterator[str]:
    """What may be done now that might not before: what a person should read after a reload."""
    if after.config.mode > before.config.mode:
        yield f"mode {after.config.mode.name.lower()}, which was {before.config.mode.name.lower()}"
    known = {rule.digest for rule in before.policy.rules if _permits(rule)}
    yield from (
        f"{rule.id} at {rule.where}"
        for rule in after.policy.rules
        if _permits(rule) and rule.digest not in known
    )
    denied = {rule.digest for rule in after.policy.rules if rule.effect == "deny"}
    yield from (
        f"what {rule.id} denied, at {rule.where}"
        for rule in before.policy.rules
        if rule.effect == "deny" and rule.digest not in denied
    )


def _permits(rule: Rule) -> bool:
    return rule.effect != "deny" and not rule.shadow
