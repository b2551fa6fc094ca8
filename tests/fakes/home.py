"""A home for a real midwatch in a directory of its own: files, the daemon over them (in this process or another), a client."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from daemon.api.client import Client
from daemon.app.app import App
from daemon.errors import NotRunning

T = TypeVar("T")
HEAD = """
schema = 1
mode = "{mode}"
packs = []

[daemon]
state = "{dir}/state"
socket = "{dir}/admin.sock"
grace = "0s"
ballast = "0B"
{daemon}
"""
ALLOW = """
schema = 1

[[rule]]
id = "mend"
effect = "allow"
action = ["command.*"]
target = ["service:*"]
"""
WITHIN = 30.0
"""Seconds in which whatever a test waits for must have come; on a quiet machine it comes at once."""
LOOK = 0.02


class Home:
    """Paths below `directory`; `configure`, `allow` and `write` make the files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.toml"
        self.client = Client(directory / "admin.sock")
        for name in ("policies.d", "runbooks.d"):
            (directory / name).mkdir(mode=0o700)

    def path(self, name: str) -> Path:
        return self.directory / name

    def write(self, name: str, text: str) -> Path:
        """Put `text` into a file, `{dir}` standing for the home; nobody else may read or write it."""
        path = self.path(name)
        fresh = path.with_name(f".{path.name}.fresh")
        fresh.write_text(text.replace("{dir}", str(self.directory)))
        fresh.chmod(0o600)
        fresh.rename(path)
        return path

    def configure(self, text: str = "", *, mode: str = "act", daemon: str = "") -> Path:
        return self.write("config.toml", HEAD.replace("{mode}", mode).replace("{daemon}", daemon) + text)

    def allow(self, text: str = ALLOW) -> Path:
        return self.write("policies.d/site.toml", text)

    def append(self, name: str, text: str) -> None:
        with self.path(name).open("a") as file:
            file.write(text)

    # the daemon in this process ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        app = App(self.config)
        await app.start()
        try:
            yield app
        finally:
            await app.stop()

    async def get(self, path: str) -> Any:
        return await asyncio.to_thread(self.client.get, path)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return await asyncio.to_thread(self.client.post, path, body)

    async def incident(self, state: str, resource: str = "") -> dict[str, Any]:
        """The one incident (on `resource`, if given) once it is in `state`."""

        async def found() -> dict[str, Any] | None:
            rows = await self.get("/incidents?all=1")
            here = [row for row in rows if row["state"] == state and resource in ("", row["resource"])]
            return await self.get(f"/incidents/{here[0]['id']}") if here else None

        return await until(found)

    # the daemon as a process -------------------------------------------------------------------------------------

    @contextmanager
    def process(self, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Process]:
        """`midwatch run` over the configuration, or another command; ended at the end, if it has not ended itself."""
        argv = [sys.executable, "-m", "daemon", "--config", str(self.config)]
        address = str(self.path("notify.sock"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, self.path("err").open("ab") as err:
            self.path("notify.sock").unlink(missing_ok=True)
            notified.bind(address)
            notified.settimeout(WITHIN)
            process = subprocess.Popen(
                list(words) or argv,
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
                env={**plain_environment(self.directory), "NOTIFY_SOCKET": address, **(env or {})},
                cwd=self.directory,
            )
            try:
                yield Process(process, notified, self.path("err"))
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                process.wait()

    def ask(self, path: str) -> Any:
        """What a daemon in another process answers; None when nobody does."""
        try:
            return self.client.get(path)
        except NotRunning:
            return None


@dataclass(frozen=True)
class Process:
    """A midwatch process, and what it tells its supervisor."""

    popen: subprocess.Popen[bytes]
    notified: socket.socket
    err: Path

    def told(self, line: str) -> list[str]:
        """Wait until the supervisor is told `line`; gives all the lines of that datagram."""
        try:
            while line not in (lines := self.notified.recv(4096).decode().splitlines()):
                pass
        except TimeoutError:
            raise AssertionError(f"the supervisor was not told {line}: {self.said()}") from None
        return lines

    def ready(self) -> Process:
        self.told("READY=1")
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(WITHIN)

    def said(self) -> str:
        """All that it and those before it wrote."""
        return self.err.read_text()


def plain_environment(home: Path) -> dict[str, str]:
    """Nothing of this machine's but the search path: no other configuration, no other state."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


def midwatch(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a `midwatch` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        env=plain_environment(home),
        cwd=home,
        timeout=60,
    )


async def until(found: Callable[[], Awaitable[T | None]], within: float = WITHIN) -> T:
    """Look until there is something to be found, and give it."""
    end = time.monotonic() + within
    while not (result := await found()):
        assert time.monotonic() < end, f"it did not come within {within:g} s: {found.__qualname__}"
        await asyncio.sleep(LOOK)
    return result


def wait_until(found: Callable[[], T | None], within: float = WITHIN) -> T:
    """As `until`, where there is no loop."""
    end = time.monotonic() + within
    while not (result := found()):
        assert time.monotonic() < end, f"it did not come within {within:g} s: {found.__qualname__}"
        time.sleep(LOOK)
    return result


def kinds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds of journal rows, in order."""
    return [str(row["kind"]) for row in rows]
