"""Reading secrets from where the configuration says they are. A secret's value never gets into an error's text."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from daemon.config.settings import Secret
from daemon.errors import ConfigError, Problem

LARGEST = 64 * 1024
"""Bytes; keys and tokens are far smaller, so more is a wrong file."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}")


def read(secret: Secret, environ: Mapping[str, str] | None = None, base: Path | None = None) -> str:
    """The secret's value as it is now, without the line end that editors leave. `base` is the configuration file, named in errors.

    Raises ConfigError when there is none, or when others may read it.
    """
    environ = os.environ if environ is None else environ
    try:
        value = _value(secret, environ)
    except _Unusable as exc:
        raise ConfigError([Problem(str(base or "secret"), exc.what, exc.hint)]) from None
    return value


class _Unusable(Exception):
    def __init__(self, what: str, hint: str) -> None:
        self.what = what
        self.hint = hint
        super().__init__(what)


def _value(secret: Secret, environ: Mapping[str, str]) -> str:
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if secret.credential is not None:
        return _credential(secret.credential, directory)
    if secret.file is not None:
        return _file(secret.file, directory)
    return _variable(str(secret.env), environ)


def _credential(name: str, directory: str) -> str:
    if not _NAME.fullmatch(name):
        raise _Unusable(
            f"{name!r} is no credential's name",
            "write the NAME of LoadCredential=NAME:/PATH, without slashes",
        )
    if not directory:
        hint = f"run it as a service with LoadCredential={name}:/PATH, or use {{ file = ... }} or {{ env = ... }}"
        raise _Unusable(f"the credential {name!r} cannot be read: $CREDENTIALS_DIRECTORY is not set", hint)
    return _content(os.path.join(directory, name), private=False)


def _file(path: str, directory: str) -> str:
    if not os.path.isabs(path):
        raise _Unusable(
            f"the secret's file {path!r} is no absolute path", "write it from the root: /etc/midwatch/NAME"
        )
    # systemd guards the directory itself and gives the files in it a group mode of its own.
    inside = bool(directory) and os.path.realpath(path).startswith(os.path.realpath(directory) + "/")
    return _content(path, private=not inside)


def _variable(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "")
    if not value:
        raise _Unusable(
            f"the secret's environment variable {name} is not set", f"set {name} where midwatch is started"
        )
    return value


def _content(path: str, *, private: bool) -> str:
    try:
        raw = _bytes(path, private)
        text = raw.decode()
    except UnicodeDecodeError:
        raise _Unusable(
            f"the secret's file {path} is not UTF-8 text", "it should hold the key alone"
        ) from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise _Unusable(
            f"the secret's file {path} cannot be read: {reason}", "check the name and its owner"
        ) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise _Unusable(f"the secret's file {path} is empty", "write the key into it")
    return text


def _bytes(path: str, private: bool) -> bytes:
    # Not blocking: a FIFO in its place must not stop the daemon. What is checked is what is read: the descriptor.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable(
                f"the secret's file {path} is not a regular file", "name a file that holds the key"
            )
        if private and status.st_mode & 0o077:
            raise _Unusable(f"others may read the secret's file {path}", f"chmod 600 {path}")
        raw = os.read(descriptor, LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(raw) > LARGEST:
        raise _Unusable(
            f"the secret's file {path} has more than {LARGEST} bytes", "name a file that holds the key alone"
        )
    return raw
