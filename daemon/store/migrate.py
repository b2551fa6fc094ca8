"""Brings an older file up to the schema of this code. Imported only when the stored schema differs: Alembic is heavy.

A step is a module `to_N.py` in `daemon.store.migrations` with one function `upgrade(op)`, which changes schema N-1 into N by Alembic's
operations. All steps of one start are one transaction.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Mapping
from importlib import import_module

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from daemon.errors import StoreError
from daemon.store import journal, migrations

Step = Callable[[Operations], None]
_NAME = re.compile(r"to_([1-9][0-9]*)\Z")


def shipped() -> dict[int, Step]:
    """Schema → the step that leads to it, for each that came with this version."""
    names = [
        found for module in pkgutil.iter_modules(migrations.__path__) if (found := _NAME.match(module.name))
    ]
    return {int(name[1]): import_module(f"{migrations.__name__}.{name[0]}").upgrade for name in names}


def upgrade(conn: Connection, found: int, wanted: int, steps: Mapping[int, Step]) -> None:
    """Run the steps from schema `found` to `wanted`, all or none. Raises StoreError when one is missing."""
    ahead = range(found + 1, wanted + 1)
    if missing := [number for number in ahead if number not in steps]:
        told = f"there is no way from schema {found} to {wanted}: the step to {missing[0]} is missing"
        raise StoreError(f"{told}; install a midwatch that knows schema {found}, or move the file away")
    operations = Operations(MigrationContext.configure(conn))
    conn.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        for number in ahead:
            steps[number](operations)
        journal.set_meta(conn, "schema", str(wanted))
    except BaseException:
        conn.exec_driver_sql("ROLLBACK")
        raise
    conn.exec_driver_sql("COMMIT")
