"""Read labels by the key of their row, a bounded number of rows at a time, and keep those of some keys.

They come from label feeds, by key or by prediction id, with the rows themselves, and from callers that sent them by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

import polars as pl

from holdfast.contract.batch.compiler import dtype
from holdfast.control.collect import key_labels as sent_by_key
from holdfast.control.collect import prediction_keys
from holdfast.control.collect.arriving_labels import some_of
from holdfast.control.collect.collector import emit_damaged
from holdfast.declaration import Model
from holdfast.feedback import names_row
from holdfast.feeds import Feed
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.files import data_files
from holdfast.store.files.data_files import FileFacts
from holdfast.store.telemetry import collected_log
from holdfast.store.telemetry.collected_log import PREDICTIONS
from holdfast.tables.labels import KNOWN_AT, before_others
from holdfast.tables.snapshots import LoadKey

ROWS_AT_ONCE: Final = 200_000
"""How many rows of a file with labels are in memory at a time."""

LabelFiles: TypeAlias = dict[str, list[FileFacts]]
"""Files with labels by the name of their feed."""

_SENT_AT_ONCE: Final = 10_000
_IS_OWN: Final = "_label_is_own"


def feeds_of(model: Model) -> tuple[Feed, ...]:
    """Return the feeds with labels: the label feeds, and that of the examples if its rows have a label and a key."""
    contract = model.examples.contract
    has_labels = model.label in contract.names and contract.key
    return (*model.label_feeds, model.examples) if has_labels else model.label_feeds


def is_by_prediction(feed: Feed) -> bool:
    """Return True for a label feed whose labels name a prediction instead of the key of a row."""
    return feed.label_key == (PREDICTION_ID,)


def key_types(model: Model) -> dict[str, pl.DataType]:
    """Return the columns of the key of the model's rows with their dtypes."""
    contract = model.examples.contract
    return {name: dtype(contract.column(name)) for name in contract.key}


