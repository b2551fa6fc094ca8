"""Secrets come from where they are said to be, only when nobody else may read them, and never into an error's text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes.ordinary import ordinary_user

from daemon.config.secrets import LARGEST, read
from daemon.config.settings import Secret
from daemon.errors import ConfigError

WORD = "open" + "-sesame"


def keep(path: Path, content: bytes = (WORD + "\n").encode(), mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def fault(secret: Secret, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(secret, environ or {}, Path("c.toml"))
    assert WORD not in str(caught.value)
    return str(caught.value)


def test_a_credential(tmp_path: Path) -> None:
    keep(tmp_path / "key", mode=0o440)
    assert read(Secret(credential="key"), {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == WORD


def test_a_file(tmp_path: Path) -> None:
    assert read(Secret(file=str(keep(tmp_path / "key"))), {}) == WORD


def test_a_variable() -> None:
    assert read(Secret(env="KEY"), {"KEY": WORD}) == WORD


def test_the_process_has_an_environment_too() -> None:
    assert read(Secret(env="PATH")) == os.environ["PATH"]


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"x", "x"), (b"x\r\n", "x"), (b"x\n\n", "x\n"), (b" x \n", " x "), (b"a\nb\n", "a\nb")],
)
def test_one_line_end_is_taken_off(tmp_path: Path, content: bytes, value: str) -> None:
    assert read(Secret(file=str(keep(tmp_path / "key", content))), {}) == value


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o666, 0o601])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = keep(tmp_path / "key", mode=mode)
    assert (
        fault(Secret(file=str(path)))
        == f"c.toml: others may read the secret's file {path} (chmod 600 {path})"
    )


def test_a_file_among_the_credentials_may_have_their_mode(tmp_path: Path) -> None:
    path = keep(tmp_path / "key", mode=0o440)
    assert read(Secret(file=str(path)), {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == WORD


def test_a_way_out_of_the_credentials_is_no_credential(tmp_path: Path) -> None:
    inside = tmp_path / "credentials"
    inside.mkdir()
    (inside / "link").symlink_to(keep(tmp_path / "key", mode=0o644))
    told = fault(Secret(file=str(inside / "link")), {"CREDENTIALS_DIRECTORY": str(inside)})
    assert "others may read" in told


@pytest.mark.parametrize("name", ["../key", "a/b", "", ".", ".hidden"])
def test_a_credential_is_named_without_a_path(tmp_path: Path, name: str) -> None:
    told = fault(Secret(credential=name), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert f"{name!r} is no credential's name (write the NAME of LoadCredential=" in told


def test_credentials_need_systemd() -> None:
    told = fault(Secret(credential="key"))
    assert told.startswith(
        "c.toml: the credential 'key' cannot be read: $CREDENTIALS_DIRECTORY is not set (run it as a service with"
    )


def test_an_absent_file_or_variable(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory (check the name" in fault(
        Secret(file=str(tmp_path / "none"))
    )
    assert "the secret's environment variable KEY is not set (set KEY where" in fault(Secret(env="KEY"))
    assert "the secret's environment variable KEY is not set" in fault(Secret(env="KEY"), {"KEY": ""})


def test_a_relative_file_is_refused() -> None:
    assert "'key' is no absolute path (write it from the root" in fault(Secret(file="key"))


def test_a_closed_file_is_told(tmp_path: Path) -> None:
    path = keep(tmp_path / "key")
    path.chmod(0)
    with ordinary_user():
        assert "cannot be read: Permission denied" in fault(Secret(file=str(path)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe" + WORD.encode(), "is not UTF-8 text"),
        (b"x" * (LARGEST + 1), "has more than 65536 bytes"),
    ],
)
def test_content_that_is_no_key(tmp_path: Path, content: bytes, told: str) -> None:
    assert told in fault(Secret(file=str(keep(tmp_path / "key", content))))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a regular file" in fault(Secret(file=str(tmp_path / "pipe")))
    assert "is not a regular file" in fault(Secret(file=str(tmp_path)))
