"""The tests that stand in policy files: those that ship, the operator's example, and how a failing one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.policies import policy, written

from daemon.policy.lint import lint
from daemon.policy.load import load, paths
from daemon.policy.testing import run_tests

ROOT = Path(__file__).parent.parent.parent
POLICIES = ROOT / "policies"
VENDOR = [*paths(POLICIES / "rules"), *sorted(POLICIES.glob("packs/*/rules.toml"))]
EXAMPLE = ROOT / "tests" / "data" / "policy-example.toml"
RULE = """
[[rule]]
id = "r"
effect = "allow"
action = ["unit.restart"]
cooldown = "10m"
probation = 2
"""


def failures(directory: Path, *tests: str) -> list[str]:
    rules = policy(directory, f"test = [\n{''.join(f'{{ {test} }},' for test in tests)}\n]\n{RULE}")
    return [result.message for result in run_tests(rules) if not result.passed]


ASKED = 'action = "unit.restart", target = "unit:api.service"'


@pytest.mark.parametrize(
    "test",
    [
        'expect = { effect = "allow" }',
        'expect = { effect = "allow", rule = "r", shadow = false }',
        'mode = "observe", expect = { effect = "allow", shadow = true }',
        'mode = "ask", expect = { effect = "require-approval", rule = "r" }',
        'mode = "ask", votes = ["anna"], expect = { effect = "allow" }',
        'past = [], expect = { effect = "require-approval", rule = "r" }',
        'past = [{ age = "1m" }], expect = { effect = "deny", rule = "r" }',
        'past = [{ age = "1m", target = "unit:web.service" }], expect = { effect = "require-approval" }',
        'past = [{ age = "1m", result = "under-way" }], expect = { effect = "deny" }',
        'past = [{ age = "1m", result = "refused" }], expect = { effect = "require-approval" }',
        'past = [{ age = "1h", verified = true, rule = "r" }, { age = "2h", verified = true, rule = "r" }], expect = { effect = "allow" }',
        'irreversible = true, expect = { effect = "deny", rule = "default" }',
        'severity = "info", proposed_by = "model", tainted = true, expect = { effect = "allow" }',
        'params = { a = 1 }, size = { bytes = "1GiB" }, at = 2024-01-03T00:00:00Z, expect = { effect = "allow" }',
    ],
)
def test_what_a_test_may_say(tmp_path: Path, test: str) -> None:
    assert failures(tmp_path, f"{ASKED}, {test}") == []


def test_a_failing_test_says_what_came_instead(tmp_path: Path) -> None:
    found = failures(
        tmp_path,
        f'{ASKED}, expect = {{ effect = "deny", rule = "default", shadow = true }}',
        f'{ASKED}, expect = {{ effect = "allow" }}',
    )
    where = f"{tmp_path}/site.toml:6"
    assert found == [
        f"unit.restart unit:api.service -> allow by r at {where} (no reason given); expected deny, by default, in shadow"
    ]


def test_the_operators_example_passes_its_own_tests() -> None:
    results = run_tests(load([], [EXAMPLE], people={"anna", "ben"}))
    assert len(results) == 3
    assert [result for result in results if not result.passed] == []
    assert lint(load([], [EXAMPLE])) == []


def test_the_example_stands_over_the_vendors_rules() -> None:
    rules = load(VENDOR, [EXAMPLE])
    assert [result for result in run_tests(rules) if not result.passed] == []


def test_every_shipped_test_passes_and_lint_is_silent() -> None:
    rules = load(VENDOR, [])
    assert [result for result in run_tests(rules) if not result.passed] == []
    assert lint(rules) == []


@pytest.mark.parametrize("path", VENDOR, ids=lambda path: str(path.relative_to(POLICIES)))
def test_every_shipped_file_stands_alone(path: Path) -> None:
    rules = load([path], [])
    assert [result for result in run_tests(rules) if not result.passed] == []


def test_every_shipped_rule_has_a_reason_and_a_test() -> None:
    rules = load(VENDOR, [])
    tested = {test.rule for test in rules.tests}
    assert [rule.id for rule in rules.rules if not rule.reason or rule.id not in tested] == []


def test_what_ships_changes_nothing_until_a_person_says_so() -> None:
    armed = [rule.id for rule in load(VENDOR, []).rules if not rule.shadow and rule.effect != "deny"]
    assert armed == ["allow-noop"]


def test_every_shipped_rule_in_shadow_can_be_enabled(tmp_path: Path) -> None:
    shadows = [rule.id for rule in load(VENDOR, []).rules if rule.shadow]
    site = written(tmp_path, f"enable = {shadows}")
    assert [rule.id for rule in load(VENDOR, [site]).rules if rule.shadow] == []
