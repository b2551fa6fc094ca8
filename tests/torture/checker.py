"""What must hold after any number of deaths, read from the ledger, the receiver and the journal."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Findings:
    """Everything that must be zero, and the figures that say the run was a real one."""

    duplicated: list[str] = field(default_factory=list)
    """Keys whose effect, or whose undoing, happened more than once."""
    without_intent: list[str] = field(default_factory=list)
    claimed: list[str] = field(default_factory=list)
    """Keys said to have succeeded whose effect is not in the ledger."""
    open: list[str] = field(default_factory=list)
    """Intents that nobody ever settled."""
    lost: list[str] = field(default_factory=list)
    """Messages that never arrived."""
    untold: list[str] = field(default_factory=list)
    """Incidents handed to a person without a message."""
    lines: list[str] = field(default_factory=list)
    """Log lines that were not seen exactly once."""
    intents: int = 0
    undone: int = 0
    settled: int = 0
    """Intents found open and settled by a probe."""
    sent: int = 0

    def wrong(self) -> dict[str, list[str]]:
        names = ("duplicated", "without_intent", "claimed", "open", "lost", "untold", "lines")
        return {name: found for name in names if (found := getattr(self, name))}


def check(database: Path, ledger: Path, arrived: Collection[str], written: Collection[str]) -> Findings:
    """`arrived`: ids of messages that the receiver got; `written`: ids of the log lines that were written."""
    conn = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    conn.row_factory = sqlite3.Row
    findings = Findings()
    try:
        _check_effects(conn, ledger, findings)
        _check_messages(conn, arrived, findings)
        _check_lines(conn, written, findings)
    finally:
        conn.close()
    return findings


def _rows(conn: sqlite3.Connection, kind: str) -> list[dict[str, object]]:
    return [
        json.loads(row["payload"])
        for row in conn.execute("SELECT payload FROM journal WHERE kind = ? ORDER BY seq", (kind,))
    ]


def _check_effects(conn: sqlite3.Connection, ledger: Path, findings: Findings) -> None:
    entries = Counter(ledger.read_text().splitlines()) if ledger.exists() else Counter()
    findings.duplicated = [entry for entry, count in entries.items() if count > 1]
    intents = _rows(conn, "intent")
    findings.intents = sum(not row["undo_of"] for row in intents)
    intended = {f"undo {row['undo_of']}" if row["undo_of"] else f"do {row['key']}" for row in intents}
    findings.without_intent = [entry for entry in entries if entry not in intended]
    outcomes = _rows(conn, "outcome")
    findings.settled = sum(str(row["reason"]).startswith("interrupted") for row in outcomes)
    findings.undone = sum(row["result"] == "undone" for row in outcomes)
    findings.claimed = [
        str(row["key"])
        for row in outcomes
        if row["result"] == "succeeded" and f"do {row['key']}" not in entries
    ]
    findings.open = [row["key"] for row in conn.execute("SELECT key FROM attempt WHERE result IS NULL")]


def _check_messages(conn: sqlite3.Connection, arrived: Collection[str], findings: Findings) -> None:
    outbox = conn.execute("SELECT id, state, incident, event FROM outbox").fetchall()
    findings.sent = len(outbox)
    findings.lost = [row["id"] for row in outbox if row["state"] != "sent" or row["id"] not in arrived]
    told = {row["incident"] for row in outbox if row["event"] == "trigger"}
    escalated = conn.execute("SELECT DISTINCT incident FROM journal WHERE kind = 'incident.escalated'")
    findings.untold = [row["incident"] for row in escalated if row["incident"] not in told]


def _check_lines(conn: sqlite3.Connection, written: Collection[str], findings: Findings) -> None:
    seen = Counter(
        str(row["key"])
        for row in _rows(conn, "signal")
        if row["state"] == "firing" and row["name"] == "fault"
    )
    findings.lines = [line for line in written if seen[line] != 1] + [
        line for line in seen if line not in written
    ]
