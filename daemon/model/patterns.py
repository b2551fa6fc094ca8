"""Which regular expressions are let in. Python's engine has no time limit, so a pattern that can run away is refused when it is loaded.

An engine that goes back and tries again is fast as long as the next character decides which way to go: whether a repetition goes on or
ends, which alternative it is. Each point where a character fits both ways multiplies the ways through a line; within an unbounded
repetition it multiplies them with every round. So the first kind is counted, the second refused.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

# The parser is the engine's own: what it sees is what will run. Public under this name since 3.11.
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

LONGEST = 2000
"""Characters of a pattern."""
LINE = 8192
"""Characters of the longest line that a pattern is tried on."""
MOST_STEPS = 1e10
"""Estimated steps on the worst line above which a pattern is refused; the estimate is high, a real line takes a hundredth of it."""
_MANY = 100
"""Repetitions from which on a bound is none."""

_REPEATS = frozenset({_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT})
_ASCII = (1 << 128) - 1
_DIGITS, _SPACES, _LETTERS, _REST = (1 << bit for bit in range(128, 132))
"""Stand for the characters outside ASCII of each kind."""
_ANY = (1 << 132) - 1
_PASS = 1 << 132
"""Not a character: in a set of first characters, that the part may match nothing."""


def screen(pattern: str) -> str | None:
    """Why a pattern is refused; None when it may be used."""
    if len(pattern) > LONGEST:
        return f"it has {len(pattern)} characters, at most {LONGEST} are accepted"
    try:
        compiled = re.compile(pattern)
        items = _flat(_parser.parse(pattern))
    except (re.error, OverflowError, RecursionError) as exc:
        return f"it is no regular expression: {exc}"
    if compiled.search("") is not None:
        return "it matches the empty text, so every line would be a hit"
    try:
        steps = _starts(items) * max(LINE, _walk(items, _After()).ways)
    except _RunsAway as exc:
        return str(exc)
    if steps > MOST_STEPS:
        return "it can go too many ways on a crafted line; write [^ ]+ for .+ where a word is meant, or begin it with ^ or fixed text"
    return None


class _RunsAway(Exception):
    """A crafted line keeps the pattern busy for longer than anybody waits."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} can take for ever on a crafted line; write it without nesting, as (?:a|b)+ or [ab]+"
        )


@dataclass(frozen=True)
class _After:
    """What follows a point of the pattern, and how many ways lead from there to its end."""

    first: int = 0
    """The characters that may come next; none at the end of the pattern, where nothing can fail any more."""
    literal: int = 0
    """How many characters of fixed text come next."""
    ways: float = 1.0

    def times(self, ways: float, first: int) -> _After:
        # Capped, for a power of it may follow.
        return _After(first, 0, min(self.ways * ways, MOST_STEPS * 10))


def _walk(items: list[Any], after: _After, looped: bool = False) -> _After:
    """Go through a sequence from its end to its beginning. Raises _RunsAway; `looped` within an unbounded repetition."""
    for op, arg in reversed(items):
        if op is _constants.LITERAL:
            after = replace(after, first=_characters(op, arg), literal=after.literal + 1)
        elif op in _REPEATS:
            after = _repeat(op, arg, after, looped)
        elif op is _constants.BRANCH:
            after = _branch([_flat(branch) for branch in arg[1]], after, looped)
        elif op is _constants.GROUPREF_EXISTS:
            after = _branch([_flat(branch or []) for branch in arg[1:]], after, looped)
        elif op in (_constants.ASSERT, _constants.ASSERT_NOT):
            after = after.times(_walk(_flat(arg[1]), _After(), looped).ways, after.first)
        elif op is _constants.ATOMIC_GROUP:
            # Nothing goes back into it, but it may go back and forth within itself.
            inner = _walk(_flat(arg), _After(), looped)
            after = after.times(inner.ways, _first([(op, arg)], after.first))
        elif op is not _constants.AT:
            after = after.times(1, _characters(op, arg))
    return after


def _repeat(op: Any, arg: Any, after: _After, looped: bool) -> _After:
    least, most, inner = arg
    body = _flat(inner)
    unbounded = most > _MANY
    first = _first(body, _PASS)
    if unbounded and first & _PASS:
        raise _RunsAway("a repetition of what may be nothing")
    first &= ~_PASS
    # A round is followed by the next one, the last round by what comes after; the two are looked at apart.
    again = _After(first if most > 1 else 0)
    rounds = _walk(body, again, looped or unbounded).ways
    last = _walk(body, replace(after, ways=1.0), looped).ways
    loose = op is not _constants.POSSESSIVE_REPEAT and least != most and first & after.first
    if loose and looped:
        raise _RunsAway("a repetition inside a repetition")
    number = LINE / max(1, after.literal) if unbounded else most - least + 1
    ways = last * (1 if unbounded else rounds ** min(most, _MANY)) * (number if loose else 1)
    return after.times(ways, first if least else first | after.first)


