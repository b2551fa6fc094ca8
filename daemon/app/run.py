"""`midwatch run`: the daemon as a process. Signals, logs, exit codes."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import sys
from pathlib import Path

from daemon.app.app import App
from daemon.errors import ConfigError, MidwatchError

log = logging.getLogger(__name__)
FAILURE = 1
BAD_CONFIGURATION = 78
"""EX_CONFIG of sysexits(3); the unit does not restart on it."""
CHATTY = ("apscheduler", "httpx", "watchfiles")
"""Libraries whose everyday words are of no use to an operator."""


def run(path: Path) -> int:
    """Stand watch until SIGTERM or SIGINT; SIGHUP reloads. Gives the exit code."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return asyncio.run(_stand_watch(path))
    except ConfigError as exc:
        sys.stderr.write(f"{exc}\n")
        return BAD_CONFIGURATION
    except (MidwatchError, OSError) as exc:
        sys.stderr.write(f"midwatch cannot stand watch: {exc}\n")
        return FAILURE


async def _stand_watch(path: Path) -> int:
    leave, again = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    # Before anything else: a signal that comes during the start must neither kill nor be lost.
    loop.add_signal_handler(signal.SIGTERM, leave.set)
    loop.add_signal_handler(signal.SIGINT, leave.set)
    loop.add_signal_handler(signal.SIGHUP, again.set)
    app = App(path)
    await app.start()
    settle()
    reloads = asyncio.create_task(_reload_on(again, app), name="reloads")
    try:
        await _first(leave, app.lost)
        log.info("stopping")
        await app.stop()
    finally:
        reloads.cancel()
    return FAILURE if app.lost.is_set() else 0


def settle() -> None:
    """Put aside what the start leaves behind: its modules live as long as the process, so no collection need walk over them again, and
    what reading and compiling took is given back to the system."""
    gc.collect()
    gc.freeze()
    # glibc's own; another C library keeps its memory as it likes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _reload_on(again: asyncio.Event, app: App) -> None:
    """Reload each time the event is set; however often that was meanwhile, once is enough."""
    while True:
        await again.wait()
        again.clear()
        await app.reload_and_say()
