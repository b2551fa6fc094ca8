"""The tables of midwatch.db. `journal` is append-only; every other table is state, changed in the transaction that journals why."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import JSON, Column, Connection, Index, Table, Update, bindparam, update
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlmodel import Field, SQLModel


def add(conn: Connection, into: Table, row: Mapping[str, Any]) -> None:
    """Insert a row; one of the same primary key is an IntegrityError."""
    conn.execute(_insert(into), dict(row))


@cache
def _insert(into: Table) -> Insert:
    return insert(into)


def put(conn: Connection, into: Table, row: Mapping[str, Any]) -> None:
    """Insert a row, or change the one of the same primary key."""
    conn.execute(_upsert(into, tuple(row)), dict(row))


@cache
def _upsert(into: Table, columns: tuple[str, ...]) -> Insert:
    """Built once: building a statement costs more than running it."""
    keys = [column.name for column in into.primary_key]
    fresh = insert(into)
    return fresh.on_conflict_do_update(
        index_elements=keys, set_={name: fresh.excluded[name] for name in columns if name not in keys}
    )


def change(conn: Connection, what: Table, key: str, values: Mapping[str, Any], unless: str = "") -> bool:
    """Change the row of that primary key, but not one whose `state` is `unless`; False when there was none to change."""
    changed = {f"new_{name}": value for name, value in values.items()}
    done = conn.execute(_update(what, tuple(values), unless), {"of": key, **changed})
    return bool(done.rowcount)


@cache
def _update(what: Table, columns: tuple[str, ...], unless: str) -> Update:
    (key,) = what.primary_key
    fresh = {name: bindparam(f"new_{name}", type_=what.c[name].type) for name in columns}
    found = update(what).where(key == bindparam("of")).values(fresh)
    return found.where(what.c.state != unless) if unless else found


class Journal(SQLModel, table=True):
    """One fact. `payload` is canonical JSON text, `digest` the link of the chain that binds the row to what is before it."""

    seq: int = Field(primary_key=True)
    at: float
    kind: str = Field(index=True)
    incident: str | None = Field(default=None, index=True)
    payload: str
    digest: str


class Segment(SQLModel, table=True):
    """A sealed span of the journal; the seal stays when retention drops the rows."""

    first: int = Field(primary_key=True)
    last: int
    opened: float
    """Unix seconds: when its first row was written, and when it was sealed."""
    closed: float
    end_digest: str
    """The link of its last row."""
    digest: str
    """The seal's own link, from which the next row follows."""


class Incident(SQLModel, table=True):
    id: str = Field(primary_key=True)
    state: str = Field(index=True)
    severity: int
    resource: str
    """The Resource at fault as far as known."""
    title: str
    opened_at: float
    changed_at: float
    resolved_at: float | None = None
    due: str | None = None
    """A Deadline as text: when the loop looks again; None: when something wakes it."""
    diagnosis: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    remedy: int = 0
    step: int = 0
    attempts: int = 0
    """Remedies tried; at most three."""
    reason: str = ""
    """One sentence: why it stands where it stands."""
    acked_by: str | None = None
    held: str | None = None
    """What holds it back (`pause`, `hold:...`, `observe`), if anything does."""
    oncall_step: int = 0
    oncall_due: str | None = None
    reopened: int = 0
    merged_into: str | None = None
    """The incident that has its signals now: it turned out to be one trouble with that one. What is left is to tell people."""


class SignalRow(SQLModel, table=True):
    """The last state of each fingerprint."""

    __tablename__ = "signal"
    fingerprint: str = Field(primary_key=True)
    name: str
    resource: str
    key: str = ""
    severity: int
    state: str
    at: float
    """When it last fired or cleared."""
    fired_at: float
    incident: str | None = Field(default=None, index=True)
    summary: str
    values: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    tainted: bool = False
    perceiver: str = ""
    """Who saw it; empty when the daemon says it of itself."""
    flaps: int = 0
    """Firings since `flaps_since`."""
    flaps_since: float = 0.0
    seq: int
    """The journal row that carries the evidence."""


