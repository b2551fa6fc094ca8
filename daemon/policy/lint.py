"""What can be loaded but is most likely not what was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from daemon.errors import Problem
from daemon.model import resource
from daemon.model.actions import ACTIONS
from daemon.policy.engine import Policy
from daemon.policy.rules import IRREVERSIBLE, Rule, literal


def lint(policy: Policy) -> list[Problem]:
    """Warnings, in the order of the rules' ids. None of them keeps a policy from being used."""
    checks: Sequence[Callable[[Rule], Iterator[Problem]]] = (
        _allows_everything,
        _never_matches,
        _irreversible,
        _blast_radius,
    )
    found = [problem for rule in policy.rules for check in checks for problem in check(rule)]
    return found + list(_unreachable(policy.rules))


def _allows_everything(rule: Rule) -> Iterator[Problem]:
    for pattern in rule.actions:
        if rule.effect == "allow" and all(
            fnmatchcase(action, pattern) for action in ACTIONS if "." in action
        ):
            hint = "name the actions: a new kind of action would be allowed unseen"
            yield Problem(rule.where, f"rule {rule.id} allows every action ({pattern!r})", hint)


def _never_matches(rule: Rule) -> Iterator[Problem]:
    for pattern in rule.targets:
        if not pattern.isascii():
            yield Problem(rule.where, f"rule {rule.id}: {pattern!a} can never match", "Resources are ASCII")


def _irreversible(rule: Rule) -> Iterator[Problem]:
    if not rule.when.irreversible:
        for action in sorted(set(rule.actions) & IRREVERSIBLE):
            hint = "add irreversible = true, or take the action out"
            yield Problem(
                rule.where, f"rule {rule.id} never matches {action}: its effect cannot be taken back", hint
            )


def _blast_radius(rule: Rule) -> Iterator[Problem]:
    blast = rule.blast_radius
    if blast is None:
        return
    if not blast.most:
        yield Problem(
            rule.where,
            f"rule {rule.id} never acts: its share of {blast.group} is less than one",
            "raise `max`",
        )
    if rule.targets and not any(
        _reaches(pattern, target) for pattern in blast.patterns for target in rule.targets
    ):
        yield Problem(
            rule.where,
            f"rule {rule.id}: no target of it is in {blast.group}",
            "its blast_radius limits nothing",
        )


def _reaches(pattern: str, target: str) -> bool:
    return resource.matches(pattern, target) or resource.matches(target, pattern)


def _unreachable(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Rules that an armed deny without conditions always overrides."""
    walls = [rule for rule in rules if rule.voice == "deny" and rule.when.always]
    for rule in rules:
        wall = next((wall for wall in walls if wall is not rule and _overrides(wall, rule)), None)
        if wall is not None:
            always = f"{wall.where} {wall.id} always wins"
            yield Problem(
                rule.where, f"rule {rule.id} never takes effect: {always}", "remove it, or narrow the other"
            )


def _overrides(wall: Rule, rule: Rule) -> bool:
    # Of two denies that cover each other the lower id is named; that the other is superfluous is no fault.
    if rule.effect == "deny":
        return False
    return _all_covered(wall.actions, rule.actions, _matches_action) and (
        not wall.targets
        or (bool(rule.targets) and _all_covered(wall.targets, rule.targets, resource.matches))
    )


def _matches_action(pattern: str, text: str) -> bool:
    return fnmatchcase(text, pattern)


def _all_covered(wide: Sequence[str], narrow: Sequence[str], matches: Callable[[str, str], bool]) -> bool:
    return all(any(_covers(pattern, one, matches) for pattern in wide) for one in narrow)


def _covers(wide: str, narrow: str, matches: Callable[[str, str], bool]) -> bool:
    """Whether every text that `narrow` matches is matched by `wide`; False when that is not plain to see."""
    if wide == narrow or literal(narrow):
        return matches(wide, narrow)
    # With `*` alone on both sides, matching the pattern's own text is enough: a star covers whatever another star stands for.
    return not set("?[]") & set(wide + narrow) and matches(wide, narrow)
