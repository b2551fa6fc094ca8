"""What hangs on what, as the inventory says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property


class Graph:
    """Dependencies between Resources. Cycles were refused when the configuration was read."""

    def __init__(
        self, depends_on: Mapping[str, Sequence[str]], owners: Mapping[str, str] | None = None
    ) -> None:
        """`owners` says to which service a Resource of another kind belongs (a file, a unit)."""
        self._depends_on = {name: tuple(below) for name, below in depends_on.items()}
        self._owners = dict(owners or {})

    def node(self, resource: str) -> str:
        """The Resource as the graph knows it."""
        return self._owners.get(resource, resource)

    @property
    def owners(self) -> Mapping[str, str]:
        """Resource → the service that it belongs to."""
        return self._owners

    def parts(self, node: str) -> tuple[str, ...]:
        """The node itself and every Resource that belongs to it."""
        return (node, *(resource for resource, owner in self._owners.items() if owner == node))

    @cached_property
    def _below(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}

        def walk(name: str) -> frozenset[str]:
            if name not in found:
                direct = self._depends_on.get(name, ())
                found[name] = frozenset(direct).union(*(walk(below) for below in direct))
            return found[name]

        for name in self._depends_on:
            walk(name)
        return found

    def below(self, resource: str) -> frozenset[str]:
        """Everything that the Resource hangs on, however far down."""
        return self._below.get(self.node(resource), frozenset())

    def hangs_on(self, resource: str, other: str) -> bool:
        return self.node(other) in self.below(resource)

    def related(self, one: str, other: str) -> bool:
        """The same thing, or one hangs on the other."""
        return self.node(one) == self.node(other) or self.hangs_on(one, other) or self.hangs_on(other, one)
