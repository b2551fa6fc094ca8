"""The actions that exist on this host, and the actuator behind each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from actuators.base import Action, Actuator
from daemon.errors import ActionRefused, ResourceError
from daemon.model import resource

MOST_NAMED = 8
"""Names that a refusal lists when none is like the one asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One action: what it does and whether there is a way back."""

    id: str
    description: str
    irreversible: bool
    undoable: bool


class Catalogue:
    """Action id → actuator. Ids are KIND.VERB, or KIND alone where there is only one thing to do (`noop`)."""

    def __init__(self, actuators: Iterable[Actuator], services: Collection[str] = ()) -> None:
        """`services`: the names in the inventory; no other service may be a target."""
        self._actuators = {actuator.kind: actuator for actuator in actuators}
        self._services = frozenset(services)

    def entries(self) -> Mapping[str, Entry]:
        return {
            _id(kind, verb): Entry(
                _id(kind, verb), text, verb in actuator.irreversible, verb in actuator.undoable
            )
            for kind, actuator in self._actuators.items()
            for verb, text in actuator.verbs.items()
        }

    def actuator(self, action: str) -> Actuator:
        """The actuator of an action id. Raises ActionRefused naming the nearest ids that exist."""
        kind, _, verb = action.partition(".")
        found = self._actuators.get(kind)
        if found is not None and verb in found.verbs:
            return found
        raise ActionRefused(f"there is no action {action!r}; {_near(action, self.entries())}")

    async def resolve(self, action: Action) -> Action:
        """The canonical action. Raises ActionRefused with what is accepted."""
        actuator = self.actuator(action.id)
        try:
            self._known(resource.parse(action.target))
            resolved = await actuator.resolve(action)
            self._known(resource.parse(resolved.target))
        except ResourceError as exc:
            raise ActionRefused(f"{action.id}: {exc}") from exc
        except ValueError as exc:
            raise ActionRefused(f"{action.id} on {action.target}: {exc}") from exc
        return resolved

    def _known(self, target: resource.Resource) -> None:
        if target.kind == "service" and target.name not in self._services:
            near = _near(target.name, self._services)
            raise ResourceError(
                f"{target} is not in the inventory; {near}; add [services.{target.name}] to the configuration"
            )

    async def close(self) -> None:
        for actuator in self._actuators.values():
            await actuator.close()


def _id(kind: str, verb: str) -> str:
    return f"{kind}.{verb}" if verb else kind


def _near(name: str, known: Collection[str]) -> str:
    """What is most like the name among what there is; when nothing is, some of it."""
    found = get_close_matches(name, known, n=3) or sorted(known)[:MOST_NAMED]
    return f"the nearest are {', '.join(found)}" if found else "there is none"
