"""config.example.toml documents every key there is, and what it says works: as it stands, and with every # taken off."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from daemon.app.registry import kinds
from daemon.config import toml
from daemon.config.load import Config, load
from daemon.config.settings import ConfigSettings, PerceiverSettings, Secret
from daemon.model.domain import Mode

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"


def uncommented() -> str:
    """A # right before a key, a table or a bracket is one that people take off; one before a space begins a remark."""
    return re.sub(r"(?m)^#(?=[^ #\n]|  \{)", "", EXAMPLE.read_text())


@pytest.fixture
def all_of_it(tmp_path: Path) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(uncommented())
    return load(path, kinds())


def test_it_runs_as_it_is_and_observes() -> None:
    config = load(EXAMPLE, kinds(), environ={"HOME": "/home/anna"})
    assert config.mode is Mode.OBSERVE
    assert [plan.name for plan in config.perceivers] == ["host"]
    assert config.channels == {}
    assert config.places.state == Path("/home/anna/.local/state/midwatch")


def test_what_is_commented_out_works_too(all_of_it: Config) -> None:
    assert {plan.kind.name for plan in all_of_it.perceivers} == set(kinds().perceivers)
    assert {kind.name for kind, _ in all_of_it.channels.values()} == set(kinds().channels)


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models inside a field's type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for argument in get_args(kind):
        yield from _models(argument)


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """Every table in a value, however deep: entries of a dict, elements of a list."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _tables(item)


def missing(model: type[BaseModel], value: Any, at: str) -> Iterator[str]:
    """The fields of a model that no table in `value` writes."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        written = [table[key] for table in _tables(value) if key in table]
        if not written:
            yield f"{at}.{key}"
        # Of a secret's three sources one is enough at each place.
        for inner in set(_models(field.annotation)) - {Secret}:
            yield from missing(inner, written, f"{at}.{key}")


def test_every_key_is_there() -> None:
    data = toml.parse(uncommented(), EXAMPLE).data
    assert list(missing(ConfigSettings, data, "")) == []
    assert list(missing(PerceiverSettings, data["perceivers"], "perceivers")) == []
    assert list(missing(Secret, data["channels"], "secret")) == []


@pytest.mark.parametrize("area", ["perceivers", "channels"])
def test_every_key_of_every_kind_is_there(area: str) -> None:
    tables = toml.parse(uncommented(), EXAMPLE).data[area].values()
    for name, kind in getattr(kinds(), area).items():
        written = [
            {key: value for key, value in table.items() if key != "signals"}
            for table in tables
            if table["kind"] == name
        ]
        assert list(missing(kind.settings, written, f"{area}.{name}")) == []


def test_the_test_would_notice() -> None:
    assert list(
        missing(PerceiverSettings, [{"kind": 1, "every": 1, "timeout": 1, "signals": [{"name": 1}]}], "p")
    )[:2] == [
        "p.resource",
        "p.signals.when",
    ]
