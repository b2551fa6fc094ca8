"""The verbs as a person types them, against a real server; exit codes, JSON, dry runs, and errors without tracebacks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from fakes.desk import RunningDesk
from fakes.typed import Said, typed

from daemon.store.tables import OUTBOX

Type = Callable[..., Coroutine[Any, Any, Said]]


@pytest.fixture
def midwatch(desk: RunningDesk) -> Type:
    """Type a command at the running desk."""

    async def command(*args: str) -> Said:
        return await asyncio.to_thread(typed, *args, "--socket", str(desk.path))

    return command


async def test_status_for_people_and_programs(desk: RunningDesk, midwatch: Type) -> None:
    incident = await desk.incident()
    said = await midwatch("status")
    assert said.code == 0
    assert f"Next: midwatch incidents show {incident}" in said.out
    assert "\x1b" not in said.out
    assert (await midwatch("status", "--json")).json["wrong"][0]["id"] == incident
    said = await midwatch("status", "--nagios")
    assert said.code == 2
    assert said.out.startswith("MIDWATCH CRITICAL - ")
    assert said.out.count("\n") == 1


async def test_incidents_are_listed_and_shown(desk: RunningDesk, midwatch: Type) -> None:
    assert "nothing is wrong" in (await midwatch("incidents")).out
    incident = await desk.incident(summary="http 500\x1b[2J")
    for args in (["incidents"], ["incidents", "ls"], ["incidents", "ls", "--all"]):
        assert f"\n{incident}  error     open" in (await midwatch(*args)).out
    said = await midwatch("incidents", "show", incident)
    assert "http 500\\x1b[2J" in said.out
    assert "\x1b" not in said.out
    assert (await midwatch("incidents", "show", incident, "--json")).json["id"] == incident


async def test_a_vote_is_cast_and_a_second_is_refused(desk: RunningDesk, midwatch: Type) -> None:
    asked = await desk.asked(await desk.incident())
    said = await midwatch("approve", asked, "--dry-run")
    assert f"would approve {asked}" in said.out
    assert "command.restart-api on service:api" in said.out
    assert "how       hard" in said.out
    assert "approved" in (await midwatch("approve", asked, "--reason", "go on")).out
    said = await midwatch("reject", asked)
    assert (said.code, said.out) == (1, "")
    assert "approved" in said.err


async def test_reject_says_no(desk: RunningDesk, midwatch: Type) -> None:
    asked = await desk.asked(await desk.incident())
    assert f"would reject {asked}" in (await midwatch("reject", asked, "--dry-run")).out
    assert "rejected" in (await midwatch("reject", asked)).out


async def test_incidents_are_acknowledged_and_resolved(desk: RunningDesk, midwatch: Type) -> None:
    incident = await desk.incident()
    assert "would acknowledge" in (await midwatch("ack", incident, "--dry-run")).out
    assert "would resolve" in (await midwatch("resolve", incident, "--dry-run")).out
    assert desk.woken == []
    assert "has it" in (await midwatch("ack", incident)).out
    assert "closed it: done" in (await midwatch("resolve", incident, "--reason", "done")).out
    assert "over already" in (await midwatch("resolve", incident)).err


async def test_holds_come_and_go(desk: RunningDesk, midwatch: Type) -> None:
    assert "nothing holds" in (await midwatch("hold")).out
    assert "would hold backup for 10m" in (await midwatch("hold", "backup", "--for", "10m", "--dry-run")).out
    assert (await midwatch("hold", "--json")).json == []
    assert "held for 10m" in (await midwatch("hold", "backup", "--for", "10m")).out
    assert "midwatch hold --release racks" in (await midwatch("hold", "racks")).out
    assert [hold["name"] for hold in (await midwatch("hold", "--json")).json] == ["hold:backup", "hold:racks"]
    assert "would release" in (await midwatch("hold", "--release", "backup", "--dry-run")).out
    assert "released backup" in (await midwatch("hold", "--release", "backup")).out
    assert (await midwatch("hold", "a", "--release", "b")).code == 2
    said = await midwatch("hold", "x", "--for", "10")
    assert said.code == 1
    assert "'10' is no duration" in said.err


async def test_pause_and_resume(desk: RunningDesk, midwatch: Type) -> None:
    assert "would stop" in (await midwatch("pause", "--dry-run")).out
    assert "no pause" in (await midwatch("resume", "--dry-run")).out
    assert "paused" in (await midwatch("pause", "--reason", "racks")).out
    assert "would end" in (await midwatch("resume", "--dry-run")).out
    assert "resumed" in (await midwatch("resume")).out
    assert (await midwatch("resume")).code == 1


async def test_a_broken_configuration_is_not_taken_up(desk: RunningDesk, midwatch: Type) -> None:
    assert "newly allowed: restart-apps at" in (await midwatch("reload")).out
    desk.myself.broken = True
    said = await midwatch("reload")
    assert said.code == 78
    assert said.err == "/etc/midwatch/config.toml:7: unknown key `mod` (did you mean `mode`?)\n"


async def test_a_test_message_is_seen_off(desk: RunningDesk, midwatch: Type) -> None:
    assert "would send" in (await midwatch("notify-test", "ops", "--dry-run")).out
    assert "configured: ops" in (await midwatch("notify-test", "sms")).err
    said = await midwatch("notify-test", "ops", "--wait", "0")
    assert said.code == 1
    assert "is pending after 0 tries" in said.err
    waiting = asyncio.create_task(midwatch("notify-test", "ops", "--wait", "20"))
    while desk.sent < 2:
        await asyncio.sleep(0.01)
    await desk.store.write(lambda tx: tx.conn.execute(OUTBOX.update().values(state="sent")))
    assert "was taken by ops" in (await waiting).out


async def test_a_perceiver_is_looked_through(desk: RunningDesk, midwatch: Type) -> None:
    assert "  status  200" in (await midwatch("perceive", "api")).out
    assert (await midwatch("perceive", "api", "--json")).json[0]["values"] == {"up": True, "status": 200}
    assert "configured: api" in (await midwatch("perceive", "x")).err


async def test_why_is_explained(desk: RunningDesk, midwatch: Type) -> None:
    incident = await desk.incident()
    request = {"action": "noop", "target": "host", "params": {}, "proposed_by": "runbook"}
    verdict = {
        "effect": "deny",
        "rule": "never",
        "where": "a.toml:3",
        "reasons": ["too often"],
        "near_misses": ["r: severity"],
    }
    row = {
        "request": request,
        "facts": {"mode": "act", "votes": [], "past": []},
        "verdict": {**verdict, "notes": [], "shadow": False},
    }
    await desk.store.write(lambda tx: tx.record("verdict", row, incident))
    said = await midwatch("explain", incident)
    for wanted in (
        "noop on host, proposed by runbook",
        "denied by never at a.toml:3 (too often)",
        "nearly   r: severity",
    ):
        assert wanted in said.out
    assert (await midwatch("explain", incident, "--json")).json["verdicts"][0]["payload"] == row


def test_nobody_there_is_exit_three(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "s")
    said = typed("status", "--socket", nowhere)
    assert (said.code, said.out) == (3, "")
    assert said.err.startswith(f"midwatch is not running (no answer on {nowhere}); start it with ")
    said = typed("status", "--nagios", "--socket", nowhere)
    assert said.code == 3
    assert said.out.startswith("MIDWATCH UNKNOWN - ")


def test_something_else_on_the_socket_is_said(tmp_path: Path) -> None:
    plain = tmp_path / "file"
    plain.touch()
    assert typed("status", "--socket", str(plain)).code == 3  # the kernel refuses: nobody listens there
    said = typed("status", "--socket", str(tmp_path / ("x" * 200)))
    assert said.code == 1
    assert "--socket" in said.err


@pytest.mark.parametrize(
    "args", [["bogus"], ["status", "--bogus"], ["approve"], ["audit", "verify", "--anchor", "7"]]
)
def test_misuse_is_exit_two(args: list[str]) -> None:
    said = typed(*args)
    assert said.code == 2
    assert "Usage: midwatch" in said.err


def test_no_configuration_is_exit_78(tmp_path: Path) -> None:
    said = typed("check", "--config", str(tmp_path / "none.toml"))
    assert said.code == 78
    assert str(tmp_path / "none.toml") in said.err


def test_init_writes_once(tmp_path: Path) -> None:
    target = tmp_path / "midwatch" / "config.toml"
    shown = typed("init", str(target), "--dry-run")
    assert "schema" in shown.out
    assert not target.exists()
    assert typed("init", str(target)).code == 0
    assert target.read_text() == shown.out
    target.write_text("mine")
    said = typed("init", str(target))
    assert said.code == 1
    assert "left as it is" in said.err
    assert target.read_text() == "mine"


async def process(*args: str, **env: str) -> Said:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *args,
        stdout=pipe,
        stderr=pipe,
        env={**os.environ, **env},
        cwd=Path(__file__).parents[2],
    )
    out, err = await child.communicate()
    return Said(child.returncode or 0, out.decode(), err.decode())


async def test_status_stays_light(desk: RunningDesk) -> None:
    """The heavy half of the program has no business in a question to a running daemon."""
    watch = """
