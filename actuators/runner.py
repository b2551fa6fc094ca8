"""The only place that starts processes: argument lists, never a shell; an environment of nothing but what is given; every run bounded
in time and in output, and its whole process group ended when its time is over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from actuators import safefs
from actuators.shared import printable

READ = 2**20
"""Bytes of output that are read as they come; beyond, they are drained slowly."""
TAIL = 4096
"""Bytes of output that are kept: the last ones."""
CHUNK = 65536
SLOWLY = 0.01
"""Seconds between chunks once READ is passed: a flood then costs no more than 6 MiB a second."""
GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL."""
ORPHANED = 5.0
"""So many seconds past its limit a launcher ends its command by itself: the daemon must be dead, else it had done so."""
LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a process ended."""

    exit_code: int | None
    """128 + N when signal N ended it; None when it could not be started or its time was over."""
    output_tail: str
    """The end of stdout and stderr together, control characters replaced; why, when it could not be started."""
    timed_out: bool = False
    duration: float = 0.0
    """Seconds."""

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


class Runner:
    """Starts processes and waits for them."""

    async def run(
        self, argv: Sequence[str], *, env: Mapping[str, str], timeout: float, cwd: str = "/", key: str = ""
    ) -> Ran:
        """Run `argv` (its first element an absolute path) to its end, or for `timeout` seconds.

        The run is over when the process itself ends, even if processes it left behind still hold its output; those live on. Cancelled,
        the whole group is killed. `key` marks the run for `settled`. Never raises for what the host does.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            output = _Output(loop)
        except OSError as exc:
            return Ran(None, f"cannot be started: {exc}")
        try:
            code = await self._run(_launched(argv, timeout, key), env, cwd, timeout, output)
        except (OSError, ValueError) as exc:
            return Ran(None, f"cannot be started: {exc}", duration=loop.time() - began)
        finally:
            output.close()
        return Ran(code, output.tail(), code is None, loop.time() - began)

    async def _run(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, timeout: float, output: _Output
    ) -> int | None:
        # Blocking, and that is meant: it returns when the launcher has begun (some 3 ms), so every process has its waiter.
        process = subprocess.Popen(  # noqa: ASYNC220
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output.writer,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        ended = False
        try:
            output.start()
            ended = await _ends(process.pid, timeout)
            if not ended:
                os.killpg(process.pid, signal.SIGTERM)
                await _ends(process.pid, GRACE)
        finally:
            if not ended:
                # Not waited for yet, so its number is still the group's and nobody else's.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return process.returncode if ended else None

    async def settled(self, key: str, within: float) -> bool:
        """Wait until no run of `key` is in flight, not even one that a daemon which died has left behind; False when one still is
        after `within` seconds."""
        for pid in await asyncio.to_thread(_in_flight, key):
            with suppress(ProcessLookupError):
                if not await _ends(pid, within):
                    return False
        return True


async def ended(pidfd: int, within: float) -> bool:
    """Wait until the process behind the descriptor has ended; False when it still runs after `within` seconds."""
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_reader(pidfd, end.set)
    try:
        async with asyncio.timeout(within):
            await end.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True


async def _ends(pid: int, within: float) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        return await ended(pidfd, within)
    finally:
        os.close(pidfd)


def _launched(argv: Sequence[str], timeout: float, key: str) -> list[str]:
    return [sys.executable, "-I", "-S", LAUNCHER, key, str(timeout + GRACE + ORPHANED), *argv]


def _in_flight(key: str) -> list[int]:
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _runs(pid, key)]


def _runs(pid: str, key: str) -> bool:
    try:
        line = safefs.load(f"/proc/{pid}/cmdline").data.split(b"\0")
    except OSError:
        return False
    return line[4:5] == [key.encode()] and os.path.basename(line[3]) == os.path.basename(LAUNCHER).encode()


class _Output:
    """What a command writes: read as it comes, the end of it kept."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._kept = b""
        self._count = 0
        self._slowed: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to read. The command alone holds the other end from now on."""
        os.close(self.writer)
        self.writer = -1
        self._resume()

    def close(self) -> None:
        """Read what is there, but wait for no more."""
        self._pause()
        for _ in range(READ // CHUNK):
            if not self._take():
                break
        os.close(self._reader)
        if self.writer >= 0:
            os.close(self.writer)

    def tail(self) -> str:
        return printable(self._kept.decode("utf-8", "replace"))

    def _resume(self) -> None:
        self._loop.add_reader(self._reader, self._ready)

    def _pause(self) -> None:
        self._loop.remove_reader(self._reader)
        if self._slowed is not None:
            self._slowed.cancel()

    def _ready(self) -> None:
        if self._take() == b"":
            self._pause()
        elif self._count > READ:
            # Not reading at all would hang the command on a full pipe; a closed pipe would break it half way.
            self._pause()
            self._slowed = self._loop.call_later(SLOWLY, self._resume)

    def _take(self) -> bytes | None:
        """Read one chunk; empty at the end, None when there is nothing yet."""
        try:
            chunk = os.read(self._reader, CHUNK)
        except BlockingIOError:
            return None
        self._count += len(chunk)
        self._kept = (self._kept + chunk)[-TAIL:]
        return chunk
