from __future__ import annotations

from pathlib import Path

import pytest
from fakes.policies import policy

from daemon.policy.lint import lint

ALLOW = '[[rule]]\nid = "b"\neffect = "allow"\naction = ["unit.restart"]\n'
DENY = '[[rule]]\nid = "a"\neffect = "deny"\naction = ["unit.*"]\n'


def warnings(directory: Path, text: str) -> list[str]:
    return [str(found).removeprefix(f"{directory}/") for found in lint(policy(directory, text))]


def test_sound_rules_are_not_spoken_of(tmp_path: Path) -> None:
    assert warnings(tmp_path, ALLOW + 'target = ["unit:api.service"]\n') == []
    assert warnings(tmp_path, ALLOW.replace("allow", "require-approval").replace("unit.restart", "*.*")) == []


@pytest.mark.parametrize("glob", ["*", "*.*"])
def test_an_allow_of_everything(tmp_path: Path, glob: str) -> None:
    (said,) = warnings(tmp_path, ALLOW.replace("unit.restart", glob) + "irreversible = true\n")
    assert said.startswith(f"site.toml:2: rule b allows every action ('{glob}')")


def test_a_pattern_that_never_matches(tmp_path: Path) -> None:
    (said,) = warnings(tmp_path, ALLOW + 'target = ["unit:web-\u0430.service"]\n')
    assert said == "site.toml:2: rule b: 'unit:web-\\u0430.service' can never match (Resources are ASCII)"


def test_an_allow_that_never_matches_what_cannot_be_taken_back(tmp_path: Path) -> None:
    delete = ALLOW.replace("unit.restart", "file.delete")
    (said,) = warnings(tmp_path, delete)
    assert said.startswith("site.toml:2: rule b never matches file.delete")
    assert warnings(tmp_path, delete + "irreversible = true\n") == []


@pytest.mark.parametrize(
    ("wall", "target", "dead"),
    [
        (DENY, "", True),
        (DENY, 'target = ["unit:api.service"]', True),
        (DENY + 'target = ["unit:*"]', 'target = ["unit:api.service", "unit:web-*.service"]', True),
        (DENY + 'target = ["unit:*"]', 'target = ["unit:api.service", "host"]', False),
        (DENY + 'target = ["unit:*"]', "", False),
        (DENY + 'target = ["unit:web-?.service"]', 'target = ["unit:web-*.service"]', False),
        (DENY + 'target = ["unit:web-?.service"]', 'target = ["unit:web-1.service"]', True),
        (DENY + 'severity = "critical"', "", False),
        (DENY + 'mode = "shadow"', "", False),
        (DENY.replace("unit.*", "unit.stop"), "", False),
    ],
)
def test_a_rule_behind_a_wall_never_takes_effect(tmp_path: Path, wall: str, target: str, dead: bool) -> None:
    found = warnings(tmp_path, wall + "\n" + ALLOW + target + "\n")
    line = wall.count("\n") + 3
    said = f"site.toml:{line}: rule b never takes effect: {tmp_path}/site.toml:2 a always wins"
    assert [one.partition(" (")[0] for one in found] == ([said] if dead else [])


def test_blast_radius_that_does_not_do_what_it_says(tmp_path: Path) -> None:
    group = '[groups]\nweb = ["unit:web-1.service", "unit:web-2.service"]\n'
    blast = 'blast_radius = { group = "web", max = "34%", within = "5m" }\n'
    (said,) = warnings(tmp_path, group + ALLOW + 'target = ["@web"]\n' + blast)
    assert "rule b never acts: its share of web is less than one" in said
    half = blast.replace("34%", "50%")
    (said,) = warnings(tmp_path, group + ALLOW + 'target = ["unit:db.service"]\n' + half)
    assert "no target of it is in web" in said
    assert warnings(tmp_path, group + ALLOW + 'target = ["unit:web-*.service"]\n' + half) == []
