"""Load the labels that callers sent by feedback as batches of a label feed, so that they train like any other label."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import polars as pl

from holdfast.control.collect import key_labels as sent_by_key
from holdfast.control.collect import prediction_keys
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.outcome import LoadResult
from holdfast.declaration import Model
from holdfast.feedback import FEED_SOURCE
from holdfast.feeds import Feed
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db.ledger import Transaction
from holdfast.store.telemetry import key_labels, labels
from holdfast.store.telemetry.labels import LabelledPrediction
from holdfast.tables.labels import KNOWN_AT

PREFIX: Final = "feedback-"
"""How the id of a batch of first labels begins; the number of its last outcome follows."""
CORRECTIONS_PREFIX: Final = "feedback-corrections-"
"""How the id of a batch of corrections begins; the number of its last correction follows."""


def load_feedback(
    store: Store, model: Model, *, now_us: int, clock_us: Callable[[], int] | None = None
) -> LoadResult | None:
    """Load what feedback brought since the last such batch; None if that is nothing, or the model has no feed for it.

    The feed is the first label feed with no other column than key, label and event time. A label became known when it was
    received. A batch that was backed out is not loaded again. `clock_us` is as for `ingest`.
    Raises as `ingest` and `prediction_keys.keys_of` do.
    """
    feed = _feed_of(model)
    if feed is None:
        return None
    with store.ledger.read() as connection:
        after = _loaded_until(connection, feed, PREFIX)
        found = labels.first_since(connection, model.name, after, without=FEED_SOURCE)
    return _load(store, model, feed, PREFIX, found, now_us, clock_us)


def load_corrections(
    store: Store, model: Model, *, now_us: int, clock_us: Callable[[], int] | None = None
) -> LoadResult | None:
    """Load the corrections by prediction id since the last such batch, as `load_feedback` does with the labels."""
    feed = _feed_of(model)
    if feed is None:
        return None
    with store.ledger.read() as connection:
        after = _loaded_until(connection, feed, CORRECTIONS_PREFIX)
        found = labels.corrections_since(connection, model.name, after)
    return _load(store, model, feed, CORRECTIONS_PREFIX, found, now_us, clock_us)


def _feed_of(model: Model) -> Feed | None:
    return next((each for each in model.label_feeds if _has_only_labels(each, model.label)), None)


def _loaded_until(connection: Transaction, feed: Feed, prefix: str) -> int:
    numbers = (name.removeprefix(prefix) for name in batches.ids(connection, feed.name, prefix))
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _load(
    store: Store,
    model: Model,
    feed: Feed,
    prefix: str,
    found: list[LabelledPrediction],
    now_us: int,
    clock_us: Callable[[], int] | None,
) -> LoadResult | None:
    if not found:
        return None
    time = feed.contract.event_time
    rows = pl.DataFrame(
        [
            (each.prediction_id, each.value == 1.0, each.received_at_us)
            for each in found
            if each.value in (0.0, 1.0)
        ],
        schema={PREDICTION_ID: pl.String(), model.label: pl.Boolean(), time: pl.Int64()},
        orient="row",
    )
    if feed.label_key != (PREDICTION_ID,):
        keys = prediction_keys.keys_of(store, model.examples.contract, rows[PREDICTION_ID])
        rows = rows.join(keys, on=PREDICTION_ID, how="inner").drop(PREDICTION_ID)
        rows = rows.unique([*feed.label_key, time], keep="last", maintain_order=True)
    if rows.is_empty():
        return None
    rows = rows.with_columns(pl.col(time).cast(pl.Datetime("us", "UTC"))).select(feed.contract.names)
    return _ingest(store, model, feed, f"{prefix}{found[-1].number}", rows, now_us, clock_us)


def load_key_feedback(
    store: Store, model: Model, *, now_us: int, clock_us: Callable[[], int] | None = None
) -> LoadResult | None:
    """Load the labels that callers sent by key since the last such batch; None if there are none, or no feed for them.

    The feed is the first label feed with the row's key and no other column. Raises as `ingest` does.
    """
    feed = sent_by_key.feed_of(model)
    if feed is None:
        return None
    with store.ledger.read() as connection:
        rows = sent_by_key.read(connection, model, sent_by_key.loaded_until(connection, feed))
        last = key_labels.newest(connection, model.name)
    if rows.is_empty():
        return None
    time = feed.contract.event_time
    rows = rows.rename({KNOWN_AT: time}).unique([*feed.label_key, time], keep="last", maintain_order=True)
    rows = rows.with_columns(pl.col(time).cast(pl.Datetime("us", "UTC"))).select(feed.contract.names)
    return _ingest(store, model, feed, f"{sent_by_key.PREFIX}{last}", rows, now_us, clock_us)


def _ingest(
    store: Store,
    model: Model,
    feed: Feed,
    batch: str,
    rows: pl.DataFrame,
    now_us: int,
    clock_us: Callable[[], int] | None,
) -> LoadResult:
    with tempfile.TemporaryDirectory(prefix="holdfast-feedback-") as directory:
        rows.write_parquet(path := Path(directory) / "feedback.parquet")
        return ingest(
            store, feed, batch, str(path), now_us=now_us, clock_us=clock_us, aggregates=model.aggregates
        )


def _has_only_labels(feed: Feed, label: str) -> bool:
    return set(feed.contract.names) == {*feed.contract.key, label}
