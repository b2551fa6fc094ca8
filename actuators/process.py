"""Signals to one process. It is meant by number *and* start time, and signalled through a descriptor: never its number's next owner."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from actuators.base import Action, Check, Files, Outcome, Probe, Result, Tools
from actuators.runner import ended
from actuators.shared import Once, carried_through, only, verb_of

SIGNALS = ("TERM", "HUP", "INT", "USR1", "USR2", "QUIT", "KILL", "STOP", "CONT")
ENDING = frozenset({"TERM", "INT", "QUIT", "KILL"})
"""Signals after which the process is expected to be gone."""
PATIENCE = 5.0
"""Seconds within which it must be gone."""
GENERATIONS = 64
"""Ancestors of our own that are looked at."""
_TARGET = re.compile(r"process:([1-9][0-9]{0,9})(?:@([0-9]{1,20}))?")
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What /proc says of a process."""

    comm: str
    state: str
    parent: int
    start: int
    kernel: bool
    uid: int


class ProcessActuator:
    """See actuators.base.Actuator."""

    kind = "process"

    def __init__(self, tools: Tools, patience: float = PATIENCE) -> None:
        self._files = tools.files
        self._patience = patience
        self._once = Once()
        self._family: tuple[int, frozenset[int]] = (0, frozenset())
        """Our parent, and all that it descends from; looked up again when we have another one."""
        self.verbs: Mapping[str, str] = {"signal": "sends one signal to one process"}
        self.irreversible: frozenset[str] = frozenset()
        self.undoable: frozenset[str] = frozenset()

    async def resolve(self, action: Action) -> Action:
        verb_of(action, self.kind, self.verbs)
        only(action, ("signal",))
        name = action.params.get("signal", "TERM")
        if name not in SIGNALS:
            raise ValueError(f"signal must be one of {', '.join(SIGNALS)}, not {name!r:.100}")
        return replace(action, target=self._canonical(action.target), params={"signal": name})

    def _canonical(self, target: str) -> str:
        match = _TARGET.fullmatch(target)
        if match is None:
            raise ValueError("the target must be process:PID or process:PID@START")
        if int(match[1]) in (1, os.getpid()):
            raise ValueError(f"process {match[1]} is {'init' if match[1] == '1' else 'midwatch itself'}")
        if match[2] is not None:
            return target
        try:
            return f"{target}@{_look(self._files, int(match[1])).start}"
        except OSError as exc:
            raise ValueError(f"there is no process {match[1]}: {exc.strerror}") from exc

    async def check(self, action: Action) -> Check:
        pid, start = _named(action.target)
        try:
            with _held(pid) as pidfd:
                seen = _look(self._files, pid)
                signal.pidfd_send_signal(pidfd, 0)
            forbidden = self._forbidden(pid, seen, start)
        except PermissionError:
            return Check(False, f"process {pid} belongs to another user; it cannot be signalled from here")
        except OSError:
            return Check(False, f"there is no process {pid} any more")
        if forbidden:
            return Check(False, forbidden)
        state = {"comm": seen.comm, "uid": seen.uid, "start": seen.start}
        return Check(True, f"would send {action.params['signal']} to {seen.comm} ({pid})", state)

    def _forbidden(self, pid: int, seen: _Seen, start: int) -> str:
        if seen.start != start:
            return f"process {pid} is gone; another one has its number now"
        if seen.kernel:
            return f"process {pid} is a thread of the kernel"
        if seen.state in "ZX":
            return f"process {pid} has ended already; its parent has not taken note"
        return f"process {pid} is an ancestor of midwatch" if pid in self._ancestors() else ""

    def _ancestors(self) -> frozenset[int]:
        parent = os.getppid()
        if parent != self._family[0]:
            self._family = (parent, frozenset(self._up_from(parent)))
        return self._family[1]

    def _up_from(self, pid: int) -> set[int]:
        found: set[int] = set()
        # An ancestor that may not be looked at cannot be signalled either.
        with suppress(OSError):
            while pid > 0 and len(found) < GENERATIONS:
                found.add(pid)
                pid = _look(self._files, pid).parent
        return found

    async def apply(self, action: Action, check: Check) -> Outcome:
        if refusal := self._once.refusal(action.key):
            return Outcome(Result.REFUSED, refusal)
        return await carried_through(self._apply(action))

    async def _apply(self, action: Action) -> Outcome:
        pid, start = _named(action.target)
        name = str(action.params["signal"])
        try:
            with _held(pid) as pidfd:
                # Looked at after the descriptor was had: from here on it cannot become anybody else.
                if _look(self._files, pid).start != start:
                    return Outcome(Result.REFUSED, f"process {pid} is gone; another one has its number now")
                signal.pidfd_send_signal(pidfd, getattr(signal, f"SIG{name}"))
        except OSError as exc:
            return Outcome(Result.FAILED, f"{name} could not be sent to process {pid}: {exc.strerror}")
        return Outcome(Result.SUCCEEDED, "", {"signal": name, "pid": pid})

    async def verify(self, action: Action, check: Check, outcome: Outcome) -> bool:
        if outcome.result is not Result.SUCCEEDED:
            return False
        return action.params["signal"] not in ENDING or await self._gone(action.target)

    async def undo(self, action: Action, check: Check, outcome: Outcome) -> Outcome:
        return Outcome(Result.REFUSED, "a signal cannot be taken back")

    async def probe(self, action: Action, check: Check) -> Probe:
        if action.params["signal"] not in ENDING:
            return "cannot-tell"
        return "happened" if await self._gone(action.target) else "did-not"

    async def _gone(self, target: str) -> bool:
        """Whether the process has ended, now or while there is patience."""
        pid, start = _named(target)
        try:
            with _held(pid) as pidfd:
                return _look(self._files, pid).start != start or await ended(pidfd, self._patience)
        except (ProcessLookupError, FileNotFoundError):
            return True
        except OSError:
            return False

    async def close(self) -> None:
        return None


def _named(target: str) -> tuple[int, int]:
    match = _TARGET.fullmatch(target)
    if match is None or match[2] is None:
        raise ValueError(f"{target!r} was not resolved: the start time is missing")
    return int(match[1]), int(match[2])


@contextmanager
def _held(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _look(files: Files, pid: int) -> _Seen:
    """Raises OSError when there is no such process or it may not be looked at."""
    line = files.load(f"/proc/{pid}/stat").data.decode("utf-8", "backslashreplace")
    comm, fields = line[line.index("(") + 1 : line.rindex(")")], line[line.rindex(")") + 2 :].split()
    status = files.load(f"/proc/{pid}/status").data.decode("utf-8", "backslashreplace")
    facts = dict(entry.split(":\t", 1) for entry in status.splitlines() if ":\t" in entry)
    return _Seen(
        comm=comm,
        state=fields[0],
        parent=int(fields[1]),
        start=int(fields[19]),
        kernel=bool(int(fields[6]) & _KERNEL_THREAD),
        uid=int(facts["Uid"].split()[0]),
    )


def build(tools: Tools) -> ProcessActuator:
    return ProcessActuator(tools)
