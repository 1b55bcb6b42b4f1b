"""Statements: compiled once per database and then run as text, and what SQLAlchemy leaves to its callers.

A small load runs a dozen of them, and SQLAlchemy takes longer to look one up, bind it and wrap its result than SQLite takes to
run it. On SQLite they go to the driver itself; their errors are SQLAlchemy's.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Delete, Insert, Select, Update
from sqlalchemy.sql.compiler import SQLCompiler


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
