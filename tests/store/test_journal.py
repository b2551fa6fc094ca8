"""The chain: whatever is changed in the file by hand is found."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daemon.clock import ManualClock
from daemon.store import files, journal
from daemon.store.journal import Report
from daemon.store.store import Store, Tx

ROWS = 60
SEALED = 45
DROPPED = 15
"""Rows of the made-up journal: so many in all, sealed in segments of 15, and dropped."""


def record(tx: Tx, number: int) -> int:
    return tx.record(f"kind-{number % 3}", {"number": number}, f"i-{number % 2}" if number % 4 else None)


async def make(path: Path) -> str:
    clock = ManualClock()
    store = await Store.open(path, clock, ballast_size=0)
    for number in range(ROWS):
        clock.advance(10)
        await store.write(partial(record, number=number))
        if number % 15 == 14 and number < SEALED:
            await store.write(lambda tx: journal.seal(tx.conn, tx.now, rows=15))
    gone = await store.write(lambda tx: journal.drop_before(tx.conn, tx.now, 310.0))
    assert gone == DROPPED
    anchor = await store.read(journal.anchor_of)
    await store.write(lambda tx: tx.record("after the anchor", {}))
    await store.close()
    return anchor


@pytest.fixture(scope="module")
def original() -> Iterator[tuple[Path, str]]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "midwatch.db"
        yield path, asyncio.run(make(path))


def verify(path: Path, anchor: str | None = None) -> Report:
    engine = files.engine_for(path, read_only=True)
    try:
        with engine.connect() as conn:
            return journal.verify(conn, anchor)
    finally:
        engine.dispose()


def tampered(original: Path, statement: str, values: tuple[Any, ...] = ()) -> tuple[int, Report, Path]:
    """A copy with one statement run on it by hand; (rows changed, what verify says, the copy)."""
    place = Path(tempfile.mkdtemp(dir=original.parent))
    path = place / "midwatch.db"
    shutil.copyfile(original, path)
    with closing(sqlite3.connect(path)) as conn, conn:
        changed = conn.execute(statement, values).rowcount
    return changed, verify(path), path


def test_an_untouched_journal_is_proven_up_to_its_anchor(original: tuple[Path, str]) -> None:
    path, anchor = original
    report = verify(path, anchor)
    assert report.problems == []
    assert (report.rows, report.segments, report.dropped) == (ROWS - DROPPED + 2, 3, DROPPED)
    assert report.unproven == [f"rows after {ROWS + 1} may have been cut off since"]
    assert report.head.startswith(f"{ROWS + 2}:")
    assert "no anchor was given" in verify(path).unproven[0]


@pytest.mark.parametrize("anchor", ["61:" + "0" * 64, "9999:" + "0" * 64, "nonsense", ""])
def test_an_anchor_that_does_not_fit_is_a_problem(original: tuple[Path, str], anchor: str) -> None:
    assert any("does not fit" in problem for problem in verify(original[0], anchor).problems)


def test_an_anchor_in_a_dropped_span_proves_nothing(original: tuple[Path, str]) -> None:
    report = verify(original[0], "3:" + "0" * 64)
    assert report.problems == []
    assert "dropped by retention" in report.unproven[0]


def test_a_seal_and_the_genesis_are_anchors_too(original: tuple[Path, str]) -> None:
    with closing(sqlite3.connect(original[0])) as conn:
        seals = conn.execute(
            "SELECT last, digest FROM segment UNION SELECT last, end_digest FROM segment"
        ).fetchall()
        genesis = conn.execute("SELECT value FROM meta WHERE key = 'genesis'").fetchone()[0]
    for seq, digest in [*seals, (0, genesis)]:
        assert verify(original[0], f"{seq}:{digest}").problems == []


def test_cutting_off_the_end_is_seen_with_an_anchor_and_admitted_without(original: tuple[Path, str]) -> None:
    path, anchor = original
    seq = int(anchor.partition(":")[0])
    _, report, copy = tampered(path, "DELETE FROM journal WHERE seq > ?", (seq,))
    assert report.problems == verify(copy, anchor).problems == []
    assert any("cut off its end" in text for text in report.unproven)
    _, _, copy = tampered(path, "DELETE FROM journal WHERE seq >= ?", (seq,))
    assert any("does not fit" in problem for problem in verify(copy, anchor).problems)


def test_dropping_rows_that_retention_did_not_drop_is_found(original: tuple[Path, str]) -> None:
    _, report, _ = tampered(original[0], "DELETE FROM journal WHERE seq BETWEEN 16 AND 30")
    assert any("rows 16 to 30 are missing" in problem for problem in report.problems)


TEXT = st.one_of(
    st.none(), st.text(max_size=8), st.binary(max_size=8), st.integers(-9, 99), st.floats(allow_nan=False)
)
SEQ = st.integers(DROPPED + 1, ROWS + 1)
COLUMN = st.sampled_from(["at", "kind", "incident", "payload", "digest"])


@given(seq=SEQ, column=COLUMN, value=TEXT)
def test_any_edit_of_a_row_is_found(original: tuple[Path, str], seq: int, column: str, value: Any) -> None:
    try:
        statement = f"UPDATE journal SET {column} = ?1 WHERE seq = ?2 AND {column} IS NOT ?1"
        changed, report, _ = tampered(original[0], statement, (value, seq))
    except (sqlite3.IntegrityError, UnicodeEncodeError):
        assume(False)
    assume(changed)
    assert report.problems


@given(seq=SEQ, other=SEQ)
def test_rows_that_change_places_are_found(original: tuple[Path, str], seq: int, other: int) -> None:
    assume(seq != other)
    swap = (
        "UPDATE journal SET (at, kind, incident, payload, digest) = (SELECT at, kind, incident, payload, digest FROM "
        "(SELECT * FROM journal) AS old WHERE old.seq = CASE journal.seq WHEN ?1 THEN ?2 ELSE ?1 END) WHERE seq = ?1"
    )
    _, report, _ = tampered(original[0], swap, (seq, other))
    assert report.problems


@given(seq=SEQ)
def test_a_missing_row_is_found(original: tuple[Path, str], seq: int) -> None:
    _, report, _ = tampered(original[0], "DELETE FROM journal WHERE seq = ?", (seq,))
    assert report.problems


@given(
    seq=st.one_of(st.integers(-5, DROPPED), st.integers(ROWS + 3, ROWS + 9)), text=st.text("ab", max_size=3)
)
def test_a_row_put_in_is_found(original: tuple[Path, str], seq: int, text: str) -> None:
    put = "INSERT INTO journal SELECT ?, at, kind, incident, payload, digest || ? FROM journal WHERE seq = 40"
    _, report, _ = tampered(original[0], put, (seq, text))
    assert report.problems


@given(
    first=st.sampled_from([1, 16, 31]),
    column=st.sampled_from(["last", "opened", "closed", "end_digest", "digest"]),
    value=TEXT,
)
def test_any_edit_of_a_seal_is_found(original: tuple[Path, str], first: int, column: str, value: Any) -> None:
    try:
        statement = f"UPDATE segment SET {column} = ?1 WHERE first = ?2 AND {column} IS NOT ?1"
        changed, report, _ = tampered(original[0], statement, (value, first))
    except (sqlite3.IntegrityError, UnicodeEncodeError):
        assume(False)
    assume(changed)
    assert report.problems


@pytest.mark.parametrize("first", [1, 16, 31])
def test_a_missing_seal_is_found(original: tuple[Path, str], first: int) -> None:
    _, report, _ = tampered(original[0], "DELETE FROM segment WHERE first = ?", (first,))
    assert report.problems


def test_another_genesis_is_found(original: tuple[Path, str]) -> None:
    _, report, _ = tampered(original[0], "UPDATE meta SET value = 'other' WHERE key = 'genesis'")
    assert report.problems


def test_null_and_empty_are_told_apart(original: tuple[Path, str]) -> None:
    changed, report, _ = tampered(original[0], "UPDATE journal SET incident = '' WHERE incident IS NULL")
    assert changed
    assert report.problems


def test_at_most_so_many_problems_are_listed(original: tuple[Path, str]) -> None:
    _, report, _ = tampered(original[0], "UPDATE journal SET payload = '{}'")
    assert 40 < len(report.problems) <= journal.MOST_PROBLEMS


async def test_a_rolled_back_unit_leaves_no_hole(store: Store) -> None:
    def wrong(tx: Any) -> None:
        tx.record("never", {})
        raise ValueError

    writes = [
        store.write(lambda tx: tx.record("a", {})),
        store.write(wrong),
        store.write(lambda tx: tx.record("b", {})),
    ]
    first, error, second = await asyncio.gather(*writes, return_exceptions=True)
    assert (first, second) == (1, 2)
    assert isinstance(error, ValueError)
    assert (await store.read(journal.verify)).problems == []


async def test_a_payload_that_is_no_json_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        await store.write(lambda tx: tx.record("x", {"x": float("nan")}))
    with pytest.raises(TypeError):
        await store.write(lambda tx: tx.record("x", {"x": object()}))


async def test_a_span_is_sealed_by_length_or_by_age(store: Store, clock: ManualClock) -> None:
    async def seal() -> bool:
        return await store.write(lambda tx: journal.seal(tx.conn, tx.now, rows=3, age=100))

    assert not await seal()
    await store.write(lambda tx: tx.record("x", {}))
    assert not await seal()
    clock.advance(100)
    assert await seal()
    assert not await seal()
    for _ in range(3):
        await store.write(lambda tx: tx.record("x", {}))
    assert await seal()
    assert (await store.read(journal.verify)).segments == 2
