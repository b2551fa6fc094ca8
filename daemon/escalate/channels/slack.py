"""Slack, by an incoming webhook. It can only add messages, so every message names its incident."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

from daemon.config.settings import Seconds, Secret, Strict
from daemon.escalate.base import ChannelKind, Tools
from daemon.escalate.text import answers, facts, headline, slack
from daemon.escalate.web import LONGEST_TIMEOUT, TIMEOUT, Web, secret_of
from daemon.model.message import Message

LONGEST_TEXT = 3000
LONGEST_HEADER = 150
MOST_FACTS = 20


class SlackSettings(Strict):
    """`[channels.NAME]` with `kind = "slack"`."""

    url: Secret
    """The incoming webhook's address: whoever knows it can post, so it is a secret."""
    timeout: Seconds = Field(default=TIMEOUT, gt=0, le=LONGEST_TIMEOUT)


class SlackChannel:
    """Posts to one Slack channel."""

    kind = "slack"

    def __init__(self, name: str, settings: SlackSettings, tools: Tools) -> None:
        self.name = name
        self._settings = settings
        self._tools = tools
        self._web = Web(tools, settings.timeout)

    async def send(self, id: str, message: Message) -> None:
        url = secret_of(self._tools, self._settings.url)
        body = json.dumps(_body(message), ensure_ascii=False)
        await self._web.post(url, body.encode(), {}, [url, url.rpartition("/")[2]])

    async def close(self) -> None:
        await self._web.close()


def _body(message: Message) -> dict[str, Any]:
    """`text` is what notifications show; nothing in it is markup, and Slack fetches no link that stands in it."""
    return {
        "text": slack(f"{headline(message)}\n{message.summary}", LONGEST_TEXT),
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": list(_blocks(message)),
    }


def _blocks(message: Message) -> Iterator[dict[str, Any]]:
    yield {"type": "header", "text": _text(headline(message), LONGEST_HEADER)}
    yield {"type": "section", "text": _text(message.summary or message.title, LONGEST_TEXT)}
    lines = [f"{name}: {words}" for name, words in list(facts(message))[:MOST_FACTS]]
    if lines:
        yield {"type": "section", "text": _text("\n".join(lines), LONGEST_TEXT)}
    if answers(message):
        yield {"type": "section", "text": _text(answers(message), LONGEST_TEXT)}
    where = " · ".join(filter(None, (message.host, message.incident, message.severity)))
    yield {"type": "context", "elements": [_text(where, LONGEST_HEADER)]}


def _text(text: str, limit: int) -> dict[str, Any]:
    """A text object without markup: what a log line brings in stays a log line."""
    return {"type": "plain_text", "text": slack(text, limit) or "-", "emoji": False}


def build(name: str, settings: BaseModel, tools: Tools) -> SlackChannel:
    assert isinstance(settings, SlackSettings)
    return SlackChannel(name, settings, tools)


KIND = ChannelKind("slack", SlackSettings, build)
