"""TOML files with the line of everything in them. The values are tomllib's; a small scanner of our own finds the lines.

The scanner only ever reads text that tomllib has accepted, so it may trust its shape and need not judge it.
"""

from __future__ import annotations

import hashlib
import re
import stat
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError, Problem

LARGEST = 4 * 2**20
"""Bytes; a larger file is refused: nobody edits that by hand."""

Keypath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Doc:
    """One file's values, and where each of them stands."""

    path: Path
    data: dict[str, Any]
    marks: Mapping[Keypath, str] = field(default_factory=dict)
    """Keypath → `FILE:LINE`."""
    digest: str = ""
    """SHA-256 of the bytes that were read."""

    def where(self, *keypath: str | int) -> str:
        """`FILE:LINE` of the key, table or element, or of the nearest thing around it; the file alone when there is none."""
        for length in range(len(keypath), 0, -1):
            if mark := self.marks.get(keypath[:length]):
                return mark
        return str(self.path)


def load(path: Path) -> Doc:
    """Read one file. Raises ConfigError when it is missing, unreadable, too large, or no TOML."""
    try:
        raw = read(path)
    except OSError as exc:
        raise ConfigError(
            [Problem(str(path), f"cannot be read: {exc.strerror or exc}", _remedy(exc))]
        ) from exc
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        problem = Problem(f"{path}:{line}", "is not UTF-8 text", "save the file as UTF-8")
        raise ConfigError([problem]) from exc
    return _parse(text, path, raw)


def parse(text: str, name: str | Path) -> Doc:
    """As `load`, of a text that is called `name` in messages."""
    return _parse(text, Path(name), text.encode())


def read(path: Path) -> bytes:
    """The bytes of a file that people edit. Raises OSError, also for what is no file or far too large for one."""
    # A FIFO or a terminal in the file's place would block the start for ever.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(0, "it is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is not a regular file")
    if status.st_size > LARGEST:
        raise OSError(0, f"it has {status.st_size} bytes, at most {LARGEST} are read")
    return path.read_bytes()


def _remedy(exc: OSError) -> str:
    match exc:
        case FileNotFoundError():
            return "check the name, or write a first one with `midwatch init`"
        case PermissionError():
            return "make it readable for the user that runs midwatch"
        case _:
            return "name a TOML file"


def _parse(text: str, path: Path, raw: bytes) -> Doc:
    # tomllib counts \r\n as one line end, and so must the scanner.
    text = text.replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
    except ValueError as exc:
        raise ConfigError([_syntax(str(exc), text, path)]) from exc
    except RecursionError as exc:
        raise ConfigError(
            [Problem(str(path), "is nested too deeply", "no value needs so many brackets")]
        ) from exc
    marks = {keypath: f"{path}:{line}" for keypath, line in _Scanner(text).scan().items()}
    return Doc(path, data, marks, hashlib.sha256(raw).hexdigest())


_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)\Z")


def _syntax(message: str, text: str, path: Path) -> Problem:
    found = _POSITION.search(message)
    if found is None:
        return Problem(str(path), f"is no TOML: {message}")
    line = int(found[1] or text.rstrip("\n").count("\n") + 1)
    return Problem(f"{path}:{line}", f"is no TOML: {message[: found.start()]}", _advice(message))


def _advice(message: str) -> str:
    if "overwrite" in message or "twice" in message:
        return "a key or table may be set once"
    if "Invalid value" in message:
        return 'text stands in quotes: key = "value"'
    return "see https://toml.io"


_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
# Up to two quotes may stand right before the three that close: the last three of a run of up to five are the end.
_STRING = re.compile(r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*\'''', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")


class _Scanner:
    """Walks valid TOML and notes the line of every key, header and element."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [index for index, char in enumerate(text) if char == "\n"]
        self._lines: dict[Keypath, int] = {}
        self._counts: dict[Keypath, int] = {}
        """Elements so far of every array of tables."""

    def scan(self) -> dict[Keypath, int]:
        table: Keypath = ()
        while self._space() < len(self._text):
            if self._takes("[["):
                table = self._element()
            elif self._takes("["):
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _space(self) -> int:
        self._at = self._past(_SPACE)
        return self._at

    def _past(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._at)
        return self._at if found is None else found.end()

    def _takes(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _mark(self, keypath: Keypath, at: int, *, implied: bool = False) -> None:
        if not (implied and keypath in self._lines):
            self._lines[keypath] = bisect_right(self._breaks, at - 1) + 1

    def _key(self) -> tuple[str, ...]:
        parts = []
        while True:
            start, self._at = self._at, self._past(_PART)
            parts.append(_spelled(self._text[start : self._at]))
            dot = _DOT.match(self._text, self._at)
            if dot is None:
                return tuple(parts)
            self._at = dot.end()

    def _resolved(self, parts: tuple[str, ...], at: int) -> Keypath:
        """The keypath of a header's parts; a name of an array of tables means its newest element."""
        keypath: Keypath = ()
        for part in parts:
            keypath = (*keypath, part)
            self._mark(keypath, at, implied=True)
            if keypath in self._counts:
                keypath = (*keypath, self._counts[keypath] - 1)
        return keypath

    def _element(self) -> Keypath:
        at = self._space()
        *parents, name = self._key()
        array = (*self._resolved(tuple(parents), at), name)
        self._mark(array, at, implied=True)
        index = self._counts[array] = self._counts.get(array, 0) + 1
        self._mark((*array, index - 1), at)
        self._space()
        self._takes("]]")
        return (*array, index - 1)

    def _header(self) -> Keypath:
        at = self._space()
        table = self._resolved(self._key(), at)
        self._mark(table, at)
        self._space()
        self._takes("]")
        return table

    def _pair(self, table: Keypath) -> None:
        at = self._at
        keypath = table
        for part in self._key():
            keypath = (*keypath, part)
            self._mark(keypath, at, implied=True)
        self._space()
        self._takes("=")
        self._space()
        self._value(keypath)

    def _value(self, keypath: Keypath) -> None:
        if self._takes("["):
            self._array(keypath)
        elif self._takes("{"):
            self._table(keypath)
        else:
            self._at = self._past(_STRING if self._text[self._at] in "\"'" else _SCALAR)

    def _array(self, keypath: Keypath) -> None:
        index = 0
        while True:
            at = self._space()
            if self._takes("]"):
                return
            self._mark((*keypath, index), at)
            self._value((*keypath, index))
            index += 1
            self._space()
            self._takes(",")

    def _table(self, keypath: Keypath) -> None:
        while True:
            self._space()
            if self._takes("}"):
                return
            self._pair(keypath)
            self._space()
            self._takes(",")


def _spelled(part: str) -> str:
    """A key as it is meant: bare as it stands, a quoted one without quotes and escapes."""
    if part[0] not in "\"'":
        return part
    return str(tomllib.loads(f"key = {part}")["key"])
