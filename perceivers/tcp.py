"""A TCP address: whether somebody takes the connection, and says what is expected."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from perceivers.base import Batch, Kind, Observation, PerceiverBlind, Scalar, Seconds, Spec, Tools

MOST_READ = 64 * 1024
"""Bytes that are read in search of `expect`."""
# fmt: off
OWN = frozenset((
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT,
    errno.EACCES, errno.EPERM,
))
# fmt: on
"""Errors of a connection that tell of this host or of our own limits, not of the other side."""
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")


def patience(timeout: float) -> float:
    """Seconds to wait for an answer: a little less than the whole, so that `hung` is told before the poll is cut off."""
    return timeout - min(0.5, timeout / 10)


def host_name(text: str) -> str:
    """A host name or address that a lookup can bear. Raises ValueError."""
    with suppress(ValueError):
        return str(ip_address(text))
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split(".")):
        raise ValueError(f"{text!r} is no host name")
    return text


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` → both. Raises ValueError that says what is accepted."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError(
            f"{text!r} is no address: write HOST:PORT, an IPv6 address in brackets as in [::1]:80"
        )
    return host_name(match[1] or match[2]), int(match[3])


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, in the order of preference. Raises OSError."""
    with suppress(ValueError):
        return [str(ip_address(host))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def is_local(address: str) -> bool:
    """Whether the address is this host's own."""
    parsed = ip_address(address)
    if parsed.is_loopback:
        return True
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    # A datagram socket that is connected sends nothing, but knows from which address it would.
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0]) == address
    return False


def unreachable(exc: OSError) -> str:
    """What a failed connection says of the other side, in our own words. Raises PerceiverBlind when the trouble is this host's."""
    if isinstance(exc, socket.gaierror):
        return f"the name cannot be resolved: {exc.strerror}"
    if exc.errno in OWN:
        raise PerceiverBlind(f"no connection can be opened from here: {os.strerror(exc.errno)}") from exc
    return os.strerror(exc.errno).lower() if exc.errno else "no connection"


class Settings(BaseModel):
    """What the operator may say about `tcp`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    address: str
    """`HOST:PORT`."""
    send: str = Field(default="", max_length=4096)
    """Text to be sent once connected, as UTF-8."""
    expect: str = Field(default="", max_length=4096)
    """Text that must be in what the other side says; empty: the connection is enough."""
    timeout: Seconds = Field(default=5.0, gt=0)
    """Hung after."""

    @field_validator("address")
    @classmethod
    def _parses(cls, address: str) -> str:
        parse_address(address)
        return address


@dataclass(frozen=True, slots=True)
class Reading:
    """How an attempt ended."""

    up: bool
    hung: bool = False
    latency: float | None = None
    error: str = ""

    def values(self) -> dict[str, Scalar]:
        ok = self.up and not self.hung and not self.error
        return {"up": self.up, "hung": self.hung, "ok": ok, "latency": self.latency, "error": self.error}


def no_connection(addresses: list[str], waited: float) -> Reading:
    """The reading when a connection was neither taken nor refused.

    Here that is a queue that nobody empties: the program hangs. Elsewhere nobody may be there at all.
    """
    local = any(is_local(address) for address in addresses)
    error = (
        f"no connection within {waited:.2g}s"
        if addresses
        else f"the name was not resolved within {waited:.2g}s"
    )
    return Reading(up=local, hung=local, error=error)


class Tcp:
    """Perceives one address, with a new connection for each poll."""

    kind = "tcp"

    def __init__(self, spec: Spec, tools: Tools) -> None:
        assert isinstance(spec.settings, Settings)
        self.name, self.resource = spec.name, spec.resource
        self._host, self._port = parse_address(spec.settings.address)
        self._send, self._expect = spec.settings.send.encode(), spec.settings.expect.encode()
        self._patience = patience(spec.settings.timeout)
        self._tools = tools

    async def poll(self) -> Batch:
        reading = await self._read()
        return Batch([Observation(self.name, self.resource, self._tools.wall(), reading.values())])

    def restore(self, cursor: Mapping[str, Any]) -> None:
        """Nothing is kept."""

    def wake_on(self, wake: Callable[[], None]) -> None:
        """No source."""

    async def close(self) -> None:
        """Nothing is held between polls."""

    async def _read(self) -> Reading:
        began = self._tools.monotonic()
        addresses: list[str] = []
        connected = False
        try:
            async with asyncio.timeout(self._patience):
                addresses += await resolve(self._host, self._port)
                reader, writer = await connect(addresses, self._port, self._patience)
                connected = True
                try:
                    error = await self._talk(reader, writer)
                finally:
                    writer.close()
        except TimeoutError:
            if connected:
                return Reading(up=True, hung=True, error=f"no answer within {self._patience:.2g}s")
            return no_connection(addresses, self._patience)
        except OSError as exc:
            if connected:
                return Reading(up=True, error="the connection broke")
            return Reading(up=False, error=unreachable(exc))
        return Reading(up=True, latency=self._tools.monotonic() - began, error=error)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """What is wrong with the answer. Raises OSError."""
        if self._send:
            writer.write(self._send)
            await writer.drain()
        said = b""
        while self._expect not in said:
            more = await reader.read(MOST_READ - len(said))
            if not more:
                full = len(said) >= MOST_READ
                return (
                    f"the expected text is not in the first {MOST_READ} bytes"
                    if full
                    else "closed before the expected text"
                )
            said += more
        return ""


async def connect(
    addresses: list[str], port: int, within: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that takes one; all of them share the time. Raises OSError, TimeoutError among them."""
    trouble: OSError = OSError("no address")
    for number, address in enumerate(addresses):
        try:
            async with asyncio.timeout(within / (len(addresses) - number)):
                return await asyncio.open_connection(address, port)
        except OSError as exc:
            # What the other side says is worth more than what this host lacks, such as IPv6.
            trouble = exc if exc.errno not in OWN or trouble.errno is None else trouble
    raise trouble


KIND = Kind(
    name="tcp",
    settings=Settings,
    build=Tcp,
    values={
        "up": "false when the connection is refused, the host unreachable or the name unknown",
        "hung": "whether no connection or no expected text came within the timeout, though somebody is there",
        "ok": "whether it is up and said what is expected",
        "latency": "seconds until connected and, with `expect`, answered",
        "error": "what is wrong, in words; empty when nothing is",
    },
)
