"""Bring the labels of feeds to the predictions of their rows, so that quality is computed from the labels that train.

They come from label feeds, and with the rows themselves. Level-triggered: the labels that the ledger should have follow from
the feeds and the collected predictions. So a killed loop, a corrected label and a batch of labels that was backed out need no
memory of what was done before.

A label that a caller sent stays as it was sent, with its time. The outcome of its prediction has the label that counts among
those of the caller and of the feeds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal, TypeAlias

import polars as pl

from holdfast.contract.batch.compiler import dtype
from holdfast.control.collect import key_labels as sent_by_key
from holdfast.control.collect import prediction_keys
from holdfast.control.collect.arriving_labels import some_of
from holdfast.control.collect.collector import emit_damaged
from holdfast.declaration import Model
from holdfast.feedback import FEED_SOURCE, KnownLabel, counting_label, full_id, names_row
from holdfast.feeds import Feed
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.records import Corrections
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import withheld_loads
from holdfast.store.files import data_files
from holdfast.store.serving import label_rules
from holdfast.store.telemetry import collected_log, key_labels, labels, outcomes
from holdfast.store.telemetry.collected_log import PREDICTIONS, CollectedFile
from holdfast.store.telemetry.labels import NewLabel
from holdfast.tables.labels import KNOWN_AT, before_others
from holdfast.tables.snapshots import LoadKey

_AGAIN_US: Final = 3_600_000_000
"""How often labels are matched with predictions that were collected after them."""

ROWS_PER_ROUND: Final = 50_000
"""How many predictions are read in one round of the control loop, but at least one file. Other concerns wait meanwhile."""


Withheld: TypeAlias = dict[str, tuple[LoadKey, ...]]
"""The loads of each feed with labels that are held back."""


def read_history(store: Store, model: Model, feed: Feed, at: int | str) -> pl.DataFrame:
    """Return every label of `feed` at a table version or in a snapshot, by the key of the labelled row.

    The columns are the key, the label and `KNOWN_AT`. A label whose prediction was not collected yet is left out.
    """
    contract = model.examples.contract
    found = _read_feed(store, model, feed, at)
    if feed.label_key == (PREDICTION_ID,):
        names = prediction_keys.keys_of(store, contract, found[PREDICTION_ID])
        found = found.join(names, on=PREDICTION_ID, how="inner")
    return found.select(*contract.key, model.label, KNOWN_AT)


def _read_feed(
    store: Store, model: Model, feed: Feed, at: int | str, withheld: Sequence[LoadKey] = ()
) -> pl.DataFrame:
    """Return every label of `feed` with `KNOWN_AT`, by the key that the feed has: that of the row, or the prediction id.

    At a table version those of `withheld` loads are left out.
    """
    by_prediction = feed.label_key == (PREDICTION_ID,)
    by = {PREDICTION_ID: pl.String()} if by_prediction else _key_types(model)
    time = feed.contract.event_time
    columns = by | {model.label: pl.Boolean(), time: dtype(feed.contract.column(time))}
    found = data_files.read_rows(store, at, feed.name, columns, excluded=withheld)
    if not found.width:
        return pl.DataFrame(schema=by | {model.label: pl.Boolean(), KNOWN_AT: pl.Int64()})
    return found.select(*by, model.label, pl.col(time).dt.epoch("us").alias(KNOWN_AT))


def _feeds_of(model: Model) -> tuple[Feed, ...]:
    """Return the feeds with labels: the label feeds, and that of the examples if its rows have a label and a key."""
    contract = model.examples.contract
    has_labels = model.label in contract.names and contract.key
    return (*model.label_feeds, model.examples) if has_labels else model.label_feeds


def _read_own(
    store: Store, model: Model, version: int, withheld: Sequence[LoadKey], *, now_us: int
) -> pl.DataFrame:
    """Return the labels that rows brought themselves and that are due, known since the event of their row."""
    contract = model.examples.contract
    time = contract.event_time
    columns = _key_types(model) | {model.label: pl.Boolean(), time: dtype(contract.column(time))}
    found = data_files.read_rows(store, version, model.examples.name, columns, excluded=withheld)
    if not found.width:
        return pl.DataFrame(schema=_key_types(model) | {model.label: pl.Boolean(), KNOWN_AT: pl.Int64()})
    event_us = pl.col(time).dt.epoch("us")
    is_due = event_us + model.label_delay // timedelta(microseconds=1) <= now_us
    found = found.filter(is_due, pl.col(model.label).is_not_null())
    return found.select(*contract.key, model.label, event_us.alias(KNOWN_AT))


def _key_types(model: Model) -> dict[str, pl.DataType]:
    contract = model.examples.contract
    return {name: dtype(contract.column(name)) for name in contract.key}


@dataclass(slots=True)
class FeedLabels:
    """The concern of the control loop that matches labels by key with predictions: when either has changed.

    They come from label feeds, with the rows themselves, and from callers that sent them by key. Labels of a batch that is
    held back, because it is suspect or waits for its group, label no prediction (R15).
    """

    model: Model
    rows_per_round: int = ROWS_PER_ROUND
    _seen: int = field(default=-1, init=False)
    _seen_sent: int = field(default=0, init=False)
    _withheld: Withheld = field(default_factory=dict, init=False)
    _matched_at_us: int = field(default=0, init=False)
    _matching: Matching | None = field(default=None, init=False)

    def __call__(self, store: Store, _model: str, lease: Lease, *, now_us: int) -> None:
        """Match a part of the predictions, unless nothing can have changed. Raises as `Matching.advance` does."""
        feeds = _feeds_of(self.model)
        if self._matching is None:
            with store.ledger.read() as connection:
                version = batches.current_version(connection)
                withheld = {feed.name: withheld_loads.find(connection, feed.name) for feed in feeds}
                changed = any(batches.rows_since(connection, feed.name, self._seen) for feed in feeds)
                sent = key_labels.newest(connection, self.model.name)
            if not feeds and not sent:
                return
            changed = changed or sent != self._seen_sent or withheld != self._withheld
            if not changed and now_us - self._matched_at_us < _AGAIN_US:
                return
            # Set before the work: what fails is tried again later, not in every round.
            self._seen, self._seen_sent, self._matched_at_us = version, sent, now_us
            self._withheld = withheld
            self._matching = begin_matching(store, self.model, version, withheld, now_us=now_us)
        if self._matching.advance(store, lease, rows=self.rows_per_round, now_us=now_us):
            self._matching = None


def declare_corrections(store: Store, model: Model, *, now_us: int) -> None:
    """Store the declared corrections of the model's labels, so that servers and collector decide by them."""
    with store.ledger.read() as connection:
        is_known = label_rules.read(connection, model.name).corrections == model.corrections
    if not is_known:
        with store.ledger.write() as connection:
            label_rules.declare_corrections(connection, model.name, model.corrections, now_us=now_us)


