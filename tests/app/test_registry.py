"""Entry points: what is built in, and plug-ins that are no good."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from daemon.app.registry import PluginBroken, actuator_builders, kinds, load_kinds

GROUP = "midwatch.perceivers"


def test_the_built_in_kinds_are_there() -> None:
    assert {"host", "log", "http"} <= set(kinds().perceivers)
    assert {"webhook", "ntfy"} <= set(kinds().channels)
    assert {"command", "file", "noop"} <= set(actuator_builders())


def test_every_kind_is_called_what_it_is_registered_as() -> None:
    assert all(kind.name == name for name, kind in kinds().perceivers.items())
    assert all(kind.name == name for name, kind in kinds().channels.items())


@pytest.mark.parametrize("value", ["no.such.module:KIND", "perceivers.log:NOTHING"])
def test_a_plug_in_that_cannot_be_loaded_is_named(value: str) -> None:
    with pytest.raises(PluginBroken, match=r"kind 'tide' of .* cannot be loaded .* uninstall what brings it"):
        load_kinds([EntryPoint("tide", value, GROUP)])


def test_one_kind_from_two_sides_is_refused() -> None:
    mine, theirs = EntryPoint("log", "perceivers.log:KIND", GROUP), EntryPoint("log", "theirs:KIND", GROUP)
    with pytest.raises(PluginBroken, match=r"both bring a midwatch\.perceivers kind 'log'"):
        load_kinds([mine, theirs])


def test_one_that_is_listed_twice_is_one() -> None:
    mine = EntryPoint("log", "perceivers.log:KIND", GROUP)
    assert list(load_kinds([mine, mine])) == ["log"]
