"""Reads policy files into a Policy. Either all of them can be used, or none is and every fault is told at once.

Two layers: the vendor's (what ships) and the site's. A site rule with a vendor rule's id replaces it whole; `disable` and `enable`
speak of vendor rules. A rule sees the names of its own layer; site rules see the vendor's too where the site has none of its own, so
that a site's `never` cannot change what a vendor's guardrail means.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.config.strict import validate
from daemon.config.toml import Doc
from daemon.config.toml import load as load_toml
from daemon.errors import ConfigError, PolicyError, Problem
from daemon.policy.compile import Compiler, Known, Layer, Names, armed, meant
from daemon.policy.engine import Policy
from daemon.policy.rules import InlineTest, Rule
from daemon.policy.schema import PolicyFile


@dataclass(frozen=True, slots=True)
class Owner:
    """Who may write the site's policy."""

    uids: frozenset[int]

    def problems(self, path: Path) -> list[Problem]:
        """Why the file cannot be trusted; the directory counts too: who may write there can put another file in its place."""
        places = dict.fromkeys([path, path.parent, path.resolve().parent])
        return [problem for place in places for problem in self._problems(place)]

    def _problems(self, place: Path) -> Iterable[Problem]:
        try:
            status = place.stat()
        except OSError:
            # Reading it right after says why, in better words.
            return
        trusted = " or ".join(map(str, sorted(self.uids)))
        if status.st_uid not in self.uids:
            yield Problem(
                str(place),
                f"belongs to user {status.st_uid}, not to {trusted}",
                f"chown {max(self.uids)} {place}",
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            mode = stat.S_IMODE(status.st_mode)
            yield Problem(str(place), f"can be written by others (mode {mode:04o})", f"chmod go-w {place}")


def owner_of(directory: Path) -> Owner:
    """Who must own the policy there: below /etc root alone, so that the daemon cannot write its own rules; elsewhere also the user
    that runs it."""
    ours = set() if directory.resolve().is_relative_to("/etc") else {os.geteuid()}
    return Owner(frozenset({0} | ours))


def paths(directory: Path) -> list[Path]:
    """The policy files of a directory; none when it does not exist. Hidden files are not policy: editors leave them behind."""
    return sorted(path for path in directory.glob("*.toml") if not path.name.startswith("."))


def load(
    vendor: Sequence[Path],
    site: Sequence[Path],
    *,
    commands: frozenset[str] | None = None,
    people: Collection[str] | None = None,
    owner: Owner | None = None,
) -> Policy:
    """The policy of these files.

    `commands`, `people`: the names that the configuration declares; None when it is not at hand. `owner`: who must own the site's
    files; the vendor's are as trustworthy as the program they came with. Raises PolicyError with every problem found.
    """
    problems: list[Problem] = [problem for path in site if owner for problem in owner.problems(path)]
    known = Known(commands, people)
    below = _Layer("vendor", vendor, known, problems)
    above = _Layer("site", site, known, problems)
    below.compile(below.names)
    above.compile(above.names.over(below.names))
    rules = _layered(below, above, problems)
    tests = _tests(below, above, rules)
    if problems:
        raise PolicyError(problems)
    return Policy(tuple(rules.values()), tests, _digest([*below.files, *above.files]))


@dataclass(frozen=True, slots=True)
class _File:
    doc: Doc
    settings: PolicyFile
    compiler: Compiler


class _Layer:
    """The files of one layer, their names and rules."""

    def __init__(self, layer: Layer, places: Sequence[Path], known: Known, problems: list[Problem]) -> None:
        self._problems = problems
        self.files: list[_File] = []
        self.names = Names()
        self.rules: dict[str, Rule] = {}
        for place in places:
            self._read(place, layer, known)

    def _read(self, place: Path, layer: Layer, known: Known) -> None:
        try:
            doc = load_toml(place)
            settings = validate(PolicyFile, doc.data, doc)
        except ConfigError as exc:
            self._problems += exc.problems
            return
        file = _File(doc, settings, Compiler(doc, layer, known, self._problems))
        file.compiler.names(settings, self.names)
        self.files.append(file)

    def compile(self, names: Names) -> None:
        for file in self.files:
            for index, settings in enumerate(file.settings.rule):
                rule = file.compiler.rule(index, settings, names)
                if first := self.rules.get(rule.id):
                    self._problems.append(
                        Problem(rule.where, f"rule {rule.id!r} exists already", f"first at {first.where}")
                    )
                self.rules.setdefault(rule.id, rule)


def _layered(below: _Layer, above: _Layer, problems: list[Problem]) -> dict[str, Rule]:
    for file in below.files:
        for key in ("disable", "enable"):
            if getattr(file.settings, key):
                problems.append(
                    Problem(
                        file.doc.where(key), f"`{key}` is the site's word on the vendor's rules", "remove it"
                    )
                )
    disabled = _chosen("disable", below, above, problems)
    enabled = _chosen("enable", below, above, problems)
    for name in sorted(set(disabled) & set(enabled)):
        problems.append(Problem(enabled[name], f"{name!r} is disabled as well", f"at {disabled[name]}"))
    kept = {name: rule for name, rule in below.rules.items() if name not in disabled}
    lifted = {name: armed(kept[name]) for name in enabled if name in kept}
    return {**kept, **lifted, **above.rules}


def _chosen(key: str, below: _Layer, above: _Layer, problems: list[Problem]) -> Mapping[str, str]:
    """The vendor rules that a site list names, and where it does."""
    chosen: dict[str, str] = {}
    for file in above.files:
        for index, name in enumerate(getattr(file.settings, key)):
            where = file.doc.where(key, index)
            if name not in below.rules:
                hint = meant(name, below.rules)
                problems.append(Problem(where, f"`{key}`: there is no vendor rule {name!r}", hint))
            elif name in above.rules:
                replaced = f"{name!r} is replaced at {above.rules[name].where}"
                problems.append(Problem(where, f"`{key}`: {replaced}", "remove one of the two"))
            chosen[name] = where
    return chosen


def _tests(below: _Layer, above: _Layer, rules: Mapping[str, Rule]) -> tuple[InlineTest, ...]:
    """Those of the site, when it has files: the vendor's tests speak of the vendor's rules alone, which a site may well overrule."""
    files = above.files or below.files
    return tuple(
        file.compiler.test(index, test, rules)
        for file in files
        for index, test in enumerate(file.settings.test)
    )


def _digest(files: Iterable[_File]) -> str:
    return hashlib.sha256("\n".join(sorted(file.doc.digest for file in files)).encode()).hexdigest()
