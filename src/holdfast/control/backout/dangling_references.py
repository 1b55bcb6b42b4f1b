"""Find rows of other loads that reference removed rows, by the loads that a delivery was admitted against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from holdfast.errors import IntegrityError
from holdfast.store import Store
from holdfast.store.backout import backout_loads
from holdfast.store.catalog import batches
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import loaded_rows
from holdfast.store.feeds.loaded_rows import Dependent
from holdfast.store.files import data_files
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.backout import SuspectLoad
from holdfast.tables.snapshots import LoadKey


@dataclass(frozen=True, slots=True)
class Dangling:
    """The remaining loads with dangling references, and all `dependents` that were searched.

    If the dependents have changed, the search must be repeated.
    """

    dependents: tuple[Dependent, ...]
    loads: tuple[SuspectLoad, ...]


@dataclass(frozen=True, slots=True)
class _Query:
    """One search: values of `column` of `load` in `key` of `feed`, from `lookback_start_us` on."""

    load: LoadKey
    column: str
    feed: str
    key: str
    lookback_start_us: int | None


def find_dependents(connection: Transaction, removed: Sequence[LoadKey]) -> tuple[Dependent, ...]:
    """Return the remaining loads that reference any of `removed`."""
    return tuple(each for each in loaded_rows.dependents(connection, removed) if each.load not in removed)


def find_dangling(store: Store, removed: Sequence[LoadKey]) -> Dangling:
    """Return the remaining loads with rows that reference only rows of `removed`. Writes nothing.

    A value that is also in a remaining row, within the lookback of its load, does not dangle. If a file of `removed` or of
    such a load is unreadable, all rows that it could hold count. Raises `IntegrityError` HF301 if remaining rows that
    may be referenced are unreadable.
    """
    with store.ledger.read() as connection:
        basis = batches.current_version(connection)
        found = find_dependents(connection, removed)
    queries = dict.fromkeys(
        _Query(each.load, each.column, each.to_load[0], each.to_key, each.lookback_start_us) for each in found
    )
    counted = ((each, _rows(store, each, removed, basis)) for each in queries)
    return Dangling(
        found, tuple(SuspectLoad(*each.load, each.column, each.feed, rows) for each, rows in counted if rows)
    )


def _rows(store: Store, query: _Query, removed: Sequence[LoadKey], basis: int) -> int:
    """Return the number of rows of a load that dangle without `removed`."""
    with store.ledger.read() as connection:
        mine = backout_loads.files_of(connection, query.load[0], [query.load])
        leave = backout_loads.files_of(
            connection, query.feed, [load for load in removed if load[0] == query.feed]
        )
        stay = data_files.entries(
            connection, query.feed, basis, lookback_start_us=query.lookback_start_us, excluded=list(removed)
        )
    values = _left(store, mine, query.column, None)
    if values is None:
        return sum(fact.rows for fact in mine)
    keys = _left(store, leave, query.key, values.dtype)
    touched = values if keys is None else values.filter(values.is_in(keys.unique().implode()))
    if touched.is_empty():
        return 0
    kept = _values(store, stay, query.key, values.dtype)
    return touched.len() - int(touched.is_in(kept.unique().implode()).sum())


def _left(
    store: Store, found: Sequence[FileFacts], column: str, dtype: pl.DataType | None
) -> pl.Series | None:
    """Return `_values`; None if a file is unreadable, so that a damaged file cannot block a back-out."""
    try:
        return _values(store, found, column, dtype)
    except IntegrityError:
        return None


def _values(store: Store, found: Sequence[FileFacts], column: str, dtype: pl.DataType | None) -> pl.Series:
    """Return the values in `column` of `found`, in `dtype` or their own type; categories as text."""
    rows = data_files.read(store.root, found, [column] if dtype is None else {column: dtype})
    if not rows.width:
        return pl.Series(column, [], dtype or pl.Null())
    values = rows[column].drop_nulls()
    return values.cast(pl.String) if isinstance(values.dtype, pl.Categorical | pl.Enum) else values
