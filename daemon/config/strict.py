"""From what a person wrote to a checked model: units become numbers, and every fault becomes a Problem with its line.

Unknown keys and units are looked at here, where the keys that stand beside them are known; all else is pydantic's, in strict mode.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Protocol, TypeVar, Union, get_args, get_origin

from annotated_types import Unit
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from daemon.config.settings import Secret
from daemon.config.toml import Keypath
from daemon.errors import ConfigError, Problem
from daemon.model import units

Model = TypeVar("Model", bound=BaseModel)

_UNITS: Mapping[str, tuple[Callable[[str], float], str, str]] = {
    "s": (units.seconds, "duration", '"10s": a number and ' + ", ".join(units.SECONDS)),
    "B": (units.size, "size", '"20MiB": a number and ' + ", ".join(units.BYTES)),
    "%": (units.share, "share", '"90%": 0% to 100%'),
}
_SHOWN = 60
"""Characters of a wrong value that are shown again."""


class Positions(Protocol):
    """What knows where each key stands; a `toml.Doc`."""

    def where(self, *keypath: str | int) -> str: ...


def validate(model: type[Model], data: Mapping[str, Any], doc: Positions, prefix: Keypath = ()) -> Model:
    """The checked model of a table that stands at `prefix` in `doc`. Raises ConfigError with all that is wrong."""
    reader = _Reader(doc, prefix)
    converted = reader.table(model, data, ())
    try:
        checked = model.model_validate(converted, strict=True)
    except ValidationError as exc:
        reader.faults(exc.errors(include_url=False), data)
    if reader.problems:
        raise ConfigError(reader.problems)
    return checked


def unknown_key(key: str, accepted: Iterable[str]) -> tuple[str, str]:
    """What to say of a key that nobody knows: the text, and the hint with the likeliest meant."""
    names = sorted(accepted)
    close = get_close_matches(key, names, 1)
    meant = f"did you mean `{close[0]}`? " if close else ""
    return f"unknown key `{key}`", f"{meant}accepted: {', '.join(names) or 'nothing'}"


class _Reader:
    """Converts one table and gathers what is wrong with it."""

    def __init__(self, doc: Positions, prefix: Keypath) -> None:
        self._doc = doc
        self._prefix = prefix
        self.problems: list[Problem] = []
        self._told: set[Keypath] = set()
        """Keypaths that have their Problem; what pydantic says about them adds nothing."""
        self._units: dict[Keypath, str] = {}
        """What was converted: there pydantic speaks of numbers that nobody wrote."""

    def _tell(self, keypath: Keypath, what: str, hint: str) -> None:
        self._told.add(keypath)
        self.problems.append(Problem(self._doc.where(*self._prefix, *keypath), what, hint))

    def table(self, model: type[BaseModel], data: Mapping[str, Any], at: Keypath) -> dict[str, Any]:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        out: dict[str, Any] = {}
        for key, value in data.items():
            if key in fields:
                out[key] = self._value(fields[key].annotation, fields[key].metadata, value, (*at, key))
            elif model.model_config.get("extra") == "forbid":
                self._tell((*at, key), *unknown_key(key, fields))
            else:
                out[key] = value
        return out

    def _value(self, kind: Any, metadata: Sequence[Any], value: Any, at: Keypath) -> Any:
        if unit := next((item.unit for item in metadata if isinstance(item, Unit)), None):
            return self._number(unit, value, at)
        origin, args = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self._value(args[0], args[1:], value, at)
        if origin in (Union, types.UnionType):
            return self._value(_member(args, value), (), value, at)
        if isinstance(value, Mapping):
            return self._mapping(kind, args, value, at)
        if isinstance(value, list) and args:
            items = [self._value(args[0], (), item, (*at, index)) for index, item in enumerate(value)]
            return tuple(items) if origin is tuple else items
        return value

    def _mapping(self, kind: Any, args: Sequence[Any], value: Mapping[str, Any], at: Keypath) -> Any:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return self.table(kind, value, at)
        if len(args) == 2:
            return {key: self._value(args[1], (), item, (*at, key)) for key, item in value.items()}
        return value

    def _number(self, unit: str, value: Any, at: Keypath) -> Any:
        read, noun, example = _UNITS[unit]
        if value == 0 and not isinstance(value, bool):
            return 0
        if not isinstance(value, str):
            bare = isinstance(value, int | float) and not isinstance(value, bool)
            fault = f"{_shown(value)} has no unit" if bare else f"{_shown(value)} is no {noun}"
            self._tell(at, f"{_name(at)}: {fault}", f"write {example}")
            return value
        try:
            self._units[at] = unit
            return read(value)
        except ValueError:
            self._tell(at, f"{_name(at)}: {_shown(value)} is no {noun}", f"write {example}")
            return value

    def faults(self, errors: Sequence[ErrorDetails], data: Mapping[str, Any]) -> None:
        """Turn what pydantic found into Problems: one a place, however many members of a union complain about it."""
        places: dict[Keypath, list[ErrorDetails]] = {}
        for error in errors:
            places.setdefault(_keypath(error, data), []).append(error)
        told = set(self._told)
        for keypath, found in places.items():
            # Of a union's complaints and of a table that lacks what was refused inside it, the innermost says it best.
            deeper = (other for other in (*told, *places) if len(other) > len(keypath))
            if any(_within(keypath, other) for other in told) or any(
                _within(other, keypath) for other in deeper
            ):
                continue
            unit = self._units.get(keypath, "")
            self._tell(
                keypath, *_words(keypath, found, _at(data, keypath) if unit else found[-1]["input"], unit)
            )


def _at(data: Any, keypath: Keypath) -> Any:
    for part in keypath:
        data = data[part]
    return data


def _within(inner: Keypath, outer: Keypath) -> bool:
    return inner[: len(outer)] == outer


def _member(args: Sequence[Any], value: Any) -> Any:
    """The member of a union that a value of this shape can only mean."""
    members = [arg for arg in args if arg is not type(None)]
    fitting = [arg for arg in members if _fits(arg, value)]
    return fitting[0] if len(fitting) == 1 else members[0] if len(members) == 1 else Any


def _fits(kind: Any, value: Any) -> bool:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    origin = get_origin(plain) or plain
    if isinstance(value, Mapping):
        return isinstance(origin, type) and issubclass(origin, BaseModel | Mapping)
    if isinstance(value, list):
        return origin in (list, tuple)
    return get_origin(kind) is Annotated


def _keypath(error: ErrorDetails, data: Mapping[str, Any]) -> Keypath:
    """Where in the data an error is; without the names of union members that pydantic puts in between."""
    keypath: Keypath = ()
    value: Any = data
    for index, part in enumerate(error["loc"]):
        if isinstance(value, Mapping) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        elif not (error["type"] == "missing" and index == len(error["loc"]) - 1):
            continue
        keypath = (*keypath, part)
    return keypath


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "none_required": "nothing",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _words(keypath: Keypath, found: Sequence[ErrorDetails], value: Any, unit: str) -> tuple[str, str]:
    """What to say of one place: `value` as it was written, bounds in `unit`."""
    name = _name(keypath)
    for error in found:
        if error["type"] not in _EXPECTED:
            return _judged(name, error, value, unit)
    expected = list(dict.fromkeys(_EXPECTED[error["type"]] for error in found))
    if found[-1].get("ctx", {}).get("class_name") == Secret.__name__ and len(expected) == 1:
        # The value is most likely the secret itself, and must not be shown.
        hint = 'write { credential = "NAME" }, { file = "/PATH" } or { env = "VARIABLE" }'
        return f"{name}: a secret never stands in the file", hint
    return f"{name}: expected {' or '.join(expected)}, got {_shown(value)}", ""


def _name(keypath: Keypath) -> str:
    if not keypath:
        return "this table"
    key = next((part for part in reversed(keypath) if isinstance(part, str)), "list")
    return f"element {keypath[-1] + 1} of `{key}`" if isinstance(keypath[-1], int) else f"`{key}`"


def _judged(name: str, error: ErrorDetails, value: Any, unit: str) -> tuple[str, str]:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return f"{name} is missing", f"add {name.strip('`')} = ..."
        case "value_error":
            return f"{name}: {context['error']}", ""
        case "literal_error":
            return f"{name}: {_shown(value)} is not accepted", f"accepted: {context['expected']}"
        case "string_pattern_mismatch":
            return f"{name}: {_shown(value)} is not accepted", f"it must match {context['pattern']}"
        case "too_short":
            return f"{name} is empty", f"at least {context['min_length']} needed"
        case _:
            return _bounded(name, error, value, unit)


def _bounded(name: str, error: ErrorDetails, value: Any, unit: str) -> tuple[str, str]:
    context = error.get("ctx", {})
    for bound, words in _BOUNDS.items():
        if bound in context:
            most = f"{context[bound]:.12g}{unit}"
            return f"{name}: {_shown(value)} is out of range", f"{words} {most}"
    return f"{name}: {error['msg']}", ""


def _shown(value: Any) -> str:
    """A wrong value as it was written, cut short; of tables and lists only what they are."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= _SHOWN else text[:_SHOWN] + '..."'
