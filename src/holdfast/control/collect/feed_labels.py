"""Bring labels of label feeds to the predictions of their rows, so that quality is computed from the labels that train.

Level-triggered: the labels that the ledger should have follow from the label feeds and the collected predictions. So a killed
loop, a corrected label and a batch of labels that was backed out need no memory of what was done before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import polars as pl

from holdfast.contract.batch.compiler import dtype
from holdfast.control.collect import prediction_keys
from holdfast.declaration import Model
from holdfast.errors import IntegrityError
from holdfast.feeds import Feed
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.files import data_files
from holdfast.store.telemetry import collected_log, outcomes
from holdfast.store.telemetry.outcomes import NewLabel
from holdfast.tables.labels import KNOWN_AT, known_labels

SOURCE: Final = "label feeds"
"""The source of labels that were brought here."""

_AGAIN_US: Final = 3_600_000_000
"""How often labels are matched with predictions that were collected after them."""


def read_history(store: Store, model: Model, feed: Feed, at: int | str) -> pl.DataFrame:
    """Return every label of `feed` at a table version or in a snapshot, by the key of the labelled row.

    The columns are the key, the label and `KNOWN_AT`. A label whose prediction was not collected yet is left out.
    """
    contract = model.examples.contract
    key = {name: dtype(contract.column(name)) for name in contract.key}
    by = {PREDICTION_ID: pl.String()} if feed.label_key == (PREDICTION_ID,) else key
    time = feed.contract.event_time
    columns = by | {model.label: pl.Boolean(), time: dtype(feed.contract.column(time))}
    found = data_files.read_rows(store, at, feed.name, columns)
    if not found.width:
        return pl.DataFrame(schema=key | {model.label: pl.Boolean(), KNOWN_AT: pl.Int64()})
    found = found.select(*by, model.label, pl.col(time).dt.epoch("us").alias(KNOWN_AT))
    if by is not key:
        names = prediction_keys.keys_of(store, contract, found[PREDICTION_ID])
        found = found.join(names, on=PREDICTION_ID, how="inner")
    return found.select(*key, model.label, KNOWN_AT)


@dataclass(slots=True)
class FeedLabels:
    """The concern of the control loop that matches label feeds with predictions: when either has changed."""

    model: Model
    _seen: int = field(default=-1, init=False)
    _matched_at_us: int = field(default=0, init=False)

    def __call__(self, store: Store, _model: str, lease: Lease, *, now_us: int) -> None:
        """Match, unless nothing can have changed. Raises as `match` does."""
        feeds = self.model.label_feeds
        if not feeds:
            return
        with store.ledger.read() as connection:
            version = batches.current_version(connection)
            changed = any(batches.rows_since(connection, feed.name, self._seen) for feed in feeds)
        if changed or now_us - self._matched_at_us >= _AGAIN_US:
            match(store, self.model, lease, now_us=now_us)
            self._seen, self._matched_at_us = version, now_us


def match(store: Store, model: Model, lease: Lease, *, now_us: int) -> int:
    """Give each collected prediction the label of its row that is known now; return the number of changed labels.

    A label from here that the feeds have no longer, because its batch was backed out, is withdrawn. One that was sent for
    the prediction itself is corrected if a label feed has another value. Raises `ConflictError` HF304 when another loop has
    the lease.
    """
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
        files = collected_log.files_of(connection, model.name)
    history = [read_history(store, model, feed, version) for feed in model.label_feeds]
    known = known_labels(
        pl.concat(history),
        key=model.examples.contract.key,
        label=model.label,
        until_us=now_us,
        corrections=model.label_feeds[0].corrections,
    )
    wanted: dict[str, float] = {}
    for file in files:
        rows, damaged = collected_log.read_file_inputs(store.root, file)
        if damaged is not None:
            raise IntegrityError(
                "HF301",
                f"the predictions in {damaged.path} cannot be read: {damaged.explanation}",
                state="no label was matched",
                next_command="holdfast verify",
            )
        keys = prediction_keys.key_rows(store, model.examples.contract, rows)
        matched = keys.join(known, on=list(model.examples.contract.key), how="inner")
        wanted.update(
            (name, float(value)) for name, value in matched.select("prediction", model.label).rows()
        )
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        there = outcomes.known_labels(connection, list(wanted))
        new = [NewLabel(name, value, SOURCE, now_us) for name, value in wanted.items() if name not in there]
        corrected = {name: wanted[name] for name, value in there.items() if wanted[name] != value}
        gone = outcomes.labelled_by(connection, model.name, SOURCE) - wanted.keys()
        outcomes.add_labels(connection, new)
        outcomes.correct(connection, corrected)
        outcomes.withdraw(connection, sorted(gone))
        _emit(connection, model.name, len(corrected), len(gone), now_us)
    return len(new) + len(corrected) + len(gone)


def _emit(connection: Transaction, model: str, corrected: int, gone: int, now_us: int) -> None:
    if not corrected and not gone:
        return
    events.append(
        connection,
        at_us=now_us,
        kind="labels.corrected",
        subject=model,
        explanation=f"Labels of predictions changed with the label feeds: {corrected} corrected, {gone} withdrawn.",
    )
