"""The start: what stands watch in spite of trouble, what does not, and what is left behind then."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes.home import ALLOW, Home, until
from fakes.receiver import Receiver

from daemon.api.client import Problem
from daemon.api.identity import SocketTaken
from daemon.app.app import App
from daemon.errors import ConfigError, StoreError

WATCH = f"""
[channels.ops]
kind = "webhook"
url = "{{url}}"
unsigned = true

[routes]
critical = ["ops"]
error = ["ops"]
warning = ["ops"]

[services.app]
restart = "command.mend-app"

[commands.mend-app]
argv = ["{shutil.which("true")}"]
target = ["service:app"]
"""
BROKEN = ALLOW.replace('effect = "allow"', 'effect = "perhaps"')
LINE = BROKEN.splitlines().index('effect = "perhaps"') + 1


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def _told(receiver: Receiver, kind: str) -> dict[str, Any] | None:
    found = [request.json["data"] for request in receiver.taken if request.json["type"] == kind]
    return found[0] if found else None


async def test_a_broken_policy_denies_all_and_a_person_is_told(home: Home) -> None:
    law = home.allow(BROKEN)
    with Receiver() as receiver:
        home.configure(WATCH.replace("{url}", receiver.url))
        async with home.running():
            call = await until(lambda: _told(receiver, "incident.opened"))
            status = await home.get("/status")
            home.allow()
            told = await home.post("/reload")
            over = await until(lambda: _told(receiver, "incident.resolved"))
            mended = await home.get("/status")
    assert call["title"] == f"policy-broken on path:{law.parent}"
    assert f"{law}:{LINE}" in " ".join(call["details"]["signals"])
    assert call["severity"] == "critical"
    assert f"{law}:{LINE}" in status["self"]["policy_trouble"]
    assert status["self"]["rules"] == 0
    # The vendor's own rules were denied as well.
    assert f"mend at {law}:{ALLOW.splitlines().index('[[rule]]') + 1}" in told["newly_allowed"]
    assert any(found.startswith("allow-noop at ") for found in told["newly_allowed"])
    assert over["incident"] == call["incident"]
    assert mended["self"]["policy_trouble"] == ""
    assert mended["wrong"] == []


async def test_a_policy_mended_while_nobody_watched_is_told_at_the_next_start(home: Home) -> None:
    home.allow(BROKEN)
    with Receiver() as receiver:
        home.configure(WATCH.replace("{url}", receiver.url))
        async with home.running():
            call = await until(lambda: _told(receiver, "incident.opened"))
        home.allow()
        async with home.running():
            over = await until(lambda: _told(receiver, "incident.resolved"))
    assert over["incident"] == call["incident"]


async def test_a_sound_policy_is_not_worth_a_word(home: Home) -> None:
    home.configure()
    async with home.running() as app:
        kinds = await app.store.read(lambda conn: conn.exec_driver_sql("select kind from journal").all())
    assert "signal" not in [kind for (kind,) in kinds]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[services.app]\nstrat = "command.x"\n', "strat"),
        ('[perceivers.x]\nkind = "weather"\n', "weather"),
        ('[channels.x]\nkind = "pigeon"\n', "pigeon"),
    ],
)
async def test_a_bad_configuration_is_refused_with_its_line(home: Home, text: str, says: str) -> None:
    home.configure(text)
    line = next(n for n, row in enumerate(home.config.read_text().splitlines(), 1) if says in row)
    with pytest.raises(ConfigError, match=f"{home.config}:{line}: .*{says}"):
        await App(home.config).start()
    assert not home.path("state").exists()


async def test_a_group_that_does_not_exist_is_refused_and_nothing_stays_behind(home: Home) -> None:
    home.configure(daemon='group = "no-such-crew"')
    line = home.config.read_text().splitlines().index('group = "no-such-crew"') + 1
    before = _open_files()
    with pytest.raises(ConfigError, match=rf"{home.config}:{line}: there is no group `no-such-crew`"):
        await App(home.config).start()
    assert _open_files() == before
    home.configure()
    async with home.running():
        pass  # the journal was let go


async def test_a_token_that_cannot_be_read_is_refused_with_its_line(home: Home) -> None:
    home.configure('[people.anna]\ntoken = { file = "{dir}/anna.key" }\n')
    with pytest.raises(ConfigError, match=rf"{home.config}:\d+: the secret's file .*anna\.key"):
        await App(home.config).start()
    assert not home.path("admin.sock").exists()


async def test_a_second_midwatch_on_the_same_state_is_refused(home: Home) -> None:
    home.configure()
    async with home.running():
        with pytest.raises(StoreError, match=rf"another midwatch \(pid {os.getpid()}\) works on"):
            await App(home.config).start()
        assert (await home.get("/status"))["self"]["pid"] == os.getpid()


async def test_a_second_midwatch_on_the_same_socket_leaves_its_journal_free(home: Home) -> None:
    home.configure()
    async with home.running():
        other = home.write("other.toml", home.config.read_text().replace("/state", "/other"))
        with pytest.raises(SocketTaken, match="another midwatch answers"):
            await App(other).start()
        assert str(home.path("other/midwatch.db")) not in _open_files()
        assert str(home.path("other/midwatch.lock")) not in _open_files()
        assert (await home.get("/status"))["self"]["pid"] == os.getpid()


async def test_an_unreadable_log_is_shown_as_blind_becomes_a_signal_and_mends_itself(home: Home) -> None:
    home.path("app.log").mkdir()  # root reads everything: what nobody can read as a log is a directory
    with Receiver() as receiver:
        home.configure(
            WATCH.replace("{url}", receiver.url)
            + """
[perceivers.app-log]
kind = "log"
path = "{dir}/app.log"
resource = "service:app"
every = "50ms"
signals = [{ name = "app-broken", match = 'ERROR' }]
"""
        )
        async with home.running():
            reason = (await until(lambda: _blind(home)))["app-log"]
            call = await until(lambda: _told(receiver, "incident.opened"))
            home.path("app.log").rmdir()
            home.write("app.log", "INFO well\n")
            await until(lambda: _told(receiver, "incident.resolved"))
            assert await _blind(home) == {}
    assert "app.log" in reason
    assert call["title"] == "perceiver-blind on service:app (app-log)"


async def _blind(home: Home) -> dict[str, str]:
    blind: dict[str, str] = (await home.get("/status"))["blind"]
    return blind


async def test_errors_over_the_socket_say_what_to_do(home: Home) -> None:
    home.configure()
    async with home.running():
        with pytest.raises(Problem, match="there is no perceiver 'x'; configured: none"):
            await home.post("/perceivers/x/poll")


async def test_a_stop_closes_everything(home: Home) -> None:
    home.configure()
    async with home.running():
        pass
    before, tasks = _open_files(), asyncio.all_tasks()
    async with home.running():
        await home.get("/status")
    assert _open_files() == before
    assert asyncio.all_tasks() == tasks
    assert not home.path("admin.sock").exists()


def _open_files() -> list[str]:
    """What the descriptors of this process stand for."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}").partition("[")[0])
        except FileNotFoundError:
            continue  # the one that listed them
    return sorted(found)