def _branch(branches: list[list[Any]], after: _After, looped: bool) -> _After:
    """Alternatives that begin alike are tried one after the other."""
    firsts = [_first(branch, after.first) for branch in branches]
    union = 0
    alike = False
    for first in firsts:
        alike = alike or bool(union & first)
        union |= first
    if alike and looped:
        raise _RunsAway("alternatives that begin alike inside a repetition")
    ways = [_walk(branch, replace(after, ways=1.0), looped).ways for branch in branches]
    return after.times(sum(ways) if alike else max(ways), union)


def _starts(items: list[Any]) -> float:
    """At how many places of a line the engine may begin."""
    if (
        items
        and items[0][0] is _constants.AT
        and items[0][1] in (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING)
    ):
        return 1
    fixed = 0
    for op, _ in items:
        if op is not _constants.LITERAL:
            break
        fixed += 1
    return LINE / max(1, fixed)


def _flat(sequence: Any) -> list[Any]:
    """The sequence with its groups opened: a group changes nothing about which way to go."""
    found: list[Any] = []
    for op, arg in sequence:
        if op is _constants.SUBPATTERN:
            found += _flat(arg[3])
        else:
            found.append((op, arg))
    return found


def _first(items: list[Any], after: int) -> int:
    """The characters with which a sequence may begin, `after` being those that follow it."""
    for op, arg in reversed(items):
        if op in _REPEATS:
            body = _first(_flat(arg[2]), after)
            after = body if arg[0] else body | after
        elif op is _constants.BRANCH:
            after = _either(arg[1], after)
        elif op is _constants.GROUPREF_EXISTS:
            after = _either([branch or [] for branch in arg[1:]], after)
        elif op is _constants.ATOMIC_GROUP:
            after = _first(_flat(arg), after)
        elif op not in (_constants.AT, _constants.ASSERT, _constants.ASSERT_NOT):
            after = _characters(op, arg) | (after if op is _constants.GROUPREF else 0)
    return after


def _either(branches: Any, after: int) -> int:
    found = 0
    for branch in branches:
        found |= _first(_flat(branch), after)
    return found


def _characters(op: Any, arg: Any) -> int:
    """The characters that one item matches, in either case: a pattern may ignore it."""
    if op is _constants.LITERAL:
        return _bits(chr(arg).lower() + chr(arg).upper())
    if op is _constants.NOT_LITERAL:
        return _ANY & ~_bits(chr(arg))
    if op is _constants.RANGE:
        beyond = _DIGITS | _SPACES | _LETTERS | _REST if arg[1] > 127 else 0
        return _bits(map(chr, range(arg[0], min(arg[1], 127) + 1))) | beyond
    if op is _constants.CATEGORY:
        return _CATEGORIES[arg]
    if op is _constants.IN:
        return _set(arg)
    return _ANY


def _set(items: list[Any]) -> int:
    negated = items[0][0] is _constants.NEGATE
    found = 0
    for op, arg in items[negated:]:
        # Outside ASCII a set without one letter still holds all the others.
        found |= _characters(op, arg) & (_ANY if op is _constants.CATEGORY or not negated else _ASCII)
    return _ANY & ~found if negated else found


def _bits(characters: Iterable[str]) -> int:
    found = 0
    for character in characters:
        found |= 1 << ord(character) if character.isascii() else _kind(character)
    return found


def _kind(character: str) -> int:
    if character.isdecimal():
        return _DIGITS
    if character.isspace():
        return _SPACES
    return _LETTERS if character.isalnum() else _REST


_DIGIT = _bits(string.digits) | _DIGITS
_SPACE = _bits(" \t\n\r\v\f\x1c\x1d\x1e\x1f") | _SPACES
_WORD = _bits(string.ascii_letters + string.digits + "_") | _DIGITS | _LETTERS
_CATEGORIES: Mapping[Any, int] = {
    _constants.CATEGORY_DIGIT: _DIGIT,
    _constants.CATEGORY_NOT_DIGIT: _ANY & ~_DIGIT,
    _constants.CATEGORY_SPACE: _SPACE,
    _constants.CATEGORY_NOT_SPACE: _ANY & ~_SPACE,
    _constants.CATEGORY_WORD: _WORD,
    _constants.CATEGORY_NOT_WORD: _ANY & ~_WORD,
}
