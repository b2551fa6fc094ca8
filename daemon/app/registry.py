"""Which kinds there are: built-in ones and plug-ins come the same way, as entry points of installed distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from actuators.base import Actuator
from actuators.base import Tools as ActuatorTools
from daemon.config.load import Kinds
from daemon.errors import MidwatchError


class PluginBroken(MidwatchError):
    """An installed distribution offers a kind that cannot be had."""


@cache
def kinds() -> Kinds:
    """The kinds of perceivers and channels. Raises PluginBroken."""
    return Kinds(perceivers=_loaded("midwatch.perceivers"), channels=_loaded("midwatch.channels"))


@cache
def actuator_builders() -> Mapping[str, Callable[[ActuatorTools], Actuator]]:
    """Kind of actuator → what builds it. Raises PluginBroken."""
    return _loaded("midwatch.actuators")


def _loaded(group: str) -> dict[str, Any]:
    return load_kinds(entry_points(group=group))


def load_kinds(offered: Iterable[EntryPoint]) -> dict[str, Any]:
    """Kind → what its entry point names. Two distributions with one kind, or one that cannot be imported: PluginBroken."""
    found: dict[str, EntryPoint] = {}
    for entry in offered:
        # An editable install lists its own entry points once for each place that it is found in.
        if (first := found.setdefault(entry.name, entry)).value != entry.value:
            raise PluginBroken(
                f"{_origin(first)} and {_origin(entry)} both bring a {entry.group} kind {entry.name!r}; uninstall one of them"
            )
    return {name: _load(entry) for name, entry in found.items()}


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as exc:
        raise PluginBroken(
            f"the {entry.group} kind {entry.name!r} of {_origin(entry)} cannot be loaded ({entry.value}): {exc}; "
            "install midwatch again, or uninstall what brings it"
        ) from exc


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
