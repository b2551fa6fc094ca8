from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Iterator

import pytest
from fakes.perceiver_tools import real_tools
from fakes.probe_servers import greeting, hang, saying, serving
from pydantic import ValidationError

from perceivers.base import PerceiverBlind, Scalar, Spec
from perceivers.tcp import MOST_READ, Settings, Tcp, host_name, is_local, parse_address, resolve, unreachable


async def values(
    address: str, *, send: str = "", expect: str = "", timeout: float = 5.0
) -> dict[str, Scalar]:
    settings = Settings(address=address, send=send, expect=expect, timeout=timeout)
    perceiver = Tcp(Spec("mail", "service:mail", settings), real_tools())
    return dict((await perceiver.poll()).observations[0].values)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def full_queue() -> Iterator[str]:
    """A listening socket that nobody accepts from, and whose queue takes no more."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        for one in waiting:
            one.close()


async def test_who_takes_the_connection_is_up() -> None:
    async with serving(hang) as server:
        seen = await values(server.address)
    assert (seen["up"], seen["hung"], seen["ok"], seen["error"]) == (True, False, True, "")
    assert isinstance(seen["latency"], float)
    assert 0 < seen["latency"] < 5


async def test_a_name_is_resolved() -> None:
    async with serving(hang) as server:
        assert (await values(f"localhost:{server.port}"))["up"] is True


async def test_a_refused_connection_is_down(closed_port: int) -> None:
    seen = await values(f"127.0.0.1:{closed_port}")
    assert (seen["up"], seen["hung"], seen["ok"], seen["latency"]) == (False, False, False, None)
    assert seen["error"] == "connection refused"


async def test_an_unknown_name_is_down() -> None:
    seen = await values("no-such-host.invalid:80", timeout=3.0)
    assert (seen["up"], seen["hung"]) == (False, False)
    assert "name" in str(seen["error"])


async def test_the_expected_text_may_come_in_pieces() -> None:
    async with serving(greeting(b"220 mail", then=greeting(b" ready\r\n"))) as server:
        assert (await values(server.address, expect="mail ready"))["ok"] is True


async def test_what_is_sent_is_answered() -> None:
    async with serving(saying(b"+PONG\r\n")) as server:
        assert (await values(server.address, send="PING\r\n\r\n", expect="+PONG"))["ok"] is True


async def test_a_banner_that_does_not_come_is_hung() -> None:
    async with serving(hang) as server:
        began = time.monotonic()
        seen = await values(server.address, expect="220", timeout=0.3)
    assert time.monotonic() - began < 5
    assert (seen["up"], seen["hung"], seen["ok"], seen["latency"]) == (True, True, False, None)


async def test_another_banner_is_hung_once_the_time_is_over() -> None:
    async with serving(greeting(b"550 no", then=hang)) as server:
        seen = await values(server.address, expect="220", timeout=0.3)
    assert (seen["up"], seen["hung"]) == (True, True)


async def test_who_hangs_up_before_the_banner_is_not_ok() -> None:
    async with serving(greeting(b"550 no")) as server:
        seen = await values(server.address, expect="220")
    assert (seen["up"], seen["hung"], seen["ok"]) == (True, False, False)
    assert "closed before" in str(seen["error"])


async def test_an_endless_banner_is_read_to_a_bound() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    async with serving(flood) as server:
        seen = await values(server.address, expect="220")
    assert seen["ok"] is False
    assert str(MOST_READ) in str(seen["error"])


async def test_a_program_that_accepts_no_more_is_hung(full_queue: str) -> None:
    seen = await values(full_queue, timeout=0.3)
    assert (seen["up"], seen["hung"], seen["ok"]) == (True, True, False)
    assert "no connection within" in str(seen["error"])


async def test_a_broken_connection_is_not_ok() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with serving(reset) as server:
        seen = await values(server.address, send="hello\n", expect="220")
    assert (seen["up"], seen["hung"], seen["ok"]) == (True, False, False)


async def test_what_this_host_lacks_is_blindness_and_not_trouble() -> None:
    for own in (errno.EMFILE, errno.EPERM, errno.EADDRNOTAVAIL):
        with pytest.raises(PerceiverBlind, match="from here"):
            unreachable(OSError(own, "x"))
    assert unreachable(OSError(errno.EHOSTUNREACH, "x")) == "no route to host"


async def test_addresses_of_this_host_are_known() -> None:
    assert is_local("127.0.0.1")
    assert is_local("127.9.9.9")
    assert is_local("::1")
    assert not is_local("192.0.2.1")
    assert await resolve("127.0.0.1", 80) == ["127.0.0.1"]
    assert await resolve("::1", 80) == ["::1"]


def test_addresses_are_read() -> None:
    assert parse_address("db.example.org:5432") == ("db.example.org", 5432)
    assert parse_address("[::1]:80") == ("::1", 80)
    assert host_name("db_1.internal.") == "db_1.internal."


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:", ":80", "host:0", "host:65536", "::1:80", "a..b:80", "a" * 64 + ":80", "h/x:80"],
)
def test_a_wrong_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match=r"is no (address|host name)"):
        Settings(address=address)
