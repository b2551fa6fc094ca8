"""Kinds that exist for the configuration alone: they describe what may be written, and build nothing."""

from __future__ import annotations

from typing import NoReturn

from pydantic import BaseModel, ConfigDict, Field

from daemon.config.load import Kinds
from daemon.config.settings import Secret
from daemon.escalate.base import ChannelKind
from perceivers.base import Bytes, Kind, Seconds


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WebSettings(Strict):
    url: str
    slow: Seconds = 2.0
    most: Bytes = 1024
    headers: dict[str, str | Secret] = {}
    body: str = Field(default="", json_schema_extra={"format": "regex"})


class LinesSettings(Strict):
    path: str


class BellSettings(Strict):
    url: Secret
    quiet: Seconds | None = None


def _builds_nothing(*_: object) -> NoReturn:
    raise AssertionError("the configuration builds nothing")


WEB = Kind(
    "web",
    WebSettings,
    _builds_nothing,
    {"up": "whether it answers", "latency": "seconds", "status": "HTTP status"},
)
LINES = Kind("lines", LinesSettings, _builds_nothing, {"size": "bytes"}, rules=True)
BELL = ChannelKind("bell", BellSettings, _builds_nothing)
KINDS = Kinds({"web": WEB, "lines": LINES}, {"bell": BELL})
