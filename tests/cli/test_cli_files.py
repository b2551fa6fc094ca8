"""Verbs that read the files of this host: check, policy, runbook, perceive --local, reload --dry-run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.typed import typed

RULES = """
schema = 1
test = [
  {{ action = "noop", target = "host", expect = {{ effect = "{effect}" }} }},
]
[[rule]]
id     = "rest"
effect = "allow"
action = ["noop"]
target = ["host"]
max    = {{ files = 10 }}
reason = "Doing nothing harms nobody."
"""
RUNBOOKS = """
schema = 1
[[runbook]]
id      = "idle"
signals = ["service-down"]
cause   = "it does not run"
remedy  = [{ steps = [{ verb = "restart" }] }]
test    = [{ signals = ["service-down"], expect = { actions = [["command.restart-app"]] } }]
"""


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    for name, text in (("rules/a.toml", RULES.format(effect="deny")), ("packs/p/runbooks.toml", RUNBOOKS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(
        f"schema = 1\npacks = []\n[daemon]\nstate = {json.dumps(str(tmp_path / 'state'))}\n[perceivers.me]\nkind = 'host'\n"
    )
    return file


def test_rules_are_listed_with_their_lines(vendor: Path) -> None:
    said = typed("policy", "check", "--vendor", str(vendor))
    assert said.code == 0
    assert f"rest  allow    {vendor}/rules/a.toml:" in said.out
    listed = typed("policy", "check", "--vendor", str(vendor), "--json").json
    assert [(rule["id"], rule["effect"], rule["shadow"]) for rule in listed] == [("rest", "allow", False)]


def test_tests_of_policy_and_runbooks_run_together(vendor: Path) -> None:
    said = typed("policy", "test", "--vendor", str(vendor))
    assert said.code == 0
    assert "2 tests, 0 failed" in said.out
    (vendor / "rules/a.toml").write_text(RULES.format(effect="allow"))
    said = typed("policy", "test", "--vendor", str(vendor))
    assert said.code == 1
    assert f"failed  {vendor}/rules/a.toml:" in said.out
    assert "2 tests, 1 failed" in said.out


def test_a_broken_rule_is_exit_78_with_its_line(vendor: Path) -> None:
    (vendor / "rules/a.toml").write_text("schema = 1\n[[rule]]\nid = 'x'\neffect = 'permit'\n")
    said = typed("policy", "check", "--vendor", str(vendor))
    assert said.code == 78
    assert f"{vendor}/rules/a.toml:4" in said.err


def test_a_decision_is_explained_before_anybody_needs_it(vendor: Path) -> None:
    asked = ("policy", "explain", "noop", "host", "--vendor", str(vendor))
    assert "denied by rest at" in typed(*asked).out
    said = typed(*asked, "--size", "files=3")
    assert "allowed by rest at" in said.out
    found = typed(*asked, "--size", "files=3", "--mode", "ask", "--json").json
    assert found["verdict"]["effect"] == "require-approval"
    assert found["request"]["size"] == {"files": 3}
    assert typed(*asked, "--size", "files").code == 2
    assert typed(*asked, "--severity", "loud").code == 2


def test_a_target_that_is_none_is_said(vendor: Path) -> None:
    said = typed("policy", "explain", "noop", "nothing", "--vendor", str(vendor))
    assert said.code == 1
    assert "is no resource" in said.err


def test_runbooks_are_listed_and_tried(vendor: Path) -> None:
    assert (
        "idle  service-down  1         it does not run" in typed("runbook", "ls", "--vendor", str(vendor)).out
    )
    assert typed("runbook", "ls", "--vendor", str(vendor), "--json").json[0]["id"] == "idle"
    assert typed("runbook", "test", "--vendor", str(vendor), "--json").json[0]["passed"] is True
    file = vendor / "packs/p/runbooks.toml"
    file.write_text(RUNBOOKS.replace("command.restart-app", "command.stop-app"))
    said = typed("runbook", "test", "--vendor", str(vendor))
    assert said.code == 1
    assert "runbook idle, test 1" in said.out


def test_check_says_what_the_files_amount_to(config: Path) -> None:
    said = typed("check", "--config", str(config))
    assert (said.code, said.err) == (0, "")
    assert f"{config} is sound" in said.out
    assert "perceivers    1: me" in said.out
    told = typed("check", "--config", str(config), "--json").json
    assert told["socket"].endswith("admin.sock")
    assert told["channels"] == []


def test_check_names_the_line_that_is_wrong(config: Path) -> None:
    config.write_text("schema = 1\nmod = 'act'\n")
    said = typed("check", "--config", str(config))
    assert said.code == 78
    assert f"{config}:2" in said.err
    assert "mode" in said.err


def test_a_reload_can_be_tried_first(config: Path) -> None:
    assert "is sound" in typed("reload", "--dry-run", "--config", str(config)).out
    config.write_text("")
    assert typed("reload", "--dry-run", "--config", str(config)).code == 78


def test_a_perceiver_is_polled_without_a_daemon(config: Path) -> None:
    seen = typed("perceive", "me", "--local", "--json", "--config", str(config)).json
    assert seen[0]["resource"] == "host"
    assert seen[0]["values"]
    assert "host" in typed("perceive", "me", "--local", "--config", str(config)).out
    said = typed("perceive", "you", "--local", "--config", str(config))
    assert said.code == 1
    assert "configured: me" in said.err
