"""Read labels that come later than their rows: from the label feeds of a snapshot, as they were known when it was made."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from holdfast.contract.batch.compiler import dtype
from holdfast.control.collect import prediction_keys
from holdfast.declaration import Model
from holdfast.feeds import Feed
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.store import Store
from holdfast.store.files import data_files
from holdfast.tables import Snapshot
from holdfast.tables.labels import KNOWN_AT, known_labels


def join_labels(store: Store, model: Model, snapshot: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` with the label of each as it was known when `snapshot` was made, and `KNOWN_AT`.

    A label that a row brought itself is the first of its history, known when it was due.
    """
    key, label = list(model.examples.contract.key), model.label
    history = [_own(model, rows)]
    read = {table.table for table in snapshot.tables}
    history += [_of_feed(store, model, feed, snapshot) for feed in model.label_feeds if feed.name in read]
    known = known_labels(
        pl.concat(history),
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


def _of_feed(store: Store, model: Model, feed: Feed, snapshot: Snapshot) -> pl.DataFrame:
    key = {name: dtype(model.examples.contract.column(name)) for name in model.examples.contract.key}
    by = {PREDICTION_ID: pl.String()} if feed.label_key == (PREDICTION_ID,) else key
    time = feed.contract.event_time
    columns = by | {model.label: pl.Boolean(), time: dtype(feed.contract.column(time))}
    found = data_files.read_rows(store, snapshot.snapshot, feed.name, columns)
    found = found.select(*by, model.label, pl.col(time).dt.epoch("us").alias(KNOWN_AT))
    if by is not key:
        names = prediction_keys.keys_of(store, model.examples.contract, found[PREDICTION_ID])
        found = found.join(names, on=PREDICTION_ID, how="inner")
    return found.select(*key, model.label, KNOWN_AT)
