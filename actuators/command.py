"""Commands that the admin declares: `[commands.NAME]` is the action `command.NAME`. Nothing else can be run, and nothing is a shell."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actuators.base import Action, Check, Outcome, Probe, Result, Tools
from actuators.runner import Ran
from actuators.shared import Once, carried_through, covered, only, outdated, verb_of

LONGEST = 500
"""Characters of a string parameter."""
LARGEST = 2**63 - 1
"""An integer parameter lies between minus this and this, unless it has `min` and `max`."""
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a program is looked for that is written without its folder, unless `env` has a PATH."""

Value = str | int | bool
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TYPES: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool}


@dataclass(frozen=True, slots=True)
class _Param:
    """One typed parameter, with the names of its settings."""

    name: str
    type: str = "string"
    pattern: str | None = None
    choices: Sequence[str] | None = None
    min: int | None = None
    max: int | None = None
    default: Value | None = None

    def checked(self, value: object) -> Value:
        """The value itself: nothing is ever turned into another type. Raises ValueError with what is accepted."""
        # By exact type: for Python a bool is an int, for an operator it is not.
        if type(value) is not _TYPES[self.type]:
            raise ValueError(f"{self.name} must be a JSON {self.type}, not {value!r:.100}")
        if isinstance(value, str):
            self._check_text(value)
        elif type(value) is int:
            self._check_number(value)
        return value  # type: ignore[return-value]  # its type is one of _TYPES

    def _check_number(self, value: int) -> None:
        low = -LARGEST if self.min is None else self.min
        high = LARGEST if self.max is None else self.max
        if not low <= value <= high:
            raise ValueError(f"{self.name} must be from {low} to {high}")

    def _check_text(self, value: str) -> None:
        if len(value) > LONGEST or not value.isprintable():
            raise ValueError(f"{self.name} must be printable text of at most {LONGEST} characters")
        if self.choices is not None and value not in self.choices:
            raise ValueError(f"{self.name} must be one of {', '.join(self.choices)}, not {value!r:.100}")
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            raise ValueError(f"{self.name} must match {self.pattern} as a whole, not {value!r:.100}")
        if value.startswith("-") and not self._wants_dash:
            raise ValueError(
                f"{self.name} must not begin with '-', which a program would take for an option; "
                "a pattern that begins with '-', or `choices`, allows it"
            )

    @property
    def _wants_dash(self) -> bool:
        return self.choices is not None or (self.pattern or "").lstrip("^(?:").startswith(("-", r"\-"))


@dataclass(frozen=True, slots=True)
class _Command:
    """One declared command, with the names of its settings."""

    argv: Sequence[str]
    target: Sequence[str]
    describe: str = ""
    params: Mapping[str, _Param] = field(default_factory=dict)
    timeout: float = 30.0
    cwd: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Sequence[str] | None = None
    verify: Sequence[str] | None = None
    undo: Sequence[str] | None = None
    probe: Sequence[str] | None = None
    irreversible: bool = False

    def program(self) -> str | None:
        return self._found(self.argv[0])

    def filled(self, argv: Sequence[str], params: Mapping[str, Value]) -> list[str]:
        """The argument list with the parameters in place. What a parameter brings in is never looked at again for placeholders.

        Raises ValueError when a parameter is missing: the declaration is another one than the action was resolved with.
        """

        def spelled(match: re.Match[str]) -> str:
            if match[1] not in params:
                raise ValueError(f"the parameter {match[1]!r} is missing")
            value = params[match[1]]
            return str(value).lower() if isinstance(value, bool) else str(value)

        words = [_PLACEHOLDER.sub(spelled, word) for word in argv]
        return [self._found(words[0]) or words[0], *words[1:]]

    def _found(self, program: str) -> str | None:
        return (
            shutil.which(program, path=self.env.get("PATH", SEARCH))
            if "/" not in program
            else _executable(program)
        )


def _executable(program: str) -> str | None:
    fit = os.path.isabs(program) and os.path.isfile(program) and os.access(program, os.X_OK)
    return program if fit else None


