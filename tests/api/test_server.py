"""The wire: bounds, problem details, methods, and what a hostile or broken client meets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fakes.desk import TOKEN, RunningDesk

from daemon.api.client import Problem


async def exchange(desk: RunningDesk, request: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes as they are; (status, headers, body) of the answer."""
    reader, writer = await asyncio.open_unix_connection(str(desk.path))
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    writer.close()
    await writer.wait_closed()
    return int(head[0].split()[1]), headers, json.loads(raw) if raw else None


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST /api/v1{path} HTTP/1.1",
        "host: localhost",
        f"content-length: {len(body)}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: localhost", *headers, "", ""]).encode()


async def test_health_needs_nobody(desk: RunningDesk) -> None:
    assert (await exchange(desk, get("/healthz", "authorization: Bearer wrong")))[::2] == (200, {"ok": True})


async def test_errors_are_problem_details(desk: RunningDesk) -> None:
    status, headers, body = await exchange(desk, get("/api/v1/incidents/i-1"))
    assert status == 404
    assert headers["content-type"] == "application/problem+json"
    assert body == {
        "type": "about:blank",
        "title": "Not found",
        "status": 404,
        "detail": "there is no incident 'i-1'; see `midwatch incidents`",
    }


@pytest.mark.parametrize("path", ["/pause", "/incidents/i-1/ack", "/reload"])
async def test_reading_has_no_effect_anywhere(desk: RunningDesk, path: str) -> None:
    status, headers, body = await exchange(desk, get(f"/api/v1{path}"))
    assert status == 405
    assert headers["allow"] == "POST"
    assert body["status"] == 405
    assert await desk.by(lambda client: client.get("/holds")) == []


async def test_an_oversize_body_is_refused_unread(desk: RunningDesk) -> None:
    body = json.dumps({"reason": "x" * 70_000}).encode()
    status, _, problem = await exchange(desk, post("/pause", body))
    assert status == 413
    assert "65536 bytes" in problem["detail"]
    assert await desk.by(lambda client: client.get("/holds")) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON"),
        (b"[1]", "a JSON object"),
        (b"[" * 60_000, "no JSON"),
        (b'{"reason": 7}', "`reason` must be text"),
        (json.dumps({"reason": "x" * 2001}).encode(), "at most 2000"),
        (b"\xff\xfe{}", "no JSON"),
    ],
)
async def test_a_body_that_cannot_be_read_changes_nothing(desk: RunningDesk, body: bytes, said: str) -> None:
    status, _, problem = await exchange(desk, post("/pause", body))
    assert status == 400
    assert said in problem["detail"]
    assert await desk.by(lambda client: client.get("/holds")) == []


async def test_a_body_that_never_comes_is_given_up(desk: RunningDesk) -> None:
    async with RunningDesk(desk.store, desk.clock, slowest_body=0.05) as impatient:
        awaited = post("/pause", b"").replace(b"content-length: 0", b"content-length: 9")
        status, _, problem = await exchange(impatient, awaited)
    assert status == 408
    assert "did not come" in problem["detail"]


async def test_a_client_that_leaves_half_way_harms_nobody(desk: RunningDesk) -> None:
    _, writer = await asyncio.open_unix_connection(str(desk.path))
    writer.write(post("/pause", b"").replace(b"content-length: 0", b"content-length: 9") + b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await exchange(desk, get("/healthz")))[0] == 200


async def test_a_duration_needs_its_unit(desk: RunningDesk) -> None:
    status, _, problem = await exchange(desk, post("/holds/x", b'{"for": "10"}'))
    assert status == 400
    assert "duration" in problem["detail"]


async def test_a_hold_has_a_plain_name(desk: RunningDesk) -> None:
    status, _, problem = await exchange(desk, post("/holds/Backup%20now", b""))
    assert status == 400
    assert "small letters" in problem["detail"]


async def test_a_reload_that_fails_keeps_the_old_one(desk: RunningDesk) -> None:
    assert (await desk.by(lambda client: client.post("/reload")))["perceivers"] == 3
    desk.myself.broken = True
    with pytest.raises(Problem) as caught:
        await desk.by(lambda client: client.post("/reload"))
    assert caught.value.status == 422
    assert "config.toml:7: unknown key" in str(caught.value)


async def test_a_wrong_token_is_nobody_even_over_the_socket(desk: RunningDesk) -> None:
    for authorization in ("Bearer wrong", "Bearer ", "Basic YTpi", "Bearer \xe9"):
        for request in (
            get("/api/v1/status", f"authorization: {authorization}"),
            post("/pause", b"", f"authorization: {authorization}"),
        ):
            status, _, problem = await exchange(desk, request)
            assert status == 401
            assert "token" in problem["detail"]
    assert await desk.by(lambda client: client.get("/holds"), TOKEN) == []


async def test_unknown_paths_are_said(desk: RunningDesk) -> None:
    status, _, problem = await exchange(desk, get("/api/v1/nothing"))
    assert (status, problem["detail"]) == (404, "GET /api/v1/nothing")


async def test_a_fault_of_ours_is_a_problem_too(desk: RunningDesk) -> None:
    desk.myself.told = {"uptime": float("nan")}  # what JSON cannot hold
    status, headers, problem = await exchange(desk, get("/api/v1/status"))
    assert status == 500
    assert headers["content-type"] == "application/problem+json"
    assert problem["detail"].startswith("ValueError")


async def test_a_full_journal_is_no_fault_of_the_asker(desk: RunningDesk) -> None:
    await desk.store.write(
        lambda tx: tx.conn.exec_driver_sql("PRAGMA max_page_count=1").close()
    )  # no page more
    answers = [
        await exchange(desk, post("/pause", json.dumps({"reason": "x" * 2000}).encode())) for _ in range(20)
    ]
    status, _, problem = answers[-1]
    assert status == 503
    assert "journal" in problem["title"]
