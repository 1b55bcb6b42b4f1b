"""Read and write the ledger of a test in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import select

from holdfast.store import Store
from holdfast.store.backout import backouts
from holdfast.store.backout.backouts import BackoutRow
from holdfast.store.db import rows, schema
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds.violations import ViolationRow
from holdfast.store.telemetry.collected_log import CollectedFile, FileTable

P = ParamSpec("P")
T = TypeVar("T")


def read(
    store: Store, query: Callable[Concatenate[Transaction, P], T], *given: P.args, **named: P.kwargs
) -> T:
    """Return what `query` finds in the ledger of `store`."""
    with store.ledger.read() as connection:
        return query(connection, *given, **named)


def write(
    store: Store, change: Callable[Concatenate[Transaction, P], T], *given: P.args, **named: P.kwargs
) -> T:
    """Return what `change` returns, in a transaction of its own."""
    with store.ledger.write() as connection:
        return change(connection, *given, **named)


def collected(connection: Transaction, table: FileTable) -> tuple[CollectedFile, ...]:
    """Return every collected file of `table`, in the order of server, segment and time."""
    order = ("server", "segment", "predicted_at_min_us", "path")
    query = select(table.rows).order_by(*(table.rows.c[name] for name in order))
    return tuple(rows.read(connection, query, CollectedFile))


def violations_of(connection: Transaction, batch: str) -> list[ViolationRow]:
    """Return every violation of `batch`, the newest first, accepted ones too."""
    found = schema.violations.c
    query = select(schema.violations).where(found.batch == batch).order_by(found.violation_id.desc())
    return rows.read(connection, query, ViolationRow)


def newest_backouts(connection: Transaction) -> list[BackoutRow]:
    """Return every back-out, the newest first."""
    query = select(schema.backouts.c.backout_id).order_by(schema.backouts.c.backout_id.desc())
    return [backouts.get(connection, number) for number in connection.execute(query).scalars()]
