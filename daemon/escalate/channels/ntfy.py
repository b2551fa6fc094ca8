"""ntfy, at ntfy.sh or a server of one's own: a push message to everybody who has subscribed to the topic."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Field

from daemon.config.settings import Seconds, Secret, Strict
from daemon.escalate.base import ChannelKind, Tools
from daemon.escalate.text import answers, clip_bytes, facts, headline, plain
from daemon.escalate.web import LONGEST_TIMEOUT, TIMEOUT, Web, secret_of
from daemon.model.message import Message

SERVER = "https://ntfy.sh"
LARGEST_MESSAGE = 4000
"""Bytes; from 4096 on ntfy would make an attachment of it."""
LONGEST_TITLE = 200
PRIORITIES = {"info": 2, "warning": 3, "error": 4, "critical": 5}
"""1 (silent) to 5 (rings through)."""
CALM = {"acknowledge": 2, "resolve": 3, "update": 3, "test": 3}
"""Events that need nobody at once have their own, whatever the severity."""
TAGS = {
    "info": "information_source",
    "warning": "warning",
    "error": "rotating_light",
    "critical": "rotating_light",
}
ENDINGS = {"acknowledge": "eyes", "resolve": "white_check_mark", "ask": "raised_hand", "test": "wave"}


class NtfySettings(Strict):
    """`[channels.NAME]` with `kind = "ntfy"`."""

    topic: str | Secret
    """On a server without accounts whoever knows it can read along: then it is a secret."""
    server: str = SERVER
    """The server's root."""
    token: Secret | None = None
    """An access token, for topics that are protected."""
    timeout: Seconds = Field(default=TIMEOUT, gt=0, le=LONGEST_TIMEOUT)


class NtfyChannel:
    """Publishes to one topic."""

    kind = "ntfy"

    def __init__(self, name: str, settings: NtfySettings, tools: Tools) -> None:
        self.name = name
        self._settings = settings
        self._tools = tools
        self._web = Web(tools, settings.timeout)

    async def send(self, id: str, message: Message) -> None:
        headers, hidden = self._credentials()
        topic = self._settings.topic
        if not isinstance(topic, str):
            topic = secret_of(self._tools, topic)
            hidden = [*hidden, topic]
        body = json.dumps({"topic": topic, **_publication(message)}, ensure_ascii=False)
        await self._web.post(f"{self._settings.server.rstrip('/')}/", body.encode(), headers, hidden)

    async def close(self) -> None:
        await self._web.close()

    def _credentials(self) -> tuple[dict[str, str], list[str]]:
        if self._settings.token is None:
            return {}, []
        token = secret_of(self._tools, self._settings.token)
        return {"Authorization": f"Bearer {token}"}, [token]


def _publication(message: Message) -> dict[str, Any]:
    """Title and text are shown as they are: ntfy reads markup only where it is asked to."""
    return {
        "title": plain(headline(message), LONGEST_TITLE),
        "message": clip_bytes("\n".join(_lines(message)), LARGEST_MESSAGE),
        "priority": CALM.get(message.event, PRIORITIES.get(message.severity, 4)),
        "tags": [ENDINGS.get(message.event, TAGS.get(message.severity, "warning"))],
    }


def _lines(message: Message) -> list[str]:
    """What must be read comes first: the end may be cut."""
    where = " · ".join(filter(None, (message.host, message.incident, message.severity)))
    lines = [
        message.summary,
        answers(message),
        where,
        *(f"{name}: {words}" for name, words in facts(message)),
    ]
    return [line for line in lines if line]


def build(name: str, settings: BaseModel, tools: Tools) -> NtfyChannel:
    assert isinstance(settings, NtfySettings)
    return NtfyChannel(name, settings, tools)


KIND = ChannelKind("ntfy", NtfySettings, build)
