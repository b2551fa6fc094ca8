"""Talks to the daemon over its unix socket, with the standard library alone: `midwatch status` must cost next to nothing."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from daemon.errors import MidwatchError, NotRunning

TIMEOUT = 15.0
"""Seconds in which the daemon must answer: a reload runs every policy test first."""


def path(*parts: str) -> str:
    """The path of a thing: ids and names are data, whatever they hold."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


class Problem(MidwatchError):
    """The daemon's answer that it will not, with the HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(detail)


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One daemon. Raises NotRunning when nobody answers, Problem when the answer is no, MidwatchError when it cannot be asked."""

    def __init__(self, path: Path, token: str = "") -> None:
        """`token` is a person's; without one the daemon knows us by our login name."""
        self.path = path
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._ask("POST", path, json.dumps(body or {}))

    def _ask(self, method: str, path: str, body: str | None) -> Any:
        connection = _Connection(self.path)
        try:
            connection.request(method, f"/api/v1{path}", body, self._headers)
            response = connection.getresponse()
            return _answer(response.status, response.read())
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(
                f"midwatch is not running (no answer on {self.path}); start it with {_start()}"
            ) from None
        except PermissionError:
            raise MidwatchError(
                f"you may not use {self.path}; join its group (`ls -l {self.path}`), or ask as root"
            ) from None
        except TimeoutError:
            raise MidwatchError(
                f"midwatch does not answer on {self.path} within {TIMEOUT:g}s; see its log"
            ) from None
        except (OSError, HTTPException) as exc:
            raise MidwatchError(
                f"{self.path} cannot be talked to: {exc}; name another one with --socket"
            ) from exc
        finally:
            connection.close()


def _start() -> str:
    return (
        "`systemctl start midwatch`"
        if os.path.isdir("/run/systemd/system")
        else "`midwatch run --config FILE`"
    )


def _answer(status: int, raw: bytes) -> Any:
    try:
        body = json.loads(raw)
    except ValueError:
        body = {"detail": raw.decode(errors="replace")[:500]}
    if status >= 400:
        raise Problem(status, str(body.get("detail", body)) if isinstance(body, dict) else str(body))
    return body
