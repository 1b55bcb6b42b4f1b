"""Read labels that come later than their rows: from the label feeds of a snapshot, as they were known when it was made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import polars as pl

from holdfast.control.collect.feed_labels import read_history
from holdfast.declaration import Model
from holdfast.records import BATCH_COLUMN
from holdfast.store import Store
from holdfast.tables import Snapshot
from holdfast.tables.labels import KNOWN_AT, LABEL_LOADS, before_others, known_labels

_FEED: Final = "_feed"


LOADS_TYPE: Final = pl.List(pl.Struct({"feed": pl.String(), "batch": pl.String()}))
"""The type of the column `LABEL_LOADS`."""


def join_labels(
    store: Store, model: Model, snapshot: Snapshot, rows: pl.DataFrame, *, with_loads: bool = False
) -> pl.DataFrame:
    """Return `rows` with the label of each as it was known when `snapshot` was made, and `KNOWN_AT`.

    A label that a row brought itself is the first of its history: it became known when it was due, or before the first label
    of a feed if that came earlier. So an early correction still counts when the label is due.
    `with_loads` adds the column `LABEL_LOADS`.
    """
    key, label = list(model.examples.contract.key), model.label
    read = {table.table for table in snapshot.tables}
    brought = {
        feed.name: read_history(store, model, feed, snapshot.snapshot)
        for feed in model.label_feeds
        if feed.name in read
    }
    history = list(brought.values())
    own = _own(model, rows, history, snapshot.created_at_us)
    known = known_labels(
        pl.concat([own, *(each.drop(BATCH_COLUMN) for each in history)]),
        key=key,
        label=label,
        until_us=snapshot.created_at_us,
        corrections=model.corrections,
    )
    if with_loads:
        known = _with_loads(known, brought, [*key, label, KNOWN_AT])
    return rows.drop(label).join(known, on=key, how="left", maintain_order="left")


def loads_of_labels(rows: pl.DataFrame, feed: str) -> pl.Series:
    """Return, for each label of `rows` that was taken from a load of `feed`, the batch of the load.

    `rows` are as `join_labels` returns them with loads. A label that several loads brought at one time is from each of them.
    """
    loads = rows[LABEL_LOADS].drop_nulls().explode().struct.unnest()
    return loads.filter(pl.col("feed") == feed)["batch"]


def _with_loads(known: pl.DataFrame, brought: Mapping[str, pl.DataFrame], label: list[str]) -> pl.DataFrame:
    """Return `known` with the loads that each label was taken from; `label` are the columns that identify it."""
    if not brought:
        return known.with_columns(pl.lit(None, LOADS_TYPE).alias(LABEL_LOADS))
    load = pl.struct(feed=pl.col(_FEED), batch=pl.col(BATCH_COLUMN)).alias(LABEL_LOADS)
    named = pl.concat([each.with_columns(pl.lit(feed).alias(_FEED)) for feed, each in brought.items()])
    loads = named.select(*label, load).group_by(label).agg(pl.col(LABEL_LOADS).unique())
    return known.join(loads, on=label, how="left", maintain_order="left")


def _own(model: Model, rows: pl.DataFrame, history: list[pl.DataFrame], until_us: int) -> pl.DataFrame:
    """Return the labels that rows brought, each the first of its history."""
    key = list(model.examples.contract.key)
    delay_us = model.label_delay // timedelta(microseconds=1)
    due_us = pl.col(model.contract.event_time).dt.epoch("us") + delay_us
    # None is later than `until_us`: it was there then, due or not.
    known_at = pl.min_horizontal(due_us, pl.lit(until_us)).alias(KNOWN_AT)
    own = rows.select(*key, model.label, known_at).drop_nulls(model.label)
    return before_others(own, history, key=key)
