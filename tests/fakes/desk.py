"""A daemon for those who talk to one: the real store, desk and server on a socket of their own; only the loop behind them is missing."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from daemon.act.holds import Holds
from daemon.api.client import Client
from daemon.api.desk import Desk, NotFound, Parts
from daemon.api.identity import People as Identities
from daemon.api.server import Api, Server
from daemon.clock import Clock
from daemon.errors import ConfigError, Problem
from daemon.escalate import approvals
from daemon.escalate.oncall import OnCall
from daemon.escalate.routes import Routes
from daemon.incidents import correlate
from daemon.incidents.graph import Graph
from daemon.loop.people import People, Voices
from daemon.model.domain import Severity, Signal
from daemon.model.policy import Terms
from daemon.store.store import Store, Tx

T = TypeVar("T")
TOKEN = "a" + "-made-up-one"


@dataclass
class Myself:
    """What the app would answer about itself."""

    broken: bool = False
    blindness: dict[str, str] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> Mapping[str, Any]:
        facts = {
            "version": "0.1.0",
            "host": "web1",
            "pid": 4711,
            "mode": "act",
            "uptime": 7260.0,
            "perceivers": 3,
            "rules": 12,
            "policy": "0" * 64,
            "policy_trouble": "",
            "config": "/etc/midwatch/config.toml",
            "changed_on_disk": [],
        }
        return {**facts, **self.told}

    def blind(self) -> Mapping[str, str]:
        return self.blindness

    def channels(self) -> list[str]:
        return ["ops"]

    async def perceive(self, name: str) -> list[Mapping[str, Any]]:
        if name != "api":
            raise NotFound(f"there is no perceiver {name!r}; configured: api")
        seen = {
            "perceiver": "api",
            "resource": "service:api",
            "at": 1.0,
            "values": {"up": True, "status": 200},
            "key": "",
            "rule": "",
        }
        return [
            {**seen, "count": 0, "first": 0.0, "last": 0.0, "samples": [], "captures": {}, "unreadable": ""}
        ]

    async def reload(self) -> Mapping[str, Any]:
        if self.broken:
            raise ConfigError(
                [Problem("/etc/midwatch/config.toml:7", "unknown key `mod`", "did you mean `mode`?")]
            )
        return {"newly_allowed": ["restart-apps at /etc/midwatch/policies.d/app.toml:3"], "perceivers": 3}


class RunningDesk:
    """An async context: the server answers on `path` from entry to exit."""

    def __init__(self, store: Store, clock: Clock, slowest_body: float = 10.0) -> None:
        self.store = store
        self.clock = clock
        self.myself = Myself()
        self._slowest_body = slowest_body
        self.woken: list[str] = []
        self.sent = 0
        self._directory = Path(tempfile.mkdtemp(prefix="mw"))  # short: a socket's path has 107 bytes
        self.path = self._directory / "admin.sock"

    async def __aenter__(self) -> Self:
        people = People(Voices(Routes({Severity.ERROR: ("ops",)}), OnCall(), {}), self.clock, "web1")
        holds = Holds([f"path:{self._directory}/hold"], self.clock)
        parts = Parts(self.store, self.clock, holds, people, self.woken.append, self._sent, self.myself)
        self._server = Server(Api(Desk(parts), Identities({"anna": TOKEN}), self._slowest_body), self.path)
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop()
        shutil.rmtree(self._directory)

    def _sent(self) -> None:
        self.sent += 1

    async def by(self, work: Callable[[Client], T], token: str = "") -> T:
        """Ask as a client would, from a thread of its own."""
        return await asyncio.to_thread(work, Client(self.path, token))

    async def incident(
        self, name: str = "service-down", summary: str = "http 500", samples: tuple[str, ...] = ()
    ) -> str:
        """Open an incident as a firing signal does."""
        now = self.clock.wall()
        signal = Signal(name, "service:api", Severity.ERROR, "firing", now, summary, samples=samples)
        return str(await self.store.write(lambda tx: place(tx, signal)))

    async def asked(self, incident: str, *, approvers: tuple[str, ...] = (), quorum: int = 1) -> str:
        """Put a question as the loop does; gives the approval's id."""
        terms = Terms(from_=approvers, quorum=quorum)

        def work(tx: Tx) -> str:
            return approvals.ask(
                tx,
                self.clock,
                incident=incident,
                digest="d" * 64,
                action="command.restart-api",
                target="service:api",
                params={"how": "hard"},
                rule="model-asks",
                wanted=terms,
            )

        return await self.store.write(work)


def place(tx: Tx, signal: Signal) -> str | None:
    facts = {
        "name": signal.name,
        "resource": signal.resource,
        "state": signal.state,
        "severity": signal.severity.word,
    }
    seq = tx.record("signal", {**facts, "summary": signal.summary})
    return correlate.place(tx, signal, Graph({}, {}), correlate.Placement(), seq).incident
