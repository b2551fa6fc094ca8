"""`audit verify` on real files: sound, running, tampered with, unreadable."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from fakes.typed import Said, typed

from daemon.cli import audit
from daemon.clock import ManualClock
from daemon.errors import StoreError
from daemon.store.store import Store


@pytest.fixture
async def journal(tmp_path: Path, clock: ManualClock) -> Path:
    """A journal of five rows whose daemon is gone."""
    file = tmp_path / "midwatch.db"
    store = await Store.open(file, clock, ballast_size=0)
    for number in range(5):
        await store.write(lambda tx, number=number: tx.record("proof", {"number": number}, "i-1"))  # type: ignore[misc]
    await store.close()
    return file


def verify(file: Path, *args: str) -> Said:
    return typed("audit", "verify", "--database", str(file), *args)


def edit(file: Path, statement: str) -> None:
    with sqlite3.connect(file) as conn:
        conn.execute(statement)
    conn.close()


def test_a_sound_journal_is_said_to_be_one_and_what_is_not_proven(journal: Path) -> None:
    said = verify(journal)
    assert said.code == 0
    assert "what is there is what was written" in said.out
    assert "rows      5" in said.out
    assert "no anchor was given" in said.out


def test_the_head_is_an_anchor(journal: Path) -> None:
    report = verify(journal, "--json").json
    assert report["problems"] == []
    assert report["head"].startswith("5:")
    said = verify(journal, "--anchor", report["head"])
    assert said.code == 0
    assert "rows after 5 may have been cut off" in said.out
    edit(journal, "DELETE FROM journal WHERE seq = 5")
    assert verify(journal).code == 0  # nobody can see that without the anchor
    said = verify(journal, "--anchor", report["head"])
    assert said.code == 1
    assert "does not fit" in said.out


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE journal SET payload = '{\"number\":7}' WHERE seq = 3", "row 3 (proof)"),
        ("DELETE FROM journal WHERE seq = 2", "rows 2 to 2 are missing"),
        ("UPDATE journal SET kind = 'x\x1b[2J' WHERE seq = 4", "row 4 (x\\x1b[2J)"),
    ],
)
def test_what_was_changed_is_found(journal: Path, statement: str, said: str) -> None:
    edit(journal, statement)
    found = verify(journal)
    assert found.code == 1
    assert "THIS IS NOT WHAT WAS WRITTEN" in found.out
    assert said in found.out
    assert "\x1b" not in found.out


async def test_a_running_daemon_is_not_disturbed(store: Store) -> None:
    await store.write(lambda tx: tx.record("proof", {}))
    report = audit.read(store.path, None)
    assert (report.rows, report.problems) == (1, [])
    await store.write(lambda tx: tx.record("proof", {}))
    assert audit.read(store.path, None).rows == 2


def test_the_file_is_only_read(journal: Path) -> None:
    before = journal.read_bytes()
    verify(journal)
    assert journal.read_bytes() == before


def test_what_is_no_journal_is_said(tmp_path: Path) -> None:
    said = verify(tmp_path / "none.db")
    assert said.code == 1
    assert "there is no journal at" in said.err
    other = tmp_path / "other.db"
    other.write_text("x" * 5000)
    said = verify(other)
    assert said.code == 1
    assert "cannot be read: file is not a database" in said.out
    with pytest.raises(StoreError, match="cannot be opened"):
        audit.read(tmp_path, None)


def test_it_is_found_by_the_configuration(journal: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"schema = 1\n[daemon]\nstate = {json.dumps(str(journal.parent))}\n")
    assert typed("audit", "verify", "--config", str(config)).code == 0