class CommandActuator:
    """See actuators.base.Actuator. A verb for each declared command."""

    kind = "command"

    def __init__(self, tools: Tools) -> None:
        self._run = tools.run
        self._commands = {
            name: _command(name, keys) for name, keys in tools.settings.get("commands", {}).items()
        }
        self._once = Once()
        self.verbs: Mapping[str, str] = {
            name: command.describe or f"runs {command.argv[0]}" for name, command in self._commands.items()
        }
        self.irreversible = frozenset(
            name for name, command in self._commands.items() if command.irreversible
        )
        self.undoable = frozenset(name for name, command in self._commands.items() if command.undo)

    async def resolve(self, action: Action) -> Action:
        verb = verb_of(action, self.kind, self.verbs)
        command = self._commands[verb]
        if not covered(action.target, command.target):
            raise ValueError(f"the target must match {', '.join(command.target)}")
        only(action, tuple(command.params))
        return Action(action.id, action.target, _params(command, action.params), action.key)

    async def check(self, action: Action) -> Check:
        if changed := await outdated(self, action):
            return Check(False, changed)
        command = self._of(action)
        program = command.program()
        if program is None:
            return Check(False, f"{command.argv[0]} is not there or cannot be executed")
        if command.ready:
            ran = await self._ran(action, command.ready)
            if not ran.ok:
                return Check(False, f"it is not ready: {_ending(ran)}")
        try:
            status = os.stat(program)
        except OSError as exc:
            return Check(False, f"{program}: {exc.strerror}")
        argv = command.filled(command.argv, action.params)
        # The program itself belongs to the state: what was judged is what runs.
        return Check(
            True,
            f"would run {' '.join(argv)}",
            {"argv": argv, "inode": status.st_ino, "mtime": status.st_mtime_ns},
        )

    async def apply(self, action: Action, check: Check) -> Outcome:
        if refusal := self._once.refusal(action.key):
            return Outcome(Result.REFUSED, refusal)
        return await carried_through(self._apply(action))

    async def _apply(self, action: Action) -> Outcome:
        return _outcome(await self._ran(action, self._of(action).argv, action.key), Result.SUCCEEDED)

    async def verify(self, action: Action, check: Check, outcome: Outcome) -> bool:
        argv = self._of(action).verify
        return outcome.result is Result.SUCCEEDED and (not argv or (await self._ran(action, argv)).ok)

    async def undo(self, action: Action, check: Check, outcome: Outcome) -> Outcome:
        argv = self._of(action).undo
        if not argv:
            return Outcome(Result.REFUSED, f"{action.id} declares no `undo`")
        return await carried_through(self._undo(action, argv))

    async def _undo(self, action: Action, argv: Sequence[str]) -> Outcome:
        return _outcome(await self._ran(action, argv, action.key), Result.UNDONE)

    async def probe(self, action: Action, check: Check) -> Probe:
        command = self._of(action)
        # A command outlives a daemon that dies; nothing is known before it has ended.
        if not await self._run.settled(action.key, command.timeout) or not command.probe:
            return "cannot-tell"
        answers: Mapping[int | None, Probe] = {0: "happened", 1: "did-not"}
        return answers.get((await self._ran(action, command.probe)).exit_code, "cannot-tell")

    async def close(self) -> None:
        return None

    def _of(self, action: Action) -> _Command:
        return self._commands[verb_of(action, self.kind, self.verbs)]

    async def _ran(self, action: Action, argv: Sequence[str], key: str = "") -> Ran:
        """Run one of the command's argument lists; `key` marks what has an effect, so that it is known to be in flight."""
        command = self._of(action)
        try:
            words = command.filled(argv, action.params)
        except ValueError as exc:
            return Ran(None, str(exc))
        return await self._run.run(
            words,
            env={**command.env, "MIDWATCH_KEY": action.key, "MIDWATCH_TARGET": action.target},
            cwd=command.cwd,
            timeout=command.timeout,
            key=key,
        )


def _params(command: _Command, given: Mapping[str, Any]) -> dict[str, Value]:
    params = {}
    for name, param in command.params.items():
        value = given.get(name, param.default)
        if value is None:
            raise ValueError(f"the parameter {name!r} ({param.type}) is missing")
        params[name] = param.checked(value)
    return params


def _outcome(ran: Ran, good: Result) -> Outcome:
    detail = {"exit_code": ran.exit_code, "output": ran.output_tail, "seconds": round(ran.duration, 3)}
    if ran.ok:
        return Outcome(good, "", detail)
    return Outcome(Result.TIMED_OUT if ran.timed_out else Result.FAILED, _ending(ran), detail)


def _ending(ran: Ran) -> str:
    last = (ran.output_tail.strip().splitlines() or [""])[-1]
    how = (
        "its time was over"
        if ran.timed_out
        else f"exit {ran.exit_code}"
        if ran.exit_code is not None
        else "not run"
    )
    return f"{how}: {last}" if last else how


def _command(name: str, keys: Mapping[str, Any]) -> _Command:
    """Raises ValueError that names the key which is wrong."""
    where = f"commands.{name}"
    params = {
        param: _param(f"{where}.params", param, fields)
        for param, fields in (keys.get("params") or {}).items()
    }
    command = _Command(**{**keys, "params": params})
    for argv in (command.argv, command.ready, command.verify, command.undo, command.probe):
        unknown = {word for part in argv or () for word in _PLACEHOLDER.findall(part)} - set(params)
        if unknown:
            raise ValueError(
                f"{where}: {{{min(unknown)}}} is no parameter of it; there are: {', '.join(params) or 'none'}"
            )
    return command


def _param(where: str, name: str, keys: Mapping[str, Any]) -> _Param:
    param = _Param(name, **keys)
    try:
        re.compile(param.pattern or "")
        if param.default is not None:
            param.checked(param.default)
    except (re.error, ValueError) as exc:
        raise ValueError(f"{where}.{name}: {exc}") from exc
    return param


def build(tools: Tools) -> CommandActuator:
    """Raises ValueError for a declaration that can never work."""
    return CommandActuator(tools)
