"""The demo's world in a temporary directory: services under a supervisor, a webhook receiver, the real daemon over them.

Runbooks and the vendor's policies are the shipped ones. The demo's own are times, targets and allow rules, all in the two files below.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen

from daemon.api.client import Client
from daemon.demo.receiver import Receiver
from daemon.errors import MidwatchError, NotRunning

SUPERVISOR = Path(__file__).with_name("supervisor.py")
NEEDS = {"shop-a": "db", "shop-b": "db", "shop-c": "db"}
SERVICES = ("web", "api", "billing", "db", *NEEDS, "cache", "ledger", "payments", "payroll", "queue", "noisy")
START = 20.0
"""Seconds for the services, and again for the daemon, to come up."""

CONFIG = """
schema = 1
mode = "act"
packs = ["host", "service"]

[daemon]
state = "{dir}/state"
socket = "{dir}/admin.sock"
policies = "{dir}/policies.d"
grace = "0s"
ballast = "0B"

[channels.ops]
kind = "webhook"
url = "{url}"
secret = {{ file = "{dir}/webhook.key" }}

[routes]
critical = ["ops"]
error = ["ops"]

[people.anna]
channels = ["ops"]
token = {{ file = "{dir}/anna.key" }}

[hold]
while = ["path:{dir}/hold"]

[directories.spool]
path = "{dir}/spool"
match = ["dump-*.tmp"]
keep = {{ newest = 2 }}

[perceivers.spool]
kind = "file"
path = "{dir}/spool"
resource = "path:{dir}/spool"
every = "500ms"
signals = [{{ name = "directory-filling", when = "size_bytes > 20MiB", severity = "error" }}]

[perceivers.billing-log]
kind = "log"
path = "{dir}/billing.log"
resource = "service:billing"
every = "500ms"
signals = [{{ name = "service-errors", match = 'ERROR (?P<what>[a-z ]+)', count = "10 in 10s", clear_after = "2s" }}]

[perceivers.billing-conf]
kind = "file"
path = "{dir}/billing.conf"
resource = "service:billing"
every = "500ms"
signals = [{{ name = "config-changed", when = "changed", severity = "info" }}]

[perceivers.noisy-log]
kind = "log"
path = "{dir}/noisy.log"
resource = "service:noisy"
every = "500ms"
signals = [{{ name = "service-errors", match = 'ERROR (?P<what>.*)', count = "100 in 10s", key = "what" }}]

[commands.relieve-cache]
argv = ["{touch}", "{dir}/cache.relieved"]
undo = ["{rm}", "{dir}/cache.relieved"]
target = ["service:cache"]
describe = "drops what the cache holds"
"""

SERVICE = """
[services.{name}]
start = "command.start-{name}"
restart = "command.restart-{name}"
reload = "command.reload-{name}"
{more}

[perceivers.{name}]
kind = "http"
url = "http://127.0.0.1:{port}/health"
resource = "service:{name}"
every = "500ms"
timeout = "1s"
signals = [
  {{ name = "service-down", when = "down", for = "{down_for}", severity = "critical" }},
  {{ name = "service-hung", when = "hung", severity = "critical" }},
  {{ name = "service-erroring", when = "status >= 500", for = "{erring_for}", severity = "error" }},
]
"""

COMMAND = """
[commands.{verb}-{name}]
argv = ["{python}", "-I", "-S", "{supervisor}", "tell", "{dir}", "{verb}", "{name}"]
target = ["service:{name}"]
"""

LAWS = """
schema = 1

[[rule]]
id = "ledger-never"
effect = "deny"
action = ["command.*"]
target = ["service:ledger"]
reason = "The ledger is started by a person, after a look at its books."
"""

LEAVES = """
[groups]
ours = ["service:web", "service:api", "service:billing", "service:db", "service:shop-*", "service:cache", "service:queue"]

[[rule]]
id = "repair-services"
effect = "allow"
action = ["command.start-*", "command.restart-*", "command.reload-*", "command.relieve-*"]
target = ["@ours"]
severity = ">=error"
rate = ["4/1h per target"]

[[rule]]
id = "restore-configuration"
effect = "allow"
action = ["file.restore"]
target = ["path:{dir}/*.conf"]

[[rule]]
id = "clean-spool"
effect = "allow"
action = ["file.delete"]
target = ["path:{dir}/spool"]
irreversible = true
max = {{ files = 100, bytes = "1GiB" }}

[[rule]]
id = "payments-ask"
effect = "require-approval"
action = ["command.start-payments", "command.restart-payments"]
target = ["service:payments"]
approvals = {{ from = ["anna"], quorum = 1, expires = "30s" }}

[[rule]]
id = "payroll-ask"
effect = "require-approval"
action = ["command.start-payroll", "command.restart-payroll"]
target = ["service:payroll"]
approvals = {{ from = ["anna"], quorum = 1, expires = "6s" }}
"""


class DemoError(MidwatchError):
    """The demo's world did not come up; the text says what to look at."""


