"""From a line in a log file to a repaired service, and to a person when nothing may be done: real files, processes and sockets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes.home import ALLOW, Home, kinds, until
from fakes.receiver import Receiver

TOUCH, TEST = shutil.which("touch"), shutil.which("test")
WATCH = f"""
[services.app]
restart = "command.mend-app"

[perceivers.app-log]
kind = "log"
path = "{{dir}}/app.log"
from_start = true
resource = "service:app"
every = "200ms"
signals = [{{ name = "app-broken", match = 'ERROR (?P<what>[a-z ]+)', severity = "error", clear_after = "500ms" }}]

[commands.mend-app]
argv = ["{TOUCH}", "{{dir}}/mended"]
verify = ["{TEST}", "-e", "{{dir}}/mended"]
target = ["service:app"]
"""
HOOK = """
[channels.ops]
kind = "webhook"
url = "{url}"
unsigned = true

[routes]
critical = ["ops"]
error = ["ops"]
"""
BOOK = """
schema = 1

[[runbook]]
id = "app-broken"
signals = ["app-broken"]
cause = "the application says itself that it is broken"
remedy = [{ steps = [{ verb = "restart" }], proof = { clear = ["app-broken"], clear_for = "100ms", within = "10s" } }]
test = [{ signals = ["app-broken"], expect = { applies = true } }]
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write("app.log", "")
    home.write("runbooks.d/app.toml", BOOK)
    home.configure(WATCH)
    return home


async def test_a_log_line_is_repaired_and_proven(home: Home) -> None:
    home.allow()
    async with home.running():
        home.append("app.log", "INFO well\nERROR out of handles\n")
        record = await home.incident("resolved")
    assert home.path("mended").exists()
    assert (record["resource"], record["reason"]) == (
        "service:app",
        "repaired: command.mend-app on service:app",
    )
    [attempt] = record["attempts"]
    assert (attempt["action"], attempt["result"], attempt["verified"]) == (
        "command.mend-app",
        "succeeded",
        True,
    )
    assert attempt["rule"] == "mend"
    steps = kinds(record["timeline"])
    order = ["incident.opened", "diagnosis", "verdict", "intent", "outcome", "proof", "incident.resolved"]
    assert [kind for kind in steps if kind in order] == order


async def test_why_it_was_allowed_is_explained(home: Home) -> None:
    law = home.allow()
    async with home.running():
        home.append("app.log", "ERROR out of handles\n")
        record = await home.incident("resolved")
        told = await home.get(f"/explain/{record['attempts'][0]['key']}")
    [said] = told["verdicts"]
    assert said["payload"]["verdict"]["effect"] == "allow"
    line = ALLOW.splitlines().index("[[rule]]") + 1
    assert said["payload"]["verdict"]["where"] == f"{law}:{line}"


async def test_what_no_rule_allows_becomes_a_call_and_then_its_end(home: Home) -> None:
    with Receiver() as receiver:
        home.configure(WATCH + HOOK.format(url=receiver.url))
        async with home.running():
            home.append("app.log", "ERROR out of handles\n")
            call = await until(lambda: _told(receiver, "incident.opened"))
            resolved = await until(lambda: _told(receiver, "incident.resolved"))
    assert not home.path("mended").exists()
    assert call["incident"] == resolved["incident"]
    assert "command.mend-app on service:app denied" in call["summary"]
    assert call["details"]["cause"] == "the application says itself that it is broken"
    assert any("ERROR out of handles" in signal for signal in call["details"]["signals"])


async def test_observing_does_nothing_and_says_what_it_would_do(home: Home) -> None:
    home.allow()
    with Receiver() as receiver:
        home.configure(WATCH + HOOK.format(url=receiver.url), mode="observe")
        async with home.running():
            status = await home.get("/status")
            home.append("app.log", "ERROR out of handles\n")
            call = await until(lambda: _told(receiver, "incident.opened"))
            record = await home.get(f"/incidents/{call['incident']}")
    assert status["self"]["mode"] == "observe"
    assert not home.path("mended").exists()
    assert record["attempts"] == []
    assert "would do command.mend-app on service:app, but mode is observe" in call["summary"]


async def test_an_approval_over_the_socket_lets_it_go_on(home: Home) -> None:
    home.allow(ALLOW.replace('"allow"', '"require-approval"'))
    home.configure(WATCH.replace("500ms", "30s"))
    async with home.running():
        home.append("app.log", "ERROR out of handles\n")
        [asked] = await until(lambda: home.get("/approvals"))
        assert (asked["action"], asked["target"]) == ("command.mend-app", "service:app")
        assert not home.path("mended").exists()
        await home.post(f"/approvals/{asked['id']}/approve", {"reason": "go ahead"})
        record = await home.incident("verifying")
    assert home.path("mended").exists()
    assert [attempt["result"] for attempt in record["attempts"]] == ["succeeded"]


async def _told(receiver: Receiver, kind: str) -> dict[str, Any] | None:
    found = [request.json["data"] for request in receiver.taken if request.json["type"] == kind]
    return found[0] if found else None
