"""midwatch as a process: signals, what its supervisor is told, exit codes, and what a kill leaves behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.home import ALLOW, WITHIN, Home, midwatch, plain_environment, wait_until

from daemon.app.run import BAD_CONFIGURATION
from daemon.clock import monotonic_usec

SH, TEST = shutil.which("sh"), shutil.which("test")
ROOT = Path(__file__).resolve().parents[2]
WATCH = f"""
[services.app]
restart = "command.mend-app"

[perceivers.app-log]
kind = "log"
path = "{{dir}}/app.log"
resource = "service:app"
from_start = true
every = "50ms"
signals = [{{ name = "app-broken", match = 'ERROR', clear_after = "1h" }}]

[commands.mend-app]
argv = ["{SH}", "-c", "echo begun >> {{dir}}/effects; while ! test -e {{dir}}/go-on; do sleep 0.02; done; echo done >> {{dir}}/effects"]
target = ["service:app"]
timeout = "20s"
PROBE
"""
BOOK = """
schema = 1

[[runbook]]
id = "app-broken"
signals = ["app-broken"]
cause = "the application says itself that it is broken"
remedy = [{ steps = [{ verb = "restart" }], proof = { within = "1h" } }]
test = [{ signals = ["app-broken"], expect = { applies = true } }]
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write("app.log", "")
    home.write("runbooks.d/app.toml", BOOK)
    home.allow()
    home.configure(WATCH.replace("PROBE", ""))
    return home


def _incident(home: Home, *states: str) -> dict[str, Any] | None:
    rows = home.ask("/incidents?all=1") or []
    found = [row["id"] for row in rows if row["state"] in states]
    record: dict[str, Any] | None = home.ask(f"/incidents/{found[0]}") if found else None
    return record


def _tries(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(attempt["action"], attempt["result"]) for attempt in record["attempts"]]


# signals and the supervisor ----------------------------------------------------------------------------------------


def test_a_life_from_ready_to_stopping(home: Home) -> None:
    with home.process() as process:
        assert process.told("READY=1") == ["READY=1", "STATUS=1 perceivers, mode act"]
        assert home.ask("/status")["self"]["pid"] == process.popen.pid
        process.popen.send_signal(signal.SIGTERM)
        process.told("STOPPING=1")
        assert process.popen.wait(WITHIN) == 0
    assert not home.path("admin.sock").exists()
    assert "Traceback" not in process.said()


def test_sigint_ends_it_like_sigterm(home: Home) -> None:
    with home.process() as process:
        assert process.ready().end(signal.SIGINT) == 0


def test_sighup_reloads(home: Home) -> None:
    with home.process() as process:
        process.ready()
        before = home.ask("/status")["self"]["rules"]
        home.path("policies.d/site.toml").unlink()
        process.popen.send_signal(signal.SIGHUP)
        began, moment = process.told("RELOADING=1")[1].split("=")
        assert began == "MONOTONIC_USEC"
        assert 0 < int(moment) <= monotonic_usec()
        process.told("READY=1")
        assert home.ask("/status")["self"]["rules"] == before - 1
        assert process.end() == 0
    assert "reloaded" in process.said()


def test_sighup_with_a_broken_file_leaves_the_old_in_force(home: Home) -> None:
    with home.process() as process:
        process.ready()
        before = home.ask("/status")["self"]["policy"]
        law = home.allow(ALLOW.replace('effect = "allow"', 'effect = "perhaps"'))
        process.popen.send_signal(signal.SIGHUP)
        process.told("RELOADING=1")
        process.told("READY=1")
        assert home.ask("/status")["self"]["policy"] == before
        home.allow()
        process.popen.send_signal(signal.SIGHUP)  # it still listens
        process.told("RELOADING=1")
        process.told("READY=1")
        assert process.end() == 0
    assert f"not reloaded, the old one stays in force: {law}:6: " in process.said()


def test_the_reload_command_shows_what_is_newly_allowed_and_refuses_what_is_broken(home: Home) -> None:
    law = home.path("policies.d/site.toml")
    law.unlink()
    with home.process() as process:
        process.ready()
        home.allow()
        done = midwatch(home.directory, "reload", "--socket", str(home.path("admin.sock")))
        home.append("policies.d/site.toml", "\n[[rule]]\nid = 7\n")
        refused = midwatch(home.directory, "reload", "--socket", str(home.path("admin.sock")))
        process.end()
    assert done.returncode == 0
    assert f"newly allowed: mend at {law}:4" in done.stdout
    assert refused.returncode == BAD_CONFIGURATION
    assert f"{law}:" in refused.stderr


def test_a_repair_under_way_ends_as_an_outcome_when_it_is_told_to_stop(home: Home) -> None:
    with home.process() as process:
        process.ready()
        home.append("app.log", "ERROR\n")
        wait_until(home.path("effects").exists)
        process.popen.send_signal(signal.SIGTERM)
        process.told("STOPPING=1")
        home.path("go-on").touch()
        assert process.popen.wait(WITHIN) == 0
    with home.process() as process:
        process.ready()
        record = wait_until(lambda: _incident(home, "verifying", "escalated"))
        process.end()
    assert _tries(record) == [("command.mend-app", "succeeded")]
    assert home.path("effects").read_text() == "begun\ndone\n"


