"""Recompute the online features that loads change: those that are removed, withheld or no longer withheld."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import polars as pl

from holdfast.errors import IntegrityError
from holdfast.features import Aggregate
from holdfast.features.asof import aggregate_rows, changed_span_us
from holdfast.store import Store
from holdfast.store.backout import backout_loads
from holdfast.store.catalog import batches, online_features
from holdfast.store.catalog.online_features import Definition, OnlineValue
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import withheld_loads
from holdfast.store.files import data_files
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.snapshots import LoadKey

_EVER: Final = (-(2**62), 2**62)

Span: TypeAlias = tuple[int, int]
"""From the first timestamp to before the second, microseconds UTC."""


@dataclass(frozen=True, slots=True)
class Recomputation:
    """The changes of online values over `feed`. Values without a number are to be removed.

    `basis` is the table version that was read, without the `withheld` loads. `definitions` are of the aggregates whose values
    are complete after this.
    `low_us` and `high_us` bound the event times of requests that a changed value could affect.
    """

    feed: str
    basis: int
    withheld: tuple[LoadKey, ...]
    values: tuple[OnlineValue, ...]
    aggregates: tuple[str, ...]
    definitions: tuple[Definition, ...]
    low_us: int | None
    high_us: int | None

    @property
    def changed(self) -> int:
        """Return the number of values that change."""
        return len(self.values) - self.removed

    @property
    def removed(self) -> int:
        """Return the number of values that no remaining row supports."""
        return sum(value.value is None for value in self.values)


def recompute(
    store: Store, feed: str, loads: Sequence[LoadKey], event_time: str, *, are_removed: bool = True
) -> Recomputation:
    """Return the online values over `feed` that `loads` of it change. Writes nothing.

    Parameters
    ----------
    store
        The store.
    feed
        The feed of the loads.
    loads
        The loads to remove, to withhold, or to withhold no longer.
    event_time
        The column of the feed's event times. An aggregate by this column reads only the rows around theirs.
    are_removed
        The loads go. If it is False, their rows count as the ledger has them: not if they are withheld now, else in full.

    Every stored definition is computed, also one that the project no longer declares. The resulting values equal, bit
    for bit, those of a store that never had the removed and withheld loads. If a file of the loads is unreadable, all
    values over the feed are recomputed, not only those that its rows could affect.

    Raises
    ------
    IntegrityError
        HF301 if a file of another load is unreadable.
    """
    with store.ledger.read() as connection:
        basis = batches.current_version(connection)
        withheld = withheld_loads.find(connection, feed)
        known = online_features.definitions(connection, feed)
        changed_files = backout_loads.files_of(connection, feed, loads)
    aggregates = [Aggregate.from_dict(json.loads(each.definition_json)) for each, _ in known]
    if not aggregates:
        return Recomputation(feed, basis, withheld, (), (), (), None, None)
    without = [*loads, *withheld] if are_removed else withheld
    rows = _read_changed(store, changed_files, aggregates)
    values: list[OnlineValue] = []
    touched: list[Aggregate] = []
    with store.ledger.read() as connection:
        for aggregate in aggregates:
            changed = _changed(store, connection, aggregate, rows, basis, without, event_time)
            values += changed
            touched += [aggregate] if changed else []
        complete = tuple(
            each for each, complete_to in known if not batches.rows_since(connection, feed, complete_to)
        )
    return Recomputation(
        feed,
        basis,
        withheld,
        tuple(values),
        tuple(aggregate.key for aggregate in touched),
        complete,
        min((value.known_at_us for value in values), default=None),
        max(
            (
                value.known_at_us + each.window_us
                for each in touched
                for value in values
                if value.aggregate == each.key
            ),
            default=None,
        ),
    )


def _read_changed(
    store: Store, changed_files: Sequence[FileFacts], aggregates: Sequence[Aggregate]
) -> pl.DataFrame | None:
    """Return the rows of the loads; None if they are unreadable, so that a damaged file cannot block a back-out."""
    try:
        return data_files.read(store.root, changed_files, _columns(aggregates))
    except IntegrityError:
        return None


def _changed(
    store: Store,
    connection: Transaction,
    aggregate: Aggregate,
    changed: pl.DataFrame | None,
    basis: int,
    without: Sequence[LoadKey],
    event_time: str,
) -> list[OnlineValue]:
    """Return the values of `aggregate` that differ from those of the remaining rows."""
    span, entities = _EVER, None
    if changed is not None:
        if not _counts(aggregate, changed):
            return []
        found = changed_span_us(aggregate, changed)
        if found is None:
            return []
        span = found
        entities = changed[aggregate.by].cast(pl.String).drop_nulls().unique().sort().to_list()
    rows = _remaining_rows(store, connection, aggregate, basis, without, event_time, span)
    made = {(value.entity, value.known_at_us): value for value in _made(aggregate, rows, span)}
    there = {
        (value.entity, value.known_at_us): value
        for value in online_features.between(connection, aggregate.key, entities, *span)
    }
    only = None if entities is None else frozenset(entities)
    new = [
        value
        for place, value in made.items()
        if (only is None or place[0] in only) and (place not in there or there[place].value != value.value)
    ]
    return new + [
        OnlineValue(aggregate.key, entity, known_at_us, None)
        for entity, known_at_us in there
        if (entity, known_at_us) not in made
    ]


def _remaining_rows(
    store: Store,
    connection: Transaction,
    aggregate: Aggregate,
    basis: int,
    loads: Sequence[LoadKey],
    event_time: str,
    span: Span,
) -> pl.DataFrame:
    """Return the remaining rows, limited to those in the windows of `span`."""
    feed, columns = aggregate.over, _columns([aggregate])
    # The ledger knows the span of each file in event time only.
    if span == _EVER or aggregate.known_at != event_time:
        found = data_files.entries(connection, feed, basis, excluded=loads)
        return data_files.read(store.root, found, columns)
    oldest_us = span[0] - aggregate.window_us - aggregate.available_after_us
    found = [
        fact
        for fact in data_files.entries(connection, feed, basis, lookback_start_us=oldest_us, excluded=loads)
        if fact.event_time_min_us is None or fact.event_time_min_us < span[1]
    ]
    oldest = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=oldest_us)
    return data_files.read(store.root, found, columns, at_least=(event_time, oldest))


def _made(aggregate: Aggregate, rows: pl.DataFrame, span: Span) -> list[OnlineValue]:
    if not _counts(aggregate, rows):
        return []
    made = aggregate_rows(aggregate, rows, from_us=span[0]).filter(pl.col("known_at_us") < span[1])
    return [OnlineValue(aggregate.key, *row) for row in made.iter_rows()]


def _counts(aggregate: Aggregate, rows: pl.DataFrame) -> bool:
    """Return True if `rows` have the columns of the aggregate: files of another contract may lack them."""
    return rows.height > 0 and all(
        column in rows.columns and rows.schema[column] != pl.Null for column in _columns([aggregate])
    )


def _columns(aggregates: Sequence[Aggregate]) -> list[str]:
    """Return the columns that `aggregates` read, each once."""
    return list(
        dict.fromkeys(column for each in aggregates for column in (each.by, each.value, each.known_at))
    )
