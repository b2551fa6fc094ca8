"""The contract suite's scenes for logs and files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from fakes.perceiver_case import Case, Scene

from perceivers import file, log
from perceivers.base import Observation, Rule, Spec

RULES = (Rule("failed", r"Failed password from (?P<ip>\S+)", "ip"), Rule("slow", r"took \d+ ms"))


@asynccontextmanager
async def _log(directory: Path) -> AsyncIterator[Scene]:
    path = directory / "auth.log"
    path.write_text("Failed password from 192.0.2.99, before anybody looked\n")
    numbers = count(1)

    async def happen() -> None:
        number = next(numbers)
        with path.open("a") as writer:
            writer.write(
                f"Failed password from 192.0.2.{number % 3}\ntook {number} ms\nnothing of interest\n"
            )
        if number % 3 == 0:
            path.rename(directory / f"auth.log-{20260000 + number}")
            path.touch()

    async def spoil() -> None:
        path.unlink()

    settings = log.LogSettings(path=str(path))
    yield Scene(Spec("auth", "service:ssh", settings, RULES), happen, spoil)


@asynccontextmanager
async def _logs(directory: Path) -> AsyncIterator[Scene]:
    numbers = count(1)

    async def happen() -> None:
        number = next(numbers)
        with (directory / f"worker-{number % 2}.log").open("a") as writer:
            writer.write(f"Failed password from 192.0.2.{number}\n")

    async def spoil() -> None:
        for path in directory.glob("*.log"):
            path.unlink()

    settings = log.LogSettings(path=f"{directory}/*.log", from_start=True)
    yield Scene(Spec("workers", "service:app", settings, RULES), happen, spoil)


@asynccontextmanager
async def _file(directory: Path) -> AsyncIterator[Scene]:
    path = directory / "app.conf"
    path.write_text("level = 0\n")
    numbers = count(1)

    async def happen() -> None:
        path.write_text(f"level = {next(numbers)}\n")

    async def spoil() -> None:
        path.unlink()

    yield Scene(Spec("conf", "service:app", file.FileSettings(path=str(path))), happen, spoil)


@asynccontextmanager
async def _directory(directory: Path) -> AsyncIterator[Scene]:
    path = directory / "spool"
    path.mkdir()
    numbers = count(1)

    async def happen() -> None:
        (path / f"{next(numbers)}.job").write_text("work")

    async def spoil() -> None:
        for job in path.iterdir():
            job.unlink()
        path.rmdir()

    yield Scene(
        Spec("spool", "service:app", file.FileSettings(path=str(path), match=["*.job"])), happen, spoil
    )


def _gone(seen: Sequence[Observation]) -> bool:
    return any(one.values.get("exists") is False for one in seen)


CASES: list[Case] = [
    Case("log", log.KIND, _log, _gone, frozenset({"idle"})),
    Case("log-glob", log.KIND, _logs, _gone, frozenset({"idle"})),
    Case("file", file.KIND, _file, _gone, frozenset({"age"})),
    Case("file-directory", file.KIND, _directory, _gone, frozenset({"age"})),
]