class World:
    """Everything the stories happen in. Use as a context manager; leaving it ends every process and removes the directory."""

    def __init__(self, directory: Path, *, deny: bool) -> None:
        self.directory = directory
        self.ports = dict(zip(SERVICES, _free_ports(len(SERVICES)), strict=True))
        self._deny = deny
        self._processes: list[subprocess.Popen[bytes]] = []
        key = b64encode(secrets.token_bytes(32)).decode()
        self.receiver = Receiver("whsec_" + key)
        self._write("webhook.key", "whsec_" + key)
        self._token = secrets.token_urlsafe(24)
        self._write("anna.key", self._token)
        self.client = Client(directory / "admin.sock")
        self.anna = Client(directory / "admin.sock", self._token)

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self._launch(
                [sys.executable, "-I", "-S", str(SUPERVISOR), "serve", str(self.directory)], "supervisor"
            )
            _await("the services", lambda: all(self.probe(name) == 200 for name in SERVICES))
            self._launch(
                [sys.executable, "-m", "daemon", "--config", str(self.directory / "config.toml")], "midwatch"
            )
            _await(f"midwatch (see {self.directory}/midwatch.out)", self._watching)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.receiver.close()

    # what stories do ---------------------------------------------------------------------------------------------

    def tell(self, verb: str, name: str) -> None:
        """Give the supervisor an order, behind midwatch's back."""
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(SUPERVISOR), "tell", str(self.directory), verb, name],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise DemoError(f"the supervisor could not {verb} {name}: {done.stdout.decode().strip()}")

    def probe(self, name: str) -> int:
        """HTTP status of a service as seen from outside the daemon; 0 when it does not answer."""
        return self._request(Request(f"http://127.0.0.1:{self.ports[name]}/health"))

    def corrupt(self, name: str) -> None:
        self._request(Request(f"http://127.0.0.1:{self.ports[name]}/fault", method="POST"))

    def configure(self, name: str, text: str) -> None:
        """Deploy a configuration, as a person with an editor would."""
        (self.directory / f"{name}.conf").write_text(text)
        self.tell("reload", name)

    def path(self, name: str) -> Path:
        return self.directory / name

    # what the daemon says ----------------------------------------------------------------------------------------

    def incidents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/incidents?all=1")
        return found

    def incident(self, incident: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/incidents/{incident}")
        return found

    def status(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.client.get("/status")
        return found

    # building ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        for name in SERVICES:
            needs = [f"127.0.0.1:{self.ports[NEEDS[name]]}"] if name in NEEDS else []
            self._write(f"{name}.conf", json.dumps({"limit": 10, "needs": needs}))
            self._write(f"{name}.log", "")
        (self.directory / "spool").mkdir()
        self._write("services.json", json.dumps(self.ports))
        self._write("config.toml", self._config())
        (self.directory / "policies.d").mkdir(0o700)
        leaves = "" if self._deny else LEAVES.format(dir=self.directory)
        self._write("policies.d/demo.toml", LAWS + leaves)

    def _config(self) -> str:
        names = {"dir": self.directory, "python": sys.executable, "supervisor": SUPERVISOR}
        tools = {"touch": shutil.which("touch"), "rm": shutil.which("rm"), "url": self.receiver.url}
        parts = [CONFIG.format(**names, **tools)]
        for name, port in self.ports.items():
            parts.append(SERVICE.format(name=name, port=port, more=self._more(name), **_patience(name)))
            parts += [
                COMMAND.format(verb=verb, name=name, **names) for verb in ("start", "restart", "reload")
            ]
        return "".join(parts)

    def _more(self, name: str) -> str:
        own = {
            "billing": f'files = ["{self.directory}/billing.conf"]\nquiet = "2s"',
            "cache": 'relieve = "command.relieve-cache"',
        }
        return f'depends_on = ["service:{NEEDS[name]}"]' if name in NEEDS else own.get(name, "")

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)

    def _launch(self, argv: list[str], name: str) -> None:
        with self.path(f"{name}.out").open("wb") as out:
            kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
            self._processes.append(
                subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env=kept, cwd=self.directory)
            )

    def _watching(self) -> bool:
        """Whether midwatch answers and holds a good copy of the one configuration that a story breaks."""
        if self._processes[-1].poll() is not None:
            raise DemoError(f"midwatch ended: {self.path('midwatch.out').read_text()[-2000:]}")
        try:
            return str(self.path("billing.conf")) in self.status()["self"]["last_good"]
        except NotRunning:
            return False

    @staticmethod
    def _request(request: Request) -> int:
        try:
            with urlopen(request, timeout=1.0) as answer:
                status: int = answer.status
                return status
        except OSError as exc:
            return int(getattr(exc, "code", 0))


def _patience(name: str) -> dict[str, str]:
    """The shops fail at once when the database is gone, which itself is given a moment: the symptoms are there before the root."""
    return {"down_for": "1500ms" if name == "db" else "0s", "erring_for": "0s" if name in NEEDS else "1s"}


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return ports


def _await(what: str, done: Callable[[], bool]) -> None:
    end = time.monotonic() + START
    while not done():
        if time.monotonic() > end:
            raise DemoError(f"{what} did not come up within {START:g} s")
        time.sleep(0.1)
