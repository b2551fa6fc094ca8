"""From what people wrote to rules: every name looked up, every glob checked, every fault a Problem with its line."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from math import floor
from typing import Generic, Literal, TypeVar

from daemon.config.toml import Doc
from daemon.errors import Problem, ResourceError
from daemon.model import resource
from daemon.model.actions import ACTIONS, speaks_of
from daemon.model.canonical import canonical
from daemon.model.domain import Mode, Proof, Severity
from daemon.model.policy import Past, Request, Terms
from daemon.model.units import spell_seconds
from daemon.policy.rules import (
    DEFAULT,
    EVERY_DAY,
    IRREVERSIBLE,
    BlastRadius,
    InlineTest,
    Rate,
    Rule,
    When,
    Window,
    literal,
)
from daemon.policy.schema import (
    DAYS,
    BlastRadiusSettings,
    InlineTestSettings,
    PastSettings,
    PolicyFile,
    RuleSettings,
    VerifySettings,
    WindowSettings,
)

Layer = Literal["vendor", "site"]
T = TypeVar("T")

_NOT_ON = {
    "deny": {
        "cooldown",
        "rate",
        "blast_radius",
        "probation",
        "irreversible",
        "max",
        "verify",
        "evidence",
        "approvals",
    },
    "require-approval": {"probation", "evidence"},
    "allow": set[str](),
}
"""Keys that would do nothing beside an effect: whoever writes one expects something that will not happen."""
TEST_MOMENT = 1_704_283_200.0
"""When an inline test without `at` takes place: Wednesday, 2024-01-03, noon UTC."""


@dataclass(frozen=True, slots=True)
class Named(Generic[T]):
    """Something that rules refer to by name, and where it was written."""

    value: T
    where: str


@dataclass(slots=True)
class Names:
    """The classes, groups and windows that the rules of one layer may refer to."""

    classes: dict[str, Named[list[str]]] = field(default_factory=dict)
    groups: dict[str, Named[list[str]]] = field(default_factory=dict)
    windows: dict[str, Named[Window]] = field(default_factory=dict)

    def over(self, below: Names) -> Names:
        """These names, and those of the layer below where this one has none of its own."""
        return Names(
            {**below.classes, **self.classes},
            {**below.groups, **self.groups},
            {**below.windows, **self.windows},
        )


@dataclass(frozen=True, slots=True)
class Known:
    """What the configuration declares; None: nobody knows, so nothing is refused for it."""

    commands: frozenset[str] | None = None
    people: Collection[str] | None = None


def meant(name: str, accepted: Iterable[str]) -> str:
    """A hint for a name that nobody knows."""
    names = sorted(accepted)
    close = get_close_matches(name, names, 1)
    return (
        f"did you mean {close[0]!r}?" if close else f"accepted: {', '.join(names[:20]) or 'none is defined'}"
    )


class Compiler:
    """Compiles one file of a layer; what is wrong goes to `problems`."""

    def __init__(self, doc: Doc, layer: Layer, known: Known, problems: list[Problem]) -> None:
        self._doc = doc
        self._layer = layer
        self._known = known
        self._problems = problems

    def _tell(self, keypath: tuple[str | int, ...], what: str, hint: str = "") -> None:
        self._problems.append(Problem(self._doc.where(*keypath), what, hint))

    # names -------------------------------------------------------------------------------------------------------

    def names(self, file: PolicyFile, into: Names) -> None:
        """Add what the file names to the layer's names; the same name twice is a fault."""
        for name, actions in file.classes.items():
            self._actions(actions, ("classes", name))
            self._name("classes", name, actions, into.classes)
        for name, targets in file.groups.items():
            for index, pattern in enumerate(targets):
                self._target(pattern, ("groups", name, index), ascii_only=True)
            self._name("groups", name, targets, into.groups)
        for name, settings in file.windows.items():
            self._name("windows", name, _window(name, settings), into.windows)

    def _name(self, kind: str, name: str, value: T, into: dict[str, Named[T]]) -> None:
        where = self._doc.where(kind, name)
        if name in into:
            self._tell((kind, name), f"[{kind}] {name!r} exists already", f"first at {into[name].where}")
        into.setdefault(name, Named(value, where))

    def _lookup(self, kind: str, name: str, table: Mapping[str, Named[T]], *keypath: str | int) -> T | None:
        if name not in table:
            self._tell(keypath, f"there is no {name!r} in [{kind}]", meant(name, table))
            return None
        return table[name].value

    # patterns ----------------------------------------------------------------------------------------------------

    def _actions(self, patterns: Iterable[str], keypath: tuple[str | int, ...]) -> None:
        for index, pattern in enumerate(patterns):
            # The commands differ from host to host: a glob may speak of those of another one.
            commands = self._known.commands if literal(pattern) and self._layer == "site" else None
            if not speaks_of(pattern, commands):
                accepted = ACTIONS | {f"command.{name}" for name in self._known.commands or {"NAME"}}
                self._tell((*keypath, index), f"{pattern!r} matches no action", meant(pattern, accepted))

    def _target(self, pattern: str, keypath: tuple[str | int, ...], *, ascii_only: bool) -> None:
        kind, colon, _ = pattern.partition(":")
        if pattern != "host" and (not colon or kind not in resource.KINDS):
            kinds = ", ".join(f"{kind}:" for kind in resource.KINDS if kind != "host")
            self._tell(
                keypath, f"{pattern!r} is no Resource glob", f"write host, or a glob after one of {kinds}"
            )
        elif not pattern.isascii() or not pattern.isprintable():
            # On an allow this is harmless, as it never matches, and only lint speaks of it; anywhere else it leaves a hole.
            if ascii_only or not pattern.isprintable():
                self._tell(keypath, f"{pattern!a} can never match", "Resources are printable ASCII")
        elif literal(pattern):
            try:
                resource.parse(pattern)
            except ResourceError as exc:
                self._tell(keypath, f"{pattern!r} can never match", str(exc))

    # rules -------------------------------------------------------------------------------------------------------

    def rule(self, index: int, rule: RuleSettings, names: Names) -> Rule:
        """The compiled rule; when something is wrong with it, what comes back is not to be used."""
        at = ("rule", index)
        self._sensible(rule, at)
        actions = self._all_actions(rule, names, at)
        targets = self._all_targets(rule, names, at)
        during = rule.during and self._lookup("windows", rule.during, names.windows, *at, "during")
        not_during = rule.not_during and self._lookup(
            "windows", rule.not_during, names.windows, *at, "not_during"
        )
        terms, quiet = self._terms(rule, names, at)
        blast = self._blast_radius(rule.blast_radius, names, at) if rule.blast_radius else None
        written = self._doc.data["rule"][index]
        meaning = [written, actions, targets, [str(one) for one in (during, not_during, quiet)], str(blast)]
        return Rule(
            id=rule.id,
            effect=rule.effect,
            where=self._doc.where(*at),
            layer=self._layer,
            actions=actions,
            targets=targets,
            when=When(
                frozenset(rule.severity),
                frozenset(rule.proposed_by),
                during or None,
                not_during or None,
                rule.irreversible or rule.effect == "deny",
            ),
            shadow=rule.mode == "shadow",
            rates=_rates(rule),
            blast_radius=blast,
            most=rule.max,
            probation=rule.probation,
            trusted=rule.evidence == "trusted",
            terms=terms,
            quiet=quiet,
            verify=_proof(rule.verify),
            reason=rule.reason,
            digest=hashlib.sha256(canonical(meaning).encode()).hexdigest(),
        )

    def _sensible(self, rule: RuleSettings, at: tuple[str | int, ...]) -> None:
        written = {"class" if name == "class_" else name for name in rule.model_fields_set}
        for key in sorted(written & _NOT_ON[rule.effect]):
            self._tell((*at, key), f"`{key}` does nothing on a rule with effect {rule.effect!r}", "remove it")
        if rule.id == DEFAULT:
            self._tell(
                (*at, "id"), f"{DEFAULT!r} is what verdicts without a rule are named after", "use another id"
            )
        if not rule.action and not rule.class_:
            self._tell(at, f"rule {rule.id!r} names no action", "add `action` or `class`")

    def _all_actions(self, rule: RuleSettings, names: Names, at: tuple[str | int, ...]) -> tuple[str, ...]:
        self._actions(rule.action, (*at, "action"))
        actions = dict.fromkeys(rule.action)
        for index, name in enumerate(rule.class_):
            actions.update(
                dict.fromkeys(self._lookup("classes", name, names.classes, *at, "class", index) or ())
            )
        return tuple(actions)

    def _all_targets(self, rule: RuleSettings, names: Names, at: tuple[str | int, ...]) -> tuple[str, ...]:
        targets: dict[str, None] = {}
        for index, pattern in enumerate(rule.target):
            keypath = (*at, "target", index)
            if pattern.startswith("@"):
                group = self._lookup("groups", pattern[1:], names.groups, *keypath)
                if group == []:
                    self._tell(keypath, f"{pattern} is empty", "a rule for no target at all is not written")
                targets.update(dict.fromkeys(group or ()))
            else:
                self._target(pattern, keypath, ascii_only=rule.effect != "allow")
                targets[pattern] = None
        if rule.target == [] and "target" in rule.model_fields_set:
            self._tell((*at, "target"), "`target` is empty", "leave it out to mean every target")
        return tuple(targets)

    def _terms(
        self, rule: RuleSettings, names: Names, at: tuple[str | int, ...]
    ) -> tuple[Terms, Window | None]:
        asked = rule.approvals
        if asked is None:
            return Terms(), None
        for index, person in enumerate(asked.from_):
            if self._known.people is not None and person not in self._known.people:
                self._tell(
                    (*at, "approvals", "from", index),
                    f"there is nobody called {person!r}",
                    f"{meant(person, self._known.people)} people are declared as [people.NAME] in the configuration",
                )
        quiet = (
            self._lookup("windows", asked.quiet, names.windows, *at, "approvals", "quiet")
            if asked.quiet
            else None
        )
        terms = Terms(tuple(asked.from_), asked.quorum, asked.expires, escalate_after=asked.escalate_after)
        return terms, quiet

    def _blast_radius(
        self, blast: BlastRadiusSettings, names: Names, at: tuple[str | int, ...]
    ) -> BlastRadius | None:
        group = self._lookup("groups", blast.group, names.groups, *at, "blast_radius", "group")
        if group is None:
            return None
        most = blast.max if isinstance(blast.max, int) else floor(blast.max * len(group) + 1e-9)
        if isinstance(blast.max, float) and not all(map(literal, group)):
            self._tell(
                (*at, "blast_radius", "max"),
                f"a share of [groups] {blast.group!r} cannot be told: it holds globs",
                "write a number of targets, or list the group's Resources one by one",
            )
        text = f"blast_radius {most} of {blast.group}"
        return BlastRadius(blast.group, tuple(group), most, blast.within, text)

    # tests -------------------------------------------------------------------------------------------------------

    def test(self, index: int, test: InlineTestSettings, rules: Mapping[str, Rule]) -> InlineTest:
        at = ("test", index)
        self._actions([test.action], (*at, "action"))
        for target in [test.target, *(past.target for past in test.past or () if past.target)]:
            try:
                resource.parse(target)
            except ResourceError as exc:
                self._tell((*at, "target"), str(exc))
        for name in [test.expect.rule, *(past.rule for past in test.past or ())]:
            if name is not None and name != DEFAULT and name not in rules:
                self._tell(
                    at,
                    f"the test speaks of rule {name!r}, which does not exist",
                    meant(name, [*rules, DEFAULT]),
                )
        request = Request(
            action=test.action,
            target=test.target,
            params=test.params,
            severity=Severity.parse(test.severity),
            proposed_by=test.proposed_by,
            tainted=test.tainted,
            irreversible=test.action in IRREVERSIBLE if test.irreversible is None else test.irreversible,
            size=test.size,
            at=TEST_MOMENT if test.at is None else test.at.timestamp(),
        )
        return InlineTest(
            where=self._doc.where(*at),
            request=request,
            effect=test.expect.effect,
            rule=test.expect.rule or "",
            shadow=test.expect.shadow,
            mode=Mode.parse(test.mode),
            votes=tuple(test.votes),
            past=None if test.past is None else tuple(_past(one, test, rules) for one in test.past),
        )


