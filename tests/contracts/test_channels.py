"""What every channel must keep, over a real socket, against a receiver that checks the service's true protocol."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any, get_args

import pytest
from fakes.receiver import Fault, Ntfy, PagerDuty, Receiver, Request, Service, Slack, StandardWebhooks
from hypothesis import given
from hypothesis import strategies as st

from daemon.config.settings import Secret
from daemon.errors import ConfigError, DeliveryError, Problem
from daemon.escalate.base import Channel, ChannelKind, Tools
from daemon.escalate.channels import ntfy, pagerduty, slack, webhook
from daemon.escalate.text import bounded
from daemon.model.message import Message, MessageEvent

NOW = 1_700_000_000.0
KEY = "f00d" * 8
"""Stands for the secret of every channel."""
WHSEC = "whsec_" + base64.b64encode(KEY.encode()).decode()
TROUBLE = Message(
    event="trigger",
    incident="i-42",
    title="api is down",
    severity="critical",
    summary="api does not answer since 02:11; a restart did not help",
    details={"resource": "service:api", "signals": ["http-down on service:api"], "params": {"retries": 2}},
    host="web1",
    dedup="midwatch/web1/i-42",
    at=NOW,
)
EVENTS: tuple[MessageEvent, ...] = get_args(MessageEvent)


@dataclass(frozen=True)
class Case:
    """One kind of channel: how it is configured, what stands behind it, and where its requests name the trouble."""

    kind: ChannelKind
    service: Callable[[str], Service]
    """Built with the key that it accepts."""
    settings: Callable[[str], dict[str, Any]]
    """Built with the receiver's root."""
    secrets: Callable[[str, str], Mapping[str, str]]
    """(root, key) → what the environment would hold."""
    trouble: Callable[[Request], object]


SOURCE = {"env": "KEY"}
CASES = {
    "webhook": Case(
        webhook.KIND,
        lambda key: StandardWebhooks("whsec_" + base64.b64encode(key.encode()).decode(), NOW),
        lambda root: {"url": f"{root}/hook", "secret": SOURCE, "timeout": 5.0},
        lambda root, key: {"KEY": "whsec_" + base64.b64encode(key.encode()).decode()},
        lambda request: request.json["data"]["incident"],
    ),
    "slack": Case(
        slack.KIND,
        Slack,
        lambda root: {"url": SOURCE, "timeout": 5.0},
        lambda root, key: {"KEY": f"{root}/services/T000/B000/{key}"},
        lambda request: re.search(r"i-\d+", request.json["blocks"][-1]["elements"][0]["text"])[0],  # type: ignore[index]
    ),
    "pagerduty": Case(
        pagerduty.KIND,
        PagerDuty,
        lambda root: {"key": SOURCE, "url": f"{root}/v2/enqueue", "timeout": 5.0},
        lambda root, key: {"KEY": key},
        lambda request: request.json["dedup_key"],
    ),
    "ntfy": Case(
        ntfy.KIND,
        lambda key: Ntfy("ops", key),
        lambda root: {"topic": "ops", "server": root, "token": SOURCE, "timeout": 5.0},
        lambda root, key: {"KEY": key},
        lambda request: re.search(r"i-\d+", request.json["message"])[0],  # type: ignore[index]
    ),
}


@dataclass
class Line:
    """A channel and its other end."""

    case: Case
    receiver: Receiver
    secrets: dict[str, str] = field(default_factory=dict)
    channels: list[Channel] = field(default_factory=list)

    def dial(self, **settings: Any) -> Channel:
        checked = self.case.kind.settings.model_validate(self.case.settings(self.receiver.root) | settings)
        channel = self.case.kind.build("ops", checked, Tools(lambda: NOW, self._read))
        self.channels.append(channel)
        return channel

    def rotate(self, key: str) -> None:
        self.secrets = dict(self.case.secrets(self.receiver.root, key))

    def _read(self, source: Any) -> str:
        assert isinstance(source, Secret)
        if source.env not in self.secrets:
            raise ConfigError([Problem("config.toml:3", f"${source.env} is not set")])
        return self.secrets[source.env]


