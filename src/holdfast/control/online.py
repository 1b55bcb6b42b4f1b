"""Keeps the table that servers read in step with the rows: what a batch changes in the aggregates over its feed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from holdfast.features.aggregate import Aggregate
from holdfast.features.asof import aggregate_rows, first_changed_us
from holdfast.store import Store, batches, files
from holdfast.store.online import OnlineValue


def online_values(
    store: Store, aggregates: Sequence[Aggregate], batch: pl.DataFrame
) -> tuple[int, tuple[OnlineValue, ...]]:
    """The values of `aggregates` that the rows of `batch` make or change, and the table version that was read for them.

    Of the rows loaded before, only those are read that a changed value's window can hold. The values equal, to the
    last bit, what all rows of the feed would have given.
    """
    with store.ledger.read() as connection:
        basis = batches.current_version(connection)
        before = {
            aggregate.over: files.entries(connection, aggregate.over, basis) for aggregate in aggregates
        }
    values: list[OnlineValue] = []
    for aggregate in aggregates:
        first_us = first_changed_us(aggregate, batch)
        if first_us is None:
            continue
        columns = list(dict.fromkeys((aggregate.by, aggregate.value, aggregate.known)))
        known = batch[aggregate.known]
        oldest = known.min()
        assert isinstance(oldest, datetime)
        history = files.read(
            store.root,
            before[aggregate.over],
            columns,
            at_least=(aggregate.known, oldest - aggregate.history),
        )
        rows = pl.concat([history, batch.select(columns)]) if history.height else batch.select(columns)
        made = aggregate_rows(aggregate, rows, from_us=first_us)
        changed = made.filter(pl.col("known_us") < _unchanged_from_us(aggregate, known))
        values.extend(OnlineValue(aggregate.name, *row) for row in changed.iter_rows())
    return basis, tuple(values)


def _unchanged_from_us(aggregate: Aggregate, known: pl.Series) -> int:
    """The first moment whose window holds no row of the batch any more."""
    last_us = int(known.drop_nulls().to_physical().to_numpy().max()) + aggregate.available_after_us
    grid_us = -(-last_us // aggregate.every_us) * aggregate.every_us
    return grid_us + aggregate.window_us
