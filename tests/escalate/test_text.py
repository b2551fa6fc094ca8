"""Text from outside stays text, and stays short."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from fakes.escalations import message
from hypothesis import given
from hypothesis import strategies as st

from daemon.escalate import text
from daemon.model.message import Message

ANY_TEXT = st.text(st.characters(), max_size=200)
"""Lone surrogates and unassigned characters included."""


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("api is down", "api is down"),
        ("\x1b[31mred\x07", "[31mred"),
        ("one\r\ntwo\u2028three", "one  two three"),
        ("\u202eevil\u202c", "evil"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("h\xf6he \N{SNOWMAN} \U0001f525", "h\xf6he \N{SNOWMAN} \U0001f525"),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_what_steers_the_display_goes(given_: str, shown: str) -> None:
    assert text.plain(given_, 100) == shown


@given(ANY_TEXT, st.integers(1, 50), st.booleans())
def test_plain_is_short_and_printable(words: str, limit: int, lines: bool) -> None:
    shown = text.plain(words, limit, lines=lines)
    assert len(shown) <= limit
    assert all(unicodedata.category(char)[0] != "C" or (lines and char == "\n") for char in shown)
    shown.encode()


@given(ANY_TEXT, st.integers(3, 50))
def test_bytes_are_counted_as_bytes(words: str, limit: int) -> None:
    clean = text.plain(words, 200)
    clipped = text.clip_bytes(clean, limit)
    assert len(clipped.encode()) <= limit
    assert clipped == clean or clipped.endswith("…")


@given(st.text("<>&a", max_size=80), st.integers(1, 60))
def test_slack_escapes_whole_and_within_its_limit(words: str, limit: int) -> None:
    escaped = text.slack(words, limit)
    assert len(escaped) <= limit
    back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert back == words or words.startswith(back.removesuffix("…"))


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | ANY_TEXT
DETAILS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=25) | st.dictionaries(ANY_TEXT, inner, max_size=6),
    max_leaves=25,
)


@given(st.dictionaries(ANY_TEXT, DETAILS, max_size=6), ANY_TEXT)
def test_a_message_is_small_clean_json_whatever_it_holds(details: dict[str, Any], words: str) -> None:
    small = text.bounded(message(details=details | {"many": [words * 9] * 25}, summary=words * 20))
    body = json.dumps(small.to_json(), ensure_ascii=False, allow_nan=False).encode()
    assert len(body) < 19_000
    assert text.bounded(small) == small
    assert Message.from_json(json.loads(body)) == small


def test_what_is_left_out_is_named() -> None:
    details = {
        "resource": "service:api",
        **{f"log{n}": ["x" * 500] * 20 for n in range(3)},
        "rule": "restarts",
    }
    small = text.bounded(message(details=details)).details
    assert set(small) == {"resource", "rule", "left_out"}
    assert small["left_out"] == ["log0", "log1", "log2"]


def test_details_read_as_lines() -> None:
    details = {"signals": ["a", "b"], "params": {"retries": 2}, "why": "", "nearly_done": True}
    assert list(text.facts(message(details=details))) == [
        ("signals", "a; b"),
        ("params", "retries=2"),
        ("nearly done", "True"),
    ]


def test_an_ask_says_how_to_answer() -> None:
    assert (
        text.answers(message("ask", approval="a-7f3k"))
        == "midwatch approve a-7f3k   or   midwatch reject a-7f3k"
    )
    assert text.answers(message("trigger", approval="a-7f3k")) == ""


def test_a_headline_says_what_became_of_it() -> None:
    assert text.headline(message("trigger", severity="critical")) == "CRITICAL: api is down"
    assert text.headline(message("resolve")) == "RESOLVED: api is down"
