"""Keeps the table that servers read in step with the rows: what a batch changes in the aggregates over its
feed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from holdfast.features.aggregate import Aggregate
from holdfast.features.asof import aggregate_rows, first_changed_us
from holdfast.feeds import Feed
from holdfast.store import Store, batches, files
from holdfast.store.online import OnlineValue


def online_values(
    store: Store, feed: Feed, aggregates: Sequence[Aggregate], batch: pl.DataFrame
) -> tuple[int, tuple[OnlineValue, ...]]:
    """The values of `aggregates` that the rows of `batch` make or change, and the table version that was
    read for them.

    `aggregates` are those over `feed`. Of the rows loaded before, only those are read that a changed value's
    window can hold. The values equal, to the last bit, what all rows of the feed would have given.
    """
    basis, history = _history(store, feed, aggregates, batch)
    values: list[OnlineValue] = []
    for aggregate in aggregates:
        first_us = first_changed_us(aggregate, batch)
        if first_us is None:
            continue
        columns = _columns([aggregate])
        rows = batch.select(columns)
        if history.height:
            rows = pl.concat([history.select(columns), rows])
        made = aggregate_rows(aggregate, rows, from_us=first_us)
        changed = made.filter(pl.col("known_us") < _unchanged_from_us(aggregate, batch[aggregate.known]))
        values.extend(OnlineValue(aggregate.name, *row) for row in changed.iter_rows())
    return basis, tuple(values)


def _history(
    store: Store, feed: Feed, aggregates: Sequence[Aggregate], batch: pl.DataFrame
) -> tuple[int, pl.DataFrame]:
    """The table version that was read, and the rows loaded before that the windows of `batch` can reach back
    to.
    """
    event_time = feed.contract.event_time
    # The ledger knows the span of each load in event time; another column's span it does not know.
    bounded = all(aggregate.known == event_time for aggregate in aggregates)
    oldest = batch[event_time].min() if bounded else None
    since = (
        oldest - max(aggregate.history for aggregate in aggregates) if isinstance(oldest, datetime) else None
    )
    with store.ledger.read() as connection:
        basis = batches.current_version(connection)
        found = files.entries(
            connection,
            feed.name,
            basis,
            reaching_us=None if since is None else round(since.timestamp() * 1e6),
        )
    at_least = None if since is None else (event_time, since)
    return basis, files.read(store.root, found, _columns(aggregates), at_least=at_least)


def _columns(aggregates: Sequence[Aggregate]) -> list[str]:
    """The columns that `aggregates` read, each once."""
    return list(dict.fromkeys(column for each in aggregates for column in (each.by, each.value, each.known)))


def _unchanged_from_us(aggregate: Aggregate, known: pl.Series) -> int:
    """The first moment whose window holds no row of the batch any more."""
    last_us = int(known.drop_nulls().to_physical().to_numpy().max()) + aggregate.available_after_us
    grid_us = -(-last_us // aggregate.every_us) * aggregate.every_us
    return grid_us + aggregate.window_us
