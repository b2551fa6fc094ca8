"""Which patterns are let in, and that those which are let in end on lines made to keep them busy."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from daemon.model.patterns import LONGEST, screen

BAD = [
    r"(a+)+$",
    r"^(a|aa)+$",
    r"(.*a){20}",
    r"^(\w+\s?)+$",
    r"(x+x+)+y",
    r"(a*)*b",
    r"(a?b?)*c",
    r"(?:ab?b?)+c",
    r"([a-zA-Z]+)*\d",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(?:a{1,50}){1,50}b",
    r"a.*b.*c.*d",
    r".*error.*timeout.*failed",
    r"(?=(a+)+b)",
    r"(?>(a+)+b)",
    r"\s+\s+\s+x",
    r"(.+)+=",
    r"(?:[^:]+:?)+x",
    r"(\w+\.?)+@",
    r"(?i)(k+K)+!",
    r"(?:foo|fo+)+x",
    "a?" * 30 + "a" * 30,
]
GOOD = [
    r"Failed password for .* from (?P<ip>\S+) port \d+",
    r"Traceback|CRITICAL",
    r"^(?P<ip>\d{1,3}(?:\.\d{1,3}){3}) ",
    r"error.*timeout.*failed",
    r"status=(?P<code>5\d\d)",
    r"\b(?:ERROR|FATAL)\b",
    r"(?:\s+\S+)+!",
    r"(?:,[^,]+)+;",
    r"(?:\w|\d)+!",
    r"^\S+ \S+ \S+ \[[^\]]+\] \"(?P<m>[A-Z]+) [^\"]*\" 5\d\d",
    r"out of memory: kill(?:ed)? process (?P<pid>\d+)",
    r"(?i)panic",
    r".*error",
    r"\s+$",
    r"user (?P<user>[\w.-]+@[\w.-]+) locked",
    r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}",
    r"(\d+\.)+\d+ x",
    r"^(?:\w+ )*done$",
    r"(?<!no )error",
    r"é+à+x",
    r"(?P<quote>['\"]).*?(?P=quote)",
    r"^\s*(?P<key>\w+)\s*=\s*(?P<value>.*)$",
    r"(?>a+)b",
    r"a++b",
]
TRY = """
import json, random, re, sys
patterns = json.load(sys.stdin)
dice = random.Random(1)
for pattern in patterns:
    print(pattern, flush=True)
    search = re.compile(pattern).search
    texts = re.findall(r"[A-Za-z0-9]+", pattern) or ["a"]
    letters = sorted(set(re.sub(r"[\\\\^$*+?{}()|]", "", pattern))) + [" ", "a", "1"]
    lines = [letter * 4096 for letter in letters]
    lines += [(text + " ") * (4096 // (len(text) + 1)) for text in texts]
    lines += ["".join(text * (4096 // len(texts) // len(text)) for text in texts[:-1])]
    lines += ["".join(dice.choices(letters, k=3)) * 1350 for _ in range(3)]
    for line in lines:
        search(line + "\\x00")
print("done", flush=True)
"""


def end_in_time(patterns: list[str]) -> str:
    """The last pattern begun; `done` when all ended. In a process of its own, for nothing stops a running match but a kill."""
    argv = [sys.executable, "-c", TRY]
    try:
        ended = subprocess.run(
            argv, input=json.dumps(patterns), capture_output=True, text=True, timeout=50, check=True
        )
    except subprocess.TimeoutExpired as exc:
        return (exc.stdout or b"").decode().splitlines()[-1]
    return ended.stdout.splitlines()[-1]


@pytest.mark.parametrize("pattern", BAD)
def test_a_pattern_that_can_run_away_is_refused(pattern: str) -> None:
    refused = screen(pattern)
    assert refused is not None
    assert "crafted line" in refused


@pytest.mark.parametrize("pattern", GOOD)
def test_an_ordinary_pattern_is_let_in(pattern: str) -> None:
    assert screen(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "no regular expression"),
        ("[z-a]", "no regular expression"),
        ("a*", "empty text"),
        ("$", "empty text"),
        ("x" * (LONGEST + 1), "at most 2000"),
        ("(" * 900 + "x" + ")" * 900, "no regular expression"),
    ],
)
def test_what_is_no_pattern_or_matches_anything_is_refused(pattern: str, why: str) -> None:
    refused = screen(pattern)
    assert refused is not None
    assert why in refused


def test_the_ordinary_ones_end_on_crafted_lines() -> None:
    assert end_in_time(GOOD) == "done"


def made_up(dice: random.Random, depth: int = 3) -> str:
    kind = dice.choice(
        ["text", "text", "class", "repeat", "repeat", "group", "either"] if depth else ["text", "class"]
    )
    match kind:
        case "text":
            return "".join(dice.choices("ab ", k=dice.randint(1, 3)))
        case "class":
            return dice.choice([r"\w", r"\d", r"\s", r"\S", ".", "[ab]", "[^a]"])
        case "repeat":
            return f"(?:{made_up(dice, depth - 1)}){dice.choice(['*', '+', '?', '{2,5}', '*?'])}"
        case "group":
            return "".join(made_up(dice, depth - 1) for _ in range(dice.randint(2, 3)))
    return f"(?:{made_up(dice, depth - 1)}|{made_up(dice, depth - 1)})"


def test_whatever_is_let_in_ends_on_crafted_lines() -> None:
    dice = random.Random(7)
    patterns = [made_up(dice) + dice.choice(["", "x", "$"]) for _ in range(120)]
    let_in = [pattern for pattern in patterns if screen(pattern) is None]
    assert 60 < len(let_in) < 110
    assert end_in_time(let_in) == "done"
