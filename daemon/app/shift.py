"""One shift: everything that stands watch by one configuration. A reload builds the next shift, then relieves this one.

The wiring is one straight line on purpose: who is given what can be read from top to bottom.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actuators import safefs
from actuators.base import Actuator
from actuators.base import Tools as ActuatorTools
from actuators.runner import Runner
from daemon.act.catalogue import Catalogue
from daemon.act.executor import Executor
from daemon.act.holds import Holds
from daemon.app import inventory
from daemon.app.assemble import Assembly
from daemon.app.forget import forget
from daemon.app.registry import actuator_builders
from daemon.clock import Clock
from daemon.config import secrets
from daemon.config.settings import Secret
from daemon.detect.detector import Detector
from daemon.errors import ConfigError, StoreError
from daemon.escalate.base import Channel
from daemon.escalate.base import Tools as ChannelTools
from daemon.escalate.dispatch import Dispatcher
from daemon.gate import Gate
from daemon.incidents.correlate import Placement as PlacementRules
from daemon.loop.advance import Loop
from daemon.loop.advance import Parts as LoopParts
from daemon.loop.casebook import Casebook
from daemon.loop.copies import Copies
from daemon.loop.ingest import Ingest, Placement
from daemon.loop.lanes import Lanes
from daemon.loop.people import People
from daemon.loop.rows import unfinished
from daemon.loop.watch import Watch, Watched
from daemon.model.domain import Mode, Severity
from daemon.reason.runbooks import RunbookReasoner
from daemon.store.store import Store
from perceivers.base import Tools as PerceiverTools

log = logging.getLogger(__name__)
TICK = 0.5
"""Seconds between looks at what time alone changes: absence, quiet, copies, the clock itself."""
HOUSEKEEPING = 3600.0
"""Seconds between seals, retention and the copy of the journal."""
FIRST_HOUSEKEEPING = 60.0
RETRY = 2.0
"""Seconds before a round that failed begins anew."""


@dataclass(frozen=True, slots=True)
class Ship:
    """What outlasts a shift."""

    store: Store
    clock: Clock
    host: str
    """The machine's own name, for a configuration that gives it none."""
    grace_until: float
    """Unix seconds until which nothing opens an incident: the host, or the daemon, is still starting."""
    executor: type[Executor]


