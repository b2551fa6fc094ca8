"""What is told to people: one Message, rendered by each channel in its own protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MessageEvent = Literal["trigger", "update", "ask", "acknowledge", "resolve", "test"]


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to say. Plain JSON in the outbox; a channel decides what of it its service can show."""

    event: MessageEvent
    """`trigger` opens or repeats, `update` adds, `ask` wants an answer, `acknowledge` and `resolve` end the calling; `test` means nothing."""
    incident: str
    title: str
    severity: str
    """info, warning, error or critical."""
    summary: str
    """One or two sentences: what a person reads first. Text from outside is neutralised already."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Evidence as plain JSON: `resource`, `signals`, `cause`, `action`, `rule`, ..."""
    host: str = ""
    dedup: str = ""
    """Equal for all messages of one incident: what services that fold by key use."""
    approval: str | None = None
    """`ask`: the id to approve or reject."""
    at: float = 0.0
    """Unix seconds."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "details": dict(self.details)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Message:
        return cls(**data)
