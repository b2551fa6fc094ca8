"""Whose word it is, and whose socket."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.desk import TOKEN, RunningDesk
from starlette.requests import Request

from daemon.api.client import path
from daemon.api.identity import People, SocketTaken, bind


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mw") as directory:
        yield Path(directory) / "run" / "admin.sock"


def request(client: tuple[str, int] | None, *headers: tuple[str, str]) -> Request:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, "client": client})


def test_the_user_behind_the_socket_is_called_by_the_login_name() -> None:
    assert People({}).who(request((f"uid:{os.getuid()}", 0))) == getpass.getuser()
    assert People({}).who(request(("uid:3999999", 0))) == "uid 3999999"


def test_an_address_is_nobody() -> None:
    assert People({"anna": TOKEN}).who(request(("127.0.0.1", 5))) == ""
    assert People({"anna": TOKEN}).who(request(None)) == ""


def test_a_token_is_its_person_and_an_empty_one_is_nobody() -> None:
    people = People({"anna": TOKEN, "ben": ""})
    assert people.who(request(None, ("authorization", f"Bearer {TOKEN}"))) == "anna"
    assert people.who(request(None, ("authorization", f"bearer {TOKEN}"))) == "anna"
    assert people.who(request((f"uid:{os.getuid()}", 0), ("authorization", "Bearer "))) == ""


async def test_the_peer_is_taken_from_the_kernel_not_from_a_header(
    desk: RunningDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with RunningDesk(desk.store, desk.clock) as other:
        incident = await other.incident()
        reader, writer = await asyncio.open_unix_connection(str(other.path))
        lines = [
            f"POST /api/v1/incidents/{incident}/ack HTTP/1.1",
            "host: x",
            "x-forwarded-for: uid:3999999",
            "content-length: 0",
            "",
            "",
        ]
        writer.write("\r\n".join(lines).encode())
        assert b" 202 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        found = await other.by(lambda client: client.get(path("incidents", incident)))
    assert found["acked_by"] == getpass.getuser()


def test_the_socket_is_for_owner_and_group_alone(place: Path) -> None:
    mine = os.getgroups() or [os.getgid()]
    with bind(place, mine[-1]):
        found = place.stat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == mine[-1]
        assert stat.S_IMODE(place.parent.stat().st_mode) & 0o007 == 0


def test_what_a_killed_daemon_left_is_replaced(place: Path) -> None:
    bind(place).close()
    assert place.exists()
    with bind(place), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(str(place))


def test_a_live_one_is_left_alone(place: Path) -> None:
    with bind(place) as first:
        with pytest.raises(SocketTaken, match="another midwatch answers"):
            bind(place)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(place))
            first.accept()[0].close()


def test_a_busy_one_counts_as_live(place: Path) -> None:
    place.parent.mkdir()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting,
    ):
        busy.bind(str(place))
        busy.listen(0)
        waiting.connect(str(place))  # fills the queue: nobody accepts
        with pytest.raises(SocketTaken, match="another midwatch answers"):
            bind(place)


def test_what_is_no_socket_is_never_removed(place: Path) -> None:
    place.parent.mkdir()
    place.write_text("precious")
    with pytest.raises(SocketTaken, match="no socket"):
        bind(place)
    assert place.read_text() == "precious"


def test_a_path_that_is_too_long_is_said(place: Path) -> None:
    with pytest.raises(SocketTaken, match="107 bytes"):
        bind(place.parent / ("x" * 120))


def test_a_place_that_cannot_be_made_is_said(place: Path) -> None:
    place.parent.write_text("")
    with pytest.raises(SocketTaken, match="cannot be made"):
        bind(place)


async def test_stopping_takes_only_our_own_socket_away(desk: RunningDesk) -> None:
    async with RunningDesk(desk.store, desk.clock) as other:
        other.path.unlink()
        with bind(other.path):
            await other._server.stop()
            assert other.path.exists()
