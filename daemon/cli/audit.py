"""`midwatch audit verify`: follows the journal's chain, from the file alone, whether or not a daemon runs."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli import places
from daemon.cli.options import FILE, as_json, config
from daemon.cli.terminal import Cell, Page, show_json
from daemon.errors import MidwatchError, StoreError

if TYPE_CHECKING:
    import sqlite3

    from daemon.store.journal import Report

_ANCHOR = re.compile(r"[0-9]+:[0-9a-f]{64}")


@click.group()
def audit() -> None:
    """The journal: whether it is what was written."""


@audit.command()
@click.option(
    "--anchor", metavar="SEQ:DIGEST", help="A head kept elsewhere, as sent out with each closed incident."
)
@click.option("--database", type=FILE, help="The journal's file; found by the configuration if not given.")
@as_json
@config
def verify(anchor: str | None, database: Path | None, json: bool, config: Path | None) -> None:
    """Find every edit, insertion, deletion and reorder up to the anchor, and say what cannot be proven. Exit 1 on any."""
    if anchor is not None and not _ANCHOR.fullmatch(anchor):
        raise click.UsageError(
            f"{anchor!r} is no anchor: SEQ:DIGEST, a row's number and its 64 hexadecimal digits"
        )
    file = database or places.journal(places.config_file(config))
    report = read(file, anchor)
    if json:
        show_json({"database": str(file), **asdict(report)})
    else:
        _page(file, report).show()
    raise SystemExit(1 if report.problems else 0)


def read(file: Path, anchor: str | None) -> Report:
    """Verify the file as it stands at one moment. Raises StoreError when it cannot be read."""
    from sqlalchemy import create_engine

    from daemon.store import journal

    if not file.exists():
        raise MidwatchError(
            f"there is no journal at {file}; name it with --database, or the configuration with --config"
        )
    engine = create_engine("sqlite://", creator=lambda: _open(file))
    try:
        with engine.connect() as conn:
            # One snapshot: a daemon may be writing meanwhile.
            conn.exec_driver_sql("BEGIN")
            return journal.verify(conn, anchor)
    finally:
        engine.dispose()


def _open(file: Path) -> sqlite3.Connection:
    import sqlite3

    try:
        return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.OperationalError as exc:
        raise StoreError(f"{file} cannot be opened: {exc}; run this as the daemon's user or as root") from exc


def _page(file: Path, report: Report) -> Page:
    page = Page()
    sound = not report.problems
    page.line(
        f"{file}: {'what is there is what was written' if sound else 'THIS IS NOT WHAT WAS WRITTEN'}",
        "good" if sound else "critical",
    )
    page.rows(
        [
            [Cell("rows", "quiet"), str(report.rows)],
            [
                Cell("segments", "quiet"),
                f"{report.segments} sealed; {report.dropped} rows dropped by retention, their seals kept",
            ],
            [Cell("head", "quiet"), report.head],
        ]
    )
    page.section("Problems", [[Cell(problem, "error")] for problem in report.problems])
    page.section("Not proven", [[text] for text in report.unproven])
    return page
