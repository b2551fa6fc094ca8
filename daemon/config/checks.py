"""What types cannot say: that names exist, paths are absolute, addresses are addresses, and nothing hangs on itself.

Each check yields Faults; none looks at the host.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from daemon.config.settings import NAME, CommandSettings, ConfigSettings, ParamSettings, ServiceSettings
from daemon.config.toml import Keypath
from daemon.errors import ResourceError
from daemon.model import resource, units
from daemon.model.patterns import screen
from daemon.model.runbook import VERBS

CONDITIONS = "path:/FILE_OR_DIRECTORY, boot < 10m, shutdown"
PLANNED_CONDITIONS = re.compile(r"packages|unit:.*")


@dataclass(frozen=True, slots=True)
class Fault:
    """A Problem that does not know its line yet."""

    at: Keypath
    what: str
    hint: str = ""


def check(settings: ConfigSettings, actions: Collection[str]) -> Iterator[Fault]:
    """Everything that is wrong. `actions`: the ids that a service's verb may name besides `command.NAME`."""
    yield from _names(settings)
    yield from _daemon(settings)
    yield from _routes(settings)
    yield from _hold(settings)
    for name, service in settings.services.items():
        yield from _service(("services", name), service, settings)
        yield from _verbs(name, service, settings, actions)
    yield from _cycle(settings.services)
    for name, command in settings.commands.items():
        yield from _command(("commands", name), command)
        yield from _targets(("commands", name, "target"), command.target, settings)
    for name, directory in settings.directories.items():
        yield from _path(("directories", name, "path"), directory.path)
    for name, call in settings.calls.items():
        yield from _url(("calls", name, "url"), call.url)
        yield from _targets(("calls", name, "target"), call.target, settings)


def unknown_service(text: str, services: Collection[str]) -> tuple[str, str] | None:
    """What to say of a Resource that is a service outside the inventory; None when it is not."""
    found = resource.parse(text)
    if found.kind != "service" or found.name in services:
        return None
    return f"{text} is not in the inventory", f"add [services.{found.name}]; there are {_listed(services)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _exists(at: Keypath, noun: str, name: str, there: Collection[str]) -> Iterator[Fault]:
    if name not in there:
        near = get_close_matches(name, there, 1)
        meant = f"did you mean `{near[0]}`? " if near else ""
        yield Fault(at, f"there is no {noun} `{name}`", f"{meant}there are {_listed(there)}")


def _names(settings: ConfigSettings) -> Iterator[Fault]:
    for area in ("channels", "people", "services", "perceivers", "commands", "directories", "calls"):
        for name in getattr(settings, area):
            if not re.search(NAME, name):
                yield Fault(
                    (area, name),
                    f"`{name}` is no name",
                    "lower case letters, digits, `.`, `_`, `-`; at most 64",
                )


def _daemon(settings: ConfigSettings) -> Iterator[Fault]:
    for key in ("state", "socket", "policies", "runbooks"):
        if (path := getattr(settings.daemon, key)) is not None:
            yield from _path(("daemon", key), path)


def _routes(settings: ConfigSettings) -> Iterator[Fault]:
    for severity in ("critical", "error", "warning", "info"):
        yield from _each(
            ("routes", severity), "channel", getattr(settings.routes, severity), settings.channels
        )
    if report := settings.routes.report:
        yield from _each(("routes", "report", "to"), "channel", report.to, settings.channels)
        yield from _zone(report.tz)
    for name, person in settings.people.items():
        yield from _each(("people", name, "channels"), "channel", person.channels, settings.channels)
    for index, step in enumerate(settings.oncall):
        yield from _each(("oncall", index, "who"), "person", step.who, settings.people)


def _each(at: Keypath, noun: str, names: Sequence[str], there: Collection[str]) -> Iterator[Fault]:
    for index, name in enumerate(names):
        yield from _exists((*at, index), noun, name, there)


