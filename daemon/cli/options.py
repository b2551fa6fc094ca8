"""The options that many commands share, and the daemon they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from daemon.api.client import Client
from daemon.cli import places

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)

config = click.option(
    "--config",
    type=FILE,
    envvar="MIDWATCH_CONFIG",
    help=f"The configuration file; {places.SYSTEM} or the user's own if not given.",
)
socket = click.option(
    "--socket",
    type=FILE,
    envvar="MIDWATCH_SOCKET",
    help="The daemon's socket; found by the configuration if not given.",
)
as_json = click.option("--json", "json", is_flag=True, help="Plain JSON of a stable form (docs/commands.md).")
dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
reason = click.option("--reason", default="", help="Why, for the record and for whoever reads it.")


def reaching(command: F) -> F:
    """The options of a verb that speaks to the running daemon."""
    return socket(config(command))


def daemon(socket: Path | None, config: Path | None) -> Client:
    """The running daemon; MIDWATCH_TOKEN, if set, says which person is asking."""
    path = places.socket(socket, places.config_file(config))
    return Client(path, os.environ.get("MIDWATCH_TOKEN", ""))
