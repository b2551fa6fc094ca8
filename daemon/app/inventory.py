"""From the configuration to what the parts of a shift want to know of it."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.config.load import Config
from daemon.escalate.oncall import OnCall, Step
from daemon.escalate.routes import Routes
from daemon.incidents.graph import Graph
from daemon.loop.casebook import Inventory
from daemon.loop.copies import Kept
from daemon.loop.people import Voices
from daemon.model.domain import Severity
from daemon.model.runbook import VERBS


def graph(config: Config) -> Graph:
    """What hangs on what, and which files and units belong to which service."""
    services = config.settings.services
    depends_on = {f"service:{name}": service.depends_on for name, service in services.items()}
    files = {
        f"path:{path}": f"service:{name}" for name, service in services.items() for path in service.files
    }
    units = {f"unit:{service.unit}": f"service:{name}" for name, service in services.items() if service.unit}
    return Graph(depends_on, {**files, **units})


def inventory(config: Config, over: Graph) -> Inventory:
    """What the loop knows of services: their verbs, and how long they need to settle."""
    services = config.settings.services
    verbs = {
        f"service:{name}": {verb: action for verb in VERBS if (action := getattr(service, verb)) is not None}
        for name, service in services.items()
    }
    return Inventory(over, verbs, {f"service:{name}": service.settle for name, service in services.items()})


def kept_files(config: Config) -> dict[str, Kept]:
    """Path → whose last good copy is kept."""
    services = config.settings.services
    return {
        path: Kept(f"service:{name}", service.quiet)
        for name, service in services.items()
        for path in service.files
    }


def voices(config: Config) -> Voices:
    """Whom to tell, and by which channels."""
    routes = {severity: tuple(getattr(config.settings.routes, severity.word)) for severity in Severity}
    people = {name: tuple(person.channels) for name, person in config.settings.people.items()}
    return Voices(Routes(routes), _oncall(config, people), people)


def _oncall(config: Config, people: Mapping[str, tuple[str, ...]]) -> OnCall:
    steps = []
    for step in config.settings.oncall:
        channels = dict.fromkeys(channel for person in step.who for channel in people.get(person, ()))
        steps.append(Step(tuple(channels), step.after))
    theirs = frozenset(
        name
        for name, (_, channel) in config.channels.items()
        if getattr(channel, "escalation", None) == "theirs"
    )
    return OnCall(tuple(steps), theirs=theirs)
