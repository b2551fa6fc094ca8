"""The HTTP API over a unix socket. JSON; errors as RFC 9457 problem details; writes answer 202, for only the loop acts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import socket
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from daemon.api.desk import Desk, NotFound, Refused
from daemon.api.identity import PeerProtocol, People, bind
from daemon.errors import ConfigError, MidwatchError, PolicyError, StoreError
from daemon.model.units import seconds

log = logging.getLogger(__name__)
LARGEST_BODY = 64 * 1024
"""Bytes of a request body that are read; more is refused."""
SLOWEST_BODY = 10.0
"""Seconds within which a request body must have come."""
LONGEST_TEXT = 2000
"""Characters of a text that a person gives, such as a reason."""
MOST_CONNECTIONS = 64
"""Connections at once; more are told to come back (503)."""

Body = dict[str, Any]
Read = Callable[[Request], Awaitable[Any]]
Write = Callable[[Request, Body, str], Awaitable[Any]]


class _BadRequest(MidwatchError):
    """The request cannot be read; `status` is what HTTP calls it."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(detail)


def problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An RFC 9457 answer."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


class Api:
    """The routes. Each is a thin reading of the request; the desk does the work."""

    def __init__(self, desk: Desk, people: People, slowest_body: float = SLOWEST_BODY) -> None:
        self._desk = desk
        self._people = people
        self._slowest_body = slowest_body

    def app(self) -> Starlette:
        routes = [Route("/healthz", _alive), *self._reads(), *self._writes()]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _fault})

    def _reads(self) -> list[Route]:
        desk, get = self._desk, self._get
        return [
            get("/status", lambda r: desk.status()),
            get("/incidents", lambda r: desk.incidents(r.query_params.get("all") == "1")),
            get("/incidents/{id}", lambda r: desk.incident(r.path_params["id"])),
            get("/explain/{id}", lambda r: desk.explain(r.path_params["id"])),
            get("/approvals", lambda r: desk.approvals()),
            get("/approvals/{id}", lambda r: desk.approval(r.path_params["id"])),
            get("/holds", lambda r: desk.holds()),
            get("/messages/{id}", lambda r: desk.delivery(r.path_params["id"])),
        ]

    def _writes(self) -> list[Route]:
        desk, post = self._desk, self._post
        return [
            post("/incidents/{id}/ack", lambda r, b, who: desk.acknowledge(r.path_params["id"], who)),
            post(
                "/incidents/{id}/resolve",
                lambda r, b, who: desk.resolve(r.path_params["id"], who, _text(b, "reason")),
            ),
            post(
                "/approvals/{id}/approve",
                lambda r, b, who: desk.vote(r.path_params["id"], who, True, _text(b, "reason")),
            ),
            post(
                "/approvals/{id}/reject",
                lambda r, b, who: desk.vote(r.path_params["id"], who, False, _text(b, "reason")),
            ),
            post(
                "/holds/{name}",
                lambda r, b, who: desk.hold(r.path_params["name"], who, _text(b, "reason"), _lasts(b)),
            ),
            post("/holds/{name}/release", lambda r, b, who: desk.release(r.path_params["name"], who)),
            post("/pause", lambda r, b, who: desk.pause(who, _text(b, "reason"))),
            post("/resume", lambda r, b, who: desk.resume(who)),
            post("/reload", lambda r, b, who: desk.reload()),
            post("/perceivers/{name}/poll", lambda r, b, who: desk.perceive(r.path_params["name"])),
            post("/channels/{name}/test", lambda r, b, who: desk.notify_test(r.path_params["name"], who)),
        ]

    def _get(self, path: str, answer: Read) -> Route:
        async def get(request: Request) -> Response:
            return await self._known(request, lambda who: answer(request), 200)

        return Route(f"/api/v1{path}", get, methods=["GET"])

    def _post(self, path: str, answer: Write) -> Route:
        async def post(request: Request) -> Response:
            async def work(who: str) -> Any:
                return await answer(request, await _body(request, self._slowest_body), who)

            return await self._known(request, work, 202)

        return Route(f"/api/v1{path}", post, methods=["POST"])

    async def _known(self, request: Request, work: Callable[[str], Awaitable[Any]], status: int) -> Response:
        """Answer somebody whom we know; reads tell about the host, so they are not for everybody either."""
        who = self._people.who(request)
        if not who:
            return problem(
                401, "Unknown person", "send a person's token, or ask over the unix socket without one"
            )
        try:
            return JSONResponse(await work(who), status)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except MidwatchError as exc:
            return _complaint(exc)


async def _alive(request: Request) -> Response:
    return JSONResponse({"ok": True})


def _complaint(exc: MidwatchError) -> Response:
    """What went wrong, as HTTP says it."""
    match exc:
        case _BadRequest():
            return problem(exc.status, "Bad request", str(exc))
        case NotFound():
            return problem(404, "Not found", str(exc))
        case Refused():
            return problem(409, "Refused", str(exc))
        case ConfigError() | PolicyError():
            return problem(422, "The old one stays in force", str(exc))
        case StoreError():
            return problem(503, "The journal cannot be used", str(exc))
        case _:
            return problem(400, "Cannot be done", str(exc))


async def _body(request: Request, within: float) -> Body:
    try:
        async with asyncio.timeout(within):
            raw = await _bounded(request)
    except TimeoutError:
        raise _BadRequest(408, f"the body did not come within {within:g}s") from None
    try:
        body = json.loads(raw) if raw else {}
    except (ValueError, RecursionError) as exc:
        raise _BadRequest(400, f"the body is no JSON: {exc}") from None
    if not isinstance(body, dict):
        raise _BadRequest(400, "the body must be a JSON object")
    return body


async def _bounded(request: Request) -> bytes:
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > LARGEST_BODY:
            raise _BadRequest(413, f"a body has at most {LARGEST_BODY} bytes")
    return raw


def _text(body: Body, name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise _BadRequest(400, f"`{name}` must be text of at most {LONGEST_TEXT} characters")
    return value


def _lasts(body: Body) -> float | None:
    value = _text(body, "for")
    try:
        return seconds(value) if value else None
    except ValueError as exc:
        raise _BadRequest(400, str(exc)) from None


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return problem(
        exc.status_code, exc.detail, f"{request.method} {request.url.path}", dict(exc.headers or {})
    )


async def _fault(request: Request, exc: Exception) -> Response:
    """A fault of ours; Starlette raises it again after this answer, so that it is logged with its traceback."""
    return problem(500, "Internal error", f"{type(exc).__name__}; the daemon's log has the rest")


class _Uvicorn(uvicorn.Server):
    """uvicorn inside somebody else's loop: it says when it is up, and leaves the signals to the daemon."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Hosted(Protocol):
    """What the server serves: `Api`, or something that hands over to the `Api` in force."""

    def app(self) -> Any:
        """The ASGI application."""
        ...


class Server:
    """Serves the API on a unix socket inside the daemon's own loop."""

    def __init__(self, hosted: Hosted, path: str | Path, group: int | None = None) -> None:
        """Binds the socket (and listens: early callers wait). Raises SocketTaken. `group` is a group id."""
        self._path = Path(path)
        self._socket = bind(self._path, group)
        self._inode = self._path.stat().st_ino
        config = uvicorn.Config(
            hosted.app(),
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            # Not from any header, whatever the environment says: a forged X-Forwarded-For would be another person.
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once requests are answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="api")
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait([up, self._task], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Let the requests under way end, close, and take our socket file away (not a successor's)."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                os.unlink(self._path)
