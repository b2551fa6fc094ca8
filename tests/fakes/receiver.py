"""The other end of a channel: a real HTTP server on 127.0.0.1 that checks what it gets as the true service does.

It can be told to fail: `fail` queues faults, each of which spoils one request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol, Self


@dataclass(frozen=True)
class Request:
    """One request as it came in, and the status with which it was answered (0: not at all)."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    status: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = "out of order"
    echo: bool = False
    """Answer with the request itself: secrets included."""
    delay: float = 0.0
    hang: bool = False
    """Take the request and say nothing."""
    drop: bool = False
    """Close the connection without a word."""
    flood: bool = False
    """Answer without end."""


class Service(Protocol):
    """Knows one protocol."""

    path: str

    def answer(self, request: Request) -> Answer:
        """What the true service would answer."""
        ...


class Anything:
    """A receiver that takes whatever comes."""

    path = "/hook"

    def answer(self, request: Request) -> Answer:
        return Answer(204)


class StandardWebhooks:
    """Standard Webhooks 1.0, by the specification alone. `secret` is the whole `whsec_...`, None for unsigned ones."""

    path = "/hook"
    types = (
        "incident.opened",
        "incident.updated",
        "approval.requested",
        "incident.acknowledged",
        "incident.resolved",
        "test",
    )

    def __init__(self, secret: str | None, now: float) -> None:
        self._secret = secret
        self._now = now

    def answer(self, request: Request) -> Answer:
        headers = request.headers
        id, moment = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if (
            not re.fullmatch(r"[A-Za-z0-9_-]+", id)
            or not moment.isdigit()
            or abs(int(moment) - self._now) > 300
        ):
            return Answer(400, "bad webhook-id or webhook-timestamp")
        if self._secret is not None and not self._signed(id, moment, request):
            return Answer(401, "no matching signature")
        event = json.loads(request.body)
        if set(event) != {"type", "timestamp", "data"} or event["type"] not in self.types:
            return Answer(422, "not an event")
        if datetime.fromisoformat(event["timestamp"]).tzinfo is None or len(request.body) > 20_000:
            return Answer(422, "timestamp without zone, or too large")
        return Answer(204)

    def _signed(self, id: str, moment: str, request: Request) -> bool:
        assert self._secret is not None
        key = base64.b64decode(self._secret.removeprefix("whsec_"))
        signed = b".".join((id.encode(), moment.encode(), request.body))
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return wanted in request.headers.get("webhook-signature", "").split(" ")


class Slack:
    """Incoming webhooks of Slack."""

    path = "/services/T000/B000/"
    LIMITS: Mapping[str, int] = {"header": 150, "section": 3000}

    def __init__(self, key: str) -> None:
        self.path += key

    def answer(self, request: Request) -> Answer:
        if request.path != self.path:
            return Answer(403, "invalid_token")
        message = request.json
        if not message.get("text") or len(message.get("blocks", [])) > 50:
            return Answer(400, "no_text")
        for block in message.get("blocks", []):
            if block["type"] not in ("header", "section", "context"):
                return Answer(400, "invalid_blocks")
            for text in [block["text"]] if "text" in block else block["elements"]:
                if not 1 <= len(text["text"]) <= self.LIMITS.get(block["type"], 3000):
                    return Answer(400, "invalid_blocks")
        return Answer(200, "ok")


class PagerDuty:
    """Events API v2."""

    path = "/v2/enqueue"

    def __init__(self, key: str) -> None:
        self._key = key

    def answer(self, request: Request) -> Answer:
        event = request.json
        errors = [] if event.get("routing_key") == self._key else ["'routing_key' is invalid"]
        if not 1 <= len(event.get("dedup_key", "")) <= 255:
            errors.append("'dedup_key' is invalid")
        if event.get("event_action") == "trigger":
            errors += self._payload(event.get("payload", {}))
        elif event.get("event_action") not in ("acknowledge", "resolve"):
            errors.append("'event_action' is invalid")
        if errors:
            return Answer(400, json.dumps({"status": "invalid event", "errors": errors}))
        return Answer(202, json.dumps({"status": "success", "dedup_key": event["dedup_key"]}))

    def _payload(self, payload: Mapping[str, Any]) -> list[str]:
        good = {
            "summary": 1 <= len(payload.get("summary", "")) <= 1024,
            "source": bool(payload.get("source")),
            "severity": payload.get("severity") in ("critical", "error", "warning", "info"),
            "custom_details": isinstance(payload.get("custom_details"), dict),
        }
        return [f"'payload.{name}' is invalid" for name, fits in good.items() if not fits]


class Ntfy:
    """Publishing as JSON to ntfy's root."""

    path = "/"

    def __init__(self, topic: str, token: str | None) -> None:
        self._topic = topic
        self._token = token

    def answer(self, request: Request) -> Answer:
        if self._token is not None and request.headers.get("authorization") != f"Bearer {self._token}":
            return Answer(401, '{"code":40101,"http":401,"error":"unauthorized"}')
        message = request.json
        fits = (
            request.path == "/"
            and message.get("topic") == self._topic
            and len(message.get("message", "").encode()) < 4096
            and message.get("priority") in range(1, 6)
            and all(isinstance(tag, str) for tag in message.get("tags", []))
            and len(message.get("title", "")) <= 250
        )
        return Answer(200, '{"event":"message"}') if fits else Answer(400, '{"code":40024,"http":400}')


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that was killed, or that did not wait for the answer, is part of the game."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Receiver:
    """Listens on a free port from its making until `close`."""

    def __init__(self, service: Service | None = None) -> None:
        self.service = service or Anything()
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._faults: deque[Fault] = deque()
        self._server = _Server(_handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="receiver", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return self.root + self.service.path

    @property
    def taken(self) -> list[Request]:
        """The requests that were answered with success."""
        return [request for request in list(self.requests) if 200 <= request.status < 300]

    def ids(self) -> set[str]:
        """The `webhook-id`s that were taken."""
        return {request.headers["webhook-id"] for request in self.taken if "webhook-id" in request.headers}

    def fail(self, *faults: Fault, times: int = 1) -> None:
        """Spoil the next requests, in order."""
        self._faults.extend(faults * times)

    def next_fault(self) -> Fault | None:
        return self._faults.popleft() if self._faults else None

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        for connection in list(self._server.connections):
            _shut(connection)
        self._server.server_close()
        self._thread.join()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # gone already


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True  # the sender died in the middle
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, body)
            fault = receiver.next_fault()
            answer = receiver.service.answer(request) if fault is None else self._spoil(fault, request)
            receiver.requests.append(Request(self.path, headers, body, answer.status if answer else 0))
            if answer is None:
                self._say_nothing(fault)
            else:
                self._say(answer)

        def _spoil(self, fault: Fault, request: Request) -> Answer | None:
            receiver.closing.wait(fault.delay)
            if fault.hang or fault.drop or fault.flood:
                return None
            return Answer(
                fault.status,
                request.body.decode() + str(request.headers) if fault.echo else fault.body,
                fault.headers,
            )

        def _say(self, answer: Answer) -> None:
            data = answer.body.encode()
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def _say_nothing(self, fault: Fault | None) -> None:
            self.close_connection = True
            if fault is not None and fault.hang:
                receiver.closing.wait()
            if fault is not None and fault.flood:
                self.send_response(200)
                self.end_headers()
                while not receiver.closing.is_set():
                    self.wfile.write(b"x" * 65536)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests look at `requests`."""

    return Handler
