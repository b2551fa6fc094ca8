"""How channels speak HTTP: one POST, no redirects, bounded in time and size, and every failure told as DeliveryError.

httpx is imported with the first message: it costs a fifth of a start, and most starts have nothing to say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from daemon.errors import ConfigError, DeliveryError
from daemon.escalate.base import Tools
from daemon.escalate.text import plain

if TYPE_CHECKING:
    import ssl

    import httpx

TIMEOUT = 10.0
"""Seconds for one message, from connecting to the end of the answer."""
LONGEST_TIMEOUT = 50.0
"""Seconds that a channel's settings may ask for; the dispatcher's own limit is just above."""
LARGEST_ANSWER = 64 * 1024
"""Bytes of an answer that are read; what comes after is not waited for."""
LONGEST_EXCERPT = 200
"""Characters of a refusing answer that are shown."""
RETRYABLE = (408, 425, 429)
"""Client errors that another try may overcome; so may everything from 500 on."""
_HEADERS = {"User-Agent": "midwatch", "Accept-Encoding": "identity", "Content-Type": "application/json"}


def secret_of(tools: Tools, source: Any) -> str:
    """A secret as it is now; read for every message, so that a rotated one is picked up.

    Raises DeliveryError (worth another try: somebody may be putting the file in place) when it cannot be read.
    """
    try:
        return tools.secret(source).strip()
    except ConfigError as exc:
        raise DeliveryError(f"its secret cannot be read: {exc}") from exc


class Web:
    """One channel's connection to its service."""

    def __init__(self, tools: Tools, timeout: float = TIMEOUT) -> None:
        """`timeout`: seconds for one message."""
        self._wall = tools.wall
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], hidden: Sequence[str] = ()
    ) -> None:
        """POST JSON; returns on 2xx. `hidden` are the secrets that may not show up in an error. Raises DeliveryError."""
        import httpx

        try:
            async with asyncio.timeout(self._timeout):
                status, answer, retry_after = await self._exchange(url, body, headers)
        except (TimeoutError, httpx.TimeoutException):
            raise DeliveryError(f"no answer within {self._timeout:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, UnicodeEncodeError):
            # Their texts may quote the URL or a header, which may be the secret.
            raise DeliveryError(
                "no request can be made of its url and secret: see the channel's settings", permanent=True
            ) from None
        except httpx.ConnectError as exc:
            raise DeliveryError(f"cannot connect: {_redacted(str(exc), hidden)}") from None
        except httpx.HTTPError as exc:
            raise DeliveryError(f"the connection broke ({type(exc).__name__})") from None
        _judge(status, _redacted(answer, hidden), self._seconds(retry_after))

    async def close(self) -> None:
        """Close the connections. The next message opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _exchange(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, str]:
        """Status, the beginning of the answer, Retry-After."""
        async with self._open().stream(
            "POST", url, content=body, headers={**_HEADERS, **headers}
        ) as response:
            answer = bytearray()
            async for chunk in response.aiter_raw(LARGEST_ANSWER):
                answer += chunk[: LARGEST_ANSWER - len(answer)]
                if len(answer) >= LARGEST_ANSWER:
                    break
            return (
                response.status_code,
                answer.decode(errors="replace"),
                response.headers.get("Retry-After", ""),
            )

    def _open(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            # They log each request with its URL and headers, which may be secrets.
            for library in ("httpx", "httpcore"):
                logging.getLogger(library).setLevel(logging.WARNING)
            self._client = httpx.AsyncClient(verify=_trust(), follow_redirects=False, timeout=self._timeout)
        return self._client

    def _seconds(self, retry_after: str) -> float | None:
        """Retry-After, a number of seconds or an HTTP date, as seconds from now; None when it is missing or neither."""
        text = retry_after.strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._wall())
        except ValueError:
            return None


@cache
def _trust() -> ssl.SSLContext:
    """The certificates to trust: read once, which takes longer than sending does."""
    import httpx

    return httpx.create_ssl_context()


def _judge(status: int, answer: str, retry_after: float | None) -> None:
    if 200 <= status < 300:
        return
    shown = plain(answer, LONGEST_EXCERPT)
    said = f" and says: {shown}" if shown else ""
    if 300 <= status < 400:
        raise DeliveryError(
            f"it answers {status}, a redirect; set the url to where it really is", permanent=True
        )
    if status == 410:
        raise DeliveryError(f"it answers 410: this address is no longer in use{said}", permanent=True)
    retryable = status >= 500 or status in RETRYABLE
    raise DeliveryError(
        f"it answers {status}{said}", permanent=not retryable, retry_after=retry_after if retryable else None
    )


def _redacted(text: str, hidden: Sequence[str]) -> str:
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(secret, "[hidden]")
    return text
