"""What the configuration says of one perceiver and one channel, checked by the kind that it names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel

from daemon.config.settings import PerceiverSettings, SignalSettings
from daemon.config.strict import unknown_key, validate
from daemon.config.toml import Doc, Keypath
from daemon.errors import ConfigError, Problem, ResourceError
from daemon.model import resource, signals
from daemon.model.actions import ACTIONS
from daemon.model.patterns import screen
from daemon.model.signals import SignalRule
from perceivers.base import Kind, Rule, Spec

if TYPE_CHECKING:
    # Above this layer: only its type is needed here.
    from daemon.escalate.base import ChannelKind

K = TypeVar("K")


BUILT = frozenset(
    action for action in ACTIONS if action.partition(".")[0] not in ("unit", "net", "container")
)
"""The known actions that have an actuator by now."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """What there is to configure: the registry's kinds."""

    perceivers: Mapping[str, Kind]
    channels: Mapping[str, ChannelKind]
    actions: Collection[str] = BUILT
    """Action ids that a service's verbs may name, besides `command.NAME`."""


@dataclass(frozen=True, slots=True)
class PerceiverPlan:
    """One perceiver to be built, and the rules for what it reads. Durations are seconds."""

    name: str
    kind: Kind
    resource: str
    every: float
    timeout: float
    spec: Spec
    rules: list[SignalRule]
    where: str
    """`FILE:LINE` of what says which Resource it watches."""


def channel(name: str, doc: Doc, kinds: Kinds) -> tuple[ChannelKind, BaseModel]:
    """The kind and the checked settings of `[channels.NAME]`. Raises ConfigError."""
    at = ("channels", name)
    table = doc.data["channels"][name]
    kind = _kind(table, at, doc, kinds.channels)
    own = {
        key: value for key, value in table.items() if key != "kind" or "kind" in kind.settings.model_fields
    }
    return kind, validate(kind.settings, own, doc, at)


def perceiver(name: str, doc: Doc, kinds: Kinds) -> PerceiverPlan:
    """The plan of `[perceivers.NAME]`. Raises ConfigError with all that is wrong with it."""
    at = ("perceivers", name)
    table = doc.data["perceivers"][name]
    kind = _kind(table, at, doc, kinds.perceivers)
    common, own, problems = _parted(table, at, doc, kind)
    checked = []
    for model, part in ((PerceiverSettings, common), (kind.settings, own)):
        try:
            checked.append(validate(model, part, doc, at))
        except ConfigError as exc:
            problems += exc.problems
    if problems:
        # A key that both know, such as `timeout`, is told by both.
        raise ConfigError(list(dict.fromkeys(problems)))
    shared, settings = checked
    assert isinstance(shared, PerceiverSettings)
    return _plan(name, doc, kind, shared, settings)


def _plan(name: str, doc: Doc, kind: Kind, shared: PerceiverSettings, settings: BaseModel) -> PerceiverPlan:
    at = ("perceivers", name)
    problems = [
        *_resource(shared.resource, at, doc),
        *_patterns(settings, at, doc),
        *_doubles(shared.signals, at, doc),
    ]
    rules = []
    for index, signal in enumerate(shared.signals):
        try:
            # Cast: the protocol's attributes may be set, those of a frozen model may not; `build` only reads.
            rules.append(signals.build(name, shared.resource, kind.values, kind.rules, cast(Any, signal)))
        except ValueError as exc:
            key = "match" if signal.match is not None else "when"
            problems.append(Problem(doc.where(*at, "signals", index, key), f"signal `{signal.name}`: {exc}"))
    if problems:
        raise ConfigError(problems)
    lines = tuple(Rule(rule.name, rule.match, rule.key) for rule in rules if rule.match) if kind.rules else ()
    spec = Spec(name, shared.resource, settings, lines)
    return PerceiverPlan(
        name, kind, shared.resource, shared.every, shared.timeout, spec, rules, doc.where(*at, "resource")
    )


def _kind(table: Mapping[str, Any], at: Keypath, doc: Doc, kinds: Mapping[str, K]) -> K:
    noun = str(at[0]).removesuffix("s")
    there = f"there are {', '.join(sorted(kinds)) or 'none'}"
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise ConfigError([Problem(doc.where(*at, "kind"), f"{noun} `{at[1]}` needs a `kind`", there)])
    if kind not in kinds:
        near = get_close_matches(kind, kinds, 1)
        hint = f"did you mean `{near[0]}`? {there}" if near else there
        raise ConfigError([Problem(doc.where(*at, "kind"), f"there is no {noun} kind `{kind}`", hint)])
    return kinds[kind]


def _parted(
    table: Mapping[str, Any], at: Keypath, doc: Doc, kind: Kind
) -> tuple[dict[str, Any], dict[str, Any], list[Problem]]:
    """What every perceiver has, what this kind has (a key of both goes to both), and Problems for the keys that neither knows."""
    shared = PerceiverSettings.model_fields
    special = {field.alias or name for name, field in kind.settings.model_fields.items()}
    known = {*shared, *special}
    problems = [Problem(doc.where(*at, key), *unknown_key(key, known)) for key in table if key not in known]
    common = {key: value for key, value in table.items() if key in shared}
    return common, {key: value for key, value in table.items() if key in special}, problems


def _resource(text: str, at: Keypath, doc: Doc) -> Iterator[Problem]:
    try:
        resource.parse(text)
    except ResourceError as exc:
        yield Problem(doc.where(*at, "resource"), str(exc))


def _patterns(settings: BaseModel, at: Keypath, doc: Doc) -> Iterator[Problem]:
    """Regular expressions among a kind's own keys run on text that outsiders write, as those of log rules do."""
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        pattern = getattr(settings, name)
        if (
            isinstance(extra, dict)
            and extra.get("format") == "regex"
            and pattern
            and (refused := screen(pattern))
        ):
            yield Problem(
                doc.where(*at, field.alias or name), f"the pattern {pattern!r} is refused: {refused}"
            )


def _doubles(entries: list[SignalSettings], at: Keypath, doc: Doc) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if entry.name in first:
            hint = f"first at {doc.where(*at, 'signals', first[entry.name])}; give them names of their own"
            yield Problem(
                doc.where(*at, "signals", index), f"the signal `{entry.name}` exists twice in `{at[1]}`", hint
            )
        first.setdefault(entry.name, index)
