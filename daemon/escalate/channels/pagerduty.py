"""PagerDuty, by its Events API v2. One dedup key per incident: whatever is said of it folds into one PagerDuty incident."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from daemon.config.settings import Seconds, Secret, Strict
from daemon.escalate.base import ChannelKind, Tools
from daemon.escalate.text import answers, plain
from daemon.escalate.web import LONGEST_TIMEOUT, TIMEOUT, Web, secret_of
from daemon.model.message import Message

URL = "https://events.pagerduty.com/v2/enqueue"
LONGEST_KEY = 255
LONGEST_SUMMARY = 1024
ENDINGS = ("acknowledge", "resolve")


class PagerDutySettings(Strict):
    """`[channels.NAME]` with `kind = "pagerduty"`."""

    key: Secret
    """The integration's routing key."""
    url: str = URL
    """Where events go: another one for accounts in the EU."""
    escalation: Literal["ours", "theirs"] = "ours"
    """`theirs`: PagerDuty's schedule calls people, so midwatch's own on-call steps rest once it was told."""
    timeout: Seconds = Field(default=TIMEOUT, gt=0, le=LONGEST_TIMEOUT)


class PagerDutyChannel:
    """Triggers, acknowledges and resolves."""

    kind = "pagerduty"

    def __init__(self, name: str, settings: PagerDutySettings, tools: Tools) -> None:
        self.name = name
        self.escalation = settings.escalation
        self._settings = settings
        self._tools = tools
        self._web = Web(tools, settings.timeout)

    async def send(self, id: str, message: Message) -> None:
        key = secret_of(self._tools, self._settings.key)
        body = json.dumps({"routing_key": key, **_event(message)}, ensure_ascii=False)
        await self._web.post(self._settings.url, body.encode(), {}, [key])

    async def close(self) -> None:
        await self._web.close()


def _event(message: Message) -> dict[str, Any]:
    dedup = {"dedup_key": _dedup(message)}
    if message.event in ENDINGS:
        return {"event_action": message.event, **dedup}
    return {"event_action": "trigger", **dedup, "client": "midwatch", "payload": _payload(message)}


def _dedup(message: Message) -> str:
    """The key of the incident; a digest of it when it is longer than PagerDuty takes, since two must not become one."""
    key = message.dedup or f"midwatch/{message.host}/{message.incident}"
    return key if len(key) <= LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()


def _payload(message: Message) -> dict[str, Any]:
    said = {"summary": message.summary, "incident": message.incident, "answer": answers(message)}
    return {
        "summary": plain(f"{message.title}: {message.summary}", LONGEST_SUMMARY),
        "source": message.host or "midwatch",
        "severity": message.severity,
        "timestamp": datetime.fromtimestamp(message.at, UTC).isoformat(),
        "component": str(message.details.get("resource", "")),
        "class": message.event,
        "custom_details": {**message.details, **{name: words for name, words in said.items() if words}},
    }


def build(name: str, settings: BaseModel, tools: Tools) -> PagerDutyChannel:
    assert isinstance(settings, PagerDutySettings)
    return PagerDutyChannel(name, settings, tools)


KIND = ChannelKind("pagerduty", PagerDutySettings, build)
