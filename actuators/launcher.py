"""Starts one command under limits and ends as it ends. A script of `actuators.runner`: launcher.py KEY SECONDS PROGRAM ARGUMENT...

It stays beside the command until that ends, for two reasons. Its command line carries the idempotency key, so that a midwatch which
died and came back sees what is still in flight. And it ends the command when its time is over, though nobody else may be left to.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

LIMITS = {
    resource.RLIMIT_AS: 64 * 2**30,
    resource.RLIMIT_FSIZE: 64 * 2**30,
    resource.RLIMIT_CORE: 0,
}
"""Against accidents, not against enemies: a service that a command starts inherits them, so they are generous and soft."""
NO_NEW_PRIVILEGES = 38
"""PR_SET_NO_NEW_PRIVS."""
CANNOT_START = 127
"""Exit code when the program cannot be started, as a shell has it."""


def main() -> int:
    seconds, command = float(sys.argv[2]), sys.argv[3:]
    _confine()
    # SIGTERM goes to the whole group and is the command's to answer; dying of it here would hide how the command ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda number, frame: os.killpg(0, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # SIGPIPE stays ignored, as under systemd: a service left behind by the command, writing to a pipe that nobody reads any more,
    # gets an error and lives.
    try:
        child = os.posix_spawn(command[0], command, _environment(), setsigdef=[signal.SIGTERM], setsigmask=[])
    except OSError as exc:
        os.write(2, f"cannot start {command[0]}: {exc.strerror}\n".encode())
        return CANNOT_START
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def _confine() -> None:
    for limit, wanted in LIMITS.items():
        soft, hard = resource.getrlimit(limit)
        ceilings = [value for value in (soft, hard, wanted) if value != resource.RLIM_INFINITY]
        resource.setrlimit(limit, (min(ceilings), hard))
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero)
    # The daemon's own umask hides its files; what a command makes is for others.
    os.umask(0o022)


def _environment() -> dict[bytes, bytes]:
    """What was given, to the letter: os.environ may hold an LC_CTYPE that the interpreter put there itself."""
    with open("/proc/self/environ", "rb") as block:
        pairs = [entry.partition(b"=") for entry in block.read().split(b"\0") if entry]
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    sys.exit(main())
