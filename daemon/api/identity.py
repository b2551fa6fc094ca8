"""Who is asking: the user behind the unix socket, or the person behind a token. And the socket itself."""

from __future__ import annotations

import hashlib
import hmac
import os
import pwd
import socket
import stat
import struct
from asyncio import BaseTransport
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from daemon.errors import MidwatchError

PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
BACKLOG = 64
"""Connections that may wait to be accepted."""
LONGEST_PATH = 107
"""Bytes of a socket's path: what the kernel keeps of it, less the end mark."""


class SocketTaken(MidwatchError):
    """The API's socket cannot be bound."""


class PeerProtocol(H11Protocol):
    """HTTP that knows the user at the other end of a unix socket; uvicorn itself does not ask for it."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            _, uid, _ = PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
            self.client = (f"uid:{uid}", 0)


@dataclass(frozen=True, slots=True)
class People:
    """The configured people: name → token. A user of this machine is called by the login name."""

    tokens: Mapping[str, str]

    def who(self, request: Request) -> str:
        """The person's name; empty when nobody can be told. A token that is given must fit, also over the socket."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            return self._by_token(token) if scheme.lower() == "bearer" else ""
        peer = request.client.host if request.client else ""
        return _login(int(peer[4:])) if peer.startswith("uid:") else ""

    def _by_token(self, token: str) -> str:
        given = hashlib.sha256(token.encode()).digest()
        for name, kept in self.tokens.items():
            if kept and hmac.compare_digest(hashlib.sha256(kept.encode()).digest(), given):
                return name
        return ""


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def bind(path: Path, group: int | None = None) -> socket.socket:
    """A listening socket at `path`, mode 0660 and of `group`: a server left to itself makes it open to every local user.

    A socket file that nobody answers on is replaced. Raises SocketTaken when a live daemon answers there or the path is no good.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise SocketTaken(
            f"{path} is longer than the {LONGEST_PATH} bytes a socket's path may have; set `socket` in [daemon]"
        )
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        _clear(path)
        _bind(bound, path, group)
    except OSError as exc:
        bound.close()
        raise SocketTaken(
            f"the socket {path} cannot be made: {exc.strerror}; set `socket` in [daemon]"
        ) from exc
    except SocketTaken:
        bound.close()
        raise
    return bound


def _bind(bound: socket.socket, path: Path, group: int | None) -> None:
    before = os.umask(0o117)
    try:
        bound.bind(str(path))
    finally:
        os.umask(before)
    if group is not None:
        os.chown(path, -1, group)
    # Listening from the start: whoever probes the path between here and the first accept must find a live daemon.
    bound.listen(BACKLOG)


def _clear(path: Path) -> None:
    """Take away what a daemon that was killed left behind, and nothing else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketTaken(f"{path} is in the way and is no socket; move it away, or set `socket` in [daemon]")
    if _answers(path):
        raise SocketTaken(
            f"another midwatch answers on {path}; stop it first, or give this one a `socket` of its own in [daemon]"
        )
    path.unlink()


def _answers(path: Path) -> bool:
    """Whether somebody listens. Only a refused connection proves that nobody does: a daemon may be too busy to answer in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True
