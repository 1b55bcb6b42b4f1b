"""Read labels that come later than their rows: from the label feeds of a snapshot, as they were known when it was made."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from holdfast.control.collect.feed_labels import read_history
from holdfast.declaration import Model
from holdfast.store import Store
from holdfast.tables import Snapshot
from holdfast.tables.labels import KNOWN_AT, known_labels


def join_labels(store: Store, model: Model, snapshot: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` with the label of each as it was known when `snapshot` was made, and `KNOWN_AT`.

    A label that a row brought itself is the first of its history, known when it was due.
    """
    key, label = list(model.examples.contract.key), model.label
    read = {table.table for table in snapshot.tables}
    feeds = [feed for feed in model.label_feeds if feed.name in read]
    history = [read_history(store, model, feed, snapshot.snapshot) for feed in feeds]
    known = known_labels(
        pl.concat([_own(model, rows), *history]),
        key=key,
        label=label,
        until_us=snapshot.created_at_us,
        corrections=model.label_feeds[0].corrections,
    )
    return rows.drop(label).join(known, on=key, how="left", maintain_order="left")


def _own(model: Model, rows: pl.DataFrame) -> pl.DataFrame:
    delay_us = model.label_delay // timedelta(microseconds=1)
    due_us = pl.col(model.contract.event_time).dt.epoch("us") + delay_us
    return rows.select(*model.examples.contract.key, model.label, due_us.alias(KNOWN_AT)).drop_nulls(
        model.label
    )
