"""Bring the labels of feeds to the predictions of their rows, so that quality is computed from the labels that train.

They come from label feeds, and with the rows themselves. Level-triggered: the labels that the ledger should have follow from
the feeds and the collected predictions. So a killed loop, a corrected label and a batch of labels that was backed out need no
memory of what was done before.

A label that a caller sent stays as it was sent, with its time. The outcome of its prediction has the label that counts among
those of the caller and of the feeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import polars as pl

from holdfast.control.collect import prediction_keys
from holdfast.control.collect.label_history import columns_of, feeds_of, is_by_prediction
from holdfast.control.collect.label_matching import (
    PREDICTIONS_AT_ONCE,
    Matched,
    Matching,
    Withheld,
    begin_matching,
)
from holdfast.declaration import Model
from holdfast.errors import InputError, IntegrityError
from holdfast.feeds import Feed
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.records import BATCH_COLUMN
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db.leases import Lease
from holdfast.store.feeds import withheld_loads
from holdfast.store.files import data_files
from holdfast.store.serving import label_rules
from holdfast.store.telemetry import key_labels
from holdfast.tables.labels import KNOWN_AT

LEAST_REST_US: Final = 10_000_000
"""How long after a complete matching the next one begins, at least."""
REST: Final = 10
"""The rest after a complete matching, in durations of that matching."""
MOST_REST_US: Final = 3_600_000_000
"""The longest rest, and the rest after a matching that could not read a file."""

ROWS_PER_ROUND: Final = 50_000
"""How many rows are read in one round of the control loop, but at least one file of predictions. Others wait meanwhile."""


def read_history(store: Store, model: Model, feed: Feed, at: int | str) -> pl.DataFrame:
    """Return every label of `feed` at a table version or in a snapshot, by the key of the labelled row.

    The columns are the key, the label, `KNOWN_AT`, and the metadata column `_batch`. A label whose prediction was not
    collected yet is left out.
    """
    contract = model.examples.contract
    columns = columns_of(model, feed) | {BATCH_COLUMN: pl.String()}
    found = data_files.read_rows(store, at, feed.name, columns)
    if not found.width:
        found = pl.DataFrame(schema=columns)
    found = found.drop_nulls(model.label).with_columns(
        pl.col(feed.contract.event_time).dt.epoch("us").alias(KNOWN_AT)
    )
    if is_by_prediction(feed):
        names = prediction_keys.keys_of(store, contract, found[PREDICTION_ID])
        found = found.join(names, on=PREDICTION_ID, how="inner")
    return found.select(*contract.key, model.label, KNOWN_AT, BATCH_COLUMN)


@dataclass(slots=True)
class FeedLabels:
    """The concern of the control loop that matches labels by key with predictions: when either has changed.

    They come from label feeds, with the rows themselves, and from callers that sent them by key. Labels of a batch that is
    held back, because it is suspect or waits for its group, label no prediction (R15).

    The first matching reads every label. A later one reads the labels that came since. A complete one also matches what else
    may have changed: predictions that were collected since, perhaps after their labels, and those whose labels their callers
    changed. It begins `LEAST_REST_US` after the one before ended, or `REST` times its duration, at most `MOST_REST_US`. Only
    the process knows how far it has matched: after a restart, a lost lease or an error the next matching reads every label
    again.
    """

    model: Model
    rows_per_round: int = ROWS_PER_ROUND
    predictions_at_once: int = PREDICTIONS_AT_ONCE
    _seen: int = field(default=-1, init=False)
    _seen_sent: int = field(default=0, init=False)
    _withheld: Withheld = field(default_factory=dict, init=False)
    _rests_since_us: int = field(default=0, init=False)
    _rests_until_us: int = field(default=0, init=False)
    _complete_begun_us: int | None = field(default=None, init=False)
    _matched: Matched | None = field(default=None, init=False)
    _matching: Matching | None = field(default=None, init=False)

    def __call__(self, store: Store, _model: str, lease: Lease, *, now_us: int) -> None:
        """Match a part of the predictions, unless nothing can have changed. Raises as `Matching.advance` does."""
        try:
            if self._matching is None:
                self._matching = self._begin(store, lease, now_us)
            if self._matching is None:
                return
            is_done = self._matching.advance(lease, rows=self.rows_per_round, now_us=now_us)
        except (IntegrityError, InputError):
            # A file that cannot be read is read again with the next change or after the longest rest, not in every round.
            self._matching = None
            self._rest(now_us, MOST_REST_US)
            raise
        except Exception:
            self._matching = None
            self._rest(now_us, 0)
            raise
        if is_done:
            self._matched, self._matching = self._matching.result(), None
            if self._matched is None:
                self._rest(now_us, MOST_REST_US)
            elif self._complete_begun_us is not None:
                duration_us = now_us - self._complete_begun_us
                self._rest(now_us, min(max(LEAST_REST_US, REST * duration_us), MOST_REST_US))

    def _rest(self, now_us: int, rest_us: int) -> None:
        """Let the next complete matching begin after `rest_us`, microseconds."""
        self._complete_begun_us = None
        self._rests_since_us, self._rests_until_us = now_us, now_us + rest_us

    def _begin(self, store: Store, lease: Lease, now_us: int) -> Matching | None:
        feeds = feeds_of(self.model)
        with store.ledger.read() as connection:
            version = batches.current_version(connection)
            withheld = {feed.name: withheld_loads.find(connection, feed.name) for feed in feeds}
            changed = any(batches.rows_since(connection, feed.name, self._seen) for feed in feeds)
            sent = key_labels.newest(connection, self.model.name)
            if not feeds and not sent:
                return None
            changed = changed or sent != self._seen_sent or withheld != self._withheld
            # The clock can go back.
            is_complete = not self._rests_since_us <= now_us < self._rests_until_us
            if not changed and not is_complete:
                return None
            # Set before the work: see the errors of `__call__`.
            self._seen, self._seen_sent, self._withheld = version, sent, withheld
            before, self._matched = self._matched, None
            if before is not None and (before.epoch != lease.epoch or now_us < before.at_us):
                before = None
            if before is None or is_complete:
                self._complete_begun_us = now_us
            return begin_matching(
                connection,
                store,
                self.model,
                version,
                withheld,
                before=before,
                is_complete=is_complete,
                epoch=lease.epoch,
                now_us=now_us,
                at_once=self.predictions_at_once,
            )


def declare_corrections(store: Store, model: Model, *, now_us: int) -> None:
    """Store the declared corrections of the model's labels, so that servers and collector decide by them."""
    with store.ledger.read() as connection:
        is_known = label_rules.read(connection, model.name).corrections == model.corrections
    if not is_known:
        with store.ledger.write() as connection:
            label_rules.declare_corrections(connection, model.name, model.corrections, now_us=now_us)
