"""Hundreds of lives ended by kill -9, at random moments and at every named crash point: nothing is done twice, nothing is lost.

MIDWATCH_LIVES sets how many (200 by default); `make bench-torture` runs a thousand.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.receiver import Receiver
from torture.checker import Findings, check

LIVES = int(os.environ.get("MIDWATCH_LIVES", "200"))
SERVICES = 6
HERE = Path(__file__).parent
POINTS = (
    "ingest_before_commit,ingest_after_commit,before_intent,after_intent,after_effect,after_done,"
    "before_undo,after_undo_intent,after_undo_effect,after_undo_done,outbox_before_send,outbox_after_send"
)

CONFIG = """
schema = 1
mode = "act"
packs = []

[daemon]
state = "{dir}/state"
socket = "{dir}/admin.sock"
policies = "{dir}/policies.d"
grace = "0s"
ballast = "0B"

[channels.ops]
kind = "webhook"
url = "{url}"
unsigned = true

[routes]
critical = ["ops"]
error = ["ops"]
"""

SERVICE = """
[services.s{n}]
relieve = "command.first-{n}"
{second}

[perceivers.s{n}]
kind = "log"
path = "{dir}/s{n}.log"
from_start = true
resource = "service:s{n}"
every = "100ms"
signals = [{{ name = "fault", match = 'FAULT (?P<id>[0-9-]+)', key = "id", clear_after = "1s" }}]

[commands.first-{n}]
argv = ["{python}", "-I", "-S", "{here}/effect.py", "do", "{dir}/ledger"]
undo = ["{python}", "-I", "-S", "{here}/effect.py", "undo", "{dir}/ledger"]
probe = ["{python}", "-I", "-S", "{here}/effect.py", "probe", "{dir}/ledger"]
target = ["service:s{n}"]

[commands.second-{n}]
argv = ["{python}", "-I", "-S", "{here}/effect.py", "do", "{dir}/ledger"]
probe = ["{python}", "-I", "-S", "{here}/effect.py", "probe", "{dir}/ledger"]
target = ["service:s{n}"]
"""

POLICY = """
schema = 1

[[rule]]
id = "all"
effect = "allow"
action = ["command.*"]
target = ["service:*"]
"""


RUNBOOK = """
schema = 1

[[runbook]]
id = "torture"
signals = ["fault"]
cause = "somebody torments the service"
remedy = [
  { steps = [{ verb = "relieve" }], proof = { clear_for = "60s", within = "200ms" } },
  { steps = [{ verb = "restart" }], proof = { clear_for = "0s", within = "20s" } },
]
test = [{ signals = ["fault"], expect = { actions = [["command.relieve-app"], ["command.restart-app"]] } }]
"""
"""The first remedy can never be proven in time, so it is always undone; where there is no second one, a person is called."""


class Torture:
    """A world whose only inhabitant dies all the time."""

    def __init__(self, directory: Path, receiver: Receiver, *, naive: bool = False) -> None:
        self.directory = directory
        self.receiver = receiver
        self.written: list[str] = []
        self.deaths = 0
        self._naive = naive
        self._dice = random.Random(7)
        self._prepare()
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "life.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), str(HERE.parent)])},
        )

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()

    def die_at_random(self) -> None:
        self._write_faults()
        pid = self._live(crash="", p=0)
        threading.Timer(self._dice.uniform(0.05, 0.9), os.kill, (pid, signal.SIGKILL)).start()
        self._await_death()

    def die_at_a_point(self) -> None:
        self._write_faults()
        pid = self._live(crash=POINTS, p=0.12)
        late = threading.Timer(4.0, os.kill, (pid, signal.SIGKILL))
        late.start()
        self._await_death()
        late.cancel()

    def live_to_the_end(self) -> None:
        self._live(crash="", p=0, until_idle=True)
        self._await_death()

    def findings(self) -> Findings:
        return check(
            self.directory / "state" / "midwatch.db",
            self.directory / "ledger",
            self.receiver.ids(),
            self.written,
        )

    def _live(self, *, crash: str, p: float, until_idle: bool = False) -> int:
        order = {
            "config": str(self.directory / "config.toml"),
            "crash": crash,
            "p": p,
            "naive": self._naive,
            "until_idle": until_idle,
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._answer()["pid"])

    def _await_death(self) -> None:
        status = self._answer()["status"]
        self.deaths += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, (
            f"a life ended by itself, status {status}"
        )

    def _answer(self) -> dict[str, int]:
        assert self._server.stdout is not None
        answer: dict[str, int] = json.loads(self._server.stdout.readline())
        return answer

    def _write_faults(self) -> None:
        number = self._dice.randrange(SERVICES)
        line = f"{len(self.written)}-{number}"
        with (self.directory / f"s{number}.log").open("a") as log:
            log.write(f"FAULT {line}\n")
        self.written.append(line)

    def _prepare(self) -> None:
        names = {"dir": self.directory, "python": sys.executable, "here": HERE}
        config = CONFIG.format(url=self.receiver.url, **names)
        for n in range(SERVICES):
            config += SERVICE.format(n=n, second=f'restart = "command.second-{n}"' if n % 2 else "", **names)
        (self.directory / "config.toml").write_text(config)
        (self.directory / "policies.d").mkdir(0o700)
        (self.directory / "policies.d" / "all.toml").write_text(POLICY)
        (self.directory / "runbooks.d").mkdir()
        (self.directory / "runbooks.d" / "torture.toml").write_text(RUNBOOK)
        for n in range(SERVICES):
            (self.directory / f"s{n}.log").touch()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def torment(torture: Torture, lives: int) -> Findings:
    """Half the lives end at random, half at a crash point; the last one is let live until all work is done."""
    try:
        for number in range(lives):
            if number % 2:
                torture.die_at_a_point()
            else:
                torture.die_at_random()
        torture.live_to_the_end()
        return torture.findings()
    finally:
        torture.close()


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_nothing_is_doubled_or_lost_over_many_deaths(tmp_path: Path, receiver: Receiver) -> None:
    torture = Torture(tmp_path, receiver)
    findings = torment(torture, LIVES)
    print(f"{torture.deaths} deaths, {findings}")
    assert findings.wrong() == {}
    assert torture.deaths >= LIVES * 0.9
    # A run in which little happened would prove little.
    assert findings.intents >= LIVES // 4
    assert findings.undone
    assert findings.settled
    assert findings.sent


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_the_checker_sees_what_a_naive_daemon_doubles(tmp_path: Path, receiver: Receiver) -> None:
    torture = Torture(tmp_path, receiver, naive=True)
    assert torment(torture, max(30, LIVES // 5)).duplicated