def _zone(name: str | None) -> Iterator[Fault]:
    try:
        ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield Fault(
            ("routes", "report", "tz"), f"there is no time zone `{name}`", "write it as in Europe/Berlin"
        )


def _hold(settings: ConfigSettings) -> Iterator[Fault]:
    for index, condition in enumerate(settings.hold.while_):
        at: Keypath = ("hold", "while", index)
        if condition == "shutdown":
            continue
        if condition.startswith("path:"):
            yield from _path(at, condition.removeprefix("path:"))
        elif PLANNED_CONDITIONS.fullmatch(condition):
            yield Fault(at, f"the hold condition `{condition}` is not built yet", f"there are {CONDITIONS}")
        elif not _is_boot(condition):
            yield Fault(at, f"`{condition}` is no hold condition", f"there are {CONDITIONS}")


def _is_boot(condition: str) -> bool:
    word, less, duration = condition.partition("<")
    try:
        return word.strip() == "boot" and less == "<" and units.seconds(duration) > 0
    except ValueError:
        return False


def _service(at: Keypath, service: ServiceSettings, settings: ConfigSettings) -> Iterator[Fault]:
    if service.unit is not None:
        yield from _resource((*at, "unit"), f"unit:{service.unit}")
    if service.pidfile is not None:
        yield from _path((*at, "pidfile"), service.pidfile)
    for index, path in enumerate(service.files):
        yield from _path((*at, "files", index), path)
    for index, path in enumerate(service.logs):
        if path == "journal":
            yield Fault((*at, "logs", index), "reading the journal is not built yet", "name the log's file")
        else:
            yield from _path((*at, "logs", index), path)
    for index, url in enumerate(service.urls):
        yield from _url((*at, "urls", index), url)
    for index, address in enumerate(service.tcp):
        yield from _address((*at, "tcp", index), address)
    for index, other in enumerate(service.depends_on):
        yield from _dependency((*at, "depends_on", index), other, settings)


def _dependency(at: Keypath, text: str, settings: ConfigSettings) -> Iterator[Fault]:
    if not text.startswith("service:"):
        yield Fault(at, f"`{text}` is no service", "write service:NAME")
        return
    yield from _inventory(at, text, settings)


def _inventory(at: Keypath, text: str, settings: ConfigSettings) -> Iterator[Fault]:
    faults = list(_resource(at, text))
    if not faults and (outside := unknown_service(text, settings.services)):
        faults.append(Fault(at, *outside))
    yield from faults


def _resource(at: Keypath, text: str) -> Iterator[Fault]:
    try:
        resource.parse(text)
    except ResourceError as exc:
        yield Fault(at, str(exc))


def _path(at: Keypath, path: str) -> Iterator[Fault]:
    try:
        resource.parse(f"path:{path}")
    except ResourceError:
        yield Fault(
            at,
            f"{path!r} is no path that is accepted",
            "write it from the root, without '.', '..', '//' or '/' at the end",
        )


def _url(at: Keypath, url: str) -> Iterator[Fault]:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        yield Fault(at, f"{url!r} is no URL that is accepted", "write http://HOST[:PORT]/PATH or https://...")


_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):([0-9]{1,5})")


def _address(at: Keypath, address: str) -> Iterator[Fault]:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[1]) < 65536:
        yield Fault(at, f"{address!r} is no address", "write HOST:PORT, an IPv6 address as in [::1]:80")


def _verbs(
    name: str, service: ServiceSettings, settings: ConfigSettings, actions: Collection[str]
) -> Iterator[Fault]:
    there = {*actions, *(f"command.{command}" for command in settings.commands)}
    for verb in VERBS:
        action = getattr(service, verb)
        if action is None:
            continue
        yield from _exists(("services", name, verb), "action", action, there)
        command = settings.commands.get(action.removeprefix("command."))
        if action.startswith("command.") and command is not None and not _covers(command, f"service:{name}"):
            hint = f'add "service:{name}" to `target` of [{action.replace(".", "s.", 1)}]'
            yield Fault(("services", name, verb), f"{action} may not be used on service:{name}", hint)


