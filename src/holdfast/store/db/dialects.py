"""Differences between the databases that SQLAlchemy leaves to its callers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

AT_ONCE: Final = 500
"""Maximum number of values in one statement."""

Value = TypeVar("Value")


def inserting(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT into `table` that has `on_conflict_...` methods."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def pieces(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Yield `values` in pieces small enough for the parameters of one statement.

    >>> [len(piece) for piece in pieces(range(1_200))]
    [500, 500, 200]
    """
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]
