"""How files become a policy, and what each mistake in one is told as."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from fakes.policies import NOON, ask, policy, request, written

from daemon.errors import PolicyError
from daemon.policy.load import Owner, load, owner_of, paths

RULE = '[[rule]]\nid = "r"\neffect = "allow"\naction = ["unit.restart"]\n'
EXAMPLE = Path(__file__).parent.parent / "data" / "policy-example.toml"


def problems(directory: Path, text: str, **known: object) -> list[str]:
    """What is said of a file; its path left out."""
    with pytest.raises(PolicyError) as caught:
        policy(directory, text, **known)
    return [str(problem).removeprefix(f"{directory}/") for problem in caught.value.problems]


# Each of these is one mistake: the text after `schema = 1`, then where it is found and some of what is said.
MISTAKES = {
    "broken TOML": ("x = = 1", "site.toml:2: is no TOML"),
    "unknown key": (RULE + 'efect = "deny"', "site.toml:6: unknown key `efect` (did you mean `effect`?"),
    "unknown table": ("[group]\na = []", "site.toml:2: unknown key `group` (did you mean `groups`?"),
    "missing key": ('[[rule]]\nid = "r"\naction = ["noop"]', "site.toml:2: `effect` is missing"),
    "wrong type": (RULE.replace('["unit.restart"]', '"unit.restart"'), "site.toml:5: `action`: expected a list"),
    "wrong effect": (RULE.replace("allow", "alow"), 'site.toml:4: `effect`: "alow" is not accepted'),
    "wrong id": (RULE.replace('"r"', '"R 1"'), 'site.toml:3: `id`: "R 1" is not accepted'),
    "id default": (RULE.replace('"r"', '"default"'), "site.toml:3: 'default' is what verdicts without a rule"),
    "no action": ('[[rule]]\nid = "r"\neffect = "deny"', "site.toml:2: rule 'r' names no action"),
    "empty target": (RULE + "target = []", "site.toml:6: `target` is empty"),
    "unknown action": (
        RULE.replace("unit.restart", "unit.restat"),
        "site.toml:5: 'unit.restat' matches no action (did you mean 'unit.restart'?)",
    ),
    "unknown class": (RULE + 'class = ["low"]', "site.toml:6: there is no 'low' in [classes] (accepted: none is"),
    "unknown group": (
        '[groups]\napps = ["unit:a.service"]\n' + RULE + 'target = ["@app"]',
        "site.toml:8: there is no 'app' in [groups] (did you mean 'apps'?)",
    ),
    "empty group": ("[groups]\na = []\n" + RULE + 'target = ["@a"]', "site.toml:8: @a is empty"),
    "unknown window": (RULE + 'during = "night"', "site.toml:6: there is no 'night' in [windows]"),
    "unknown quiet window": (
        RULE + 'approvals = { quiet = "night" }',
        "site.toml:6: there is no 'night' in [windows]",
    ),
    "duplicate id": (RULE + RULE, "site.toml:6: rule 'r' exists already (first at"),
    "wrong kind": (RULE + 'target = ["file:/etc"]', "site.toml:6: 'file:/etc' is no Resource glob"),
    "no kind": (RULE + 'target = ["*"]', "site.toml:6: '*' is no Resource glob"),
    "wrong kind in a group": ('[groups]\na = ["api"]', "site.toml:3: 'api' is no Resource glob"),
    "not canonical": (RULE + 'target = ["unit:api"]', "site.toml:6: 'unit:api' can never match"),
    "non-ASCII deny": (
        RULE.replace("allow", "deny") + 'target = ["unit:\u0430.service"]',
        "site.toml:6: 'unit:\\u0430.service' can never match",
    ),
    "non-ASCII group": ('[groups]\na = ["unit:\u0430*"]', "site.toml:3: 'unit:\\u0430*' can never match"),
    "control characters": (RULE + 'target = ["unit:a\\u0000*"]', "site.toml:6: 'unit:a\\x00*' can never match"),
    "wrong severity": (RULE + 'severity = ">=bad"', "site.toml:6: `severity`: 'bad' is no severity"),
    "no severity": (RULE + "severity = []", "site.toml:6: `severity`: write"),
    "no unit": (RULE + "cooldown = 600", "site.toml:6: `cooldown`: 600 has no unit"),
    "no duration": (RULE + 'cooldown = "soon"', 'site.toml:6: `cooldown`: "soon" is no duration'),
    "too long": (RULE + 'cooldown = "91d"', "site.toml:6: `cooldown`: "),
    "wrong rate": (RULE + 'rate = ["2 an hour"]', "site.toml:6: element 1 of `rate`: '2 an hour' is no rate"),
    "no rate": (RULE + 'rate = ["0/1h per target"]', "is no rate"),
    "endless rate": (RULE + 'rate = ["1/91d per rule"]', "a rate looks back at most 90d"),
    "wrong share": (
        '[groups]\na = ["unit:a.service"]\n'
        + RULE
        + 'blast_radius = { group = "a", max = "140%", within = "5m" }',
        "site.toml:8: `max`: '140%' is no share",
    ),
    "share of globs": (
        '[groups]\na = ["unit:a*.service"]\n' + RULE + 'blast_radius = { group = "a", max = "40%", within = "5m" }',
        "site.toml:8: a share of [groups] 'a' cannot be told",
    ),
    "no count": (
        '[groups]\na = ["unit:a.service"]\n' + RULE + 'blast_radius = { group = "a", max = 0, within = "5m" }',
        "site.toml:8: `max`: 0 is neither",
    ),
    "blast radius of nothing": (
        RULE + 'blast_radius = { group = "a", max = 1, within = "5m" }',
        "site.toml:6: there is no 'a' in [groups]",
    ),
    "negative probation": (RULE + "probation = -1", "site.toml:6: `probation`: -1 is out of range"),
    "wrong mode": (RULE + 'mode = "act"', 'site.toml:6: `mode`: "act" is not accepted'),
    "wrong evidence": (RULE + 'evidence = "any"', 'site.toml:6: `evidence`: "any" is not accepted'),
    "bytes without unit": (RULE + "max = { bytes = 1000 }", "site.toml:6: `max`: bytes = 1000 has no unit"),
    "wrong size": (RULE + 'max = { bytes = "lots" }', "site.toml:6: `bytes`: 'lots' is no size"),
    "impossible proof": (
        RULE + 'verify = { signal = "down", clear_for = "5m", within = "1m" }',
        "site.toml:6: `verify`: `clear_for` is longer than `within`",
    ),
    "impossible quorum": (
        RULE + 'approvals = { from = ["anna"], quorum = 2 }',
        "site.toml:6: `approvals`: `quorum` is 2, but `from` names 1",
    ),
    "a person twice": (RULE + 'approvals = { from = ["anna", "anna"] }', "`from`: anna stands there twice"),
    "limit on a deny": (
        RULE.replace("allow", "deny") + 'cooldown = "1m"',
        "site.toml:6: `cooldown` does nothing on a rule with effect 'deny'",
    ),
    "probation on asking": (
        RULE.replace("allow", "require-approval") + "probation = 1",
        "site.toml:6: `probation` does nothing on a rule with effect 'require-approval'",
    ),
    "impossible time": ('[windows]\nw = { hours = "25:00-26:00", tz = "UTC" }', "site.toml:3: `hours`: '25:00-26:00'"),
    "empty time": ('[windows]\nw = { hours = "07:00-07:00", tz = "UTC" }', "site.toml:3: `hours`: '07:00-07:00' is"),
    "no zone": ('[windows]\nw = { hours = "22:00-07:00" }', "site.toml:3: `w`: `tz` is missing"),
    "wrong zone": ('[windows]\nw = { hours = "22:00-07:00", tz = "Mars" }', "site.toml:3: `tz`: 'Mars' is no time zone"),
    "wrong day": ('[windows]\nw = { days = ["monday"], tz = "UTC" }', "site.toml:3: element 1 of `days`"),
    "no window": ('[windows]\nw = { tz = "UTC" }', "site.toml:3: `w`: a window has either"),
    "two windows": (
        '[windows]\nw = { hours = "22:00-07:00", tz = "UTC", to = 2026-01-01T00:00:00Z }',
        "site.toml:3: `w`: a window has either",
    ),
    "no end": ("[windows]\nw = { from = 2026-01-01T00:00:00Z }", "site.toml:3: `w`: a window with `from` needs `to`"),
    "no offset": (
        "[windows]\nw = { from = 2026-01-01T00:00:00, to = 2026-01-02T00:00:00Z }",
        "site.toml:3: `from`: the offset is missing",
    ),
    "backwards": (
        "[windows]\nw = { from = 2026-01-02T00:00:00Z, to = 2026-01-01T00:00:00Z }",
        "site.toml:3: `w`: `to` must be later than `from`",
    ),
    "unknown disable": ('disable = ["guard"]', "site.toml:2: `disable`: there is no vendor rule 'guard'"),
    "unknown enable": ('enable = ["restart"]', "site.toml:2: `enable`: there is no vendor rule 'restart'"),
    "test of an unknown rule": (
        RULE.replace("[[rule]]", "test = [{ action = 'noop', target = 'host', expect = { effect = 'deny', rule = 's' } }]\n[[rule]]"),
        "site.toml:2: the test speaks of rule 's', which does not exist",
    ),
    "test of an unknown action": (
        'test = [{ action = "unit.restat", target = "host", expect = { effect = "deny" } }]',
        "site.toml:2: 'unit.restat' matches no action",
    ),
    "test of no Resource": (
        'test = [{ action = "noop", target = "here", expect = { effect = "deny" } }]',
        "site.toml:2: 'here' is no resource",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert said in found[0]


def test_a_file_without_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("")
    with pytest.raises(PolicyError, match="`schema` is missing"):
        load([], [path])


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load([], [tmp_path / "gone.toml"])


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    bad = [
        written(tmp_path, RULE + 'during = "night"\ntarget = ["@apps"]\n', "one.toml"),
        written(tmp_path, "x = 1\n", "two.toml"),
    ]
    with pytest.raises(PolicyError) as caught:
        load([], bad)
    assert len(caught.value.problems) == 3


def test_commands_and_people_of_the_configuration(tmp_path: Path) -> None:
    rule = RULE.replace("unit.restart", "command.restart-api") + 'approvals = { from = ["anna"] }\n'
    assert policy(tmp_path, rule).rules
    assert policy(tmp_path, rule, commands=frozenset({"restart-api"}), people={"anna"}).rules
    assert problems(tmp_path, rule, commands=frozenset({"restart-web"})) == [
        "site.toml:5: 'command.restart-api' matches no action (did you mean 'command.restart-web'?)"
    ]
    (said,) = problems(tmp_path, rule, people={"ann"})
    assert said.startswith("site.toml:6: there is nobody called 'anna' (did you mean 'ann'?")


def test_a_glob_may_speak_of_another_hosts_commands(tmp_path: Path) -> None:
    assert policy(tmp_path, RULE.replace("unit.restart", "command.restart-*"), commands=frozenset()).rules


# layers --------------------------------------------------------------------------------------------------------------

VENDOR = """
[groups]
never = ["unit:ssh.service"]
[[rule]]
id = "guard"
effect = "deny"
action = ["*"]
target = ["@never"]
[[rule]]
id = "restart"
effect = "allow"
mode = "shadow"
action = ["unit.restart"]
"""


def test_a_site_rule_replaces_the_vendors_whole(tmp_path: Path) -> None:
    vendor = written(tmp_path, VENDOR, "vendor.toml")
    site = written(tmp_path, RULE.replace('"r"', '"guard"').replace("unit.restart", "noop"))
    rules = load([vendor], [site])
    assert [(rule.id, rule.layer) for rule in rules.rules] == [("guard", "site"), ("restart", "vendor")]
    assert ask(rules, request(target="unit:ssh.service")).rule == "restart"


def test_enable_lifts_the_shadow_and_disable_takes_out(tmp_path: Path) -> None:
    vendor = written(tmp_path, VENDOR, "vendor.toml")
    assert ask(load([vendor], [])).shadow
    rules = load([vendor], [written(tmp_path, 'enable = ["restart"]')])
    assert not ask(rules).shadow
    assert ask(rules, request(target="unit:ssh.service")).rule == "guard"
    rules = load([vendor], [written(tmp_path, 'enable = ["restart"]\ndisable = ["guard"]')])
    assert ask(rules, request(target="unit:ssh.service")).rule == "restart"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('enable = ["restrat"]', "did you mean 'restart'?"),
        ('enable = ["restart"]\ndisable = ["restart"]', "'restart' is disabled as well"),
        ('disable = ["guard"]\n' + RULE.replace('"r"', '"guard"'), "'guard' is replaced at"),
    ],
)
def test_contradictions_between_the_layers(tmp_path: Path, text: str, said: str) -> None:
    vendor = written(tmp_path, VENDOR, "vendor.toml")
    with pytest.raises(PolicyError) as caught:
        load([vendor], [written(tmp_path, text)])
    assert said in str(caught.value)


def test_the_vendor_disables_nothing(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="is the site's word"):
        load(
            [written(tmp_path, VENDOR.replace("[groups]", 'disable = ["guard"]\n[groups]'), "vendor.toml")],
            [],
        )


def test_a_sites_group_does_not_change_a_vendors_rule(tmp_path: Path) -> None:
    vendor = written(tmp_path, VENDOR, "vendor.toml")
    site = written(tmp_path, '[groups]\nnever = ["unit:db.service"]\n' + RULE + 'target = ["@never"]\n')
    rules = load([vendor], [site])
    assert ask(rules, request(target="unit:ssh.service")).rule == "guard"
    assert ask(rules, request(target="unit:db.service")).rule == "r"


def test_site_rules_see_the_vendors_names(tmp_path: Path) -> None:
    vendor = written(tmp_path, VENDOR, "vendor.toml")
    rules = load([vendor], [written(tmp_path, RULE + 'target = ["@never"]\n')])
    assert rules.rules[1].targets == ("unit:ssh.service",)


def test_files_of_a_layer_share_names_and_may_not_repeat_them(tmp_path: Path) -> None:
    names = written(tmp_path, '[groups]\napps = ["unit:api.service"]\n', "a.toml")
    rules = written(tmp_path, RULE + 'target = ["@apps"]\n', "b.toml")
    assert ask(load([], [rules, names])).effect == "allow"
    again = written(tmp_path, '[groups]\napps = ["unit:web.service"]\n', "c.toml")
    with pytest.raises(PolicyError, match="'apps' exists already"):
        load([], [names, rules, again])


def test_the_vendors_tests_are_asked_of_the_vendor_alone(tmp_path: Path) -> None:
    test = 'test = [{ action = "noop", target = "host", expect = { effect = "deny" } }]\n'
    vendor = written(tmp_path, test + VENDOR, "vendor.toml")
    assert len(load([vendor], []).tests) == 1
    assert load([vendor], [written(tmp_path, RULE)]).tests == ()


# digests, places, owners ---------------------------------------------------------------------------------------------


def test_digests_tell_every_change_of_meaning(tmp_path: Path) -> None:
    text = '[groups]\napps = ["unit:api.service"]\n' + RULE + 'target = ["@apps"]\n'
    before = policy(tmp_path, text)
    commented = policy(tmp_path, "# why\n" + text)
    assert commented.digest != before.digest
    assert commented.rules[0].digest == before.rules[0].digest
    for changed in (text.replace("api", "web"), text + 'cooldown = "1m"\n', text + 'severity = "error"\n'):
        assert policy(tmp_path, changed).rules[0].digest != before.rules[0].digest


def test_paths_are_sorted_and_leave_out_what_is_no_policy(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", ".a.toml", "a.toml~", "notes.md"):
        (tmp_path / name).touch()
    assert [path.name for path in paths(tmp_path)] == ["a.toml", "b.toml"]
    assert paths(tmp_path / "none") == []


def test_only_the_owner_may_be_able_to_write(tmp_path: Path) -> None:
    me, path = Owner(frozenset({os.geteuid()})), written(tmp_path, RULE)
    assert load([], [path], owner=me).rules
    for mode in (0o666, 0o664, 0o646):
        path.chmod(mode)
        with pytest.raises(PolicyError, match=rf"can be written by others \(mode {mode:04o}\)"):
            load([], [path], owner=me)
    path.chmod(0o600)
    with pytest.raises(PolicyError, match=f"belongs to user {os.geteuid()}, not to {os.geteuid() + 1}"):
        load([], [path], owner=Owner(frozenset({os.geteuid() + 1})))


def test_the_directory_counts_too(tmp_path: Path) -> None:
    place = tmp_path / "policies.d"
    place.mkdir()
    path = written(place, RULE)
    place.chmod(0o777)
    me = Owner(frozenset({os.geteuid()}))
    assert [problem.where for problem in me.problems(path)] == [str(place)]
    link = tmp_path / "site.toml"
    link.symlink_to(path)
    assert [problem.where for problem in me.problems(link)] == [str(place)]
    place.chmod(stat.S_IRWXU)
    assert me.problems(link) == []


def test_the_vendors_files_are_as_trustworthy_as_the_program(tmp_path: Path) -> None:
    vendor = written(tmp_path, VENDOR, "vendor.toml")
    vendor.chmod(0o666)
    assert load([vendor], [], owner=Owner(frozenset({0}))).rules


def test_below_etc_root_alone_may_own(tmp_path: Path) -> None:
    assert owner_of(Path("/etc/midwatch/policies.d")).uids == {0}
    assert owner_of(tmp_path).uids == {0, os.geteuid()}


def test_the_example_loads(tmp_path: Path) -> None:
    rules = load([], [EXAMPLE], people={"anna", "ben"})
    assert [rule.id for rule in rules.rules if rule.shadow] == ["clean-releases"]
    assert ask(rules, request(at=NOON), votes=("anna",)).effect == "allow"