@pytest.fixture(params=CASES)
async def line(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    case = CASES[request.param]
    with Receiver(case.service(KEY)) as receiver:
        made = Line(case, receiver)
        made.rotate(KEY)
        yield made
        for channel in made.channels:
            await channel.close()


async def refused(channel: Channel, message: Message = TROUBLE) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await channel.send("msg_1", message)
    assert KEY not in str(caught.value)
    assert WHSEC not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("event", EVENTS)
async def test_the_service_takes_every_event(line: Line, event: MessageEvent) -> None:
    approval = "a-7f3k" if event == "ask" else None
    await line.dial().send("msg_1", replace(TROUBLE, event=event, approval=approval))
    assert len(line.receiver.taken) == 1


async def test_an_ask_says_what_to_answer_with(line: Line) -> None:
    await line.dial().send("msg_1", replace(TROUBLE, event="ask", approval="a-7f3k"))
    assert b"a-7f3k" in line.receiver.taken[0].body


@pytest.mark.parametrize("event", ["update", "ask", "acknowledge", "resolve"])
async def test_what_follows_names_the_same_trouble(line: Line, event: MessageEvent) -> None:
    channel = line.dial()
    await channel.send("msg_1", TROUBLE)
    await channel.send("msg_2", replace(TROUBLE, event=event))
    await channel.send("msg_3", replace(TROUBLE, incident="i-43", dedup="midwatch/web1/i-43"))
    first, second, other = map(line.case.trouble, line.receiver.taken)
    assert first == second != other


async def test_a_repetition_means_the_same(line: Line) -> None:
    channel = line.dial()
    await channel.send("msg_1", TROUBLE)
    await channel.send("msg_1", TROUBLE)
    first, second = line.receiver.taken
    assert first.body == second.body
    assert first.headers.get("webhook-id") == second.headers.get("webhook-id")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
async def test_a_passing_failure_is_worth_another_try(line: Line, status: int) -> None:
    line.receiver.fail(Fault(status=status))
    channel = line.dial()
    error = await refused(channel)
    assert not error.permanent
    assert str(status) in str(error)
    await channel.send("msg_1", TROUBLE)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_a_refusal_is_final(line: Line, status: int) -> None:
    line.receiver.fail(Fault(status=status, headers={"Retry-After": "30"}))
    error = await refused(line.dial())
    assert error.permanent
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
async def test_the_service_may_say_when(line: Line, header: str, seconds: float | None) -> None:
    line.receiver.fail(Fault(status=429, headers={"Retry-After": header}))
    assert (await refused(line.dial())).retry_after == seconds


async def test_a_redirect_is_not_followed(line: Line) -> None:
    line.receiver.fail(Fault(status=308, headers={"Location": line.receiver.url}))
    assert (await refused(line.dial())).permanent
    assert len(line.receiver.requests) == 1


async def test_silence_ends_in_time(line: Line) -> None:
    line.receiver.fail(Fault(hang=True))
    error = await refused(line.dial(timeout=0.2))
    assert not error.permanent
    assert "0.2 s" in str(error)


async def test_a_broken_connection_is_worth_another_try(line: Line) -> None:
    channel = line.dial()
    line.receiver.fail(Fault(drop=True))
    assert not (await refused(channel)).permanent
    await channel.send("msg_1", TROUBLE)


async def test_nobody_there_is_worth_another_try(line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
    line.secrets = dict(line.case.secrets(nowhere, KEY))
    settings = {name: value for name, value in line.case.settings(nowhere).items() if isinstance(value, str)}
    assert not (await refused(line.dial(**settings))).permanent


async def test_an_answer_without_end_is_cut_off(line: Line) -> None:
    line.receiver.fail(Fault(flood=True))
    await line.dial().send("msg_1", TROUBLE)


async def test_a_service_that_repeats_the_secret_does_not_make_us_repeat_it(line: Line) -> None:
    line.receiver.fail(Fault(status=400, echo=True))
    assert "400" in str(await refused(line.dial()))


async def test_what_the_service_says_is_shown_harmless_and_short(line: Line) -> None:
    line.receiver.fail(Fault(status=400, body="\x1b[31mno\x00 such\u202e thing " + "x" * 5000))
    shown = str(await refused(line.dial()))
    assert "no  such thing" in shown
    assert len(shown) < 300


async def test_a_wrong_secret_is_refused(line: Line) -> None:
    line.rotate("beef" * 8)
    assert (await refused(line.dial())).permanent


async def test_a_rotated_secret_is_picked_up(line: Line) -> None:
    channel = line.dial()
    await channel.send("msg_1", TROUBLE)
    line.receiver.service = line.case.service("beef" * 8)
    line.rotate("beef" * 8)
    await channel.send("msg_2", TROUBLE)
    assert len(line.receiver.taken) == 2


async def test_a_secret_that_cannot_be_read_is_worth_another_try(line: Line) -> None:
    line.secrets = {}
    error = await refused(line.dial())
    assert not error.permanent
    assert "$KEY is not set" in str(error)


async def test_a_secret_that_fits_no_request_is_told_without_it(line: Line) -> None:
    line.secrets["KEY"] = f"{KEY}\nX: \xe9"
    await refused(line.dial())


async def test_the_largest_message_is_taken(line: Line) -> None:
    wall = "☃&<\U0001f525" * 5000
    details = {f"{wall[:20]}{n}": [wall] * 50 for n in range(50)} | {
        "nested": {"a": {"b": {"c": {"d": wall}}}}
    }
    huge = replace(
        TROUBLE, title=wall, summary=wall, host=wall, details=details, dedup="midwatch/" + "x" * 5000
    )
    await line.dial().send("msg_1", bounded(huge))
    assert line.receiver.taken


async def test_the_same_line_is_used_again_after_closing(line: Line) -> None:
    channel = line.dial()
    await channel.close()
    await channel.send("msg_1", TROUBLE)
    await channel.close()
    await channel.close()
    await channel.send("msg_2", TROUBLE)
    assert len(line.receiver.taken) == 2


async def test_a_send_may_be_cancelled(line: Line) -> None:
    line.receiver.fail(Fault(hang=True))
    channel = line.dial()
    sending = asyncio.create_task(channel.send("msg_1", TROUBLE))
    while not line.receiver.requests:
        await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await channel.send("msg_1", TROUBLE)


@pytest.mark.parametrize("kind", CASES)
def test_unknown_settings_are_refused(kind: str) -> None:
    case = CASES[kind]
    with pytest.raises(ValueError, match="Extra inputs"):
        case.kind.settings.model_validate({**case.settings("http://127.0.0.1"), "sound": "loud"})


@given(st.text(max_size=300))
def test_outside_text_stays_text_in_slack(words: str) -> None:
    hostile = f"<!channel> <https://evil.test|click> <@U1> {words}"
    body = slack._body(
        bounded(replace(TROUBLE, title=hostile, summary=hostile, details={"sample": [hostile]}))
    )
    texts = [body["text"]] + [
        part["text"]
        for block in body["blocks"]
        for part in ([block["text"]] if "text" in block else block["elements"])
    ]
    assert body["mrkdwn"] is False
    assert all("<" not in text and ">" not in text for text in texts)
    assert all(re.fullmatch(r"(?:[^&]|&(?:amp|lt|gt);)*", text, re.DOTALL) for text in texts)


class TestWebhook:
    """What is special about webhooks."""

    def test_a_signature_must_be_chosen_or_declined(self) -> None:
        for settings in ({}, {"secret": SOURCE, "unsigned": True}):
            with pytest.raises(ValueError, match="either a `secret` or `unsigned = true`"):
                webhook.WebhookSettings.model_validate({"url": "http://127.0.0.1/", **settings})

    async def test_an_unsigned_one_has_no_signature(self) -> None:
        with Receiver(StandardWebhooks(None, NOW)) as receiver:
            settings = webhook.WebhookSettings(url=receiver.url, unsigned=True)
            channel = webhook.KIND.build("ops", settings, Tools(lambda: NOW, str))
            await channel.send("msg_1", TROUBLE)
            await channel.close()
            assert "webhook-signature" not in receiver.taken[0].headers

    async def test_a_weak_secret_is_told_with_its_remedy(self) -> None:
        settings = webhook.WebhookSettings(url="http://127.0.0.1:9/", secret=Secret(env="KEY"))
        channel = webhook.KIND.build("ops", settings, Tools(lambda: NOW, lambda source: "letmein"))
        with pytest.raises(DeliveryError, match="openssl rand -base64 32") as caught:
            await channel.send("msg_1", TROUBLE)
        assert "letmein" not in str(caught.value)


class TestPagerDuty:
    """What is special about PagerDuty."""

    def test_it_says_who_escalates(self) -> None:
        for word in ("ours", "theirs"):
            settings = pagerduty.PagerDutySettings.model_validate({"key": SOURCE, "escalation": word})
            channel = pagerduty.build("pager", settings, Tools(lambda: NOW, str))
            assert channel.escalation == word

    def test_long_keys_stay_apart(self) -> None:
        one, two = (pagerduty._dedup(replace(TROUBLE, dedup="midwatch/" + "x" * 300 + end)) for end in "12")
        assert one != two
        assert len(one) == 64


async def test_requests_are_not_logged(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The library logs each URL, and Slack's is a secret."""
    caplog.set_level("DEBUG")
    case = CASES["slack"]
    with Receiver(case.service(KEY)) as receiver:
        line = Line(case, receiver)
        line.rotate(KEY)
        channel = line.dial()
        await channel.send("msg_1", TROUBLE)
        await channel.close()
    assert KEY not in caplog.text
