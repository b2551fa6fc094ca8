"""A channel that does what the test wrote down, and notes what it was given."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from daemon.clock import Clock
from daemon.model.message import Message


@dataclass(frozen=True)
class Sent:
    """One call of `send`, whatever became of it."""

    id: str
    message: Message
    at: float


class ScriptedChannel:
    """Fails with the given errors first, one for each send (None: a success), then takes everything."""

    kind = "scripted"

    def __init__(
        self, name: str, clock: Clock, *errors: Exception | None, always: Exception | None = None
    ) -> None:
        self.name = name
        self.sent: list[Sent] = []
        self.gate = asyncio.Event()
        """Cleared: sends wait for it."""
        self.gate.set()
        self.closed = False
        self._clock = clock
        self._errors = deque(errors)
        self._always = always

    @property
    def events(self) -> list[str]:
        return [sent.message.event for sent in self.sent]

    @property
    def waits(self) -> list[float]:
        """Seconds between the sends."""
        return [
            round(later.at - sooner.at, 3) for sooner, later in zip(self.sent, self.sent[1:], strict=False)
        ]

    async def send(self, id: str, message: Message) -> None:
        self.sent.append(Sent(id, message, self._clock.wall()))
        await self.gate.wait()
        error = self._errors.popleft() if self._errors else self._always
        if error is not None:
            raise error

    async def close(self) -> None:
        self.closed = True
