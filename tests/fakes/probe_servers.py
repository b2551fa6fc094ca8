"""Servers for probes to look at: each connection is handed to one coroutine, on a port that the system chose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ProbeServer:
    port: int
    stop: Callable[[], Awaitable[None]] = field(default=lambda: asyncio.sleep(0))
    """Close the port and every connection; may be called more than once."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}/health"


@asynccontextmanager
async def serving(talk: Talk, tls: SSLContext | None = None) -> AsyncIterator[ProbeServer]:
    talks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            talks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)

    async def stop() -> None:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await server.wait_closed()

    found = ProbeServer(server.sockets[0].getsockname()[1], stop=stop)
    try:
        yield found
    finally:
        await stop()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the connection, read, and never say a word until the other side has had enough."""
    while await reader.read(4096):
        pass


def saying(*parts: bytes, then: Talk | None = None) -> Talk:
    """Read the request's head, write the parts, and go on with `then` or close."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then is not None:
            await then(reader, writer)

    return talk


def answer(status: str = "200 OK", body: bytes = b"fine", head: str = "") -> bytes:
    """A whole HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def greeting(text: bytes, then: Talk | None = None) -> Talk:
    """Speak first, as SMTP and SSH do."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        if then is not None:
            await then(reader, writer)

    return talk
