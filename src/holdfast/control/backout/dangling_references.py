"""Which rows of other loads refer to rows that go: found by the loads that a delivery was let in against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from holdfast.errors import IntegrityError
from holdfast.store import Store
from holdfast.store.backout import backouts
from holdfast.store.catalog import batches
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import references
from holdfast.store.feeds.references import Dependent
from holdfast.store.files import data_files
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.backout import SuspectLoad
from holdfast.tables.snapshots import LoadKey


@dataclass(frozen=True, slots=True)
class Dangling:
    """The loads that are left with rows that refer to nothing. `dependents` are those that were asked: when they are others
    by now, ask again.
    """

    dependents: tuple[Dependent, ...]
    loads: tuple[SuspectLoad, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Whose values of which column are looked for in which column of which feed, and how far back."""

    load: LoadKey
    column: str
    feed: str
    key: str
    lookback_start_us: int | None


def dependents(connection: Transaction, going: Sequence[LoadKey]) -> tuple[Dependent, ...]:
    """The loads that stay and refer to any of `going`."""
    return tuple(each for each in references.dependents(connection, going) if each.load not in going)


def dangling(store: Store, going: Sequence[LoadKey]) -> Dangling:
    """The loads that stay with rows that refer to rows of `going` alone. Writes nothing.

    A value that stands in a row that stays too, as far back as its load looked, does not dangle. Where a file of `going` or of
    such a load cannot be read any more, all that it could hold counts. Raises `IntegrityError` HF301 when rows that stay and
    may be referred to cannot be read.
    """
    with store.ledger.read() as connection:
        basis = batches.current_version(connection)
        found = dependents(connection, going)
    asked = dict.fromkeys(
        _Asked(each.load, each.column, each.to_load[0], each.to_key, each.lookback_start_us) for each in found
    )
    counted = ((each, _rows(store, each, going, basis)) for each in asked)
    return Dangling(
        found, tuple(SuspectLoad(*each.load, each.column, each.feed, rows) for each, rows in counted if rows)
    )


def _rows(store: Store, asked: _Asked, going: Sequence[LoadKey], basis: int) -> int:
    """How many rows of a load dangle when `going` are gone."""
    with store.ledger.read() as connection:
        mine = backouts.files_of(connection, asked.load[0], [asked.load])
        leave = backouts.files_of(connection, asked.feed, [load for load in going if load[0] == asked.feed])
        stay = data_files.entries(
            connection, asked.feed, basis, lookback_start_us=asked.lookback_start_us, excluded=list(going)
        )
    values = _left(store, mine, asked.column, None)
    if values is None:
        return sum(fact.rows for fact in mine)
    keys = _left(store, leave, asked.key, values.dtype)
    touched = values if keys is None else values.filter(values.is_in(keys.unique().implode()))
    if touched.is_empty():
        return 0
    kept = _values(store, stay, asked.key, values.dtype)
    return touched.len() - int(touched.is_in(kept.unique().implode()).sum())


def _left(
    store: Store, found: Sequence[FileFacts], column: str, dtype: pl.DataType | None
) -> pl.Series | None:
    """As `_values`; None when a file cannot be read, which must keep nothing in."""
    try:
        return _values(store, found, column, dtype)
    except IntegrityError:
        return None


def _values(store: Store, found: Sequence[FileFacts], column: str, dtype: pl.DataType | None) -> pl.Series:
    """What is in `column` of `found`, in `dtype` or in its own, words as texts."""
    rows = data_files.read(store.root, found, [column] if dtype is None else {column: dtype})
    if not rows.width:
        return pl.Series(column, [], dtype or pl.Null())
    values = rows[column].drop_nulls()
    return values.cast(pl.String) if isinstance(values.dtype, pl.Categorical | pl.Enum) else values
