"""Rows as records: a column has the name of a field, and its text becomes the enumeration of that field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, RowMapping, Select, Table, insert

from holdfast.store.db.statements import inserting

Record = TypeVar("Record")


def read(connection: Connection, query: Select[Any], kind: type[Record]) -> list[Record]:
    """Return the rows of `query` as records of `kind`, a dataclass. Columns that it has no field for are left out."""
    found = connection.execute(query)
    names = [str(name) for name in found.keys()]  # noqa: SIM118 - a result is no mapping
    return [msgspec.convert(dict(zip(names, row, strict=True)), kind) for row in found]


def record(row: Mapping[str, Any] | RowMapping, kind: type[Record]) -> Record:
    """Return one row, or a row of which a caller has decoded some values, as a record of `kind`."""
    return msgspec.convert({str(name): value for name, value in row.items()}, kind)


def first(connection: Connection, query: Select[Any], kind: type[Record]) -> Record | None:
    """Return the first row of `query` as a record of `kind`; None if there is none."""
    found = read(connection, query.limit(1), kind)
    return found[0] if found else None


def are_there(connection: Connection, query: Select[Any]) -> bool:
    """Return True if `query` has a row."""
    return connection.execute(query.limit(1)).first() is not None


def add(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """Insert a row into a table whose rows the database numbers; return its number."""
    key = connection.execute(insert(table).values(values)).inserted_primary_key
    assert key is not None, "the database numbers the rows"
    return int(key[0])


def put(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace the values of the row that has the same primary key."""
    key = table.primary_key.columns.keys()
    others = {name: value for name, value in values.items() if name not in key}
    connection.execute(
        inserting(connection, table).values(values).on_conflict_do_update(index_elements=key, set_=others)
    )