class Shift:
    """Builds in `__init__` (nothing live is touched), stands watch between `start` and `stop`."""

    def __init__(self, assembly: Assembly, ship: Ship) -> None:
        self.assembly = assembly
        config = assembly.config
        settings = config.settings
        store, clock = ship.store, ship.clock
        self._store = store
        self._clock = clock
        self._grace_until = ship.grace_until
        self.host = settings.daemon.host or ship.host
        graph = inventory.graph(config)
        self.copies = Copies(store, clock, graph, inventory.kept_files(config), self._keep, self._drop)
        self.perceivers = {
            plan.name: plan.kind.build(plan.spec, self._perceiver_tools()) for plan in config.perceivers
        }
        self.channels = self._channels()
        self.catalogue = Catalogue(self._actuators(), settings.services)
        self.holds = Holds(settings.hold.while_, clock)
        self.lanes = Lanes(
            lambda incident: self.loop.advance(incident),
            stepped=lambda: self.dispatcher.wake(),
            stumbled=lambda incident, reason: self.loop.stumbled(incident, reason),
        )
        detector = Detector([rule for plan in config.perceivers for rule in plan.rules], clock)
        placement = Placement(graph, PlacementRules(grace_until=ship.grace_until))
        self.ingest = Ingest(store, clock, detector, placement, self.lanes.wake)
        self.watch = Watch(self._watched(), self.ingest, clock, self.copies.saw)
        voices = inventory.voices(config)
        # What one channel cannot say, the others that are told of errors say.
        self.dispatcher = Dispatcher(
            store, clock, self.channels, fallback=lambda name: voices.routes.channels(Severity.ERROR)
        )
        self.people = People(voices, clock, self.host)
        self.gate = Gate(store, self.catalogue, self.holds, clock, lambda: assembly.policy, self.mode)
        self.loop = Loop(
            LoopParts(
                store=store,
                clock=clock,
                gate=self.gate,
                executor=ship.executor(store, self.catalogue, clock),
                holds=self.holds,
                reasoner=RunbookReasoner(assembly.runbooks),
                people=self.people,
                cases=Casebook(store, clock, self.watch, inventory.inventory(config, graph)),
            )
        )
        self._rounds: list[asyncio.Task[None]] = []
        self._passing = asyncio.Lock()
        self._restored = False
        self._over = False

    def mode(self) -> Mode:
        """The ceiling in force: after damage to the journal nothing but watching, whatever the configuration says."""
        return Mode.OBSERVE if self._store.observe_only else self.assembly.config.mode

    async def start(self) -> None:
        """Go on where the last shift stopped. Raises StoreError; then `stop` tidies up all the same."""
        await self._store.write(lambda tx: forget(tx, self.assembly.config.perceivers))
        await self.copies.restore()
        await self.ingest.restore(self.perceivers)
        self._restored = True
        self.watch.start()
        for name, work in (
            ("outbox", self.dispatcher.run),
            ("clock", self._keep_time),
            ("house", self._keep_house),
        ):
            self._rounds.append(asyncio.create_task(self._again_and_again(work), name=name))
        for incident in await self._store.read(unfinished):
            self.lanes.wake(incident)

    async def stop(self) -> None:
        """Let what is under way end; whatever is left is taken up by the next shift. Does not raise for the journal's troubles."""
        if self._over:
            return
        self._over = True
        # The lanes first: they look through the perceivers, which are closed for good after that.
        await self.lanes.stop()
        async with self._passing:
            # Not in the middle of a pass: what it found would be lost.
            for task in self._rounds:
                task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        await self.watch.stop()
        await self._save()
        for channel in self.channels.values():
            await channel.close()
        await self.catalogue.close()

    async def _save(self) -> None:
        """Keep what the detector knows; but not of a shift that never knew anything, for that would wipe out what the last one did."""
        if not self._restored:
            return
        try:
            await self.ingest.save(list(self.perceivers))
        except StoreError as exc:
            log.error("the next shift begins with what the detector knew at its last finding: %s", exc)

    # rounds ------------------------------------------------------------------------------------------------------

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        """Keep a round going: a fault in it costs a moment, not the watch."""
        while True:
            try:
                await work()
            except (StoreError, OSError) as exc:
                log.error("a round waits: %s", exc)
            except Exception:
                # The edge of every round.
                log.exception("a round failed; it begins anew")
            await asyncio.sleep(RETRY)

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            async with self._passing:
                await self._pass_time()

    async def _pass_time(self) -> None:
        self.watch.heed_clock()
        await self.ingest.tick()
        await self.copies.tick()
        if self._grace_until and self._clock.wall() >= self._grace_until:
            await self.ingest.open_held_back()
            self._grace_until = 0.0

    async def _keep_house(self) -> None:
        await asyncio.sleep(FIRST_HOUSEKEEPING)
        while True:
            await self._store.keep_house(self.assembly.config.settings.daemon.keep)
            await asyncio.sleep(HOUSEKEEPING)

    # building ----------------------------------------------------------------------------------------------------

    @property
    def _copies_kept(self) -> Path:
        return self.assembly.config.places.state / "copies"

    @property
    def _scratch(self) -> Path:
        return self.assembly.config.places.state / "scratch"

    def _watched(self) -> dict[str, Watched]:
        return {
            plan.name: Watched(self.perceivers[plan.name], plan.every, plan.timeout)
            for plan in self.assembly.config.perceivers
        }

    def _perceiver_tools(self) -> PerceiverTools:
        return PerceiverTools(self._clock.wall, self._clock.boottime, safefs.open_for_reading)

    def _channels(self) -> dict[str, Channel]:
        tools = ChannelTools(self._clock.wall, secrets.read)
        return {
            name: kind.build(name, settings, tools)
            for name, (kind, settings) in self.assembly.config.channels.items()
        }

    def _actuators(self) -> list[Actuator]:
        settings = self.assembly.config.settings
        tools = ActuatorTools(
            run=Runner(),
            files=safefs,
            settings={
                "commands": {name: command.model_dump() for name, command in settings.commands.items()},
                "directories": {
                    name: directory.model_dump() for name, directory in settings.directories.items()
                },
                "calls": {name: call.model_dump() for name, call in settings.calls.items()},
            },
            wall=self._clock.wall,
            copies=str(self._copies_kept),
            last_good=self.copies.last_good,
            services={name: service.model_dump() for name, service in settings.services.items()},
            scratch=str(self._scratch),
            secret=_secret,
        )
        return [build(tools) for build in actuator_builders().values()]

    def _keep(self, path: str, sha256: str) -> bool:
        """Whether the content that was seen is kept now; it may have changed again since."""
        try:
            return safefs.keep(path, str(self._copies_kept)) == sha256
        except OSError as exc:
            log.warning("no copy of %s could be kept: %s", path, exc)
            return False

    def _drop(self, hashes: Sequence[str]) -> None:
        try:
            there = safefs.listing(str(self._copies_kept))
            safefs.remove(str(self._copies_kept), [entry for entry in there if entry.name in hashes])
        except OSError as exc:
            log.warning("copies that nobody needs any more stay: %s", exc)


def _secret(source: Mapping[str, Any]) -> str:
    try:
        return secrets.read(Secret.model_validate(dict(source)))
    except ConfigError as exc:
        raise ValueError(str(exc)) from exc
