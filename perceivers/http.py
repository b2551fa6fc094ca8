"""An HTTP address: whether it answers, in time, and as expected."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from perceivers.base import Batch, Bytes, Kind, Observation, Scalar, Seconds, Spec, Tools
from perceivers.tcp import OWN, host_name, no_connection, patience, resolve, unreachable

if TYPE_CHECKING:
    # Imported when the first poll needs it: it is the slowest import of all.
    import httpx

SECRET_HEADERS = frozenset(("authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"))
"""Headers that would put a secret into the configuration."""
_RANGE = re.compile(r"([1-5][0-9]{2})-([1-5][0-9]{2})")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


def _statuses(expect: list[int | str]) -> frozenset[int]:
    """`[200, "300-399"]` → every status meant. Raises ValueError."""
    found: set[int] = set()
    for item in expect:
        match = _RANGE.fullmatch(f"{item}-{item}" if isinstance(item, int) else item)
        if match is None or match[1] > match[2]:
            raise ValueError(f'{item!r} is no status: write 200 or "200-399"')
        found |= set(range(int(match[1]), int(match[2]) + 1))
    return frozenset(found)


class Settings(BaseModel):
    """What the operator may say about `http`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    url: str
    method: Literal["GET", "HEAD", "OPTIONS"] = "GET"
    """Only methods that change nothing."""
    expect: list[int | str] = Field(default=["200-399"], min_length=1)
    """Statuses, and ranges of them, that are as expected."""
    body: str = Field(default="", json_schema_extra={"format": "regex"})
    """A regular expression that must match somewhere in the body; empty: any body."""
    body_limit: Bytes = Field(default=64 * 1024, gt=0, le=2**20)
    """Bytes of the body that are read."""
    timeout: Seconds = Field(default=5.0, gt=0)
    """Hung after."""
    verify: bool = True
    """Whether the certificate must be valid."""
    redirects: bool = False
    """Whether redirections are followed; if not, their own status counts."""
    headers: dict[str, str] = {}
    """Sent with the request; no secrets."""

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch(r"[!-~]+", url):
            raise ValueError(f"{url!r} is no URL: write http://HOST[:PORT]/PATH or https://...")
        if parts.username or parts.password:
            raise ValueError("a URL with a password is not accepted: probe an address that needs none")
        host_name(parts.hostname)
        if parts.port == 0:
            raise ValueError(f"{url!r} has no port that can be asked: 1 to 65535")
        return url

    @field_validator("expect")
    @classmethod
    def _expect(cls, expect: list[int | str]) -> list[int | str]:
        _statuses(expect)
        return expect

    @field_validator("body")
    @classmethod
    def _body(cls, body: str) -> str:
        try:
            re.compile(body)
        except re.error as exc:
            raise ValueError(f"{body!r} is no regular expression: {exc}") from None
        return body

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name) or not re.fullmatch(r"[ -~]*", value):
                raise ValueError(f"{name!r} is no header: a name and printable ASCII are accepted")
            if name.lower() in SECRET_HEADERS:
                raise ValueError(f"{name!r} would be a secret in the file: probe an address that needs none")
        return headers


@lru_cache(maxsize=1)
def _no_tls() -> ssl.SSLContext:
    """For addresses without TLS: httpx would make a context for each client, and read the certificates for each."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@lru_cache(maxsize=2)
def _tls(verify: bool) -> ssl.SSLContext:
    """The system's own certificates, read once for all perceivers."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(slots=True)
class _Attempt:
    """How far a request came."""

    addresses: list[str]
    connected: bool = False

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """httpcore's own account of its steps."""
        self.connected = self.connected or name == "connection.connect_tcp.complete"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