class Attempt(SQLModel, table=True):
    """One intended action. `result` is None from intent to outcome."""

    key: str = Field(primary_key=True)
    """SHA-256 of action, target, params, incident and number."""
    incident: str = Field(index=True)
    remedy: int
    step: int
    undo_of: str | None = None
    action: str
    target: str = Field(index=True)
    params: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    check_state: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    check_size: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    rule: str
    rule_digest: str
    proposed_by: str
    boot_id: str
    boottime: float
    at: float
    result: str | None = None
    reason: str = ""
    detail: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    verified: bool | None = None
    """Whether the incident's proof was seen after it; None while nobody knows."""
    ended_at: float | None = None


class Approval(SQLModel, table=True):
    id: str = Field(primary_key=True)
    incident: str = Field(index=True)
    digest: str
    """SHA-256 of the exact action and its checked state."""
    action: str
    target: str
    params: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    rule: str
    approvers: list[str] = Field(default_factory=list, sa_column=Column(JSON))
    quorum: int = 1
    votes: list[str] = Field(default_factory=list, sa_column=Column(JSON))
    state: str = Field(index=True)
    """pending, approved, rejected, expired, used, void."""
    boot_id: str
    due: str
    asked_at: float
    decided_at: float | None = None
    decided_by: str | None = None
    reason: str = ""


class Outbox(SQLModel, table=True):
    """One message to one channel. The id is the same over all retries."""

    id: str = Field(primary_key=True)
    channel: str = Field(index=True)
    incident: str | None = Field(default=None, index=True)
    event: str
    """trigger, update, ask, acknowledge, resolve, test."""
    message: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    state: str = Field(index=True)
    """pending, sent, failed."""
    tries: int = 0
    due: float
    """Unix seconds of the next try."""
    created: float
    sent_at: float | None = None
    error: str = ""


class Cursor(SQLModel, table=True):
    perceiver: str = Field(primary_key=True)
    cursor: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))


class DetectorState(SQLModel, table=True):
    __tablename__ = "detector_state"
    id: str = Field(primary_key=True)
    state: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))


class Control(SQLModel, table=True):
    """What people switched: `pause`, `hold:NAME`."""

    name: str = Field(primary_key=True)
    by: str
    reason: str = ""
    at: float
    due: str | None = None


class Copy(SQLModel, table=True):
    """A kept copy of a watched file; `good_at` is set once its service was quiet long enough on it."""

    path: str = Field(primary_key=True)
    sha256: str = Field(primary_key=True)
    seen_at: float
    good_at: float | None = None


class Lock(SQLModel, table=True):
    """One target, one attempt at a time."""

    target: str = Field(primary_key=True)
    incident: str
    attempt: str
    at: float


class Meta(SQLModel, table=True):
    """Facts about the file itself: `schema`, `genesis` (what the chain begins with), `observe_only` (why), `incident_counter`."""

    key: str = Field(primary_key=True)
    value: str


Index("ix_outbox_due", Outbox.state, Outbox.due)  # type: ignore[arg-type]


def _table(model: type[SQLModel]) -> Table:
    """The table beneath a model. SQLModel types a model's columns as their Python values, which conditions are not."""
    table: Table = model.__table__  # type: ignore[attr-defined]
    return table


JOURNAL, SEGMENT, META = _table(Journal), _table(Segment), _table(Meta)
INCIDENT, SIGNAL, ATTEMPT, APPROVAL = _table(Incident), _table(SignalRow), _table(Attempt), _table(Approval)
OUTBOX, CONTROL, LOCK, COPY = _table(Outbox), _table(Control), _table(Lock), _table(Copy)
CURSOR, DETECTOR_STATE = _table(Cursor), _table(DetectorState)
