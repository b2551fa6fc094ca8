"""What each key of a rule means for a verdict."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fakes.policies import ask, past, policy, request

from daemon.model.domain import Mode, Proof, Severity
from daemon.model.policy import Facts, Request, Terms, Verdict
from daemon.policy.engine import Policy, decide

ALLOW = '[[rule]]\nid = "r"\neffect = "allow"\naction = ["unit.restart"]\ntarget = ["unit:api.service", "unit:web-*.service"]\n'
ASK = '[[rule]]\nid = "asks"\neffect = "require-approval"\naction = ["unit.*"]\n'
DENY = '[[rule]]\nid = "never"\neffect = "deny"\naction = ["*"]\nreason = "Call the platform team."\n'
PEOPLE = 'approvals = { from = ["anna", "ben"], quorum = 2, expires = "20m" }\n'


def test_nothing_matches_is_denied_by_default(tmp_path: Path) -> None:
    verdict = ask(policy(tmp_path, ALLOW), request("unit.stop"))
    assert verdict == Verdict("deny", "default", reasons=("no rule speaks of unit.stop",))
    verdict = ask(policy(tmp_path, ALLOW), request(target="unit:db.service"))
    assert (verdict.effect, verdict.rule) == ("deny", "default")
    assert verdict.reasons == ("no rule allows unit.restart on unit:db.service",)
    assert verdict.near_misses == ("r: target",)


def test_no_rules_at_all_deny(tmp_path: Path) -> None:
    assert ask(policy(tmp_path, "")).effect == "deny"
    assert ask(Policy.deny_all("site.toml:3: no TOML")).reasons == (
        "everything is denied: site.toml:3: no TOML",
    )


def test_an_allow_names_rule_file_and_line(tmp_path: Path) -> None:
    verdict = ask(policy(tmp_path, "\n" + ALLOW))
    assert (verdict.effect, verdict.rule, verdict.shadow) == ("allow", "r", False)
    assert verdict.where == f"{tmp_path / 'site.toml'}:3"
    assert len(verdict.rule_digest) == 64


def test_deny_over_require_approval_over_allow(tmp_path: Path) -> None:
    assert ask(policy(tmp_path, ALLOW + ASK)).rule == "asks"
    verdict = ask(policy(tmp_path, ALLOW + ASK + DENY), votes=("anna",))
    assert (verdict.effect, verdict.rule, verdict.reasons) == ("deny", "never", ("Call the platform team.",))
    site = tmp_path / "site.toml"
    assert verdict.notes == (f"asks: require-approval at {site}:7", f"r: allow at {site}:2")


def test_of_several_the_lowest_id_is_named(tmp_path: Path) -> None:
    other = ALLOW.replace('"r"', '"a"')
    assert ask(policy(tmp_path, ALLOW + other)).rule == "a"
    assert ask(policy(tmp_path, other + ALLOW)).rule == "a"


def test_a_reason_is_told(tmp_path: Path) -> None:
    assert ask(policy(tmp_path, ALLOW + 'reason = "It helps."\n')).reasons == ("It helps.",)


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ('">=error"', {"error", "critical"}),
        ('"error"', {"error"}),
        ('["info", "critical"]', {"info", "critical"}),
        ('">= warning"', {"warning", "error", "critical"}),
    ],
)
def test_severity(tmp_path: Path, written: str, allowed: set[str]) -> None:
    rules = policy(tmp_path, ALLOW + f"severity = {written}\n")
    assert {one.word for one in Severity if ask(rules, request(severity=one)).effect == "allow"} == allowed
    missed = next(one for one in Severity if one.word not in allowed)
    assert ask(rules, request(severity=missed)).near_misses == ("r: severity",)


def test_proposed_by(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + 'proposed_by = ["runbook", "person"]\n')
    assert ask(rules).effect == "allow"
    verdict = ask(rules, request(proposed_by="model"))
    assert (verdict.effect, verdict.near_misses) == ("deny", ("r: proposed_by",))


def test_classes_and_groups(tmp_path: Path) -> None:
    text = """
    [classes]
    gentle = ["unit.restart", "unit.reload"]
    [groups]
    apps = ["unit:api.service", "unit:web-*.service"]
    [[rule]]
    id = "r"
    effect = "allow"
    class = ["gentle"]
    action = ["unit.start"]
    target = ["@apps", "unit:extra.service"]
    """
    rules = policy(tmp_path, text)
    for action in ("unit.restart", "unit.reload", "unit.start"):
        for target in ("unit:api.service", "unit:web-1.service", "unit:extra.service"):
            assert ask(rules, request(action, target)).effect == "allow"
    assert ask(rules, request("unit.stop")).effect == "deny"
    assert ask(rules, request(target="unit:db.service")).effect == "deny"


def test_globs_do_not_reach_over_the_kind(tmp_path: Path) -> None:
    rules = policy(
        tmp_path, ALLOW.replace('["unit.restart"]', '["*.*"]').replace("unit:api.service", "unit:*")
    )
    assert ask(rules, request("file.delete", "path:/unit:x")).effect == "deny"
    assert ask(rules, request("command.anything")).effect == "allow"


def test_a_command_without_a_rule_of_its_own(tmp_path: Path) -> None:
    rules = policy(
        tmp_path, ALLOW.replace("unit.restart", "command.restart-*").replace("unit:api.service", "service:*")
    )
    assert ask(rules, request("command.restart-api", "service:api")).effect == "allow"
    assert ask(rules, request("command.drop-api", "service:api")).effect == "deny"


WINDOW = "[windows]\nw = { from = 2024-01-03T00:00:00Z, to = 2024-01-04T00:00:00Z }\n"


@pytest.mark.parametrize(("key", "within"), [("during", True), ("not_during", False)])
def test_windows_bound_a_rule(tmp_path: Path, key: str, within: bool) -> None:
    rules = policy(tmp_path, WINDOW + ALLOW + f'{key} = "w"\n')
    inside, outside = ask(rules), ask(rules, request(at=1_800_000_000.0))
    assert (inside.effect == "allow", outside.effect == "allow") == (within, not within)
    assert (outside if within else inside).near_misses == (f"r: {key}",)


@pytest.mark.parametrize("moment", [math.nan, math.inf, -math.inf, 1e18, -1e18])
@pytest.mark.parametrize("key", ["during", "not_during"])
def test_a_rule_that_cannot_be_judged_denies(tmp_path: Path, key: str, moment: float) -> None:
    freeze = DENY.replace('reason = "Call the platform team."', f'{key} = "w"')
    verdict = ask(policy(tmp_path, WINDOW + ALLOW + freeze), request(at=moment))
    assert (verdict.effect, verdict.rule) == ("deny", "never")
    assert "cannot be judged" in verdict.reasons[0]


# limits --------------------------------------------------------------------------------------------------------------


def test_cooldown_per_target(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + 'cooldown = "10m"\n')
    verdict = ask(rules, None, past(60.0))
    assert (verdict.effect, verdict.rule) == ("deny", "r")
    assert verdict.reasons == ("cooldown 10m per target: used up, free again in 9m",)
    assert ask(rules, None, past(600.0)).effect == "allow"
    assert ask(rules, None, past(60.0, "unit:web-1.service")).effect == "allow"


def test_a_limit_counts_what_its_scope_covers_whoever_did_it(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + 'cooldown = "10m"\n')
    assert ask(rules, None, past(60.0, rule="somebody-else")).effect == "deny"
    assert ask(rules, None, past(60.0, action="unit.reload")).effect == "allow"


def test_attempts_under_way_count_and_refused_ones_do_not(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + 'cooldown = "10m"\n')
    assert ask(rules, None, past(1.0, result=None, verified=None)).effect == "deny"
    assert ask(rules, None, past(1.0, result="failed", verified=False)).effect == "deny"
    assert ask(rules, None, past(1.0, result="refused", verified=None)).effect == "allow"


def test_rates_per_target_and_per_rule(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + 'rate = ["2/1h per target", "3/24h per rule"]\n')
    web = [past(100.0 * n, f"unit:web-{n}.service") for n in (1, 2, 3)]
    assert ask(rules, None, past(60.0)).effect == "allow"
    verdict = ask(rules, None, past(60.0), past(1800.0))
    assert verdict.reasons == ("rate 2/1h per target: used up, free again in 30m",)
    assert ask(rules, None, *web[:2]).effect == "allow"
    verdict = ask(rules, None, *web)
    assert verdict.reasons == ("rate 3/24h per rule: used up, free again in 1435m",)
    elsewhere = [past(10.0, f"unit:db-{n}.service") for n in range(9)]
    assert ask(rules, None, *elsewhere).effect == "allow"


GROUP = (
    '[groups]\nweb = ["unit:api.service", "unit:web-1.service", "unit:web-2.service", "unit:web-3.service"]\n'
)


@pytest.mark.parametrize(
    ("most", "others"), [('"25%"', 0), ('"50%"', 1), ("3", 2), ('"99%"', 2), ('"100%"', 3)]
)
def test_blast_radius(tmp_path: Path, most: str, others: int) -> None:
    rules = policy(
        tmp_path, GROUP + ALLOW + f'blast_radius = {{ group = "web", max = {most}, within = "5m" }}\n'
    )
    touched = [past(10.0 * n, f"unit:web-{n}.service") for n in (1, 2, 3)]
    assert ask(rules, None, *touched[:others]).effect == "allow"
    assert ask(rules, None, past(5.0), *touched[:others]).effect == "allow"
    for one in touched[others:]:
        verdict = ask(rules, None, *touched[:others], one)
        assert (verdict.effect, verdict.rule) == ("deny", "r")
        assert verdict.reasons[0].startswith(f"blast_radius {others + 1} of web: already touched unit:web-")


def test_blast_radius_says_when_it_is_free_and_forgets(tmp_path: Path) -> None:
    rules = policy(tmp_path, GROUP + ALLOW + 'blast_radius = { group = "web", max = 1, within = "5m" }\n')
    verdict = ask(rules, None, past(60.0, "unit:web-1.service"), past(200.0, "unit:web-1.service"))
    assert verdict.reasons == ("blast_radius 1 of web: already touched unit:web-1.service; free again in 4m",)
    assert ask(rules, None, past(300.0, "unit:web-1.service")).effect == "allow"
    assert (
        ask(rules, request(target="unit:web-9.service"), past(60.0, "unit:web-1.service")).effect == "allow"
    )


def test_max(tmp_path: Path) -> None:
    text = ALLOW.replace("unit.restart", "file.restore").replace("unit:api.service", "path:/srv/*")
    rules = policy(tmp_path, text + 'max = { files = 500, bytes = "20GiB" }\n')

    def asked(**size: int) -> Verdict:
        return ask(rules, request("file.restore", "path:/srv/x", size=size))

    assert asked(files=500, bytes=20 * 2**30).effect == "allow"
    assert asked(files=501, bytes=1).reasons == ("max files: it would touch 501, at most 500 may be",)
    assert asked(files=1, bytes=2**40).reasons == (
        "max bytes: it would touch 1.0 TiB, at most 20.0 GiB may be",
    )
    assert "could not be measured" in asked(files=1).reasons[0]


def test_limits_of_every_matching_rule_are_kept(tmp_path: Path) -> None:
    tight = ALLOW.replace('"r"', '"tight"') + 'cooldown = "10m"\n'
    verdict = ask(policy(tmp_path, ALLOW + tight), None, past(60.0))
    assert (verdict.effect, verdict.rule) == ("deny", "tight")


def test_limits_win_over_votes(tmp_path: Path) -> None:
    rules = policy(tmp_path, ASK + 'cooldown = "10m"\n')
    assert ask(rules, None, past(60.0), votes=("anna",)).effect == "deny"


def test_horizon_is_the_longest_look_back(tmp_path: Path) -> None:
    assert policy(tmp_path, ALLOW).horizon == 0.0
    assert policy(tmp_path, ALLOW + 'cooldown = "10m"\nrate = ["2/3h per rule"]\n').horizon == 3 * 3600
    assert policy(tmp_path, ALLOW + "probation = 1\n").horizon == 90 * 86400


# asking --------------------------------------------------------------------------------------------------------------


def test_votes_of_enough_of_the_named_people_allow(tmp_path: Path) -> None:
    rules = policy(tmp_path, ASK + PEOPLE)
    verdict = ask(rules)
    assert verdict.approvals == Terms(("anna", "ben"), 2, 1200.0)
    for votes in (("anna",), ("anna", "anna"), ("anna", "mallory")):
        assert ask(rules, votes=votes).effect == "require-approval"
    verdict = ask(rules, votes=("ben", "anna"))
    assert (verdict.effect, verdict.rule, verdict.reasons) == ("allow", "asks", ("approved by anna, ben",))
    assert verdict.approvals is None


def test_without_names_anybody_may_answer(tmp_path: Path) -> None:
    rules = policy(tmp_path, ASK)
    assert ask(rules).approvals == Terms()
    assert ask(rules, votes=("whoever",)).effect == "allow"


def test_all_rules_that_ask_are_met_by_one_question(tmp_path: Path) -> None:
    more = (
        ASK.replace('"asks"', '"also"')
        + 'approvals = { from = ["anna", "ben", "eve"], quorum = 1, expires = "1h" }\n'
    )
    verdict = ask(policy(tmp_path, ASK + PEOPLE + more))
    assert (verdict.rule, verdict.approvals) == ("also", Terms(("anna", "ben"), 2, 1200.0))
    rules = policy(tmp_path, ASK + PEOPLE + more.replace('["anna", "ben", "eve"]', '["eve"]'))
    assert ask(rules).approvals == Terms(("anna", "ben", "eve"), 3, 1200.0)
    assert ask(rules, votes=("anna", "ben")).effect == "require-approval"
    assert ask(rules, votes=("anna", "ben", "eve")).effect == "allow"


def test_quiet_and_escalation_of_the_question(tmp_path: Path) -> None:
    terms = 'approvals = { quiet = "w", escalate_after = "10m" }\n'
    rules = policy(tmp_path, WINDOW + ASK + terms)
    assert ask(rules).approvals == Terms(quiet=True, escalate_after=600.0)
    assert ask(rules, request(at=1_800_000_000.0)).approvals == Terms(quiet=False, escalate_after=600.0)


def test_untrusted_evidence_lifts_an_allow(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + 'evidence = "trusted"\n')
    assert ask(rules).effect == "allow"
    verdict = ask(rules, request(tainted=True))
    assert (verdict.effect, verdict.rule) == ("require-approval", "r")
    assert verdict.reasons == ("only text that outsiders can write speaks for it",)
    assert ask(rules, request(tainted=True), votes=("anna",)).effect == "allow"


def test_probation(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + "probation = 2\n")
    (rule,) = rules.rules
    right = past(100.0, rule_digest=rule.digest)
    wrong = past(50.0, rule_digest=rule.digest, result="failed", verified=False)
    unknown = past(10.0, rule_digest=rule.digest, result=None, verified=None)
    verdict = ask(rules, None, right)
    assert (verdict.effect, verdict.rule) == ("require-approval", "r")
    assert verdict.reasons == ("probation: proven 1 of 2 times on unit:api.service",)
    assert ask(rules, None, right, right).effect == "allow"
    assert ask(rules, None, unknown, right, right).effect == "allow"
    assert ask(rules, None, wrong, right, right).effect == "require-approval"
    assert ask(rules, None, right, right, wrong).effect == "allow"
    assert (
        ask(rules, None, right, past(9.0, rule_digest="of the rule as it was")).effect == "require-approval"
    )
    elsewhere = past(9.0, "unit:web-1.service", rule_digest=rule.digest)
    assert ask(rules, None, right, elsewhere).effect == "require-approval"


# irreversible, verify, shadow, mode ------------------------------------------------------------------------------------


def test_an_allow_must_say_that_it_covers_what_cannot_be_taken_back(tmp_path: Path) -> None:
    gone = request(irreversible=True)
    verdict = ask(policy(tmp_path, ALLOW), gone)
    assert (verdict.effect, verdict.near_misses) == ("deny", ("r: irreversible",))
    assert ask(policy(tmp_path, ASK), gone).rule == "default"
    said = policy(tmp_path, ALLOW + "irreversible = true\n")
    assert ask(said, gone).effect == ask(said).effect == "allow"
    assert ask(policy(tmp_path, DENY), gone).rule == "never"


def test_the_strictest_proof_is_demanded(tmp_path: Path) -> None:
    one = ALLOW + 'verify = { signal = "api-down", clear_for = "30s", within = "2m" }\n'
    assert ask(policy(tmp_path, one)).verify == Proof(("api-down",), 30.0, 120.0)
    two = one + ASK + 'verify = { signal = "api-slow", clear_for = "5s", within = "1m" }\n'
    assert ask(policy(tmp_path, two)).verify == Proof(("api-slow", "api-down"), 30.0, 60.0)
    assert ask(policy(tmp_path, one + DENY)).verify is None


def test_shadow_is_judged_and_not_run(tmp_path: Path) -> None:
    verdict = ask(policy(tmp_path, ALLOW + 'mode = "shadow"\nreason = "It helps."\n'))
    assert (verdict.effect, verdict.rule, verdict.shadow) == ("allow", "r", True)
    assert verdict.reasons == ("r is in shadow", "It helps.")


def test_shadow_decides_only_when_no_armed_rule_does(tmp_path: Path) -> None:
    shadow = 'mode = "shadow"\n'
    verdict = ask(policy(tmp_path, ASK + shadow + 'cooldown = "10m"\n' + ALLOW), None, past(60.0))
    assert (verdict.effect, verdict.rule, verdict.shadow) == ("allow", "r", False)
    assert verdict.notes == (f"asks: require-approval in shadow at {tmp_path / 'site.toml'}:2",)


def test_a_shadow_rule_keeps_its_own_limits(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + 'mode = "shadow"\ncooldown = "10m"\n')
    assert ask(rules, None, past(60.0)).effect == "deny"


def test_a_deny_in_shadow_is_a_note(tmp_path: Path) -> None:
    verdict = ask(policy(tmp_path, ALLOW + DENY + 'mode = "shadow"\n'))
    assert (verdict.effect, verdict.rule, verdict.shadow) == ("allow", "r", False)
    assert verdict.notes == (f"never: deny in shadow at {tmp_path / 'site.toml'}:7",)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.SHADOW])
def test_a_low_ceiling_runs_nothing(tmp_path: Path, mode: Mode) -> None:
    for text in (ALLOW, ASK):
        verdict = ask(policy(tmp_path, text), mode=mode, votes=("anna",))
        assert verdict.shadow
        assert verdict.reasons[0] == f"mode is {mode.name.lower()}"
    assert not ask(policy(tmp_path, DENY), mode=mode).shadow


def test_mode_ask_makes_every_allow_ask(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + PEOPLE)
    verdict = ask(rules, mode=Mode.ASK)
    assert (verdict.effect, verdict.rule, verdict.reasons) == ("require-approval", "r", ("mode is ask",))
    assert verdict.approvals == Terms(("anna", "ben"), 2, 1200.0)
    assert ask(rules, mode=Mode.ASK, votes=("anna", "ben")).effect == "allow"
    assert ask(policy(tmp_path, ALLOW), mode=Mode.ASK, votes=("eve",)).effect == "allow"
    rule_that_asks = policy(tmp_path, ASK + ALLOW.replace('"r"', '"a"'))
    assert ask(rule_that_asks, mode=Mode.ASK).rule == "asks"
    assert ask(policy(tmp_path, DENY), mode=Mode.ASK, votes=("anna",)).effect == "deny"


# explanation ---------------------------------------------------------------------------------------------------------


def test_near_misses_are_what_would_have_changed_the_verdict(tmp_path: Path) -> None:
    never = DENY + 'severity = "critical"\n'
    assert ask(policy(tmp_path, ALLOW + ASK + never)).near_misses == ("never: severity",)
    asks = ASK + 'proposed_by = ["model"]\n'
    elsewhere = DENY + 'target = ["unit:db.service"]\n'
    assert ask(policy(tmp_path, ALLOW + asks + elsewhere)).near_misses == (
        "asks: proposed_by",
        "never: target",
    )
    two = ASK + 'proposed_by = ["model"]\nseverity = "info"\n'
    assert ask(policy(tmp_path, ALLOW + two)).near_misses == ()
    assert ask(policy(tmp_path, DENY + asks)).near_misses == ()


def test_at_most_five_near_misses_by_id(tmp_path: Path) -> None:
    rules = "".join(
        ALLOW.replace('"r"', f'"r{n}"').replace("unit:api.service", f"unit:db-{n}.service") for n in range(9)
    )
    verdict = ask(policy(tmp_path, rules))
    assert verdict.near_misses == ("r0: target", "r1: target", "r2: target", "r3: target", "r4: target")


def test_a_verdict_can_be_replayed_from_its_json(tmp_path: Path) -> None:
    rules = policy(tmp_path, ALLOW + PEOPLE + 'probation = 1\ncooldown = "1m"\n')
    asked, facts = request(), Facts(Mode.ASK, (past(90.0),), ("anna",))
    again = decide(rules, Request.from_json(asked.to_json()), Facts.from_json(facts.to_json()))
    assert again == decide(rules, asked, facts)
    assert again.to_json()["approvals"]["quorum"] == 2