def test_a_signal_during_the_start_does_not_kill(home: Home) -> None:
    home.path("state").mkdir()
    with home.process() as process:
        # As early as can be told from outside: its journal is being made.
        wait_until(home.path("state/midwatch.lock").exists)
        process.popen.send_signal(signal.SIGHUP)
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(WITHIN) == 0
    assert not home.path("admin.sock").exists()


# exit codes --------------------------------------------------------------------------------------------------------


def test_a_bad_configuration_ends_with_78_and_says_where(home: Home) -> None:
    home.append("config.toml", "\n[perceivers.more]\nkind = 'weather'\n")
    line = len(home.config.read_text().splitlines())
    with home.process() as process:
        assert process.popen.wait(WITHIN) == BAD_CONFIGURATION
    assert f"{home.config}:{line}: " in process.said()
    assert "Traceback" not in process.said()


def test_a_second_one_on_the_same_state_ends_with_1_and_says_who_is_first(home: Home) -> None:
    with home.process() as first:
        first.ready()
        second = subprocess.run(
            [sys.executable, "-m", "daemon", "--config", str(home.config)],
            capture_output=True,
            text=True,
            check=False,
            env=plain_environment(home.directory),
            timeout=WITHIN,
        )
        assert home.ask("/status")["self"]["pid"] == first.popen.pid
        assert first.end() == 0
    assert second.returncode == 1
    assert f"another midwatch (pid {first.popen.pid}) works on" in second.stderr
    assert "stop it first" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_shift_that_cannot_begin_ends_the_process(home: Home) -> None:
    """Better ended and started anew by its supervisor than alive without a watch."""
    with home.process() as process:
        process.ready()
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('drop table cursor')",
                str(home.path("state/midwatch.db")),
            ],
            check=True,
        )
        process.popen.send_signal(signal.SIGHUP)
        assert process.popen.wait(WITHIN) == 1
    assert "no such table: cursor" in process.said()


# a kill ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probe", "state", "tries"),
    [
        (f'probe = ["{TEST}", "-s", "{{dir}}/effects"]', "verifying", "succeeded"),
        (f'probe = ["{TEST}", "-e", "{{dir}}/nothing"]', "escalated", "failed"),
        ("", "escalated", "unknown"),
    ],
    ids=["happened", "did-not", "cannot-tell"],
)
def test_a_kill_in_the_middle_of_a_repair_is_probed_and_never_repeated(
    home: Home, probe: str, state: str, tries: str
) -> None:
    home.configure(WATCH.replace("PROBE", probe))
    with home.process() as process:
        process.ready()
        home.append("app.log", "ERROR\n")
        wait_until(home.path("effects").exists)
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
    home.path("go-on").touch()  # what it had begun goes on without it
    with home.process() as process:
        process.ready()
        record = wait_until(lambda: _incident(home, state))
        process.end()
    assert _tries(record) == [("command.mend-app", tries)]
    assert "interrupted" in record["attempts"][0]["reason"]
    assert home.path("effects").read_text() == "begun\ndone\n"


# what everybody tries first ----------------------------------------------------------------------------------------


def test_the_example_runs_as_it_is_and_acts_on_nothing(tmp_path: Path) -> None:
    example = tmp_path / "config.example.toml"
    shutil.copy(ROOT / "config.example.toml", example)
    home = Home(tmp_path)
    argv = [sys.executable, "-m", "daemon", "--config", str(example)]
    with home.process(*argv) as process:
        process.ready()
        status = midwatch(tmp_path, "status", "--config", str(example))
        told = json.loads(midwatch(tmp_path, "status", "--json", "--config", str(example)).stdout)
        polled = midwatch(tmp_path, "perceive", "host", "--config", str(example))
        assert process.end() == 0
    assert status.returncode == polled.returncode == 0
    assert (told["self"]["mode"], told["self"]["perceivers"], told["did"]) == ("observe", 1, [])
    assert told["self"]["policy_trouble"] == ""
    assert "Traceback" not in process.said()


def test_what_nobody_asked_for_is_not_imported(home: Home) -> None:
    """A small watch is a small process: what costs much is imported when a configuration wants it."""
    heavy = ["anthropic", "httpx", "alembic", "rich", "opentelemetry", "jinja2"]
    look = (
        "import asyncio, pathlib, sys\n"
        "from daemon.app.app import App\n"
        "async def live():\n"
        "    app = App(pathlib.Path(sys.argv[1]))\n"
        "    await app.start()\n"
        "    await app.stop()\n"
        "asyncio.run(live())\n"
        "print(*sorted(set(sys.argv[2:]) & set(sys.modules)))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", look, str(home.config), *heavy],
        capture_output=True,
        text=True,
        check=True,
        env=plain_environment(home.directory),
        timeout=60,
    )
    assert found.stdout.split() == []