def _covers(command: CommandSettings, target: str) -> bool:
    return any(resource.matches(glob, target) for glob in command.target)


def _cycle(services: Mapping[str, ServiceSettings]) -> Iterator[Fault]:
    graph = {f"service:{name}": service.depends_on for name, service in services.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        # graphlib lists each node before the one that depends on it.
        ring = list(reversed(exc.args[1]))
        at = ("services", ring[0].removeprefix("service:"), "depends_on")
        yield Fault(
            at,
            f"services depend on each other in a ring: {' -> '.join(ring)}",
            "take one of these out of depends_on",
        )


_GLOB = re.compile(r"[*?\[]")


def _targets(at: Keypath, globs: Sequence[str], settings: ConfigSettings) -> Iterator[Fault]:
    for index, glob in enumerate(globs):
        kind = glob.partition(":")[0]
        if not _GLOB.search(glob):
            yield from _inventory((*at, index), glob, settings)
        elif kind not in resource.KINDS or ":" not in glob:
            yield Fault(
                (*at, index),
                f"`{glob}` is no Resource glob",
                f"KIND:GLOB, KIND one of {', '.join(resource.KINDS)}",
            )


_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _command(at: Keypath, command: CommandSettings) -> Iterator[Fault]:
    used: set[str] = set()
    for key in ("argv", "ready", "verify", "undo", "probe"):
        argv = getattr(command, key)
        if argv is None:
            continue
        yield from _program((*at, key), argv)
        for index, element in enumerate(argv):
            named = set(_PLACEHOLDER.findall(element))
            used |= named
            for name in sorted(named - command.params.keys()):
                yield Fault(
                    (*at, key, index),
                    f"the parameter {{{name}}} is not declared",
                    f"add it to `params`: {name} = {{ ... }}",
                )
    for name, param in command.params.items():
        if name not in used:
            yield Fault(
                (*at, "params", name),
                f"the parameter `{name}` is used nowhere",
                f"write {{{name}}} in argv or take it out",
            )
        yield from _param((*at, "params", name), param)
    yield from _path((*at, "cwd"), command.cwd)


_PROGRAM = re.compile(r"/[^{}]+|[^/{}\s]+")


def _program(at: Keypath, argv: Sequence[str]) -> Iterator[Fault]:
    if not argv:
        yield Fault(at, f"`{at[-1]}` is empty", "its first element is the program")
    elif not _PROGRAM.fullmatch(argv[0]):
        yield Fault((*at, 0), f"{argv[0]!r} is no program", "write its absolute path, or its name alone")


def _param(at: Keypath, param: ParamSettings) -> Iterator[Fault]:
    if param.type != "string" and (param.pattern is not None or param.choices is not None):
        yield Fault(at, f"`pattern` and `choices` belong to strings, this is `{param.type}`")
    if param.type != "integer" and (param.min is not None or param.max is not None):
        yield Fault(at, f"`min` and `max` belong to integers, this is `{param.type}`")
    if param.min is not None and param.max is not None and param.min > param.max:
        yield Fault((*at, "min"), f"`min` {param.min} is above `max` {param.max}")
    if param.pattern is not None and (refused := screen(param.pattern)):
        yield Fault((*at, "pattern"), f"the pattern {param.pattern!r} is refused: {refused}")
    elif param.default is not None and not _takes(param, param.default):
        yield Fault(
            (*at, "default"), f"the default {param.default!r} is not what the parameter itself accepts"
        )


_TYPES: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool}


def _takes(param: ParamSettings, value: str | int) -> bool:
    if type(value) is not _TYPES[param.type]:
        return False
    if isinstance(value, str):
        fits = param.pattern is None or re.fullmatch(param.pattern, value) is not None
        return fits and (param.choices is None or value in param.choices)
    return (param.min is None or value >= param.min) and (param.max is None or value <= param.max)
