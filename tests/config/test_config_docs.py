"""What a user reads says every key, every value and nothing that does not work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from daemon.app.registry import kinds
from daemon.config import settings
from daemon.config.load import load

DOCS = Path(__file__).parents[2] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text()
SIGNALS = (DOCS / "signals.md").read_text()

MODELS = [
    model
    for model in vars(settings).values()
    if isinstance(model, type)
    and issubclass(model, BaseModel)
    and model not in (BaseModel, settings.SignalSettings)
]


def keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def said(text: str) -> set[str]:
    """The words in code spans, table headers and inline examples."""
    return set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]+)`", text))))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_is_said(model: type[BaseModel]) -> None:
    assert keys(model) - said(CONFIGURATION) == set()


def test_every_key_of_every_kind_is_said() -> None:
    known = [(kind.name, kind.settings) for kind in kinds().perceivers.values()]
    known += [(kind.name, kind.settings) for kind in kinds().channels.values()]
    for name, model in known:
        assert f"`{name}`" in CONFIGURATION
        assert keys(model) - said(CONFIGURATION) == set()


def test_every_key_of_a_signal_is_said() -> None:
    assert keys(settings.SignalSettings) - said(SIGNALS) == set()


def test_every_value_is_said() -> None:
    for kind in kinds().perceivers.values():
        _, _, rest = SIGNALS.partition(f"\n**{kind.name}**")
        told = re.findall(r"^\| `(\w+)` \| .+ \|$", rest.partition("\n**")[0], re.MULTILINE)
        assert set(told) == set(kind.values)


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.+?)```", CONFIGURATION + SIGNALS, re.DOTALL))
def test_every_example_works(example: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    frame = "" if "schema" in example else "schema = 1\n[services.api]\n"
    path.write_text(frame + example)
    assert load(path, kinds()).perceivers
