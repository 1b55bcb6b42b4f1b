"""Read labels that come later than their rows: from the label feeds of a snapshot, as they were known when it was made."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from holdfast.control.collect.feed_labels import read_history
from holdfast.declaration import Model
from holdfast.store import Store
from holdfast.tables import Snapshot
from holdfast.tables.labels import KNOWN_AT, before_others, known_labels


def join_labels(store: Store, model: Model, snapshot: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` with the label of each as it was known when `snapshot` was made, and `KNOWN_AT`.

    A label that a row brought itself is the first of its history: it became known when it was due, or before the first label
    of a feed if that came earlier. So an early correction still counts when the label is due.
    """
    key, label = list(model.examples.contract.key), model.label
    read = {table.table for table in snapshot.tables}
    feeds = [feed for feed in model.label_feeds if feed.name in read]
    history = [read_history(store, model, feed, snapshot.snapshot) for feed in feeds]
    known = known_labels(
        pl.concat([_own(model, rows, history, snapshot.created_at_us), *history]),
        key=key,
        label=label,
        until_us=snapshot.created_at_us,
        corrections=model.corrections,
    )
    return rows.drop(label).join(known, on=key, how="left", maintain_order="left")


def _own(model: Model, rows: pl.DataFrame, history: list[pl.DataFrame], until_us: int) -> pl.DataFrame:
    """Return the labels that rows brought, each the first of its history."""
    key = list(model.examples.contract.key)
    delay_us = model.label_delay // timedelta(microseconds=1)
    due_us = pl.col(model.contract.event_time).dt.epoch("us") + delay_us
    # None is later than `until_us`: it was there then, due or not.
    known_at = pl.min_horizontal(due_us, pl.lit(until_us)).alias(KNOWN_AT)
    own = rows.select(*key, model.label, known_at).drop_nulls(model.label)
    return before_others(own, history, key=key)
