"""Declared requests: sent once, to that address only, and told truthfully when nobody can know what became of them."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.actuator_tools import tools
from fakes.receiver import Fault, Receiver

from actuators.base import Action, Check, Outcome, Result
from actuators.http import EXCERPT, HttpActuator, build


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


def made_up() -> str:
    """Nothing that looks like a secret stands in a test."""
    return hashlib.sha256(b"made up").hexdigest()[:20]


def one(home: Path, url: str, **more: Any) -> HttpActuator:
    return build(tools(home, calls={"drain": {"url": url, "target": ["service:api"], **more}}))


def act(target: str = "service:api", key: str = "k1", **params: Any) -> Action:
    return Action("http.call", target, params, key)


async def applied(actuator: HttpActuator, action: Action) -> Outcome:
    resolved = await actuator.resolve(action)
    return await actuator.apply(resolved, await actuator.check(resolved))


async def test_the_only_call_for_a_target_need_not_be_named(tmp_path: Path) -> None:
    actuator = one(tmp_path, "http://127.0.0.1:1/")
    resolved = await actuator.resolve(act())
    assert resolved.params == {"name": "drain"}
    assert await actuator.resolve(resolved) == resolved


async def test_one_of_several_must_be_named(tmp_path: Path) -> None:
    calls = {name: {"url": "http://127.0.0.1:1/", "target": ["service:*"]} for name in ("drain", "flush")}
    actuator = build(tools(tmp_path, calls=calls))
    with pytest.raises(ValueError, match="one of the calls for this target: drain, flush"):
        await actuator.resolve(act())
    assert (await actuator.resolve(act(name="flush"))).params == {"name": "flush"}


@pytest.mark.parametrize(
    "params", [{"name": "other"}, {"name": None}, {"name": ["drain"]}, {"url": "http://evil/"}]
)
async def test_other_parameters_are_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"drain|accepted: name"):
        await one(tmp_path, "http://127.0.0.1:1/").resolve(act(**params))


async def test_a_target_without_a_call_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are none"):
        await one(tmp_path, "http://127.0.0.1:1/").resolve(act("service:db", name="drain"))


@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "/relative", "http://", "http://x:port/"])
def test_an_address_that_is_none_is_refused_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r"calls\.drain\.url"):
        one(tmp_path, url)


async def test_the_request_is_as_declared_with_the_key(tmp_path: Path, receiver: Receiver) -> None:
    secret = made_up()
    headers = {
        "Authorization": {"credential": None, "file": None, "env": secret},
        "X-By": "midwatch",
        "Idempotency-Key": "mine",
    }
    actuator = one(tmp_path, receiver.url, headers=headers, body='{"drain":true}')
    outcome = await applied(actuator, act())
    assert (outcome.result, outcome.detail) == (Result.SUCCEEDED, {"status": 204, "body": ""})
    [request] = receiver.requests
    assert request.body == b'{"drain":true}'
    assert request.headers["idempotency-key"] == "k1"
    assert (request.headers["authorization"], request.headers["x-by"]) == (secret, "midwatch")


async def test_no_secret_stands_in_the_state(tmp_path: Path) -> None:
    secret = made_up()
    actuator = one(tmp_path, "http://127.0.0.1:1/x", headers={"A": {"env": secret}}, body=secret)
    check = await actuator.check(await actuator.resolve(act()))
    assert check.ok
    assert check.state.keys() == {"method", "url", "body"}
    assert secret not in str(check)


async def test_a_secret_that_cannot_be_read_fails_the_check(tmp_path: Path) -> None:
    def unreadable(source: Mapping[str, Any]) -> str:
        raise OSError(f"no variable {source['env']}")

    calls = {
        "drain": {"url": "http://127.0.0.1:1/", "target": ["service:api"], "headers": {"A": {"env": "GONE"}}}
    }
    actuator = build(tools(tmp_path, calls=calls, secret=unreadable))
    resolved = await actuator.resolve(act())
    assert (await actuator.check(resolved)).reason == "a header's secret cannot be read: no variable GONE"
    assert (await actuator.apply(resolved, Check(True))).result is Result.FAILED


async def test_another_status_is_a_failure(tmp_path: Path, receiver: Receiver) -> None:
    receiver.fail(Fault(status=503, body="over\x1bload"))
    outcome = await applied(one(tmp_path, receiver.url), act())
    assert (outcome.result, outcome.reason) == (Result.FAILED, f"{receiver.url} answered 503")
    assert outcome.detail == {"status": 503, "body": "over�load"}


async def test_which_status_is_good_can_be_declared(tmp_path: Path, receiver: Receiver) -> None:
    receiver.fail(Fault(status=409))
    assert (await applied(one(tmp_path, receiver.url, expect=[409]), act())).result is Result.SUCCEEDED


async def test_redirects_are_not_followed(tmp_path: Path, receiver: Receiver) -> None:
    receiver.fail(Fault(status=307, headers={"Location": receiver.root + "/elsewhere"}))
    outcome = await applied(one(tmp_path, receiver.url), act())
    assert outcome.result is Result.FAILED
    assert len(receiver.requests) == 1


async def test_a_proxy_of_the_environment_is_not_used(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await applied(one(tmp_path, receiver.url), act())).result is Result.SUCCEEDED


async def test_an_endless_answer_is_bounded(tmp_path: Path, receiver: Receiver) -> None:
    receiver.fail(Fault(flood=True))
    outcome = await applied(one(tmp_path, receiver.url), act())
    assert outcome.result is Result.SUCCEEDED
    assert len(outcome.detail["body"]) == EXCERPT


@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(drop=True)])
async def test_a_request_without_an_answer_is_unknown(
    tmp_path: Path, receiver: Receiver, fault: Fault
) -> None:
    receiver.fail(fault)
    outcome = await applied(one(tmp_path, receiver.url, timeout=0.5), act())
    assert outcome.result is Result.UNKNOWN
    assert "had been sent" in outcome.reason


async def test_nobody_listening_is_a_failure(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        outcome = await applied(one(tmp_path, f"http://127.0.0.1:{free.getsockname()[1]}/"), act())
    assert outcome.result is Result.FAILED
    assert "was not sent" in outcome.reason


async def test_a_connection_that_hangs_is_timed_out(tmp_path: Path) -> None:
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())
        # The greeting of TLS is never answered.
        outcome = await applied(
            one(tmp_path, f"https://127.0.0.1:{deaf.getsockname()[1]}/", timeout=0.5), act()
        )
    assert outcome.result is Result.TIMED_OUT
    assert "was not sent" in outcome.reason


async def test_one_key_sends_once(tmp_path: Path, receiver: Receiver) -> None:
    actuator = one(tmp_path, receiver.url)
    assert (await applied(actuator, act())).result is Result.SUCCEEDED
    assert (await applied(actuator, act())).result is Result.REFUSED
    assert (await applied(actuator, act(key="k2"))).result is Result.SUCCEEDED
    assert len(receiver.requests) == 2


async def test_a_call_that_is_gone_fails_the_check(tmp_path: Path) -> None:
    resolved = await one(tmp_path, "http://127.0.0.1:1/").resolve(act())
    check = await build(tools(tmp_path)).check(resolved)
    assert not check.ok


async def test_nobody_can_tell_afterwards(tmp_path: Path) -> None:
    actuator = one(tmp_path, "http://127.0.0.1:1/")
    resolved = await actuator.resolve(act())
    assert await actuator.probe(resolved, Check(True)) == "cannot-tell"
    assert (await actuator.undo(resolved, Check(True), Outcome(Result.SUCCEEDED))).result is Result.REFUSED
