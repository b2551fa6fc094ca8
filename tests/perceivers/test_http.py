from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from fakes.perceiver_tools import real_tools
from fakes.probe_servers import answer, greeting, hang, saying, serving
from pydantic import ValidationError

from perceivers.base import Scalar, Spec
from perceivers.http import Http, Settings


async def values(url: str, **settings: object) -> dict[str, Scalar]:
    perceiver = Http(
        Spec("web", "service:web", Settings.model_validate({"url": url, **settings})), real_tools()
    )
    try:
        return dict((await perceiver.poll()).observations[0].values)
    finally:
        await perceiver.close()


async def test_an_answer_as_expected_is_ok() -> None:
    async with serving(saying(answer(body=b"all fine"))) as server:
        seen = await values(server.url, body="all (fine|well)")
    latency = seen.pop("latency")
    assert isinstance(latency, float)
    assert 0 < latency < 5
    assert seen == {
        "up": True,
        "hung": False,
        "ok": True,
        "error": "",
        "status": 200,
        "body_matched": True,
        "bytes": 8,
    }


async def test_nobody_listening_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        seen = await values(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (seen["up"], seen["hung"], seen["ok"], seen["status"], seen["latency"]) == (
        False,
        False,
        False,
        None,
        None,
    )
    assert seen["error"] == "connection refused"


async def test_an_unknown_name_is_down() -> None:
    seen = await values("http://no-such-host.invalid/", timeout=3.0)
    assert (seen["up"], seen["hung"]) == (False, False)
    assert "name" in str(seen["error"])


async def test_no_answer_is_hung() -> None:
    async with serving(hang) as server:
        began = time.monotonic()
        seen = await values(server.url, timeout=0.3)
    assert time.monotonic() - began < 5
    assert (seen["up"], seen["hung"], seen["ok"], seen["latency"], seen["status"]) == (
        True,
        True,
        False,
        None,
        None,
    )
    assert "no complete answer within" in str(seen["error"])


async def test_an_answer_that_does_not_end_is_hung() -> None:
    async with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", then=hang)) as server:
        seen = await values(server.url, timeout=0.3)
    assert (seen["up"], seen["hung"], seen["status"]) == (True, True, None)


async def test_an_answer_that_trickles_is_hung() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", then=trickle)) as server:
        seen = await values(server.url, timeout=0.3)
    assert (seen["up"], seen["hung"]) == (True, True)


async def test_a_program_that_accepts_no_more_is_hung() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        seen = await values(f"http://127.0.0.1:{listening.getsockname()[1]}/", timeout=0.3)
        for one in waiting:
            one.close()
    assert (seen["up"], seen["hung"]) == (True, True)


@pytest.mark.parametrize(
    "said", [b"garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"]
)
async def test_an_answer_that_is_no_http_is_not_ok(said: bytes) -> None:
    async with serving(saying(said)) as server:
        seen = await values(server.url)
    assert (seen["up"], seen["hung"], seen["ok"], seen["status"]) == (True, False, False, None)
    assert seen["error"] == "the answer is no HTTP, or not a whole one"


@pytest.mark.parametrize(
    ("status", "expect", "ok"),
    [
        ("204 No Content", None, True),
        ("399 Odd", None, True),
        ("404 Not Found", None, False),
        ("500 Oops", None, False),
        ("404 Not Found", [404], True),
        ("200 OK", [404, "500-599"], False),
        ("503 Busy", [404, "500-599"], True),
    ],
)
async def test_the_status_decides(status: str, expect: list[int | str] | None, ok: bool) -> None:
    async with serving(saying(answer(status, b""))) as server:
        seen = await values(server.url, **({"expect": expect} if expect else {}))
    assert (seen["up"], seen["ok"], seen["status"]) == (True, ok, int(status[:3]))
    assert ("answered" in str(seen["error"])) is not ok


async def test_a_body_that_does_not_match_is_not_ok() -> None:
    async with serving(saying(answer(body=b"\xff\xfe broken"))) as server:
        seen = await values(server.url, body="fine")
    assert (seen["ok"], seen["body_matched"], seen["error"]) == (False, False, "the body does not match")


async def test_an_endless_body_is_read_to_its_bound() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 8192)
            await writer.drain()

    async with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n", then=flood)) as server:
        seen = await values(server.url, body_limit=1000)
    assert (seen["ok"], seen["bytes"]) == (True, 1000)


async def test_what_is_asked_is_what_was_configured() -> None:
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(body=b""))
        await writer.drain()

    async with serving(talk) as server:
        assert (await values(server.url, method="HEAD", headers={"X-Probe": "yes"}))["ok"] is True
    assert asked[0].startswith(b"HEAD /health HTTP/1.1\r\n")
    assert b"\r\nX-Probe: yes\r\n" in asked[0]
    assert b"\r\nUser-Agent: midwatch\r\n" in asked[0]


async def test_a_redirection_is_followed_on_demand_only() -> None:
    async with (
        serving(saying(answer("503 Busy"))) as there,
        serving(saying(answer("302 Found", b"", f"Location: {there.url}\r\n"))) as here,
    ):
        assert (await values(here.url))["status"] == 302
        assert (await values(here.url, redirects=True))["status"] == 503


async def test_redirections_in_a_ring_are_not_ok() -> None:
    async with serving(saying(answer("302 Found", b"", "Location: /again\r\n"))) as server:
        seen = await values(server.url, redirects=True)
    assert (seen["up"], seen["ok"]) == (True, False)


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving(saying(answer())) as server:
        assert (await values(server.url))["ok"] is True


async def test_each_poll_connects_anew() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer())

    async with serving(talk) as server:
        perceiver = Http(Spec("web", "service:web", Settings(url=server.url)), real_tools())
        for _ in range(3):
            assert (await perceiver.poll()).observations[0].values["ok"] is True
        await server.stop()
        assert (await perceiver.poll()).observations[0].values["up"] is False
        await perceiver.close()
    assert connections == 3


async def test_no_tls_is_not_ok() -> None:
    async with serving(greeting(b"220 plain text\r\n")) as server:
        seen = await values(f"https://{server.address}/")
    assert (seen["up"], seen["hung"], seen["ok"]) == (True, False, False)


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run(
        [openssl, *made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_certificate_must_be_valid_unless_told_otherwise(self_signed: ssl.SSLContext) -> None:
    async with serving(saying(answer()), self_signed) as server:
        url = f"https://{server.address}/"
        seen = await values(url)
        assert (seen["up"], seen["ok"]) == (True, False)
        assert str(seen["error"]).startswith("the certificate is not valid: self")
        assert (await values(url, verify=False))["ok"] is True


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"url": "ftp://host/"}, "is no URL"),
        ({"url": "http:///path"}, "is no URL"),
        ({"url": "http://host/a b"}, "is no URL"),
        ({"url": "http://a..b/"}, "is no host name"),
        ({"url": "http://host:0/"}, "no port"),
        ({"url": "http://me:word@host/"}, "password"),
        ({"url": "http://host/", "expect": []}, "at least 1"),
        ({"url": "http://host/", "expect": [99]}, "is no status"),
        ({"url": "http://host/", "expect": ["399-200"]}, "is no status"),
        ({"url": "http://host/", "body": "("}, "no regular expression"),
        ({"url": "http://host/", "headers": {"Authorization": "x"}}, "secret"),
        ({"url": "http://host/", "headers": {"X Y": "x"}}, "no header"),
        ({"url": "http://host/", "headers": {"X": "a\r\nb"}}, "no header"),
        ({"url": "http://host/", "method": "POST"}, "GET"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Settings.model_validate(settings)
