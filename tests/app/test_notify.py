"""sd_notify(3) over a real datagram socket."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from daemon.app import notify


@pytest.fixture
def supervisor() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def test_lines_arrive_as_one_datagram(
    tmp_path: Path, supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.notify("READY=1", "STATUS=well")
        assert supervisor.recv(100) == b"READY=1\nSTATUS=well"


def test_an_abstract_socket_is_reached(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    with supervisor:
        supervisor.bind("")  # the kernel picks an abstract name
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + supervisor.getsockname()[1:].decode())
        notify.notify("STOPPING=1")
        assert supervisor.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_nobody_who_listens_is_no_trouble(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify.notify("READY=1")


def test_a_supervisor_that_does_not_read_costs_a_moment_only(
    tmp_path: Path, supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others:
            others.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    others.sendto(b"x", str(tmp_path / "notify"))
        began = time.monotonic()
        notify.notify("READY=1")
        assert time.monotonic() - began < notify.PATIENCE + 2
