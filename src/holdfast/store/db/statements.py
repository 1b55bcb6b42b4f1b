"""Statements: compiled once per database and then run as text, and the conditions that many of them share.

A small load runs a dozen of them, and SQLAlchemy takes longer to look one up, bind it and wrap its result than SQLite takes to
run it. On SQLite they go to the driver itself; their errors are SQLAlchemy's.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    FromClause,
    Table,
    and_,
    cast,
    extract,
    func,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Delete, Insert, Select, Update
from sqlalchemy.sql.compiler import SQLCompiler

from holdfast.records import DAY_US, Level
from holdfast.store.db import schema
from holdfast.tables.snapshots import LoadKey

_JULIAN_1970: Final = 2_440_587.5
AT_ONCE: Final = 500
"""Maximum number of values in one statement."""
Value = TypeVar("Value")

PUBLISHED: Final = "published"
"""The state of a load that is there."""

BACKED_OUT: Final = "backed_out"
"""The state of a load that was taken out."""

LIVE: Final = schema.batches.c.state == PUBLISHED
"""True for a row of `batches` that is currently loaded."""

UNACCEPTED_ERROR: Final = and_(
    schema.violations.c.level == Level.ERROR, schema.violations.c.accepted_at_us.is_(None)
)
"""True for a row of `violations` that makes its load suspect."""

BoundLoad: TypeAlias = tuple[BindParameter[str], BindParameter[str], BindParameter[int]]
"""A load as parameters of a statement: feed, batch and epoch."""


class Prepared:
    """`statement`, compiled once for each dialect. Parameters are plain numbers and texts without type conversion.

    `columns` are those that an INSERT names; a SELECT has none.
    """

    def __init__(
        self, statement: Select[Any] | Insert | Update | Delete, columns: Sequence[str] | None = None
    ) -> None:
        self._statement = statement
        self._columns = None if columns is None else list(columns)
        self._made: dict[str, tuple[str, dict[str, Any], Sequence[str] | None]] = {}
        self._row = _named(statement.exported_columns.keys())

    def put(self, connection: Connection, *rows: Mapping[str, Any]) -> None:
        """Run the statement once for each of `rows`, at least one, in a transaction that writes."""
        sql, values = self._bound(connection, rows)
        if connection.dialect.name != "sqlite":
            connection.exec_driver_sql(sql, values)
            return
        with _driver(connection, sql) as sqlite:
            sqlite.executemany(sql, values)

    def change(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Run an UPDATE or a DELETE in a transaction that writes; return how many rows it changed."""
        sql, (bound,) = self._bound(connection, [values])
        if connection.dialect.name != "sqlite":
            return connection.exec_driver_sql(sql, bound).rowcount
        with _driver(connection, sql) as sqlite:
            return sqlite.execute(sql, bound).rowcount

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[Any]:
        """Return the rows of a SELECT, or of an INSERT with RETURNING, as named tuples."""
        sql, (bound,) = self._bound(connection, [values])
        if connection.dialect.name != "sqlite":
            return connection.exec_driver_sql(sql, bound).all()
        with _driver(connection, sql) as sqlite:
            return list(map(self._row, sqlite.execute(sql, bound)))

    def value(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Return the first column of the only row, None without a row; `ValueError` for several."""
        found = self.rows(connection, values)
        if len(found) > 1:
            raise ValueError(f"{len(found)} rows instead of one")
        return found[0][0] if found else None

    def _bound(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[Any]]:
        sql, constants, order = self._made.get(connection.dialect.name) or self._make(connection)
        if order is None:
            return sql, [{**constants, **row} for row in rows]
        return sql, [tuple(row[name] if name in row else constants[name] for name in order) for row in rows]

    def _make(self, connection: Connection) -> tuple[str, dict[str, Any], Sequence[str] | None]:
        compiled = self._statement.compile(dialect=connection.dialect, column_keys=self._columns)
        assert isinstance(compiled, SQLCompiler)
        order = compiled.positiontup if compiled.positional else None
        made = (str(compiled), dict(compiled.params), order)
        self._made[connection.dialect.name] = made
        return made


@contextmanager
def _driver(connection: Connection, sql: str) -> Iterator[sqlite3.Connection]:
    """Yield SQLite's own connection, in the transaction of `connection`; its errors become SQLAlchemy's."""
    if not connection.in_transaction():
        connection.begin()  # as SQLAlchemy does before its own first statement
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    try:
        yield found
    except sqlite3.Error as error:
        raise DBAPIError.instance(sql, None, error, sqlite3.Error) from error


def _named(columns: Iterable[str | None]) -> Callable[[Iterable[Any]], Any]:
    kind: Any = namedtuple  # of names that only the statement knows
    # A column that is computed may have no name that Python takes; it is read by its place.
    row: Callable[[Iterable[Any]], Any] = kind("Row", [str(name) for name in columns], rename=True)._make
    return row


def inserting(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT into `table` that has `on_conflict_...` methods."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def ledger_time_us(connection: Connection) -> int:
    """Return microseconds since 1970 UTC by the clock of the ledger, so that the clocks of two machines are never compared."""
    if connection.dialect.name == "postgresql":
        seconds = select(extract("epoch", func.clock_timestamp()))
        return int(connection.execute(seconds).scalar_one() * 1_000_000)
    days = float(connection.execute(select(func.julianday("now"))).scalar_one())
    return round((days - _JULIAN_1970) * DAY_US)


def pieces(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Yield `values` in pieces small enough for the parameters of one statement.

    >>> [len(piece) for piece in pieces(range(1_200))]
    [500, 500, 200]
    """
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]


def of_load(table: FromClause, load: LoadKey | BoundLoad) -> ColumnElement[bool]:
    """Return the condition that a row of `table` belongs to `load`.

    >>> str(of_load(schema.batches, ("flights", "d1", 0))).count(" AND ")
    2
    """
    feed, batch, epoch = load
    return and_(table.c.feed == feed, table.c.batch == batch, table.c.epoch == epoch)


def load_columns(table: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Return the columns of `table` that name a load: feed, batch and epoch."""
    return table.c.feed, table.c.batch, table.c.epoch


def refers_to(load: LoadKey) -> ColumnElement[bool]:
    """Return the condition that a row of `batch_references` refers to a key of `load`."""
    to, (feed, batch, epoch) = schema.batch_references.c, load
    return and_(to.to_feed == feed, to.to_batch == batch, to.to_epoch == epoch)


def same_load(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the condition that a row of `one` and a row of `other` belong to the same load.

    >>> str(same_load(schema.batches, schema.admissions)).count(" AND ")
    2
    """
    return and_(one.c.feed == other.c.feed, one.c.batch == other.c.batch, one.c.epoch == other.c.epoch)


def at_version(
    table: FromClause, version: int | ColumnElement[int] | BindParameter[int]
) -> ColumnElement[bool]:
    """Return the condition that a row of `files` or `file_row_groups` belongs to table version `version`.

    A row group has no `added_version`: it came with its file. Join `files`, and apply the condition to both.
    """
    there = or_(table.c.removed_version.is_(None), table.c.removed_version > version)
    return and_(table.c.added_version <= version, there) if "added_version" in table.c else there


def total(column: ColumnElement[int]) -> ColumnElement[int]:
    """Return the sum of `column`, 0 without a row. PostgreSQL would give a decimal number."""
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def not_removed(*tables: FromClause) -> ColumnElement[bool]:
    """Return the condition that the rows of all of `tables` belong to the newest table version."""
    return and_(*(table.c.removed_version.is_(None) for table in tables))
