"""HTTP requests that the admin declares: `[calls.NAME]`, for `http.call`. No other address can be reached, and none by redirection."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from actuators.base import Action, Check, Outcome, Probe, Result, Tools
from actuators.shared import Once, carried_through, covered, only, outdated, printable, verb_of

if TYPE_CHECKING:
    # Imported when a call is declared: most hosts have none, and it is the slowest import of all.
    import httpx

EXCERPT = 1024
"""Bytes of an answer that are read and kept."""
EXCERPT_WITHIN = 1.0
"""Seconds for them."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One declared request, with the names of its settings."""

    url: str
    target: Sequence[str]
    method: str = "POST"
    headers: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    body: str = ""
    expect: Sequence[int] = (200, 201, 202, 204)
    timeout: float = 10.0
    describe: str = ""


class HttpActuator:
    """See actuators.base.Actuator."""

    kind = "http"

    def __init__(self, tools: Tools) -> None:
        self._calls = {name: _call(name, keys) for name, keys in tools.settings.get("calls", {}).items()}
        self._secret = tools.secret
        self._once = Once()
        self.verbs: Mapping[str, str] = {"call": "sends one of the HTTP requests of the configuration"}
        self.irreversible: frozenset[str] = frozenset()
        self.undoable: frozenset[str] = frozenset()

    async def resolve(self, action: Action) -> Action:
        verb_of(action, self.kind, self.verbs)
        only(action, ("name",))
        fit = sorted(name for name, call in self._calls.items() if covered(action.target, call.target))
        name = action.params.get("name", fit[0] if len(fit) == 1 else None)
        if name not in fit:
            raise ValueError(
                f"name must be one of the calls for this target: {', '.join(fit) or 'there are none'}"
            )
        return replace(action, params={"name": name})

    async def check(self, action: Action) -> Check:
        if changed := await outdated(self, action):
            return Check(False, changed)
        call = self._of(action)
        try:
            self._headers(call, "")
        except (OSError, ValueError) as exc:
            return Check(False, f"a header's secret cannot be read: {exc}")
        state = {
            "method": call.method,
            "url": call.url,
            "body": hashlib.sha256(call.body.encode()).hexdigest(),
        }
        return Check(True, f"would send {call.method} {call.url}", state)

    async def apply(self, action: Action, check: Check) -> Outcome:
        if refusal := self._once.refusal(action.key):
            return Outcome(Result.REFUSED, refusal)
        return await carried_through(self._apply(action))

    async def _apply(self, action: Action) -> Outcome:
        import httpx

        call = self._of(action)
        exchange = _Exchange()
        try:
            return await exchange.ask(call, self._headers(call, action.key))
        except (OSError, ValueError, httpx.HTTPError) as exc:  # a TimeoutError is an OSError
            return exchange.broken(call, exc)

    def _headers(self, call: _Call, key: str) -> dict[str, str]:
        """Raises OSError or ValueError when a secret cannot be read."""
        given = {
            name.lower(): value if isinstance(value, str) else self._secret(value)
            for name, value in call.headers.items()
        }
        return {**given, "accept-encoding": "identity", "idempotency-key": key}

    async def verify(self, action: Action, check: Check, outcome: Outcome) -> bool:
        return outcome.result is Result.SUCCEEDED

    async def undo(self, action: Action, check: Check, outcome: Outcome) -> Outcome:
        return Outcome(Result.REFUSED, "a request cannot be taken back")

    async def probe(self, action: Action, check: Check) -> Probe:
        return "cannot-tell"

    async def close(self) -> None:
        return None

    def _of(self, action: Action) -> _Call:
        verb_of(action, self.kind, self.verbs)
        return self._calls[action.params["name"]]


class _Exchange:
    """One request and its answer. It knows whether the request had left when something broke."""

    def __init__(self) -> None:
        self._left = False

    async def ask(self, call: _Call, headers: Mapping[str, str]) -> Outcome:
        import httpx

        # A client of its own: a kept connection that the other side closes meanwhile would make every outcome doubtful. Nothing of the
        # daemon's environment (proxies, netrc) is used.
        async with httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=call.timeout) as client:
            request = client.build_request(
                call.method,
                call.url,
                headers=headers,
                content=call.body.encode(),
                extensions={"trace": self._trace},
            )
            async with asyncio.timeout(call.timeout):
                answer = await client.send(request, stream=True)
            try:
                detail = {"status": answer.status_code, "body": await _excerpt(answer)}
            finally:
                await answer.aclose()
        if answer.status_code in call.expect:
            return Outcome(Result.SUCCEEDED, "", detail)
        return Outcome(Result.FAILED, f"{call.url} answered {answer.status_code}", detail)

    async def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        self._left = self._left or name.endswith("send_request_headers.started")

    def broken(self, call: _Call, exc: Exception) -> Outcome:
        import httpx

        reason = f"{call.url}: {exc or type(exc).__name__}"
        if self._left:
            return Outcome(
                Result.UNKNOWN,
                f"{reason}; the request had been sent, nobody can tell whether it had its effect",
            )
        late = isinstance(exc, TimeoutError | httpx.TimeoutException)
        return Outcome(Result.TIMED_OUT if late else Result.FAILED, f"{reason}; the request was not sent")


async def _excerpt(answer: httpx.Response) -> str:
    """The beginning of the answer; the status is what counts, so one that breaks off is no failure."""
    import httpx

    body = b""
    try:
        async with asyncio.timeout(EXCERPT_WITHIN):
            async for part in answer.aiter_raw(EXCERPT):
                body += part
                if len(body) >= EXCERPT:
                    break
    except (httpx.HTTPError, TimeoutError):
        pass
    return printable(body[:EXCERPT].decode("utf-8", "replace"))


def _call(name: str, keys: Mapping[str, Any]) -> _Call:
    """Raises ValueError that names the key which is wrong."""
    import httpx

    call = _Call(**keys)
    try:
        url = httpx.URL(call.url)
    except httpx.InvalidURL as exc:
        raise ValueError(f"calls.{name}.url: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"calls.{name}.url: must begin with http:// or https:// and name a host")
    return call


def build(tools: Tools) -> HttpActuator:
    """Raises ValueError for a declaration that can never work."""
    return HttpActuator(tools)