def begin_matching(store: Store, model: Model, version: int, withheld: Withheld, *, now_us: int) -> Matching:
    """Return the matching of every collected prediction with the labels of a table version, without `withheld` loads.

    A label that a row brought itself is used once it is due. No prediction is read yet.
    """
    with store.ledger.read() as connection:
        files = collected_log.files_of(connection, model.name)
    if not files:
        return Matching(model, pl.DataFrame(), pl.DataFrame(), deque(), deque())
    found = {
        feed.name: _read_feed(store, model, feed, version, withheld.get(feed.name, ()))
        for feed in model.label_feeds
    }
    empty = pl.DataFrame(schema={PREDICTION_ID: pl.String(), model.label: pl.Boolean(), KNOWN_AT: pl.Int64()})
    sent = pl.concat([empty, *(frame for frame in found.values() if PREDICTION_ID in frame.columns)])
    with store.ledger.read() as connection:
        after = sent_by_key.loaded_until(connection, sent_by_key.feed_of(model))
        by_key = sent_by_key.read(connection, model, after)
    others = [by_key, *(frame for frame in found.values() if PREDICTION_ID not in frame.columns)]
    own = []
    if model.examples in _feeds_of(model):
        held = withheld.get(model.examples.name, ())
        read = _read_own(store, model, version, held, now_us=now_us)
        own = [before_others(read, others, key=model.examples.contract.key)]
    history = pl.concat([*others, *own])
    with store.ledger.read() as connection:
        names = [full_id(name) for name in sent[PREDICTION_ID].unique()]
        located = collected_log.locate(connection, PREDICTIONS, names)
    return Matching(model, sent, history, deque(file for file, _ in located), deque(files))


