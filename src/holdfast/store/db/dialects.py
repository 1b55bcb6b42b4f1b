"""What the databases differ in, where SQLAlchemy leaves it to us: an INSERT that yields to rows that are there, and how many
parameters one statement takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

AT_ONCE: Final = 500
"""How many values are looked up by one statement."""

Value = TypeVar("Value")


def inserting(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT into `table` that can be told what to do about a row that is there (`on_conflict_...`)."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def pieces(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """`values` in their order, in pieces that every database takes as parameters of one statement.

    >>> [len(piece) for piece in pieces(range(1_200))]
    [500, 500, 200]
    """
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]
