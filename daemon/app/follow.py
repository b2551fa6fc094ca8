"""Reloading by itself: the files are followed, and once they were changed and then left alone for a while they are taken up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.app.assemble import Assembly
from daemon.clock import Clock

if TYPE_CHECKING:
    from watchfiles.main import FileChange

log = logging.getLogger(__name__)
LOOK = 0.2
"""Seconds between looks at what the kernel told of."""
RETRY = 5.0
"""Seconds before directories that could not be followed are tried again."""


class Follower:
    """Runs for as long as the daemon does: whether to follow at all, for how long to wait, and what to look at may change with each reload."""

    def __init__(
        self,
        assembly: Callable[[], Assembly],
        reload: Callable[[], Awaitable[None]],
        clock: Clock,
        retry: float = RETRY,
    ) -> None:
        """`assembly` gives the one in force; `reload` says itself what became of it."""
        self._assembly = assembly
        self._reload = reload
        self._clock = clock
        self._retry = retry
        self._turned = asyncio.Event()

    def turn(self) -> None:
        """What is in force has changed: look at its settings and its files from now on."""
        self._turned.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._turned = asyncio.Event()
            quiet = self._assembly().config.settings.daemon.reload_on_change
            try:
                await (self._turned.wait() if quiet is None else self._follow(quiet))
            except Exception:
                # The edge: a fault in the following, or in the kernel's watching, must not end it without a word.
                log.exception("the files cannot be followed; tried again in %g s", self._retry)
                await asyncio.sleep(self._retry)

    async def _follow(self, quiet: float) -> None:
        """Until what is in force, or where it lies, has changed: take up what changes once it has rested for `quiet` seconds."""
        places, moved = _places(self._assembly()), False
        # What changed after it was read and before anybody followed it counts as well.
        last = self._clock.boottime() if self._assembly().changed() else None
        async with aclosing(self._looks(places)) as looks:
            async for changes in looks:
                paths = {Path(path) for _, path in changes}
                if any(_concerns(path, places) for path in paths):
                    last, moved = self._clock.boottime(), moved or not paths.isdisjoint(places)
                elif last is not None and self._clock.boottime() - last >= quiet:
                    await self._take_up()
                    if moved:
                        return
                    last = None

    async def _take_up(self) -> None:
        if changed := self._assembly().changed():
            log.info("reloading: %s changed", ", ".join(changed))
            await self._reload()

    def _looks(self, places: set[Path]) -> AsyncGenerator[set[FileChange], None]:
        """Every LOOK seconds, what changed since the last time; ends when somebody turns us."""
        from watchfiles import awatch

        # Not recursive: the journal may well lie below, and it changes all the time. No filter: a look without changes counts, too.
        return awatch(
            *(place for place in places if place.is_dir()),
            watch_filter=None,
            recursive=False,
            step=round(LOOK * 500),
            rust_timeout=round(LOOK * 1000),
            yield_on_timeout=True,
            stop_event=self._turned,
        )


def _places(assembly: Assembly) -> set[Path]:
    """The directories that hold what a reload reads."""
    config = assembly.config
    return {config.path.parent, config.path.parent / "conf.d", config.places.policies, config.places.runbooks}


def _concerns(path: Path, places: set[Path]) -> bool:
    """Whether a change is one to what a reload reads: a file of TOML, or one of the directories come or gone."""
    return path in places or (path.suffix == ".toml" and path.parent in places)