@dataclass(slots=True)
class Matching:
    """One matching of the feeds with labels with every collected prediction, a part in each round.

    A file of predictions that cannot be read is reported once and skipped: its labels stay as they are.
    """

    model: Model
    sent: pl.DataFrame
    """Labels by the id of their prediction, with its row or without."""
    history: pl.DataFrame
    """Labels by the key of their row; those of `sent` are added when their predictions were read."""
    labelled: deque[CollectedFile]
    """The files, not read yet, with predictions that `sent` names."""
    files: deque[CollectedFile]
    """The files, not read yet, whose predictions get labels."""
    is_complete: bool = True
    """Whether the key of every label in `sent` could be read. If not, a missing label proves nothing."""

    def advance(self, store: Store, lease: Lease, *, rows: int, now_us: int) -> bool:
        """Read about `rows` predictions, give them the labels that count now, and return True if that were the last.

        Raises `ConflictError` HF304 when another loop has the lease; then the same part is read again.
        """
        some = _take(self.labelled, rows)
        if some:
            found, is_complete = self._read(store, some, now_us)
            keys = prediction_keys.key_rows(store, self.model.examples.contract, found)
            names = self.sent[PREDICTION_ID].unique().sort().to_list()
            ids = prediction_keys.predictions_of(names, found["prediction"])
            named = self.sent.join(ids.join(keys, on="prediction"), on=PREDICTION_ID, how="inner")
            self._report_without_row(store, names, found["prediction"], now_us)
            self.history = pl.concat([self.history, named.select(self.history.columns)])
            self.is_complete = self.is_complete and is_complete
            _drop(self.labelled, len(some))
        elif some := _take(self.files, rows):
            found, _ = self._read(store, some, now_us)
            self._label(store, lease, found, now_us)
            _drop(self.files, len(some))
        return not self.labelled and not self.files

    def _report_without_row(self, store: Store, names: list[str], found: pl.Series, now_us: int) -> None:
        """Report the labels, once, that name no row of a request of several rows: they label nothing."""
        known = set(found)
        several = [
            name for name in names if not names_row(name) and prediction_keys.second_row(name) in known
        ]
        if not several:
            return
        why = "they have the id of a request of several rows and name none of them: add / and the row"
        what = f"{len(several)} labels of label feeds label nothing, because {why} ({some_of(several)})."
        with store.ledger.write() as connection:
            kind, subject = "labels.unmatched", "labels"
            if not events.is_reported(connection, subject=subject, kind=kind, explanation=what):
                events.append(connection, at_us=now_us, kind=kind, subject=subject, explanation=what)

    def _read(self, store: Store, files: list[CollectedFile], now_us: int) -> tuple[pl.DataFrame, bool]:
        """Return the predictions of `files` whose version can be read, and whether those are all."""
        read = [collected_log.read_file_inputs(store.root, file) for file in files]
        damaged = [each for _, each in read if each is not None]
        emit_damaged(store, damaged, now_us)
        every = pl.concat([frame for frame, _ in read])
        found = prediction_keys.of_readable_versions(store, every)
        return found, not damaged and len(found) == len(every)

    def _label(self, store: Store, lease: Lease, found: pl.DataFrame, now_us: int) -> None:
        contract = self.model.examples.contract
        keys = prediction_keys.key_rows(store, contract, found)
        matched = keys.join(self.history, on=list(contract.key), how="inner").select(
            "prediction", pl.col(self.model.label).cast(pl.Float64).alias("value"), KNOWN_AT
        )
        predictions = found["prediction"].to_list()
        # Decided twice: most rounds change nothing, and those must not hold the ledger for writing.
        with store.ledger.read() as connection:
            if not self._decide(connection, predictions, matched, now_us):
                return
        with store.ledger.write() as connection:
            assert_epoch(connection, lease.name, lease.epoch)
            changes = self._decide(connection, predictions, matched, now_us)
            labels.add(connection, changes.new, {label.prediction_id: now_us for label in changes.new})
            labels.replace_first(connection, [*changes.corrected, *changes.stand_ins])
            outcomes.correct(connection, changes.outcomes)
            outcomes.withdraw(connection, changes.gone)
            corrected = changes.outcomes.keys() | {label.prediction_id for label in changes.corrected}
            withdrawn = len(changes.gone) + len(changes.stand_ins)
            _emit(connection, self.model.name, len(corrected), withdrawn, now_us)

    def _decide(
        self, connection: Transaction, predictions: list[str], matched: pl.DataFrame, now_us: int
    ) -> Changes:
        corrections = self.model.corrections
        of_feeds = {
            name: KnownLabel(value, FEED_SOURCE, known_at_us)
            for name, value, known_at_us in _newest_or_first(matched, corrections, now_us).iter_rows()
        }
        held = labels.known_labels(connection, predictions)
        ours = {name: each for name, history in held.items() if (each := history[0]).source == FEED_SOURCE}
        sent: dict[str, list[KnownLabel]] = {}
        for name, history in held.items():
            of_callers = [each for each in history if each.source != FEED_SOURCE]
            if of_callers:
                sent[name] = [
                    replace(each, received_at_us=min(each.received_at_us, now_us)) for each in of_callers
                ]
        wanted = {
            name: counting_label([*sent.get(name, ()), *_one(of_feeds.get(name))], corrections).value
            for name in of_feeds.keys() | sent.keys()
        }
        joined = outcomes.labels_of(connection, wanted)
        gone = ours.keys() - of_feeds.keys() if self.is_complete else set()
        return Changes(
            [_new(name, label) for name, label in of_feeds.items() if name not in held],
            [
                _new(name, label)
                for name, label in of_feeds.items()
                if name in ours and ours[name].value != label.value
            ],
            [
                _new(name, stand_in)
                for name in sorted(gone & sent.keys())
                if (stand_in := replace(held[name][1], source=FEED_SOURCE)) != ours[name]
            ],
            {name: wanted[name] for name, value in joined.items() if wanted[name] != value},
            sorted(gone - sent.keys()),
        )


