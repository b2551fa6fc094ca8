"""Judges Observations: thresholds with duration and hysteresis, rates, percentiles, absence, change, patterns with counts.

Gives transitions only: each finding fires once and clears once. Needs no model.

Observations carry wall time, which may step; every duration is measured on the boot clock, so moments are turned into it on the way in.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from daemon.clock import Clock
from daemon.model.domain import Scalar, Severity, Signal
from daemon.model.signals import Condition, SignalRule
from perceivers.base import Observation

MOST_KEYS = 2000
"""Keys followed per rule; further ones are counted together under OVERFLOW."""
OVERFLOW = "*"
LONGEST_KEY = 200
"""Characters of a key, which an outsider may have written, that tell it from others."""
MOST_HITS = 256
"""Polls with hits that are remembered per key; the oldest are taken together."""
LATENCIES = 120
"""Readings that a percentile is taken over ..."""
FEWEST = 5
"""... at least so many, and ..."""
RECOVERED = 10
"""... so many while it fires: whether it got well is not judged by how it was before."""
BLIND_AFTER = 3
"""Failed polls in a row after which blindness is a Signal."""
SOON = 30.0
"""Seconds within which a condition that began to hold counts as brewing."""
BLIND = "perceiver-blind"


_Counter = tuple[float, float | None, float | None]
"""(moment, reading, its change per second): None for what is not known."""


@dataclass
class _Track:
    """Where one rule stands for one key. Moments are seconds on the boot clock."""

    firing: bool = False
    since: float | None = None
    """Since when the condition has held (or, while firing, has not)."""
    last: float = 0.0
    """When it was last seen: an observation, a change, or a hit."""
    hits: list[list[float]] = field(default_factory=list)
    """[moment, count] within the window, until it fires."""
    counters: dict[str, _Counter] = field(default_factory=dict)
    """Value name → the counter that a rate is taken of."""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))

    def to_json(self) -> list[Any]:
        hits = [list(hit) for hit in self.hits]
        counters = {name: list(reading) for name, reading in self.counters.items()}
        return [self.firing, self.since, self.last, hits, counters, list(self.latencies)]

    @classmethod
    def from_json(cls, data: Sequence[Any], shift: float) -> _Track:
        firing, since, last, hits, counters, latencies = data
        return cls(
            firing,
            None if since is None else since + shift,
            last + shift,
            [[moment + shift, count] for moment, count in hits],
            {name: (moment + shift, reading, rate) for name, (moment, reading, rate) in counters.items()},
            deque(latencies, LATENCIES),
        )


class Detector:
    """Holds the state of all rules; `state` and `restore` carry it over a restart exactly."""

    def __init__(
        self, rules: Sequence[SignalRule], clock: Clock, blind_severity: Severity = Severity.WARNING
    ) -> None:
        self._clock = clock
        self._blind_severity = blind_severity
        self._rules: dict[str, list[SignalRule]] = defaultdict(list)
        for rule in rules:
            self._rules[rule.perceiver].append(rule)
        self._tracks: dict[tuple[str, str], dict[str, _Track]] = defaultdict(dict)
        """(perceiver, rule) → key → where it stands."""
        self._failures: dict[str, int] = {}
        self._started = clock.boottime()

    def judge(self, perceiver: str, observations: Sequence[Observation]) -> list[Signal]:
        """The transitions that these observations of one poll cause."""
        found: list[Signal] = []
        for rule in self._rules.get(perceiver, ()):
            if rule.match:
                for seen in observations:
                    found += self._hit(rule, seen) if seen.rule == rule.name else ()
            else:
                readings = [seen for seen in observations if not seen.rule]
                for seen in readings:
                    found += self._reading(rule, seen)
                found += self._gone(rule, {seen.key[:LONGEST_KEY] for seen in readings})
        return found

    def tick(self) -> list[Signal]:
        """The transitions that time alone causes: absence, log rules and changes gone quiet."""
        found: list[Signal] = []
        for rule in self._all_rules():
            if rule.match or _of_change(rule):
                found += self._quiet(rule)
            elif rule.when is not None and rule.when.kind == "absent":
                found += self._absence(rule)
        return found

    def watches(self, name: str, resource: str, key: str) -> bool:
        """Whether a signal of that name on that Resource can still clear here: its rule is there, or its perceiver for blindness."""
        if name == BLIND:
            return key in self._rules and self._rules[key][0].resource == resource
        return any((rule.name, rule.resource) == (name, resource) for rule in self._all_rules())

    def brewing(self, perceiver: str) -> bool:
        """Whether a condition has begun to hold that will be a Signal shortly if it goes on."""
        now = self._clock.boottime()
        return any(
            track.since is not None and not track.firing and track.since + rule.lasting - now <= SOON
            for rule in self._rules.get(perceiver, ())
            for track in self._tracks[perceiver, rule.name].values()
        )

    def blind(self, perceiver: str, reason: str) -> list[Signal]:
        """A poll failed; after a few in a row that is a Signal of its own."""
        self._failures[perceiver] = self._failures.get(perceiver, 0) + 1
        track = self._tracks[perceiver, BLIND].setdefault("", _Track())
        if track.firing or self._failures[perceiver] < BLIND_AFTER:
            return []
        track.firing = True
        return [self._blindness(perceiver, "firing", f"{perceiver} cannot look: {reason}")]

    def seen(self, perceiver: str) -> list[Signal]:
        """A poll worked."""
        self._failures.pop(perceiver, None)
        track = self._tracks.pop((perceiver, BLIND), {}).get("")
        if track is None or not track.firing:
            return []
        return [self._blindness(perceiver, "cleared", f"{perceiver} sees again")]

    def state(self, perceiver: str) -> dict[str, Any]:
        """Everything about one perceiver's rules, as plain JSON."""
        names = [BLIND, *(rule.name for rule in self._rules.get(perceiver, ()))]
        tracks = {name: found for name in names if (found := self._tracks.get((perceiver, name)))}
        return {
            "boot": [self._clock.boot_id, self._clock.boottime(), self._clock.wall()],
            "failures": self._failures.get(perceiver, 0),
            "tracks": {
                name: {key: track.to_json() for key, track in found.items()} for name, found in tracks.items()
            },
        }

    def restore(self, perceiver: str, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken. What it holds of rules that are no more is forgotten."""
        boot_id, boottime, wall = state["boot"]
        # Another boot's clock began elsewhere; the wall clock says how long ago that was, if it is to be believed.
        ago = max(0.0, self._clock.wall() - wall)
        shift = 0.0 if boot_id == self._clock.boot_id else self._clock.boottime() - ago - boottime
        for name in [BLIND, *(rule.name for rule in self._rules.get(perceiver, ()))]:
            kept = state["tracks"].get(name, {})
            self._tracks[perceiver, name] = {key: _Track.from_json(data, shift) for key, data in kept.items()}
        self._failures[perceiver] = state["failures"]

    # thresholds ------------------------------------------------------------------------------------------------------

    def _reading(self, rule: SignalRule, seen: Observation) -> list[Signal]:
        assert rule.when is not None
        key, track = self._track(rule, seen.key)
        if rule.when.kind == "absent":
            return self._present(rule, key, track, seen)
        _remember(rule, track, seen, self._moment(seen.at))
        verdict = _verdict(rule.when, track, seen)
        if track.firing and verdict is not True and rule.clear is not None:
            cleared = _verdict(rule.clear, track, seen)
            verdict = None if cleared is None else not cleared
        if verdict is None:
            return []
        if _of_change(rule):
            return self._changed(rule, key, track, seen) if verdict else []
        return self._lasted(rule, key, track, seen, verdict)

    def _lasted(
        self, rule: SignalRule, key: str, track: _Track, seen: Observation, abnormal: bool
    ) -> list[Signal]:
        if abnormal == track.firing:
            track.since = None
            return []
        moment = self._moment(seen.at)
        if track.since is None:
            track.since = moment
        needed = rule.clear_after if track.firing else rule.lasting
        return [] if moment - track.since < needed else [self._turn(rule, key, track, seen)]

    def _changed(self, rule: SignalRule, key: str, track: _Track, seen: Observation) -> list[Signal]:
        track.last = self._moment(seen.at)
        # A second change while the first is still told of is told again: the newest is what a runbook wants to know.
        again = [self._turn(rule, key, track, seen)] if track.firing else []
        return [*again, self._turn(rule, key, track, seen)]

    def _gone(self, rule: SignalRule, seen: set[str]) -> list[Signal]:
        """A process, a mount that this poll did not name is no more: nothing can be wrong with it."""
        assert rule.when is not None
        if rule.when.kind == "absent" or _of_change(rule):
            return []
        tracks = self._tracks[rule.perceiver, rule.name]
        gone = {key: tracks.pop(key) for key in [key for key in tracks if key and key not in seen]}
        return [
            self._turn(rule, key, track, self._nothing(rule, key))
            for key, track in gone.items()
            if track.firing
        ]

    # absence ---------------------------------------------------------------------------------------------------------

    def _present(self, rule: SignalRule, key: str, track: _Track, seen: Observation) -> list[Signal]:
        if seen.unreadable:
            return []
        track.last = self._moment(seen.at)
        found = [self._turn(rule, key, track, seen)] if track.firing else []
        # Before anything was seen, the absence of everything was told of under no key.
        nothing = self._tracks[rule.perceiver, rule.name].pop("", None) if key else None
        return [*found, self._turn(rule, "", nothing, seen)] if nothing and nothing.firing else found

    def _absence(self, rule: SignalRule) -> list[Signal]:
        now = self._clock.boottime()
        tracks = self._tracks[rule.perceiver, rule.name]
        if not tracks:
            self._track(rule, "")
        return [
            self._turn(rule, key, track, self._nothing(rule, key))
            for key, track in tracks.items()
            if not track.firing and now - max(track.last, self._started) >= rule.lasting
        ]

    # patterns --------------------------------------------------------------------------------------------------------

    def _hit(self, rule: SignalRule, seen: Observation) -> list[Signal]:
        key, track = self._track(rule, seen.key)
        track.last = max(track.last, self._moment(seen.last or seen.at))
        if track.firing:
            return []
        recent = [hit for hit in track.hits if hit[0] >= track.last - rule.window]
        track.hits = _bounded([*recent, [track.last, float(seen.count)]])
        enough = sum(count for _, count in track.hits) >= rule.count
        return [self._turn(rule, key, track, seen)] if enough else []

    def _quiet(self, rule: SignalRule) -> list[Signal]:
        now = self._clock.boottime()
        tracks = self._tracks[rule.perceiver, rule.name]
        over = [key for key, track in tracks.items() if now - track.last >= _patience(rule, track)]
        quiet = {key: tracks.pop(key) for key in over}
        return [
            self._turn(rule, key, track, self._nothing(rule, key))
            for key, track in quiet.items()
            if track.firing
        ]

    # shared ----------------------------------------------------------------------------------------------------------

    def _moment(self, at: float) -> float:
        """A moment of the wall clock on the boot clock: as long ago as it is."""
        return self._clock.boottime() - max(0.0, self._clock.wall() - at)

    def _all_rules(self) -> Iterable[SignalRule]:
        return (rule for rules in self._rules.values() for rule in rules)

    def _track(self, rule: SignalRule, key: str) -> tuple[str, _Track]:
        tracks = self._tracks[rule.perceiver, rule.name]
        key = key[:LONGEST_KEY]
        if key not in tracks and len(tracks) >= MOST_KEYS:
            key = OVERFLOW
        return key, tracks.setdefault(key, _Track())

    def _nothing(self, rule: SignalRule, key: str) -> Observation:
        return Observation(rule.perceiver, rule.resource, self._clock.wall(), key=key)

    def _turn(self, rule: SignalRule, key: str, track: _Track, seen: Observation) -> Signal:
        track.firing, track.since, track.hits = not track.firing, None, []
        if not track.firing:
            track.latencies = deque(list(track.latencies)[-RECOVERED:], LATENCIES)
        return self._signal(rule, key, "firing" if track.firing else "cleared", seen)

    def _signal(
        self, rule: SignalRule, key: str, state: Literal["firing", "cleared"], seen: Observation
    ) -> Signal:
        return Signal(
            name=rule.name,
            resource=rule.resource,
            severity=rule.severity,
            state=state,
            at=self._clock.wall(),
            summary=_summary(rule, key, state, seen),
            key=key,
            perceiver=rule.perceiver,
            values=dict(seen.values),
            captures=dict(seen.captures),
            samples=seen.samples,
            count=seen.count or 1,
            tainted=bool(rule.match),
        )

    def _blindness(self, perceiver: str, state: Literal["firing", "cleared"], text: str) -> Signal:
        rules = self._rules.get(perceiver)
        return Signal(
            name=BLIND,
            resource=rules[0].resource if rules else "host",
            severity=self._blind_severity,
            state=state,
            at=self._clock.wall(),
            summary=text[:500],
            key=perceiver,
            perceiver=perceiver,
        )


def _of_change(rule: SignalRule) -> bool:
    return rule.when is not None and rule.when.text == "changed"


def _patience(rule: SignalRule, track: _Track) -> float:
    """Seconds of quiet after which nothing of a track needs to be remembered."""
    return rule.clear_after if track.firing else max(rule.clear_after, rule.window)


def _bounded(hits: list[list[float]]) -> list[list[float]]:
    if len(hits) > MOST_HITS:
        (_, oldest), (moment, count), *rest = hits
        return [[moment, oldest + count], *rest]
    return hits


def _summary(rule: SignalRule, key: str, state: str, seen: Observation) -> str:
    if state == "cleared":
        return f"{rule.name} on {rule.resource} is over"
    if rule.summary:
        return rule.summary
    what = f" ({key})" if key else ""
    if rule.match:
        sample = f": {seen.samples[0][:200]}" if seen.samples else ""
        return f"{rule.name} on {rule.resource}{what}: {seen.count} hits{sample}"
    assert rule.when is not None
    reading = seen.values.get(rule.when.field)
    told = f", read {reading}" if rule.when.field and not isinstance(reading, bool) else ""
    error = seen.values.get("error")
    return f"{rule.name} on {rule.resource}{what}: {rule.when.text}{told}" + (f" ({error})" if error else "")


def _verdict(condition: Condition, track: _Track, seen: Observation) -> bool | None:
    """Whether the condition holds; None when the reading shows nothing: unreadable is neither good nor bad."""
    reading: Scalar = seen.values.get(condition.field)
    if condition.kind == "rate":
        reading = track.counters[condition.field][2]
    elif condition.kind == "percentile" and reading is not None:
        reading = _percentile(track, condition.percentile)
    return condition.compares(reading)


def _remember(rule: SignalRule, track: _Track, seen: Observation, moment: float) -> None:
    """Note what a rate or a percentile needs of this reading, once, however many conditions look at it."""
    conditions = [condition for condition in (rule.when, rule.clear) if condition is not None]
    for name in {condition.field for condition in conditions if condition.kind == "rate"}:
        track.counters[name] = _counted(track.counters.get(name), seen.values.get(name), moment)
    latencies = {condition.field for condition in conditions if condition.kind == "percentile"}
    track.latencies.extend(float(value) for name in latencies if _is_number(value := seen.values.get(name)))


def _counted(before: _Counter | None, reading: Scalar, moment: float) -> _Counter:
    """The change per second since the last reading; none without one, or after the counter started anew."""
    if not _is_number(reading):
        return (before[0], before[1], None) if before else (moment, None, None)
    value = float(reading)
    if before is None or before[1] is None or moment <= before[0] or value < before[1]:
        return (moment, value, None)
    return (moment, value, (value - before[1]) / (moment - before[0]))


def _is_number(value: Scalar) -> TypeGuard[float | int]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _percentile(track: _Track, percentile: int) -> float | None:
    readings = list(track.latencies)[-RECOVERED:] if track.firing else track.latencies
    if len(readings) < FEWEST:
        return None
    ordered = sorted(readings)
    return ordered[math.ceil(len(ordered) * percentile / 100) - 1]
