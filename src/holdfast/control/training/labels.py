"""Read labels that come later than their rows: from the label feeds of a snapshot, as they were known when it was made."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import polars as pl

from holdfast.control.collect.feed_labels import read_history
from holdfast.declaration import Model
from holdfast.store import Store
from holdfast.tables import Snapshot
from holdfast.tables.labels import KNOWN_AT, known_labels

_FIRST: Final = "_first_label_of_feeds_us"


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
    """Return the labels that rows brought; none is later than `until_us`, because it was there then, due or not."""
    key = list(model.examples.contract.key)
    delay_us = model.label_delay // timedelta(microseconds=1)
    due_us = pl.col(model.contract.event_time).dt.epoch("us") + delay_us
    own = rows.select(*key, model.label, due_us.alias(KNOWN_AT)).drop_nulls(model.label)
    if not history:
        return own
    first = pl.concat(history).group_by(key).agg(pl.col(KNOWN_AT).min().alias(_FIRST))
    known_at = pl.min_horizontal(KNOWN_AT, pl.lit(until_us), pl.col(_FIRST) - 1)
    return own.join(first, on=key, how="left", maintain_order="left").select(
        *key, model.label, known_at.alias(KNOWN_AT)
    )
