"""Random interleavings of what writers, logrotate and kill -9 do: no line is lost, none is seen twice."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from fakes.log_world import LogWorld, once
from hypothesis import given
from hypothesis import strategies as st

STEPS = [
    "line",
    "line",
    "begin",
    "finish",
    "rotate",
    "late",
    "recreate",
    "truncate",
    "poll",
    "poll",
    "restart",
    "wait",
]


class Story:
    """Carries out steps, and knows which probes a reader must have seen: those whose line was ended before it was destroyed."""

    def __init__(self, directory: Path) -> None:
        self.world = LogWorld(directory / "app.log")
        self.world.path.touch()
        self.written = 0
        self.half = False
        self.rotations = 0

    async def tell(self, steps: list[str]) -> None:
        await self.world.poll()
        for step in steps:
            await getattr(self, step)()
        await self.finish()
        await self.world.poll()
        await self.world.pass_grace()
        await self.world.poll()
        await self.world.perceiver.close()

    async def line(self) -> None:
        await self.finish()
        self.world.write(self._next())

    async def begin(self) -> None:
        """A writer's buffer ends within a line."""
        if not self.half:
            self.world.append(b"the first half with pro")
            self.half = True

    async def finish(self) -> None:
        if self.half:
            self.world.append(b"be %d and the rest\n" % self._next())
            self.half = False

    async def rotate(self) -> None:
        await self.finish()
        self._make_room()
        self.world.rotate()

    async def late(self) -> None:
        """Rotation in which the new file comes only after somebody looked; the writer goes on in the old one for a while."""
        await self.finish()
        self._make_room()
        rotated = self.world.rotate(create=False)
        await self.world.poll()
        self.world.write(self._next(), to=rotated)
        self.world.path.touch()
        await self.world.poll()
        self.world.write(self._next(), to=rotated)

    async def recreate(self) -> None:
        await self.finish()
        # What is deleted or truncated before anybody looked is lost to every reader.
        await self.world.poll()
        self.world.path.unlink()
        self.world.path.touch()
        # Nor can anybody tell what a file once was that came after a deletion and lost its name again unseen.
        await self.world.poll()

    async def truncate(self) -> None:
        await self.finish()
        await self.world.poll()
        os.truncate(self.world.path, 0)

    async def poll(self) -> None:
        await self.world.poll()

    async def wait(self) -> None:
        await self.world.pass_grace()

    async def restart(self) -> None:
        await self.world.die_and_restart()

    def _next(self) -> int:
        self.written += 1
        return self.written

    def _make_room(self) -> None:
        self.rotations += 1
        for number in range(self.rotations, 0, -1):
            if (older := self.world.sibling(f".{number}")).exists():
                older.rename(self.world.sibling(f".{number + 1}"))


@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_every_line_exactly_once(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        story = Story(Path(directory))
        asyncio.run(story.tell(steps))
        assert story.world.seen == once(*range(1, story.written + 1))
