"""A ship for the loop: the real store, gate, executor, people and loop on a clock that the test moves; only the world is made up.

Nothing runs by itself: `step` is one step of an incident, `sail` steps on and moves the clock by what the loop asks for.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fakes.policies import policy
from sqlalchemy import Row, literal_column, select, update

from actuators.base import Action, Check, Outcome, Probe, Result
from daemon.act.catalogue import Catalogue
from daemon.act.executor import Executor
from daemon.act.holds import Holds
from daemon.clock import ManualClock
from daemon.escalate import approvals
from daemon.escalate.approvals import Vote
from daemon.escalate.oncall import OnCall
from daemon.escalate.routes import Routes
from daemon.gate import Gate
from daemon.incidents import correlate
from daemon.incidents.graph import Graph
from daemon.loop.advance import Loop, Parts
from daemon.loop.casebook import Casebook, Inventory
from daemon.loop.people import People, Voices
from daemon.loop.rows import approval_of, find_incident
from daemon.model.domain import Diagnosis, Mode, Proof, Proposal, Remedy, Severity, Signal, State
from daemon.policy.engine import Policy
from daemon.reason.base import Case, Reasoner
from daemon.store.store import Store, Tx
from daemon.store.tables import ATTEMPT, INCIDENT, JOURNAL, LOCK, OUTBOX
from perceivers.base import Observation

APP = "service:app"
ALLOW = """
[[rule]]
id     = "allow-all"
effect = "allow"
action = ["command.*"]
"""
ASK = """
[[rule]]
id        = "ask-first"
effect    = "require-approval"
action    = ["command.*"]
approvals = { expires = "1h" }
"""
MOST_STEPS = 300
"""Steps within which every story must come to its end."""


class Killed(Exception):
    """Stands for the end of the process."""


class Hands:
    """An actuator whose every answer the test decides; it notes what it did."""

    kind = "command"
    irreversible: frozenset[str] = frozenset()

    def __init__(self, verbs: Sequence[str] = ("start", "restart", "restore", "reload")) -> None:
        self.verbs: Mapping[str, str] = {verb: f"does {verb}" for verb in verbs}
        self.undoable: frozenset[str] = frozenset(verbs)
        self.did: list[str] = []
        """`restart service:app`, `undo restart service:app`."""
        self.keys: list[str] = []
        self.states: dict[str, Any] = {}
        """Target → its state, as a check sees it."""
        self.sizes: dict[str, int] = {}
        self.not_ready: dict[str, str] = {}
        """Verb → why its preconditions do not hold."""
        self.outcomes: dict[str, Outcome] = {}
        """Verb → how it ends; `undo VERB` → how taking it back ends."""
        self.vain: set[str] = set()
        """Verbs that succeed without an effect to be seen."""
        self.probes: list[str] = []
        self.answer: Probe = "cannot-tell"
        self.aliases: dict[str, str] = {}
        self.before_check: Callable[[Action], Awaitable[None]] | None = None
        self.on_apply: Callable[[Action], Awaitable[None]] | None = None

    async def resolve(self, action: Action) -> Action:
        if unknown := set(action.params) - {"copy"}:
            raise ValueError(f"it takes no {', '.join(sorted(unknown))}; it takes copy")
        return replace(action, target=self.aliases.get(action.target, action.target))

    async def check(self, action: Action) -> Check:
        if self.before_check is not None:
            await self.before_check(action)
        why = self.not_ready.get(_verb(action), "")
        return Check(not why, why, {"is": self.states.get(action.target)}, dict(self.sizes))

    async def apply(self, action: Action, check: Check) -> Outcome:
        self.keys.append(action.key)
        return await self._do(action, _verb(action), Outcome(Result.SUCCEEDED))

    async def verify(self, action: Action, check: Check, outcome: Outcome) -> bool:
        return _verb(action) not in self.vain

    async def undo(self, action: Action, check: Check, outcome: Outcome) -> Outcome:
        return await self._do(action, f"undo {_verb(action)}", Outcome(Result.UNDONE))

    async def _do(self, action: Action, what: str, usual: Outcome) -> Outcome:
        self.did.append(f"{what} {action.target}")
        if self.on_apply is not None:
            await self.on_apply(action)
        return self.outcomes.get(what, usual)

    async def probe(self, action: Action, check: Check) -> Probe:
        self.probes.append(action.key)
        return self.answer

    async def close(self) -> None:
        return None


def _verb(action: Action) -> str:
    return action.id.partition(".")[2]


@dataclass
class World:
    """What the loop looks at. `on_look` is where a test lets the world change."""

    looked: list[tuple[tuple[str, ...], str | None]] = field(default_factory=list)
    readings: list[Observation] = field(default_factory=list)
    brews: bool = False
    on_look: Callable[[Sequence[str]], Awaitable[None]] | None = None

    async def look_at(self, resources: Sequence[str], kind: str | None = None) -> list[Observation]:
        self.looked.append((tuple(resources), kind))
        if self.on_look is not None:
            await self.on_look(resources)
        return self.readings

    def brewing(self, resources: Sequence[str]) -> bool:
        return self.brews


@dataclass
class Fixed:
    """Always the same answer, less what already failed."""

    remedies: Sequence[Remedy] = ()
    cause: str = "crashed"
    cases: list[Case] = field(default_factory=list)
    on_diagnose: Callable[[], Awaitable[None]] | None = None
    name: str = "fixed"

    async def diagnose(self, case: Case) -> Diagnosis:
        self.cases.append(case)
        if self.on_diagnose is not None:
            await self.on_diagnose()
        tried = {(proposal.action, proposal.target) for proposal in case.tried}
        left = tuple(
            remedy
            for remedy in self.remedies
            if not all((step.action, step.target) in tried for step in remedy.steps)
        )
        return Diagnosis(self.cause, "fixed", f"{case.resource} {self.cause}", remedies=left)


def remedy(*verbs: str, target: str = APP, **more: Any) -> Remedy:
    """The named commands on one target, one after the other."""
    steps = tuple(Proposal(f"command.{verb}", target, reason="a test") for verb in verbs)
    proof = Proof(
        clear=tuple(more.get("clear", ())),
        clear_for=more.get("clear_for", 2.0),
        within=more.get("within", 30.0),
    )
    return Remedy(steps, proof, more.get("settle", 0.0))


class Ship:
    """Everything that one incident goes through."""

    def __init__(self, store: Store, clock: ManualClock, directory: Path) -> None:
        self.store = store
        self.clock = clock
        self.directory = directory
        self.hands = Hands()
        self.world = World()
        self.graph = Graph(
            {"service:web": [APP], "service:jobs": [APP], APP: ["service:db"]},
            {"path:/etc/app.conf": APP, "unit:app.service": APP},
        )
        self.reasoner: Reasoner = Fixed([remedy("restart")])
        self.mode = Mode.ACT
        self.policy = Policy()
        self.hold_file = directory / "hold"
        self.conditions: tuple[str, ...] = (f"path:{self.hold_file}",)
        self.oncall = OnCall()
        self.settles: dict[str, float] = {}
        self.people_channels: dict[str, tuple[str, ...]] = {}
        self.rules(ALLOW)
        self.embark()

    def rules(self, text: str) -> None:
        self.policy = policy(self.directory, text)

    def remedies(self, *remedies: Remedy) -> Fixed:
        self.reasoner = Fixed(list(remedies))
        self.embark()
        return self.reasoner

    def embark(self) -> None:
        """A new process over the same journal: nothing in memory is carried over."""
        services = [name.partition(":")[2] for name in ("service:web", APP, "service:db", "service:api")]
        self.catalogue = Catalogue([self.hands], services)
        self.holds = Holds(self.conditions, self.clock)
        self.executor = Executor(self.store, self.catalogue, self.clock)
        self.gate = Gate(
            self.store, self.catalogue, self.holds, self.clock, lambda: self.policy, lambda: self.mode
        )
        routes = Routes({Severity.ERROR: ("ops",), Severity.CRITICAL: ("ops", "pager")})
        self.people = People(Voices(routes, self.oncall, self.people_channels), self.clock, "web1")
        self.loop = Loop(
            Parts(
                store=self.store,
                clock=self.clock,
                gate=self.gate,
                executor=self.executor,
                holds=self.holds,
                reasoner=self.reasoner,
                people=self.people,
                cases=Casebook(
                    self.store, self.clock, self.world, Inventory(self.graph, settle=self.settles)
                ),
            )
        )

    # what happens in the world -----------------------------------------------------------------------------------

    async def fire(self, name: str = "service-down", resource: str = APP, **more: Any) -> str:
        """A finding; gives the incident that it went to."""
        incident = await self._signal(name, resource, "firing", more)
        assert incident is not None
        return incident

    async def note(self, name: str, resource: str, **more: Any) -> str | None:
        """A finding that is only context."""
        return await self._signal(name, resource, "firing", {"severity": Severity.INFO, **more})

    async def clear(self, name: str = "service-down", resource: str = APP) -> str | None:
        return await self._signal(name, resource, "cleared", {})

    async def _signal(self, name: str, resource: str, state: Any, more: dict[str, Any]) -> str | None:
        facts = {"severity": Severity.ERROR, "summary": f"{name} on {resource}", **more}
        signal = Signal(name, resource, state=state, at=self.clock.wall(), **facts)

        def work(tx: Tx) -> str | None:
            seq = tx.record("signal", {"name": name, "state": state})
            return correlate.place(tx, signal, self.graph, correlate.Placement(), seq).incident

        return await self.store.write(work)

    def heals(self, *verbs: str, name: str = "service-down", resource: str = APP) -> None:
        """These commands end the fault: the next look finds it clear."""

        async def look(resources: Sequence[str]) -> None:
            if any(f"{verb} {resource}" in self.hands.did for verb in verbs):
                await self.clear(name, resource)

        self.world.on_look = look

    # the loop ----------------------------------------------------------------------------------------------------

    async def step(self, incident: str) -> float | None:
        return await self.loop.advance(incident)

    async def sail(self, incident: str, *until: State) -> State:
        """Step on, at least once, until one of these states or until nothing is due any more; gives where it stands."""
        for _ in range(MOST_STEPS):
            wait = await self.step(incident)
            state = await self.state(incident)
            if wait is None or state in until:
                return state
            self.clock.advance(wait)
        raise AssertionError(f"{incident} never came to an end: {await self.row(incident)}")

    async def steps(self, incident: str, number: int) -> list[float | None]:
        """That many steps, the clock standing still."""
        return [await self.step(incident) for _ in range(number)]

    async def killed_before_acting(self, incident: str) -> str:
        """The process dies when the intent is on disk and nothing is begun; another one takes over. Gives the attempt's key."""

        async def die(action: Action) -> None:
            if await self.locks():
                raise Killed

        self.hands.before_check = die
        with suppress(Killed):
            await self.sail(incident)
        self.hands.before_check = None
        self.embark()
        (attempt,) = [attempt for attempt in await self.attempts() if attempt.result is None]
        return str(attempt.key)

    async def vote(self, incident: str, yes: bool = True, person: str = "anna") -> Vote:
        asked = await self.asked(incident)
        return await self.store.write(
            lambda tx: approvals.vote(tx, self.clock, asked.id, person, yes, "because")
        )

    async def set(self, incident: str, **values: Any) -> None:
        await self.store.write(
            lambda tx: tx.conn.execute(update(INCIDENT).where(INCIDENT.c.id == incident).values(**values))
        )

    async def close(self, incident: str, reason: str = "anna closed it") -> None:
        """As a person does."""

        def work(tx: Tx) -> None:
            row = find_incident(tx.conn, incident)
            assert row is not None
            self.people.resolve(tx, row, reason)

        await self.store.write(work)

    # what is on record -------------------------------------------------------------------------------------------

    async def row(self, incident: str) -> Row[Any]:
        row = await self.store.read(lambda conn: find_incident(conn, incident))
        assert row is not None
        return row

    async def state(self, incident: str) -> State:
        return State((await self.row(incident)).state)

    async def reason(self, incident: str) -> str:
        return str((await self.row(incident)).reason)

    async def asked(self, incident: str) -> Row[Any]:
        row = await self.store.read(lambda conn: approval_of(conn, incident))
        assert row is not None
        return row

    async def attempts(self) -> list[Row[Any]]:
        return await self.store.read(lambda conn: list(conn.execute(select(ATTEMPT))))

    async def locks(self) -> list[str]:
        return await self.store.read(lambda conn: list(conn.execute(select(LOCK.c.target)).scalars()))

    async def journal(self, kind: str) -> list[dict[str, Any]]:
        query = select(JOURNAL.c.payload).where(JOURNAL.c.kind == kind).order_by(JOURNAL.c.seq)
        rows = await self.store.read(lambda conn: list(conn.execute(query).scalars()))
        return [json.loads(payload) for payload in rows]

    async def kinds(self, *kinds: str) -> list[str]:
        """The journal's rows of these kinds, in order."""
        query = select(JOURNAL.c.kind).where(JOURNAL.c.kind.in_(kinds)).order_by(JOURNAL.c.seq)
        return await self.store.read(lambda conn: list(conn.execute(query).scalars()))

    async def messages(self, event: str) -> list[tuple[str, dict[str, Any]]]:
        """What people were told: (channel, message)."""
        query = select(OUTBOX.c.channel, OUTBOX.c.message).where(OUTBOX.c.event == event)
        query = query.order_by(literal_column("outbox.rowid"))
        return await self.store.read(lambda conn: [(row[0], row[1]) for row in conn.execute(query)])

    async def told(self, event: str) -> list[str]:
        """As `CHANNEL: SUMMARY`."""
        return [f"{channel}: {message['summary']}" for channel, message in await self.messages(event)]