import sys
from daemon.cli import main
try:
    code = main.run(["status", "--socket", sys.argv[1]])
except SystemExit as exc:
    code = exc.code
heavy = {"sqlmodel", "sqlalchemy", "httpx", "pydantic", "opentelemetry", "uvicorn", "starlette", "anthropic", "asyncio", "yaml", "jinja2"}
print("LOADED", sorted(heavy & set(sys.modules)), code or 0)
"""
    said = await process("-c", watch, str(desk.path))
    assert "midwatch 0.1.0 on web1" in said.out
    assert said.out.endswith("LOADED [] 0\n")


async def test_another_owner_of_our_package_name_is_noticed(tmp_path: Path) -> None:
    watch = "import daemon; del daemon.__distribution__; from daemon.cli.main import main; main()"
    said = await process("-c", watch)
    assert said.code == 78
    assert (
        said.err
        == "another distribution overwrote 'daemon': install midwatch into an environment of its own\n"
    )


async def test_the_package_itself_is_midwatch_run(tmp_path: Path) -> None:
    said = await process("-m", "daemon", "--config", str(tmp_path / "none.toml"))
    assert said.code == 78
    assert "none.toml" in said.err
    assert "Traceback" not in said.err


async def test_ids_are_data_whatever_they_hold(midwatch: Type) -> None:
    for id in ("../status", "a/b", "%2e%2e", "i-1?all=1", "x#y", "ü\n"):
        said = await midwatch("incidents", "show", id)
        assert said.code == 1
        assert "Traceback" not in said.err
        assert said.err.count("\n") == 1
