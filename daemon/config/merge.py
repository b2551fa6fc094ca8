"""Several files as one: tables merge, and a key that is set twice is a fault, not a matter of order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.config.toml import Doc, Keypath
from daemon.errors import ConfigError, Problem


def merge(docs: Sequence[Doc]) -> Doc:
    """One Doc, named after the first. Raises ConfigError with every key that is set twice, naming both places."""
    first, *others = docs
    marks = dict(first.marks)
    data = _copied(first.data)
    problems: list[Problem] = []
    for doc in others:
        whole = Doc(first.path, data, marks)
        problems += _add(data, doc.data, (), whole, doc)
        marks = {**doc.marks, **marks}
    if problems:
        raise ConfigError(problems)
    return Doc(first.path, data, marks)


def _copied(table: dict[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in table.items()}


def _add(table: dict[str, Any], more: dict[str, Any], at: Keypath, whole: Doc, doc: Doc) -> list[Problem]:
    problems: list[Problem] = []
    for key, value in more.items():
        keypath = (*at, key)
        if key not in table:
            table[key] = _copied(value) if isinstance(value, dict) else value
        elif isinstance(table[key], dict) and isinstance(value, dict):
            problems += _add(table[key], value, keypath, whole, doc)
        else:
            what = f"`{'.'.join(map(str, keypath))}` is set twice"
            problems.append(
                Problem(doc.where(*keypath), what, f"first at {whole.where(*keypath)}; keep one of them")
            )
    return problems