def _newest_or_first(matched: pl.DataFrame, corrections: Corrections, now_us: int) -> pl.DataFrame:
    """Return the label of each prediction that counts among those of feeds, and when it became known."""
    known = matched.filter(pl.col(KNOWN_AT) <= now_us, pl.col("value").is_not_null())
    ordered = known.sort("prediction", KNOWN_AT, "value")
    keep: Literal["first", "last"] = "first" if corrections == "first" else "last"
    return ordered.unique("prediction", keep=keep, maintain_order=True).select(
        "prediction", "value", KNOWN_AT
    )


def _one(label: KnownLabel | None) -> tuple[KnownLabel, ...]:
    return () if label is None else (label,)


def _new(name: str, label: KnownLabel) -> NewLabel:
    return NewLabel(name, label.value, label.source, label.received_at_us)


@dataclass(frozen=True, slots=True)
class Changes:
    """What changes with the labels of feeds."""

    new: list[NewLabel]
    """Labels of feeds for predictions without a label. They were received when they became known."""
    corrected: list[NewLabel]
    """Labels of feeds whose value is another one now."""
    stand_ins: list[NewLabel]
    """For labels of feeds withdrawn next to those of callers: they repeat the first of these, and so decide nothing."""
    outcomes: dict[str, float]
    """Labels of outcomes."""
    gone: list[str]
    """Predictions without a label now."""

    def __bool__(self) -> bool:
        return bool(self.new or self.corrected or self.stand_ins or self.outcomes or self.gone)


def _take(files: deque[CollectedFile], rows: int) -> list[CollectedFile]:
    taken: list[CollectedFile] = []
    for file in files:
        if taken and rows < file.rows:
            break
        taken.append(file)
        rows -= file.rows
    return taken


def _drop(files: deque[CollectedFile], count: int) -> None:
    for _ in range(count):
        files.popleft()


def _emit(connection: Transaction, model: str, corrected: int, gone: int, now_us: int) -> None:
    if not corrected and not gone:
        return
    events.append(
        connection,
        at_us=now_us,
        kind=outcomes.CORRECTED,
        subject=model,
        explanation=f"Labels of predictions changed with the feeds: {corrected} corrected, {gone} withdrawn.",
    )
