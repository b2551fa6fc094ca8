"""Finds the few rules that speak of a request among thousands: by action, then by the literal beginning of the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from daemon.model import resource
from daemon.model.actions import ACTIONS
from daemon.model.policy import Request
from daemon.policy.rules import Rule, When, literal

MOST_MISSES = 5
"""Near misses, and other rules that spoke, that a verdict names."""

MOST_UNNAMED = 256
"""Actions that only globs speak of (a host's commands) for which the rules are kept at hand."""


class Index:
    """Action → the rules that speak of it."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """`rules`: in the order of their ids."""
        self._globs = [rule for rule in rules if not all(map(literal, rule.actions))]
        named = {action for rule in rules for action in rule.actions if literal(action)}
        self._buckets = {
            action: Bucket([rule for rule in rules if rule.speaks_of(action)]) for action in ACTIONS | named
        }
        self._unnamed = lru_cache(maxsize=MOST_UNNAMED)(self._gather)

    def bucket(self, action: str) -> Bucket:
        return self._buckets.get(action) or self._unnamed(action)

    def _gather(self, action: str) -> Bucket:
        return Bucket([rule for rule in self._globs if rule.speaks_of(action)])


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    rule: Rule
    when: int
    """The place of its conditions among the bucket's."""


class Bucket:
    """The rules that speak of one action."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        whens = {when: place for place, when in enumerate(dict.fromkeys(rule.when for rule in rules))}
        self.whens: tuple[When, ...] = tuple(whens)
        self._everywhere: list[_Entry] = []
        self._exact: dict[str, list[_Entry]] = {}
        self._prefixed: dict[str, list[tuple[str, _Entry]]] = {}
        self._aimed: dict[tuple[int, str], list[Rule]] = {}
        for rule in rules:
            self._add(_Entry(rule, whens[rule.when]))
        self._lengths = sorted({len(prefix) for prefix in self._prefixed})

    def _add(self, entry: _Entry) -> None:
        if not entry.rule.targets:
            self._everywhere.append(entry)
            return
        self._aimed.setdefault((entry.when, entry.rule.voice), []).append(entry.rule)
        for prefix, pattern in zip(entry.rule.beginnings, entry.rule.targets, strict=True):
            if prefix == pattern:
                self._exact.setdefault(pattern, []).append(entry)
            else:
                self._prefixed.setdefault(prefix, []).append((pattern, entry))

    def covering(self, target: str) -> list[_Entry]:
        """Those that speak of the target, by id."""
        found = dict.fromkeys(self._everywhere)
        found.update(dict.fromkeys(self._exact.get(target, ())))
        for length in self._lengths:
            for pattern, entry in self._prefixed.get(target[:length], ()):
                if entry not in found and resource.matches(pattern, target):
                    found[entry] = None
        return sorted(found, key=lambda entry: entry.rule.id)

    def aimed(self, when: int, voice: str) -> Sequence[Rule]:
        """Those that speak of certain targets only, with these conditions and this voice, by id."""
        return self._aimed.get((when, voice), ())


class Hearing:
    """Which rules speak of one request, and which nearly do."""

    def __init__(self, bucket: Bucket, request: Request) -> None:
        self._bucket = bucket
        self._missing = [when.missing(request) for when in bucket.whens]
        self._covering = bucket.covering(request.target)
        self.request = request
        self.speaking: dict[str, list[Rule]] = {}
        """Voice → the rules that match, by id."""
        self.unjudged: list[Rule] = []
        """Rules of which nobody can say whether they match."""
        for entry in self._covering:
            missing = self._missing[entry.when]
            if missing is None:
                self.unjudged.append(entry.rule)
            elif not missing:
                self.speaking.setdefault(entry.rule.voice, []).append(entry.rule)

    @property
    def silent(self) -> bool:
        """No rule speaks of the action at all."""
        return not self._bucket.whens

    def others(self, named: Rule) -> tuple[str, ...]:
        """What else spoke, as `ID: EFFECT at FILE:LINE`."""
        rest = (rule for rules in self.speaking.values() for rule in rules if rule is not named)
        return tuple(
            f"{rule.id}: {rule.effect}{' in shadow' if rule.shadow else ''} at {rule.where}"
            for rule in islice(rest, MOST_MISSES)
        )

    def nearly(self, voices: Iterable[str]) -> tuple[str, ...]:
        """Rules of these voices that miss by one condition; conditions that change first, other targets last."""
        voices = tuple(voices)
        if not voices:
            return ()
        found = [
            f"{entry.rule.id}: {missing[0]}"
            for entry in self._covering
            if entry.rule.voice in voices and (missing := self._missing[entry.when]) and len(missing) == 1
        ]
        if len(found) < MOST_MISSES:
            found += [f"{name}: target" for name in self._elsewhere(voices)]
        return tuple(found[:MOST_MISSES])

    def _elsewhere(self, voices: Iterable[str]) -> list[str]:
        covering = {entry.rule for entry in self._covering}
        enough = MOST_MISSES + len(covering)
        found: list[str] = []
        for place, missing in enumerate(self._missing):
            if missing == ():
                for voice in voices:
                    rules = self._bucket.aimed(place, voice)[:enough]
                    found += [rule.id for rule in rules if rule not in covering]
        return sorted(found)
