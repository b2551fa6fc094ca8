"""Any receiver of Standard Webhooks: one signed JSON POST per message; `webhook-id` tells repetitions apart."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field, model_validator
from standardwebhooks import Webhook

from daemon.config.settings import Seconds, Secret, Strict
from daemon.errors import DeliveryError
from daemon.escalate.base import ChannelKind, Tools
from daemon.escalate.web import LONGEST_TIMEOUT, TIMEOUT, Web, secret_of
from daemon.model.message import Message

TYPES = {
    "trigger": "incident.opened",
    "update": "incident.updated",
    "ask": "approval.requested",
    "acknowledge": "incident.acknowledged",
    "resolve": "incident.resolved",
    "test": "test",
}


class WebhookSettings(Strict):
    """`[channels.NAME]` with `kind = "webhook"`."""

    url: str | Secret
    secret: Secret | None = None
    """What messages are signed with: `whsec_` and the base64 of 24 to 64 bytes."""
    unsigned: bool = False
    """Send without a signature: the receiver then cannot tell who speaks."""
    timeout: Seconds = Field(default=TIMEOUT, gt=0, le=LONGEST_TIMEOUT)

    @model_validator(mode="after")
    def _signed_or_not(self) -> WebhookSettings:
        if (self.secret is None) != self.unsigned:
            raise ValueError("a webhook has either a `secret` or `unsigned = true`")
        return self


class WebhookChannel:
    """Speaks Standard Webhooks 1.0."""

    kind = "webhook"

    def __init__(self, name: str, settings: WebhookSettings, tools: Tools) -> None:
        self.name = name
        self._settings = settings
        self._tools = tools
        self._web = Web(tools, settings.timeout)

    async def send(self, id: str, message: Message) -> None:
        url = (
            self._settings.url
            if isinstance(self._settings.url, str)
            else secret_of(self._tools, self._settings.url)
        )
        body = json.dumps(_body(message), ensure_ascii=False)
        hidden = [] if isinstance(self._settings.url, str) else [url]
        headers, secret = self._signature(id, body)
        await self._web.post(url, body.encode(), headers, [*hidden, *secret])

    async def close(self) -> None:
        await self._web.close()

    def _signature(self, id: str, body: str) -> tuple[dict[str, str], list[str]]:
        """The headers, and the secret that went into them."""
        moment = datetime.fromtimestamp(int(self._tools.wall()), UTC)
        headers = {"webhook-id": id, "webhook-timestamp": str(int(moment.timestamp()))}
        if self._settings.secret is None:
            return headers, []
        secret = secret_of(self._tools, self._settings.secret)
        return {**headers, "webhook-signature": Webhook(_key(secret)).sign(id, moment, body)}, [secret]


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise DeliveryError(
            "its secret is not `whsec_` and the base64 of 24 to 64 bytes; `openssl rand -base64 32` makes such bytes"
        )
    return key


def _body(message: Message) -> dict[str, Any]:
    data = message.to_json()
    event, at = data.pop("event"), data.pop("at")
    return {"type": TYPES[event], "timestamp": datetime.fromtimestamp(at, UTC).isoformat(), "data": data}


def build(name: str, settings: BaseModel, tools: Tools) -> WebhookChannel:
    assert isinstance(settings, WebhookSettings)
    return WebhookChannel(name, settings, tools)


KIND = ChannelKind("webhook", WebhookSettings, build)
