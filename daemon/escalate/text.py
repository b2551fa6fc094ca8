"""Text from outside, made harmless for the place where a person reads it.

What a log line says may end up in a chat. It must stay text there: no mention of a whole channel, no link, no hidden direction mark,
no wall of characters.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from daemon.model.message import Message

LONGEST_TITLE = 200
LONGEST_SUMMARY = 2000
LONGEST_DETAIL = 500
"""Characters of one string within the details."""
MOST_ITEMS = 20
"""Entries of one list or table within the details."""
DEEPEST = 4
"""Levels of nesting within the details."""
LARGEST_DETAILS = 8000
"""Bytes of the details as JSON: with title and summary a message stays below 20 kB, which webhooks ask for."""

_INVISIBLE = {
    "Cc": " ",
    "Cf": "",
    "Cs": "\N{REPLACEMENT CHARACTER}",
    "Co": "",
    "Cn": "",
    "Zl": " ",
    "Zp": " ",
}
"""By Unicode category: control characters and line separators become spaces; what only steers the display goes."""
_SLACK = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""Slack's whole escaping; `<!channel>` and `<URL|WORDS>` are then what they look like."""


def plain(text: str, limit: int, *, lines: bool = False) -> str:
    """`text` without control and steering characters, at most `limit` characters; `lines` keeps line breaks."""
    kept = text[: limit + 1]
    clean = "".join("\n" if lines and char == "\n" else _shown(char) for char in kept).strip()
    return clean if len(text) <= limit else clean[: limit - 1] + "…"


def _shown(char: str) -> str:
    return char if char.isascii() and char.isprintable() else _INVISIBLE.get(unicodedata.category(char), char)


def clip_bytes(text: str, limit: int) -> str:
    """The beginning of `text` that fits into `limit` bytes of UTF-8."""
    if len(text.encode()) <= limit:
        return text
    return text.encode()[: limit - 3].decode(errors="ignore") + "…"


def slack(text: str, limit: int) -> str:
    """`text` for Slack, at most `limit` characters once escaped; an escape is never cut in two."""
    clean = plain(text, limit, lines=True)
    escaped = "".join(_SLACK.get(char, char) for char in clean)
    if len(escaped) <= limit:
        return escaped
    kept, room = [], limit - 1
    for char in clean:
        piece = _SLACK.get(char, char)
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + "…"


def bounded(message: Message) -> Message:
    """The message as it may be stored and sent: every text neutralised, every size limited."""
    return replace(
        message,
        title=plain(message.title, LONGEST_TITLE),
        summary=plain(message.summary, LONGEST_SUMMARY, lines=True),
        host=plain(message.host, LONGEST_TITLE),
        details=_fitting({plain(str(key), 64): _value(value, 1) for key, value in message.details.items()}),
    )


def _value(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no word for the others
    if isinstance(value, Mapping) and depth < DEEPEST:
        return {
            plain(str(key), 64): _value(item, depth + 1) for key, item in list(value.items())[:MOST_ITEMS]
        }
    if isinstance(value, list | tuple) and depth < DEEPEST:
        return [_value(item, depth + 1) for item in value[:MOST_ITEMS]]
    return plain(str(value), LONGEST_DETAIL, lines=True)


def _fitting(details: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that fit into LARGEST_DETAILS, in their order; `left_out` names the others."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    room = LARGEST_DETAILS
    for key, value in details.items():
        size = len(json.dumps({key: value}, ensure_ascii=False).encode())
        if size > room or len(kept) >= MOST_ITEMS:
            left_out.append(key)
            continue
        kept[key] = value
        room -= size
    return {**kept, "left_out": left_out[:MOST_ITEMS]} if left_out else kept


def headline(message: Message) -> str:
    """Severity, what became of it, and title: `CRITICAL: api is down`, `RESOLVED: api is down`."""
    words = {
        "resolve": "RESOLVED",
        "acknowledge": "ACKNOWLEDGED",
        "ask": "APPROVAL WANTED",
        "update": "UPDATE",
        "test": "TEST",
    }
    return f"{words.get(message.event, message.severity.upper())}: {message.title}"


def facts(message: Message) -> Iterator[tuple[str, str]]:
    """The message's details as (name, words), one line each, in their order."""
    for name, value in message.details.items():
        words = _words(value)
        if words:
            yield name.replace("_", " "), words


def _words(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_words(item) for item in value)
    return plain(str(value), LONGEST_DETAIL)


def answers(message: Message) -> str:
    """What to type to answer an `ask`; empty for everything else."""
    if message.event != "ask" or not message.approval:
        return ""
    return f"midwatch approve {message.approval}   or   midwatch reject {message.approval}"
