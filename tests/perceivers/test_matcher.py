"""The matcher finds what the plain loop over lines and rules finds; the literals only make it faster."""

from __future__ import annotations

import re
import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perceivers.base import Rule
from perceivers.matcher import HEAD, Hit, LiteralMatcher, Literals, Matcher, literals

PATTERNS = [
    r"Failed .* from (?P<ip>\S+) port",
    r"(?i)disk full",
    r"(?i:timeout)|refused",
    r"[Ee]rror|CRIT",
    r"^start|end$",
    r'" 5\d\d ',
    r"\d+",
    r"foo(bar|baz)+qux",
    r"(?P<a>x)?time",
    r"(?:abc){2,3}",
    r"(?>abc)+d",
    r"café",
    r"(?i)mask",
    r"\bOOM\b",
    r"(?x) kill  # comment",
    r"a|bcd|efg",
    r"\ufffdxyz",
]
WORDS = st.sampled_from(
    [
        "Failed ",
        "from 192.0.2.1 port",
        "DISK full",
        "mask",
        "TIMEOUT",
        "refused",
        "Error",
        "end",
        "start",
        '" 503 ',
        "é",
        "foobarbazqux",
        "time",
        "abcabc",
        "abcd",
        "OOM",
        "kill",
        "bcd",
        "\0",
        "\r",
        " ",
        "7",
        "xyz",
        "café",
        # With letters that ignoring case pairs with i, k and s.
        "d\u0131\u017fK full",
        "ma\u017fK",
        "mas\u212a",
    ]
)
LINES = st.lists(
    st.lists(st.one_of(WORDS.map(lambda word: word.encode()), st.binary(max_size=4)), max_size=5).map(
        b"".join
    ),
    max_size=8,
)


def plainly(rules: list[Rule], block: bytes) -> list[tuple[str, str]]:
    lines = [
        line.strip(b"\0")[:HEAD].removesuffix(b"\r").decode(errors="replace")
        for line in block.split(b"\n")[:-1]
    ]
    return [(rule.name, line) for rule in rules for line in lines if re.search(rule.match, line)]


def found(matcher: Matcher, block: bytes) -> list[tuple[str, str]]:
    return [(hit.rule.name, hit.match.string) for hit in matcher.hits(block)]


RULES = [Rule(f"rule-{number}", pattern) for number, pattern in enumerate(PATTERNS)]


@given(LINES)
@example([b"d\xc4\xb1sk full", b"ma\xc5\xbfk", b"MAS\xe2\x84\xaa"])
@example([b"\xffxyz"])
def test_finds_what_the_plain_loop_finds(lines: list[bytes]) -> None:
    block = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    assert found(LiteralMatcher(RULES), block) == plainly(RULES, block)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"Failed .* from (?P<ip>\S+)", Literals((b"Failed ",))),
        (r"[Ee]rror|CRIT", Literals((b"CRIT", b"rror"))),
        (r"foo(bar|baz)+qux", Literals((b"foo",))),
        (r"(?P<who>user) \w+ (?:logged) out", Literals((b" logged out",))),
        (r"(?i)FATAL", Literals((b"fatal",), caseless=True)),
        (r"(?:panic)?", None),
        (r"\d{3}", None),
        (r"ab", None),
        (r"\w+|panic", None),
        ("|".join(f"{letter}option" for letter in string.ascii_lowercase), None),
    ],
)
def test_literals(pattern: str, expected: Literals | None) -> None:
    assert literals(pattern) == expected


def test_all_letters_that_ignoring_case_pairs_with_others_are_known() -> None:
    strange = [chr(code) for code in range(128, 0x110000) if not 0xD800 <= code <= 0xDFFF]
    text = "".join(strange)
    for letter in string.ascii_lowercase:
        for other in re.findall(f"(?i){letter}", text):
            options = literals(f"(?i){letter}xyz")
            assert options is not None
            assert other.encode() in options.options


def test_line_with_several_literals_of_a_rule_is_one_hit() -> None:
    matcher = LiteralMatcher([Rule("one", "alpha|beta")])
    assert found(matcher, b"alpha beta alpha\nbeta\n") == [("one", "alpha beta alpha"), ("one", "beta")]


def test_hit_gives_the_captures() -> None:
    (hit,) = LiteralMatcher([Rule("one", r"user (?P<user>\w+)")]).hits(b"user anna\n")
    assert isinstance(hit, Hit)
    assert hit.match["user"] == "anna"


def test_empty_block_and_no_rules() -> None:
    assert found(LiteralMatcher(RULES), b"") == []
    assert found(LiteralMatcher([]), b"a line\n") == []


def test_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(re.error):
        LiteralMatcher([Rule("broken", "(")])


@pytest.mark.parametrize(
    "line", [b"nothing of interest in this line\n", b"Failed " * 9000 + b"\n", b"\0" * 262_143 + b"\n"]
)
def test_cost_grows_with_the_block_and_no_faster(line: bytes) -> None:
    matcher = LiteralMatcher(RULES)
    small, large = (line * (size // len(line) + 1) for size in (2**17, 2**20))
    # Eight times the work; the bound is far from both, and CPU time knows no neighbours.
    assert _cpu(matcher, large) < 32 * max(_cpu(matcher, small), 0.001)


def _cpu(matcher: LiteralMatcher, block: bytes) -> float:
    started = time.process_time()
    found(matcher, block)
    return time.process_time() - started
