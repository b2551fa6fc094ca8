"""What a channel is: it renders a Message in the protocol of one service and hands it over, or says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from daemon.model.message import Message


class Channel(Protocol):
    """One configured way to reach people.

    The contract, proven by one suite over all of them: `send` returns once the service has taken the message and raises DeliveryError
    otherwise (`permanent` when trying again cannot help, `retry_after` when the service said when); sending the same `id` twice may
    reach a person twice but never means two things; `acknowledge` and `resolve` name the same trouble as their `trigger`; secrets
    never appear in an error's text.
    """

    name: str
    kind: str

    async def send(self, id: str, message: Message) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What a channel is given."""

    wall: Callable[[], float]
    secret: Callable[[Any], str]
    """Reads a `Secret` setting now, so that a rotated one is picked up. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """What the registry holds for each kind of channel."""

    name: str
    settings: type[BaseModel]
    build: Callable[[str, BaseModel, Tools], Channel]
    """(name, settings, tools)"""


Channels = Mapping[str, Channel]
