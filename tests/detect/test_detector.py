"""What fires, what clears, and what carries over a restart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.clock import ManualClock
from daemon.detect import detector as module
from daemon.detect.detector import Detector
from daemon.model.domain import Scalar, Severity, Signal
from daemon.model.signals import SignalRule, parse_when
from perceivers.base import Observation


def rule(
    name: str, when: str, *, clear: str | None = None, lasting: float = 0.0, clear_after: float = 0.0
) -> SignalRule:
    cleared = parse_when(clear) if clear else None
    return SignalRule(
        name,
        "p",
        "service:api",
        Severity.ERROR,
        parse_when(when),
        lasting=lasting,
        clear=cleared,
        clear_after=clear_after,
    )


def pattern(name: str, *, count: int = 1, window: float = 0.0, quiet: float = 60.0) -> SignalRule:
    return SignalRule(
        name, "p", "service:api", Severity.ERROR, match="x", count=count, window=window, clear_after=quiet
    )


class Bench:
    """One detector on a clock of its own; every call gives `NAME STATE` of what followed."""

    def __init__(self, *rules: SignalRule) -> None:
        self.clock = ManualClock()
        self.rules = rules
        self.detector = Detector(rules, self.clock)
        self.signals: list[Signal] = []

    def see(self, key: str = "", unreadable: str = "", **values: Scalar) -> list[str]:
        return self.batch(
            Observation("p", "service:api", self.clock.wall(), values, key=key, unreadable=unreadable)
        )

    def hit(self, name: str, key: str = "", count: int = 1) -> list[str]:
        now = self.clock.wall()
        return self.batch(
            Observation("p", "service:api", now, key=key, rule=name, count=count, first=now, last=now)
        )

    def batch(self, *observations: Observation) -> list[str]:
        return self._told(self.detector.judge("p", observations))

    def tick(self, seconds: float = 0.0) -> list[str]:
        self.clock.advance(seconds)
        return self._told(self.detector.tick())

    def restart(self) -> None:
        state = json.loads(json.dumps(self.detector.state("p")))
        self.detector = Detector(self.rules, self.clock)
        self.detector.restore("p", state)

    def _told(self, signals: Sequence[Signal]) -> list[str]:
        self.signals += signals
        return [
            f"{signal.name} {signal.state}" + (f" {signal.key}" if signal.key else "") for signal in signals
        ]


# thresholds ------------------------------------------------------------------------------------------------------------


def test_a_threshold_fires_once_and_clears_once() -> None:
    bench = Bench(rule("hot", "temp > 90"))
    assert bench.see(temp=90.0) == []
    assert bench.see(temp=91.0) == ["hot firing"]
    assert bench.see(temp=95.0) == []
    assert bench.see(temp=90.0) == ["hot cleared"]
    assert bench.see(temp=10.0) == []
    assert bench.signals[0].summary == "hot on service:api: temp > 90, read 91.0"
    assert bench.signals[0].values == {"temp": 91.0}


def test_it_must_last_and_must_be_normal_for_long_enough() -> None:
    bench = Bench(rule("hot", "temp > 90", lasting=10, clear_after=20))
    assert bench.see(temp=91.0) == []
    bench.clock.advance(9)
    assert bench.see(temp=91.0) == []
    bench.clock.advance(1)
    assert bench.see(temp=91.0) == ["hot firing"]
    assert bench.see(temp=1.0) == []
    bench.clock.advance(19)
    assert bench.see(temp=1.0) == []
    bench.clock.advance(1)
    assert bench.see(temp=1.0) == ["hot cleared"]


def test_readings_that_flap_neither_fire_nor_clear() -> None:
    bench = Bench(rule("hot", "temp > 90", lasting=5, clear_after=5))
    for temp in (91.0, 1.0) * 10:
        assert bench.see(temp=temp) == []
        bench.clock.advance(3)
    bench.see(temp=91.0)
    bench.clock.advance(5)
    assert bench.see(temp=91.0) == ["hot firing"]
    for temp in (1.0, 91.0) * 10:
        assert bench.see(temp=temp) == []
        bench.clock.advance(3)


def test_between_the_two_thresholds_it_stays_as_it_is() -> None:
    bench = Bench(rule("full", "used > 97%", clear="used < 95%"))
    assert bench.see(used=0.96) == []
    assert bench.see(used=0.98) == ["full firing"]
    assert bench.see(used=0.96) == []
    assert bench.see(used=0.94) == ["full cleared"]


@pytest.mark.parametrize("reading", [None, float("nan"), True, "95"], ids=str)
def test_what_is_unreadable_neither_fires_nor_clears(reading: Scalar) -> None:
    bench = Bench(rule("hot", "temp > 90"), rule("cold", "temp < 0", clear="temp > 5"))
    assert bench.see(temp=reading) == bench.see() == []
    assert bench.see(temp=91.0) == ["hot firing"]
    assert bench.see(temp=reading) == bench.see() == []
    assert bench.see(temp=-1.0) == ["hot cleared", "cold firing"]
    assert bench.see(temp=reading) == []


def test_words_compare_booleans_and_states() -> None:
    bench = Bench(rule("down", "down"), rule("zombie", "state == Z"))
    assert bench.see(up=False, state="S") == ["down firing"]
    assert bench.see(up=True, state="Z") == ["down cleared", "zombie firing"]


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_a_step_of_the_wall_clock_neither_freezes_nor_fires(step: float) -> None:
    bench = Bench(
        rule("hot", "temp > 90", lasting=10),
        pattern("bad", count=3, window=30),
        rule("silent", "absent", lasting=60),
    )
    bench.see(temp=91.0)
    bench.hit("bad", count=2)
    bench.clock.step_wall(step)
    assert bench.see(temp=91.0) == []
    assert bench.tick(9) == []
    assert bench.see(temp=91.0) == []
    bench.clock.advance(1)
    assert bench.see(temp=91.0) == ["hot firing"]
    assert bench.hit("bad", count=1) == ["bad firing"]
    bench.clock.step_wall(step)
    assert bench.tick(59) == []
    assert bench.tick(1) == ["bad cleared", "silent firing"]


def test_what_is_about_to_fire_is_brewing() -> None:
    bench = Bench(rule("hot", "temp > 90", lasting=40))
    assert not bench.detector.brewing("p")
    bench.see(temp=91.0)
    assert not bench.detector.brewing("p")
    bench.clock.advance(10)
    bench.see(temp=91.0)
    assert bench.detector.brewing("p")
    bench.clock.advance(30)
    bench.see(temp=91.0)
    assert not bench.detector.brewing("p")


# several things of one perceiver ------------------------------------------------------------------------------------------


def two(bench: Bench, **temps: float) -> list[str]:
    now = bench.clock.wall()
    return bench.batch(
        *(Observation("p", "service:api", now, {"temp": temp}, key=key) for key, temp in temps.items())
    )


def test_keys_are_judged_apart() -> None:
    bench = Bench(rule("hot", "temp > 90"))
    assert two(bench, a=91.0, b=1.0) == ["hot firing a"]
    assert two(bench, a=91.0, b=91.0) == ["hot firing b"]
    assert two(bench, a=1.0, b=91.0) == ["hot cleared a"]


def test_what_is_gone_is_not_abnormal_any_more_and_not_remembered() -> None:
    bench = Bench(rule("hot", "temp > 90", clear_after=60))
    for number in range(100):
        assert two(bench, **{f"pid{number}": 1.0}) == []
    assert two(bench, a=91.0, b=91.0) == ["hot firing a", "hot firing b"]
    assert two(bench, b=91.0) == ["hot cleared a"]
    assert list(bench.detector.state("p")["tracks"]["hot"]) == ["b"]
    assert bench.batch() == ["hot cleared b"]


def test_more_keys_than_are_followed_are_counted_together() -> None:
    bench = Bench(pattern("bad", count=3, window=60))
    for number in range(module.MOST_KEYS):
        bench.hit("bad", key=f"k{number}")
    assert bench.hit("bad", key="one more") == []
    assert bench.hit("bad", key="x" * 1000, count=2) == ["bad firing *"]
    assert len(bench.detector.state("p")["tracks"]["bad"]) == module.MOST_KEYS + 1


# rates, percentiles -----------------------------------------------------------------------------------------------------


def test_a_rate_is_the_change_since_the_last_reading() -> None:
    bench = Bench(rule("errors", "rate(errors) > 10 per s", clear="rate(errors) < 1 per s"))
    assert bench.see(errors=1000) == []
    bench.clock.advance(10)
    assert bench.see(errors=1101) == ["errors firing"]
    bench.clock.advance(10)
    assert bench.see(errors=None) == []
    bench.clock.advance(10)
    assert bench.see(errors=1141) == []
    bench.clock.advance(10)
    assert bench.see(errors=1145) == ["errors cleared"]


def test_a_counter_that_starts_anew_is_no_rate() -> None:
    bench = Bench(rule("errors", "rate(errors) > 10 per s"))
    bench.see(errors=10**9)
    bench.clock.advance(1)
    assert bench.see(errors=5) == []
    bench.clock.advance(1)
    assert bench.see(errors=16) == ["errors firing"]


def test_a_percentile_needs_a_few_readings_and_forgives_the_rest() -> None:
    bench = Bench(rule("slow", "p90 > 2s"))
    for _ in range(19):
        assert bench.see(latency=0.1) == []
    assert bench.see(latency=9.0) == []
    assert bench.see(latency=9.0) == []
    assert bench.see(latency=9.0) == ["slow firing"]
    assert bench.see(latency=None) == []


def test_a_percentile_clears_by_the_newest_readings_and_does_not_fire_again_by_the_old_ones() -> None:
    bench = Bench(rule("slow", "p90 > 2s", clear="p50 < 1s"))
    for _ in range(100):
        bench.see(latency=9.0)
    told = [bench.see(latency=0.1) for _ in range(30)]
    assert [text for texts in told for text in texts] == ["slow cleared"]
    assert ["slow cleared"] in told[: module.RECOVERED]


# absence, change --------------------------------------------------------------------------------------------------------


def test_absence_fires_by_time_alone_and_ends_with_a_reading() -> None:
    bench = Bench(rule("silent", "absent", lasting=60))
    assert bench.tick(59) == []
    assert bench.tick(1) == ["silent firing"]
    assert bench.tick(100) == []
    assert bench.see(unreadable="permission") == []
    assert bench.see() == ["silent cleared"]
    assert bench.tick(59) == []
    assert bench.tick(1) == ["silent firing"]


def test_absence_of_everything_ends_with_the_first_key_and_each_key_is_missed_by_itself() -> None:
    bench = Bench(rule("silent", "absent", lasting=60))
    assert bench.tick(60) == ["silent firing"]
    assert bench.see(key="backup") == ["silent cleared"]
    bench.clock.advance(30)
    bench.see(key="rotate")
    assert bench.tick(30) == ["silent firing backup"]


def test_after_a_restart_absence_waits_as_long_again_because_nobody_looked() -> None:
    bench = Bench(rule("silent", "absent", lasting=60))
    bench.see()
    bench.clock.advance(3600)
    bench.restart()
    assert bench.tick(59) == []
    assert bench.tick(1) == ["silent firing"]


def test_a_change_is_told_again_and_clears_by_quiet_while_readings_go_on() -> None:
    bench = Bench(rule("edited", "changed", clear_after=60))
    assert bench.see(changed=False) == []
    assert bench.see(changed=True) == ["edited firing"]
    assert bench.see(changed=True) == ["edited cleared", "edited firing"]
    for _ in range(5):
        assert bench.see(changed=False) == bench.tick(10) == []
    assert bench.tick(10) == ["edited cleared"]
    assert bench.tick(100) == []


# patterns ---------------------------------------------------------------------------------------------------------------


def test_a_pattern_fires_at_its_count_within_the_window_for_each_key() -> None:
    bench = Bench(pattern("bad", count=5, window=600, quiet=600))
    assert bench.hit("bad", "a", 2) == []
    bench.clock.advance(300)
    assert bench.hit("bad", "a", 2) == []
    assert bench.hit("bad", "b", 4) == []
    bench.clock.advance(301)
    assert bench.hit("bad", "a", 2) == []
    assert bench.hit("bad", "a", 1) == ["bad firing a"]
    assert bench.hit("bad", "a", 50) == []
    assert bench.tick(599) == []
    assert bench.tick(1) == ["bad cleared a"]
    assert bench.detector.state("p")["tracks"] == {}


def test_hits_of_other_rules_and_readings_do_not_count() -> None:
    bench = Bench(pattern("bad"))
    assert bench.hit("other") == bench.see(x=1) == []
    assert bench.hit("bad") == ["bad firing"]
    assert bench.signals[0].tainted


def test_what_is_remembered_of_a_flood_is_bounded() -> None:
    bench = Bench(pattern("bad", count=10**6, window=1e6))
    for _ in range(2 * module.MOST_HITS):
        bench.clock.advance(1)
        bench.hit("bad", count=3)
    hits = bench.detector.state("p")["tracks"]["bad"][""][3]
    assert len(hits) <= module.MOST_HITS
    assert sum(count for _, count in hits) == 6 * module.MOST_HITS


# blindness --------------------------------------------------------------------------------------------------------------


def test_blindness_is_a_signal_after_a_few_polls_and_ends_with_the_first_that_works() -> None:
    bench = Bench(rule("hot", "temp > 90"))
    told = [bench.detector.blind("p", "permission denied") for _ in range(5)]
    assert [len(signals) for signals in told] == [0, 0, 1, 0, 0]
    assert told[2][0].fingerprint == "perceiver-blind|service:api|p"
    bench.restart()
    assert [signal.state for signal in bench.detector.seen("p")] == ["cleared"]
    assert bench.detector.seen("p") == []


# restarts ---------------------------------------------------------------------------------------------------------------

RULES = (
    rule("hot", "temp > 90", lasting=10, clear_after=20),
    rule("full", "temp > 97", clear="temp < 95"),
    rule("errors", "rate(errors) > 1 per s", clear="rate(errors) < 0.5 per s", lasting=5),
    rule("slow", "p90 > 2s", clear="p50 < 1s"),
    rule("edited", "changed", clear_after=15),
    pattern("bad", count=4, window=30, quiet=20),
)
READING = st.fixed_dictionaries(
    {},
    optional={
        "temp": st.sampled_from([0.0, 91.0, 96.0, 99.0, None]),
        "errors": st.sampled_from([0, 10, 100, 200, None]),
        "latency": st.sampled_from([0.1, 9.0, None]),
        "changed": st.booleans(),
    },
)
KEY = st.sampled_from(["", "a", "b"])
STEP = st.one_of(
    st.tuples(st.just("see"), st.lists(st.tuples(KEY, READING), max_size=3)),
    st.tuples(st.just("hit"), st.tuples(KEY, st.integers(1, 3))),
    st.tuples(st.just("tick"), st.integers(0, 30)),
    st.tuples(st.just("blind"), st.none()),
)


def play(bench: Bench, steps: Sequence[tuple[str, Any]]) -> None:
    for kind, what in steps:
        bench.clock.advance(1.25)
        if kind == "see":
            bench.signals += bench.detector.seen("p")
            bench.batch(
                *(
                    Observation("p", "service:api", bench.clock.wall(), values, key=key)
                    for key, values in what
                )
            )
        elif kind == "hit":
            bench.hit("bad", *what)
        elif kind == "tick":
            bench.tick(what)
        else:
            bench.signals += bench.detector.blind("p", "no")


@given(steps=st.lists(STEP, max_size=60), split=st.integers(0, 60))
def test_a_restart_at_any_point_changes_nothing(steps: list[tuple[str, Any]], split: int) -> None:
    whole, parted = Bench(*RULES), Bench(*RULES)
    play(whole, steps)
    play(parted, steps[:split])
    parted.restart()
    play(parted, steps[split:])
    assert parted.signals == whole.signals


@given(steps=st.lists(STEP, max_size=60))
def test_every_fingerprint_fires_and_clears_in_turn(steps: list[tuple[str, Any]]) -> None:
    bench = Bench(*RULES)
    play(bench, steps)
    by_fingerprint: dict[str, list[str]] = {}
    for signal in bench.signals:
        by_fingerprint.setdefault(signal.fingerprint, []).append(signal.state)
    for states in by_fingerprint.values():
        assert states == (["firing", "cleared"] * len(states))[: len(states)]


def test_after_a_reboot_durations_go_on_by_the_wall_clock() -> None:
    bench = Bench(rule("hot", "temp > 90", lasting=100), pattern("bad", quiet=300))
    bench.see(temp=91.0)
    bench.hit("bad")
    state = bench.detector.state("p")
    bench.clock.reboot("boot-2", downtime=60)
    bench.detector = Detector(bench.rules, bench.clock)
    bench.detector.restore("p", json.loads(json.dumps(state)))
    assert bench.see(temp=91.0) == []
    bench.clock.advance(40)
    assert bench.see(temp=91.0) == ["hot firing"]
    assert bench.tick(199) == []
    assert bench.tick(1) == ["bad cleared"]


def test_rules_that_are_no_more_are_forgotten() -> None:
    bench = Bench(rule("hot", "temp > 90"), rule("cold", "temp < 0"))
    bench.see(temp=91.0)
    bench.rules = bench.rules[1:]
    bench.restart()
    assert bench.detector.state("p")["tracks"] == {"cold": bench.detector.state("p")["tracks"]["cold"]}


def test_it_knows_which_signals_it_can_still_clear() -> None:
    detector = Bench(rule("hot", "temp > 90")).detector
    assert detector.watches("hot", "service:api", "any key")
    assert detector.watches("perceiver-blind", "service:api", "p")
    assert not detector.watches("hot", "service:web", "")
    assert not detector.watches("cold", "service:api", "")
    assert not detector.watches("perceiver-blind", "service:api", "another")
