"""Statements that are put together once for each database and then run as text.

A small load is seven of them, and SQLAlchemy takes longer to look one up and bind it than SQLite takes to run it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """`statement`, compiled once for each dialect. Its parameters are plain numbers and texts, which no type converts.

    `columns` are those that an INSERT names; a SELECT has none.
    """

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = None if columns is None else list(columns)
        self._made: dict[str, tuple[str, dict[str, Any], Sequence[str] | None]] = {}

    def run(self, connection: Connection, *rows: Mapping[str, Any]) -> CursorResult[Any]:
        """Run it with the parameters of each of `rows`, at least one."""
        sql, values = self._bound(connection, rows)
        return connection.exec_driver_sql(sql, values[0] if len(values) == 1 else values)

    def put(self, connection: Connection, *rows: Mapping[str, Any]) -> None:
        """The same for an INSERT that answers nothing, in a transaction that writes.

        On SQLite it goes to the driver itself: no result is put together that nobody reads. Errors are SQLAlchemy's all
        the same.
        """
        if connection.dialect.name != "sqlite":
            self.run(connection, *rows)
            return
        sql, values = self._bound(connection, rows)
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        try:
            driver.executemany(sql, values)
        except sqlite3.Error as error:
            raise DBAPIError.instance(sql, None, error, sqlite3.Error) from error

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