def columns_of(model: Model, feed: Feed) -> dict[str, pl.DataType]:
    """Return the columns of a feed with labels that are read: what names the row, the label and the time."""
    by = {PREDICTION_ID: pl.String()} if is_by_prediction(feed) else key_types(model)
    time = feed.contract.event_time
    return {**by, model.label: pl.Boolean(), time: dtype(feed.contract.column(time))}


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Which labels are read: rows of files, by the name of their feed, and labels that callers sent by key."""

    files: Mapping[str, Sequence[FileFacts]]
    sent: tuple[int, int]
    """The number before the first label by key, and the number of the last."""
    since_us: int | None = None
    """Only labels that became known, or due, after this time in microseconds UTC; None for all."""
    without_predictions_of: frozenset[str] = frozenset()
    """Labels by prediction id are left out if their prediction is in one of these collected files, by path."""

    def __bool__(self) -> bool:
        return any(self.files.values()) or self.sent[0] < self.sent[1]


def rows_at(
    connection: Transaction, feeds: Sequence[Feed], version: int, withheld: Mapping[str, Sequence[LoadKey]]
) -> LabelFiles:
    """Return the files of `feeds` at a table version, by feed, without the loads that are held back."""
    return {
        feed.name: data_files.entries(connection, feed.name, version, excluded=withheld.get(feed.name, ()))
        for feed in feeds
    }


def newest_since(files: Mapping[str, Sequence[FileFacts]], since_us: Mapping[str, int]) -> LabelFiles:
    """Return those of `files` that can have an event after the time of their feed, microseconds UTC."""
    return {
        feed: [
            fact
            for fact in found
            if fact.event_time_max_us is None or fact.event_time_max_us > since_us[feed]
        ]
        for feed, found in files.items()
    }


@dataclass(slots=True)
class LabelReader:
    """Reads labels as they were known and due at `at_us`, microseconds UTC."""

    store: Store
    model: Model
    at_us: int
    is_complete: bool = True
    """Whether the key of every label by prediction id could be read. If not, a missing label proves nothing."""

    def read(self, rows: LabelRows, keys: pl.DataFrame, into: list[pl.DataFrame]) -> Iterator[int]:
        """Append to `into` the labels of `rows` that are of `keys`; yield how many rows were read each time.

        `keys` has the columns of the key, without repetitions. Raises as `data_files.read_in_parts` does.
        """
        if keys.is_empty():
            return
        for feed in feeds_of(self.model):
            columns = columns_of(self.model, feed)
            for frame in data_files.read_in_parts(
                self.store.root, rows.files.get(feed.name, ()), columns, rows=ROWS_AT_ONCE
            ):
                known_at = pl.col(feed.contract.event_time).dt.epoch("us").alias(KNOWN_AT)
                found = frame.drop_nulls(self.model.label).with_columns(known_at)
                found = self._in_time(found, rows.since_us, is_own=feed is self.model.examples)
                if is_by_prediction(feed):
                    found = self._with_keys(found, rows.without_predictions_of)
                self._keep(found, keys, into, is_own=feed is self.model.examples)
                yield frame.height
        first, last = rows.sent
        for after in range(first, last, _SENT_AT_ONCE):
            with self.store.ledger.read() as connection:
                sent = sent_by_key.read(
                    connection, self.model, after, min(after + _SENT_AT_ONCE, last), since_us=rows.since_us
                )
            self._keep(sent, keys, into, is_own=False)
            yield sent.height

    def _in_time(self, found: pl.DataFrame, since_us: int | None, *, is_own: bool) -> pl.DataFrame:
        """Leave out labels of rows that are not due, and with `since_us` those that were known or due before."""
        delay_us = self.model.label_delay // timedelta(microseconds=1) if is_own else 0
        due_us = pl.col(KNOWN_AT) + delay_us
        if is_own:
            found = found.filter(due_us <= self.at_us)
        return found if since_us is None else found.filter(due_us > since_us)

    def _keep(
        self, found: pl.DataFrame, keys: pl.DataFrame, into: list[pl.DataFrame], *, is_own: bool
    ) -> None:
        kept = found.select(*keys.columns, self.model.label, KNOWN_AT).join(keys, on=keys.columns, how="semi")
        if not kept.is_empty():
            into.append(kept.with_columns(pl.lit(value=is_own).alias(_IS_OWN)))

    def _with_keys(self, found: pl.DataFrame, without: frozenset[str]) -> pl.DataFrame:
        """Return `found`, labels by prediction id, with the key of the predicted row; without those that have none."""
        names = found[PREDICTION_ID].unique().sort().to_list()
        with self.store.ledger.read() as connection:
            located = collected_log.locate(connection, PREDICTIONS, prediction_keys.sought_for(names))
        located = [(file, sought) for file, sought in located if file.path not in without]
        every, damaged = collected_log.read_inputs(self.store.root, located)
        emit_damaged(self.store, damaged, self.at_us)
        readable = prediction_keys.of_readable_versions(self.store, every)
        if damaged or len(readable) < len(every):
            self.is_complete = False
        self._report_without_row(names, readable["prediction"])
        keys = prediction_keys.key_rows(self.store, self.model.examples.contract, readable)
        ids = prediction_keys.predictions_of(names, readable["prediction"])
        return found.join(ids.join(keys, on="prediction"), on=PREDICTION_ID, how="inner")

    def _report_without_row(self, names: list[str], found: pl.Series) -> None:
        """Report the labels, once, that name no row of a request of several rows: they label nothing."""
        known = set(found)
        several = [
            name for name in names if not names_row(name) and prediction_keys.second_row(name) in known
        ]
        if not several:
            return
        why = "they have the id of a request of several rows and name none of them: add / and the row"
        what = f"{len(several)} labels of label feeds label nothing, because {why} ({some_of(several)})."
        with self.store.ledger.write() as connection:
            kind, subject = "labels.unmatched", "labels"
            if not events.is_reported(connection, subject=subject, kind=kind, explanation=what):
                events.append(connection, at_us=self.at_us, kind=kind, subject=subject, explanation=what)

    def history(self, read: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Return the labels that were read: the key, the label and `KNOWN_AT`. One of a row itself is the first of its key."""
        empty = pl.DataFrame(
            schema={
                **key_types(self.model), self.model.label: pl.Boolean(), KNOWN_AT: pl.Int64(), _IS_OWN: pl.Boolean()
            }
        )  # fmt: skip
        every = pl.concat([empty, *read])
        own = every.filter(pl.col(_IS_OWN)).drop(_IS_OWN)
        others = every.filter(~pl.col(_IS_OWN)).drop(_IS_OWN)
        return pl.concat([others, before_others(own, [others], key=self.model.examples.contract.key)])
