"""docs/policy.md explains every key, and everything it shows can be loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from daemon.policy.load import load, paths
from daemon.policy.schema import PolicyFile
from daemon.policy.testing import run_tests

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "policy.md").read_text()
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
VENDOR = [*paths(ROOT / "policies" / "rules"), *sorted((ROOT / "policies").glob("packs/*/rules.toml"))]


def models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models that a type holds, at any depth."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(kind):
        yield from models(part)


def keys() -> set[str]:
    return {field.alias or name for model in models(PolicyFile) for name, field in model.model_fields.items()}


def test_every_key_is_explained() -> None:
    assert {"blast_radius", "escalate_after", "clear_for"} <= keys()
    assert [key for key in sorted(keys()) if not re.search(rf"\b{key}\b", TEXT)] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_loads_and_passes(tmp_path: Path, example: str) -> None:
    path = tmp_path / "example.toml"
    path.write_text(example if "schema = 1" in example else f"schema = 1\n{example}")
    rules = load(VENDOR, [path], people={"anna", "ben"})
    assert [result for result in run_tests(rules) if not result.passed] == []


def test_every_rule_that_can_be_enabled_is_named() -> None:
    shadows = [rule.id for rule in load(VENDOR, []).rules if rule.shadow]
    assert [name for name in shadows if f"`{name}`" not in TEXT] == []
