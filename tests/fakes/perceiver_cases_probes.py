"""The contract suite's scenes for the host, processes, HTTP and TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fakes.perceiver_case import Case, Scene
from fakes.probe_processes import sleepers
from fakes.probe_servers import answer, greeting, saying, serving

from perceivers import host, http, process, tcp
from perceivers.base import Observation, Spec


async def nothing() -> None:
    """Nothing new can be seen, or the trouble is there already."""


@asynccontextmanager
async def _host(directory: Path) -> AsyncIterator[Scene]:
    settings = host.Settings(mounts=["/", str(directory / "not-mounted")])
    yield Scene(Spec("host", "host", settings), nothing, nothing)


def _not_mounted(seen: Sequence[Observation]) -> bool:
    return any(one.values.get("mounted") is False and one.unreadable for one in seen)


@asynccontextmanager
async def _pidfile(directory: Path) -> AsyncIterator[Scene]:
    with sleepers() as children:
        pidfile = directory / "app.pid"
        pidfile.write_text(f"{children.start()}\n")

        async def spoil() -> None:
            children.kill()

        yield Scene(Spec("app", "service:app", process.Settings(pidfile=str(pidfile))), nothing, spoil)


@asynccontextmanager
async def _each(directory: Path) -> AsyncIterator[Scene]:
    with sleepers() as children:
        children.start()

        async def happen() -> None:
            children.start()
            if len(children.running) > 3:
                children.kill()

        async def spoil() -> None:
            while children.running:
                children.kill()

        settings = process.Settings(command=children.pattern, each=True)
        yield Scene(Spec("app", "service:app", settings), happen, spoil)


@asynccontextmanager
async def _http(directory: Path) -> AsyncIterator[Scene]:
    async with serving(saying(answer())) as server:
        yield Scene(
            Spec("web", "service:web", http.Settings(url=server.url, body="fine")), nothing, server.stop
        )


@asynccontextmanager
async def _tcp(directory: Path) -> AsyncIterator[Scene]:
    async with serving(greeting(b"220 ready\r\n")) as server:
        settings = tcp.Settings(address=server.address, expect="220")
        yield Scene(Spec("mail", "service:mail", settings), nothing, server.stop)


def _down(seen: Sequence[Observation]) -> bool:
    return seen[0].values["up"] is False and bool(seen[0].values["error"])


CASES: list[Case] = [
    Case(
        "host",
        host.KIND,
        _host,
        _not_mounted,
        moving=frozenset(host.KIND.values) - {"path", "mounted", "read_only"},
    ),
    Case(
        "process-pidfile",
        process.KIND,
        _pidfile,
        _down,
        moving=frozenset(("age", "rss_bytes", "cpu", "cpu_total")),
    ),
    Case(
        "process-each",
        process.KIND,
        _each,
        _down,
        moving=frozenset(("age", "rss_bytes", "cpu")),
    ),
    Case("http", http.KIND, _http, _down, moving=frozenset(("latency",))),
    Case("tcp", tcp.KIND, _tcp, _down, moving=frozenset(("latency",))),
]
