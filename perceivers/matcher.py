"""Finds the lines of a block that rules match: cheap literals over the whole block first, a rule's own pattern only where one is found.

`Matcher` is the seam for faster engines; `LiteralMatcher` needs nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

# The parser is the engine's own, so what is derived from its tree holds for what will run. Public under this name since 3.11.
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple, Protocol

from perceivers.base import Rule

HEAD = 8192
"""A rule sees this many bytes of a line. An ordinary pattern (`a.*b.*c`) takes time that grows with the square of a crafted line's
length: 20 ms here, over a second at 64 KiB."""
SHORTEST = 3
"""Bytes of a literal worth looking for by itself; shorter ones stand in nearly every line."""
MOST_OPTIONS = 16
"""Literals of which one must be there, per rule; with more, trying every line is as fast."""
_FOLDS = {"i": "\u0130\u0131", "k": "\u212a", "s": "\u017f"}
"""ASCII letters that IGNORECASE also pairs with letters outside ASCII, which lowering bytes does not see."""
_REPEATS = frozenset({_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT})


class Hit(NamedTuple):
    """One line that one rule matches."""

    rule: Rule
    match: re.Match[str]
    """`match.string` is the line (its head, when it is long), without its end."""


class Matcher(Protocol):
    """Knows a set of rules."""

    def hits(self, block: bytes) -> Iterator[Hit]:
        """The hits in a block of whole lines, each ended by a newline: rule by rule, each rule's in the order of the lines, a line at most
        once per rule. Bytes that are no UTF-8 count as U+FFFD."""
        ...


class LiteralMatcher:
    """Looks for each rule's required literal at the speed of `bytes.find`. Rules without one are tried on every line."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Raises re.error for a pattern that is none."""
        self._searches = [(rule, re.compile(rule.match).search, literals(rule.match)) for rule in rules]

    def hits(self, block: bytes) -> Iterator[Hit]:
        lines = _Lines(block)
        for rule, search, found_by in self._searches:
            for line in lines.holding(found_by) if found_by else lines.all:
                if (match := search(line)) is not None:
                    yield Hit(rule, match)


@dataclass(frozen=True, slots=True)
class Literals:
    """Texts of which at least one stands in every line that a pattern matches."""

    options: tuple[bytes, ...]
    caseless: bool = False
    """The options are in lower case, to be looked for in the lowered block."""


class _Lines:
    """A block and what was already found out about it, shared by all rules."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._starts: dict[tuple[bytes, bool], list[int]] = {}

    @cached_property
    def all(self) -> list[str]:
        return [_text(line) for line in self._block.split(b"\n")[:-1]]

    @cached_property
    def _lowered(self) -> bytes:
        return self._block.lower()

    def holding(self, wanted: Literals) -> Iterator[str]:
        """The lines in which one of the literals stands, in order, each once."""
        found = [self._where(option, wanted.caseless) for option in wanted.options]
        for start in found[0] if len(found) == 1 else sorted(set().union(*found)):
            yield _text(self._block[start : self._block.find(b"\n", start)])

    @cached_property
    def _ascii(self) -> bool:
        return self._block.isascii()

    def _where(self, literal: bytes, caseless: bool) -> list[int]:
        """Where the lines start that hold the literal."""
        known = self._starts.get((literal, caseless))
        if known is None:
            known = self._starts[literal, caseless] = self._look_for(literal, caseless)
        return known

    def _look_for(self, literal: bytes, caseless: bool) -> list[int]:
        # Told at the speed of memory, and nearly every block of a log is ASCII.
        if self._ascii and not literal.isascii():
            return []
        return _line_starts(self._lowered if caseless else self._block, literal)


def _line_starts(block: bytes, literal: bytes) -> list[int]:
    starts = []
    at = block.find(literal)
    while at >= 0:
        starts.append(block.rfind(b"\n", 0, at) + 1)
        at = block.find(literal, block.find(b"\n", at))
    return starts


def _text(line: bytes) -> str:
    # NULs at the front are the hole left by a writer that goes on at its old place after a truncation.
    return line.strip(b"\0")[:HEAD].removesuffix(b"\r").decode(errors="replace")


def literals(pattern: str) -> Literals | None:
    """What every line that the pattern matches must hold; None when there is nothing worth looking for. Raises re.error."""
    tree = _parser.parse(pattern)
    caseless = _ignores_case(tree, tree.state.flags)
    options = _required(tree, caseless)
    if options is None or len(options) > MOST_OPTIONS or min(map(len, options)) < SHORTEST:
        return None
    if caseless:
        options = {option.lower() for option in options}
        options |= {
            fold
            for letter, folds in _FOLDS.items()
            for fold in folds
            if any(letter in option for option in options)
        }
    return Literals(tuple(sorted(option.encode() for option in options)), caseless)


def _ignores_case(tree: Any, flags: int) -> bool:
    """Whether any part of the pattern does; then all of it is looked for so, which finds no less."""
    return bool(flags & re.IGNORECASE) or any(_ignores_case(body, added) for body, added in _bodies(tree))


def _bodies(tree: Any) -> Iterator[tuple[Any, int]]:
    """The parts of a tree, each with the flags that it adds."""
    for op, arg in tree:
        if op is _constants.SUBPATTERN:
            yield arg[3], arg[1]
        elif op is _constants.BRANCH:
            yield from ((branch, 0) for branch in arg[1])
        elif op in _REPEATS:
            yield arg[2], 0
        elif op is _constants.ATOMIC_GROUP:
            yield arg, 0


def _required(tree: Any, caseless: bool) -> set[str] | None:
    """Texts of which one must be in whatever the tree matches: of all such sets the one whose shortest text is the longest."""
    found: list[set[str]] = []
    run = ""
    for op, arg in _flat(tree):
        if op is _constants.LITERAL and _plain(arg, caseless):
            run += chr(arg)
            continue
        found += [{run}] if run else []
        run = ""
        inner = _required_inside(op, arg, caseless)
        found += [inner] if inner else []
    found += [{run}] if run else []
    return max(found, key=lambda options: min(map(len, options)), default=None)


def _required_inside(op: Any, arg: Any, caseless: bool) -> set[str] | None:
    if op in _REPEATS and arg[0] > 0:
        return _required(arg[2], caseless)
    if op is _constants.BRANCH:
        branches = [_required(branch, caseless) for branch in arg[1]]
        return None if None in branches else set().union(*(branch for branch in branches if branch))
    return None


def _flat(tree: Any) -> Iterator[tuple[Any, Any]]:
    """The items in a row, groups opened."""
    for op, arg in tree:
        if op is _constants.SUBPATTERN:
            yield from _flat(arg[3])
        elif op is _constants.ATOMIC_GROUP:
            yield from _flat(arg)
        else:
            yield op, arg


def _plain(code: int, caseless: bool) -> bool:
    """Whether the character stands in a line's bytes as it stands in the pattern: U+FFFD and surrogates do not, and only ASCII is lowered."""
    return code < 128 or not (caseless or code == 0xFFFD or 0xD800 <= code <= 0xDFFF)
