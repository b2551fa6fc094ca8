"""The append-only journal: a SHA-256 chain over canonical JSON, cut into sealed segments.

Every row is a link: SHA-256 of [link before, seq, at, kind, incident, payload] as JSON. A seal is a link too: SHA-256 of [link before, first,
last, opened, closed, last row's link], and the next row follows from it. Retention drops the rows of whole segments and keeps their seals, so
the chain can still be followed from seal to seal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.exc import DatabaseError

from daemon.model.canonical import canonical
from daemon.store.tables import JOURNAL, META, SEGMENT, put

SEGMENT_ROWS = 10_000
"""A segment is sealed once it has this many rows or is a day old."""
SEGMENT_SECONDS = 86_400.0
MOST_SEGMENTS = 200
"""Sealed segments that keep their rows, however young they are: about two million rows, one gigabyte."""
DROPPED = "retention"
"""The kind of the row that says which rows were dropped: what is missing and not named by one was taken out by somebody else."""

_HEADS = (
    "SELECT * FROM (SELECT seq, digest FROM journal ORDER BY seq DESC LIMIT 1) "
    "UNION ALL SELECT * FROM (SELECT last, digest FROM segment ORDER BY first DESC LIMIT 1)"
)
"""The newest row, then the newest seal."""
_NEWEST_DROP = "SELECT payload FROM journal WHERE kind = ? ORDER BY seq DESC LIMIT 1"
_META = "SELECT value FROM meta WHERE key = ?"
_INSERT = "INSERT INTO journal (seq, at, kind, incident, payload, digest) VALUES (?, ?, ?, ?, ?, ?)"
_SPAN = "SELECT seq, at, kind, incident, payload, digest FROM journal WHERE seq BETWEEN ? AND ? ORDER BY seq"
_encode = json.JSONEncoder(separators=(",", ":")).encode


def link(*fields: Any) -> str:
    """The digest that binds the fields, the first of which is the link before. As JSON no two lists of fields look the same."""
    return hashlib.sha256(_encode(fields).encode()).hexdigest()


def get_meta(conn: Connection, key: str) -> str | None:
    value: str | None = conn.exec_driver_sql(_META, (key,)).scalar()
    return value


def set_meta(conn: Connection, key: str, value: str) -> None:
    put(conn, META, {"key": key, "value": value})


def head(conn: Connection) -> tuple[int, str]:
    """(seq, link) from which the next row follows: the newest row, the newest seal, or the genesis."""
    # Plain SQL, for this runs with every fact; a fifth of what building the statement anew would cost. Of a row and its own seal the
    # seal, which comes after it, is the head.
    heads = conn.exec_driver_sql(_HEADS).all()
    found = max(reversed(heads), key=lambda head: head[0], default=None)
    return (0, get_meta(conn, "genesis") or "") if found is None else (found[0], found[1])


def append(
    conn: Connection,
    at: float,
    kind: str,
    payload: Mapping[str, Any],
    incident: str | None,
) -> int:
    """Add one fact; gives its sequence number. Raises TypeError or ValueError for a payload that JSON cannot hold."""
    last, before = head(conn)
    seq, at, text = last + 1, float(at), canonical(payload)
    bound = link(before, seq, at, kind, incident, text)
    conn.exec_driver_sql(_INSERT, (seq, at, kind, incident, text, bound))
    return seq


def seal(conn: Connection, now: float, rows: int = SEGMENT_ROWS, age: float = SEGMENT_SECONDS) -> bool:
    """Seal the open span if it is long or old enough; `age` in seconds."""
    last = conn.execute(select(SEGMENT).order_by(SEGMENT.c.first.desc()).limit(1)).first()
    span = select(func.min(JOURNAL.c.seq), func.max(JOURNAL.c.seq), func.min(JOURNAL.c.at), func.count())
    first, newest, opened, count = conn.execute(span.where(JOURNAL.c.seq > (last.last if last else 0))).one()
    if not count or (count < rows and now - opened < age):
        return False
    before = last.digest if last else get_meta(conn, "genesis") or ""
    end = conn.execute(select(JOURNAL.c.digest).where(JOURNAL.c.seq == newest)).scalar_one()
    values = {
        "first": first,
        "last": newest,
        "opened": float(opened),
        "closed": float(now),
        "end_digest": end,
    }
    conn.execute(SEGMENT.insert().values(**values, digest=link(before, *values.values())))
    return True


def drop_before(conn: Connection, now: float, keep_for: float) -> int:
    """Retention: drop the rows of segments sealed more than `keep_for` seconds ago or beyond the newest MOST_SEGMENTS; the seals stay.

    Says so in the journal itself. Gives the rows dropped.
    """
    kept = conn.execute(
        select(SEGMENT).where(SEGMENT.c.last > dropped_through(conn)).order_by(SEGMENT.c.first)
    ).all()
    due = [
        found
        for index, found in enumerate(kept)
        if found.closed < now - keep_for or len(kept) - index > MOST_SEGMENTS
    ]
    if not due:
        return 0
    # From the front only: what is dropped is always one span, from the first row on.
    last = due[-1].last
    gone = conn.execute(delete(JOURNAL).where(JOURNAL.c.seq <= last)).rowcount
    append(conn, now, DROPPED, {"through": last, "rows": gone}, None)
    return gone


def dropped_through(conn: Connection) -> int:
    """The last row that retention dropped, as the journal itself says; 0 when none was."""
    text = conn.exec_driver_sql(_NEWEST_DROP, (DROPPED,)).scalar()
    return int(json.loads(text)["through"]) if text is not None else 0


@dataclass
class Report:
    """What `audit verify` found."""

    rows: int = 0
    segments: int = 0
    dropped: int = 0
    problems: list[str] = field(default_factory=list)
    """At most MOST_PROBLEMS of them."""
    unproven: list[str] = field(default_factory=list)
    """What this check cannot know."""
    head: str = ""
    """`SEQ:DIGEST` of the newest link: keep it elsewhere as an anchor."""


MOST_PROBLEMS = 50


def anchor_of(conn: Connection) -> str:
    """`SEQ:DIGEST` of the head as it stands, for keeping elsewhere."""
    seq, digest = head(conn)
    return f"{seq}:{digest}"


def verify(conn: Connection, anchor: str | None = None) -> Report:
    """Follow the chain from the genesis. Finds every edit, insertion, deletion and reorder up to the last anchor (`SEQ:DIGEST`, as sent
    out with each closed incident); rows after it may have been cut off by whoever can write the file, and the report says so.

    Some 60,000 to 100,000 rows a second on one core. Wants a transaction of its own: the file must not change meanwhile.
    """
    walk = _Walk(conn, anchor)
    try:
        walk.through()
    except DatabaseError as exc:
        walk.wrong(f"what comes after row {walk.seq} cannot be read: {exc.orig}")
    walk.judge_anchor()
    return walk.report


class _Walk:
    """Goes along the chain once and notes where it does not fit."""

    def __init__(self, conn: Connection, anchor: str | None) -> None:
        self.report = Report()
        self.seq = 0
        self._conn = conn
        self._anchor = anchor
        self._link = ""
        self._met = False
        self._dropped = 0

    def through(self) -> None:
        self._see(0, get_meta(self._conn, "genesis") or "")
        self._dropped = self._dropped_through()
        for found in self._conn.execute(select(SEGMENT).order_by(SEGMENT.c.first)).all():
            self._segment(found)
        self._rows(self.seq + 1, self._conn.execute(select(func.max(JOURNAL.c.seq))).scalar() or 0)
        if (
            extra := self._conn.execute(select(func.count()).select_from(JOURNAL)).scalar_one()
            - self.report.rows
        ):
            self.wrong(f"{extra} rows stand where none was written")

    def _dropped_through(self) -> int:
        try:
            return dropped_through(self._conn)
        except (ValueError, TypeError, LookupError):
            return 0  # an edited row; the walk comes to it and says so

    def _segment(self, found: Any) -> None:
        self.report.segments += 1
        if found.first != self.seq + 1 or not isinstance(found.last, int):
            self.wrong(f"segment {found.first}-{found.last} does not follow row {self.seq}")
            return
        before = self._link
        if found.last <= self._dropped:
            self.report.dropped += found.last - found.first + 1
            self._see(found.last, found.end_digest)
        else:
            self._rows(found.first, found.last)
            if self._link != found.end_digest:
                self.wrong(f"segment {found.first}-{found.last} does not end in what it was sealed with")
        if not self._fits(
            found.digest, before, found.first, found.last, found.opened, found.closed, found.end_digest
        ):
            self.wrong(f"the seal of segment {found.first}-{found.last} is not what was written")
        self._see(found.last, found.digest)

    def _rows(self, first: int, last: int) -> None:
        expected = first
        for seq, at, kind, incident, payload, digest in self._conn.exec_driver_sql(_SPAN, (first, last)):
            if seq != expected:
                self.wrong(f"rows {expected} to {seq - 1} are missing")
            if not self._fits(digest, self._link, seq, at, kind, incident, payload):
                self.wrong(
                    f"row {seq} ({kind}) is not what was written, or not after what it was written after"
                )
            self._see(seq, digest)
            self.report.rows += 1
            expected = seq + 1
        if expected <= last:
            self.wrong(f"rows {expected} to {last} are missing")

    def _fits(self, digest: Any, *fields: Any) -> bool:
        try:
            return bool(link(*fields) == digest)
        except TypeError:  # SQLite keeps bytes in any column; JSON does not
            return False

    def _see(self, seq: int, digest: str) -> None:
        self.seq, self._link = seq, digest
        self.report.head = f"{seq}:{digest}"
        self._met = self._met or self._anchor == self.report.head

    def wrong(self, what: str) -> None:
        if len(self.report.problems) < MOST_PROBLEMS:
            self.report.problems.append(what)

    def judge_anchor(self) -> None:
        if self._anchor is None:
            told = "no anchor was given: whoever can write the file could have written a whole new chain, or cut off its end"
            self.report.unproven.append(told)
            return
        seq = self._anchor.partition(":")[0]
        if self._met:
            self.report.unproven.append(f"rows after {seq} may have been cut off since")
        elif seq.isdigit() and 0 < int(seq) <= self._dropped:
            self.report.unproven.append(
                f"row {seq} was dropped by retention, so the anchor proves nothing any more; use a newer one"
            )
        else:
            self.wrong(
                f"the anchor at row {seq} does not fit: the journal was rewritten or cut off before it"
            )
