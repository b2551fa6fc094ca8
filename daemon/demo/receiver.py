"""The other end of the demo's webhook: a real HTTP server that checks each signature, as a receiver should."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True, slots=True)
class Told:
    """One message that arrived, each webhook-id once."""

    id: str
    type: str
    data: Mapping[str, Any]


class Receiver:
    """Listens on a free port of 127.0.0.1 until `close`."""

    def __init__(self, secret: str) -> None:
        self.told: dict[str, Told] = {}
        self.forged = 0
        webhook = Webhook(secret)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.take(webhook, body, dict(self.headers.items())))
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """The demo prints its own timeline."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def take(self, webhook: Webhook, body: bytes, headers: dict[str, str]) -> int:
        """Gives the HTTP status to answer with."""
        lowered = {name.lower(): value for name, value in headers.items()}
        try:
            webhook.verify(body, lowered)
        except WebhookVerificationError:
            self.forged += 1
            return 401
        message = json.loads(body)
        self.told.setdefault(
            lowered["webhook-id"], Told(lowered["webhook-id"], message["type"], message["data"])
        )
        return 204

    def about(self, incident: str) -> list[Told]:
        """What was told of an incident, in order of arrival."""
        return [told for told in list(self.told.values()) if told.data.get("incident") == incident]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