def armed(rule: Rule) -> Rule:
    """The rule without its shadow. The digest stays: what was proven of it is still proven."""
    return replace(rule, shadow=False)


def _rates(rule: RuleSettings) -> tuple[Rate, ...]:
    if rule.cooldown is None:
        return tuple(rule.rate)
    return (
        Rate(1, rule.cooldown, "target", f"cooldown {spell_seconds(rule.cooldown)} per target"),
        *rule.rate,
    )


def _proof(verify: VerifySettings | None) -> Proof | None:
    return None if verify is None else Proof((verify.signal,), verify.clear_for, verify.within)


def _window(name: str, settings: WindowSettings) -> Window:
    if settings.from_ is not None and settings.to is not None:
        return Window(name, span=(settings.from_.timestamp(), settings.to.timestamp()))
    days = frozenset(DAYS.index(day) for day in settings.days) or EVERY_DAY
    return Window(name, hours=settings.hours or (0, 1440), days=days, tz=settings.tz)


def _past(past: PastSettings, test: InlineTestSettings, rules: Mapping[str, Rule]) -> Past:
    rule = past.rule or test.expect.rule or ""
    return Past(
        rule=rule,
        rule_digest=rules[rule].digest if rule in rules else "",
        action=past.action or test.action,
        target=past.target or test.target,
        age=past.age,
        result=None if past.result == "under-way" else past.result,
        verified=past.verified,
    )