class Http:
    """Perceives one URL. The connection is a new one each time: a kept one would not notice that nobody listens any more."""

    kind = "http"

    def __init__(self, spec: Spec, tools: Tools) -> None:
        assert isinstance(spec.settings, Settings)
        self.name, self.resource = spec.name, spec.resource
        self._settings = spec.settings
        self._tools = tools
        self._statuses = _statuses(spec.settings.expect)
        self._body = re.compile(spec.settings.body) if spec.settings.body else None
        self._patience = patience(spec.settings.timeout)
        parts = urlsplit(spec.settings.url)
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._client: httpx.AsyncClient | None = None

    async def poll(self) -> Batch:
        values = await self._read()
        return Batch([Observation(self.name, self.resource, self._tools.wall(), values)])

    def restore(self, cursor: Mapping[str, Any]) -> None:
        """Nothing is kept."""

    def wake_on(self, wake: Callable[[], None]) -> None:
        """No source."""

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _read(self) -> dict[str, Scalar]:
        import httpx

        began = self._tools.monotonic()
        attempt = _Attempt([])
        try:
            async with asyncio.timeout(self._patience):
                attempt.addresses += await resolve(self._host, self._port)
                answer = await self._ask(attempt)
        except TimeoutError:
            return self._silent(attempt)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            if attempt.connected:
                return self._values(up=True, error=_broken(exc))
            return self._values(up=False, error=unreachable(_cause(exc)))
        return self._answered(answer, self._tools.monotonic() - began)

    async def _ask(self, attempt: _Attempt) -> _Answer:
        body = b""
        settings = self._settings
        async with self._open().stream(
            settings.method, settings.url, extensions={"trace": attempt.trace}
        ) as response:
            async for chunk in response.aiter_raw(chunk_size=None):
                body += chunk
                if len(body) >= settings.body_limit:
                    break
            return _Answer(response.status_code, body[: settings.body_limit])

    def _open(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            secure = self._settings.url.startswith("https:") or self._settings.redirects
            self._client = httpx.AsyncClient(
                verify=_tls(self._settings.verify) if secure else _no_tls(),
                # No proxy and no netrc: what is asked is this address and nothing between.
                trust_env=False,
                timeout=None,  # noqa: S113 - the whole attempt has one
                follow_redirects=self._settings.redirects,
                max_redirects=5,
                limits=httpx.Limits(max_keepalive_connections=0),
                headers={"User-Agent": "midwatch", "Accept-Encoding": "identity", **self._settings.headers},
            )
        return self._client

    def _silent(self, attempt: _Attempt) -> dict[str, Scalar]:
        if attempt.connected:
            return self._values(up=True, hung=True, error=f"no complete answer within {self._patience:.2g}s")
        reading = no_connection(attempt.addresses, self._patience)
        return self._values(up=reading.up, hung=reading.hung, error=reading.error)

    def _answered(self, answer: _Answer, latency: float) -> dict[str, Scalar]:
        matched = None
        error = ""
        if self._body is not None:
            matched = self._body.search(answer.body.decode(errors="replace")) is not None
            error = "" if matched else "the body does not match"
        if answer.status not in self._statuses:
            error = f"answered {answer.status}, expected {', '.join(map(str, self._settings.expect))}"
        values = self._values(up=True, error=error)
        return {
            **values,
            "status": answer.status,
            "latency": latency,
            "body_matched": matched,
            "bytes": len(answer.body),
        }

    def _values(self, *, up: bool, hung: bool = False, error: str = "") -> dict[str, Scalar]:
        """The readings when there is no answer to read more from."""
        return {
            "up": up,
            "hung": hung,
            "ok": up and not hung and not error,
            "error": error,
            "status": None,
            "latency": None,
            "body_matched": None,
            "bytes": None,
        }


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it; httpx and anyio wrap several times over."""
    while exc is not None:
        yield exc
        if isinstance(exc, BaseExceptionGroup):
            for member in exc.exceptions:
                yield from _causes(member)
        exc = exc.__cause__ or exc.__context__


def _cause(exc: BaseException) -> OSError:
    """The operating system's error behind a failed connection; of several the one that tells of the other side."""
    found = [cause for cause in _causes(exc) if isinstance(cause, OSError) and cause.errno]
    foreign = [cause for cause in found if cause.errno not in OWN]
    return next(iter(foreign or found), OSError("no connection"))


def _broken(exc: BaseException) -> str:
    """What went wrong on a connection that was taken; never in the words of the other side."""
    import httpx

    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "no TLS connection"
    if isinstance(exc, httpx.RemoteProtocolError):
        return "the answer is no HTTP, or not a whole one"
    return "the connection broke"


KIND = Kind(
    name="http",
    settings=Settings,
    build=Http,
    values={
        "up": "false when the connection is refused, the host unreachable or the name unknown",
        "hung": "whether no complete answer came within the timeout, though somebody is there",
        "ok": "whether a complete answer came with an expected status and a body that matches",
        "status": "the HTTP status",
        "latency": "seconds until the answer was read",
        "body_matched": "whether `body` matches; without a `body` nothing",
        "bytes": "bytes of the body that were read, at most `body_limit`",
        "error": "what is wrong, in words; empty when nothing is",
    },
)
