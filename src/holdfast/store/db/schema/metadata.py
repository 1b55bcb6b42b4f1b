"""The `METADATA` of the ledger, and helpers that declare its columns, indexes and checks."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    text,
)
from sqlalchemy.types import TypeEngine

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives a row id for free only to a column of type INTEGER; PostgreSQL needs 64 bits.
SERIAL: Final = BigInteger().with_variant(Integer(), "sqlite")

Kind: TypeAlias = TypeEngine[Any] | type[TypeEngine[Any]] | Column[Any]
"""The type of a column, or the column of another table that it refers to."""


def serial(name: str, comment: str) -> Column[Any]:
    """Return a primary key that the ledger numbers."""
    return Column(name, SERIAL, primary_key=True, autoincrement=True, comment=comment)


def key(name: str, kind: Kind, comment: str) -> Column[Any]:
    """Return a column of the primary key."""
    return _column(name, kind, primary_key=True, comment=comment)


def required(name: str, kind: Kind, comment: str, **options: bool) -> Column[Any]:
    """Return a column that is never null."""
    return _column(name, kind, nullable=False, comment=comment, **options)


def optional(name: str, kind: Kind, comment: str) -> Column[Any]:
    """Return a column that may be null."""
    return _column(name, kind, nullable=True, comment=comment)


def _column(name: str, kind: Kind, **options: Any) -> Column[Any]:
    if isinstance(kind, Column):
        return Column(name, kind.type, ForeignKey(kind), **options)
    return Column(name, kind, **options)


def load_key() -> tuple[Column[Any], Column[Any], Column[Any], ForeignKeyConstraint]:
    """Return the key columns of a table with rows of loads, and their reference to `batches`."""
    return (
        key("feed", String(63), "Feed of the load."),
        key("batch", String(63), "Batch of the load."),
        key("epoch", Integer, "Epoch of the load."),
        refers_to_load("feed", "batch", "epoch"),
    )


def refers_to_load(*columns: str) -> ForeignKeyConstraint:
    """Return the reference of three columns to `batches`."""
    return ForeignKeyConstraint(columns, ["batches.feed", "batches.batch", "batches.epoch"])


def one_of(column: str, values: type[StrEnum] | tuple[str, ...]) -> CheckConstraint:
    """Return a CHECK, named `<column>_known`, that `column` has one of `values`."""
    return CheckConstraint(f"{column} IN ({listed(values)})", name=f"{column}_known")


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """Return an index over the rows that match the SQL condition `where`."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


def listed(values: type[StrEnum] | tuple[str, ...] | list[StrEnum]) -> str:
    """Return `values` as a list of SQL texts."""
    return ", ".join(f"'{value}'" for value in values)
