"""Match labels with the predictions of their rows: every label at first, then those that came since.

What counts for a prediction follows from all labels of its key. A prediction that waits for a label had none when labels were
last matched, so it needs those that came since. One that has a label needs all labels of its key, so they are read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Literal, TypeAlias

import polars as pl

from holdfast.control.collect import key_labels as sent_by_key
from holdfast.control.collect import prediction_keys
from holdfast.control.collect.collector import emit_damaged
from holdfast.control.collect.label_history import (
    LabelFiles,
    LabelReader,
    LabelRows,
    feeds_of,
    is_by_prediction,
    newest_since,
    rows_at,
)
from holdfast.declaration import Model
from holdfast.feedback import FEED_SOURCE, KnownLabel, counting_label
from holdfast.records import Corrections
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.files import data_files
from holdfast.store.telemetry import collected_log, key_labels, labels, outcomes
from holdfast.store.telemetry.collected_log import PREDICTIONS, CollectedFile
from holdfast.store.telemetry.labels import NewLabel
from holdfast.tables.labels import KNOWN_AT
from holdfast.tables.snapshots import LoadKey

PREDICTIONS_AT_ONCE: Final = 500_000
"""How many predictions are matched together. The keys of so many, and their labels, are in memory."""


Withheld: TypeAlias = dict[str, tuple[LoadKey, ...]]
"""The loads of each feed with labels that are held back."""

_LABELLED_AT_ONCE: Final = 50_000
"""How many predictions get their labels in one transaction."""
_WAS_MATCHED: Final = "_was_matched"


@dataclass(frozen=True, slots=True)
class Matched:
    """How far labels are matched with predictions: what the last matching has read."""

    epoch: int
    """The epoch of the lease: another loop may have changed labels since."""
    at_us: int
    """Labels that became known, or due, until this time, microseconds UTC, are matched."""
    loads: frozenset[LoadKey]
    """The loads whose labels are matched."""
    sent: int
    """The number of the newest label that was sent by key."""
    loaded_until: int
    """The number of the last of these that a batch of the label feed has."""
    files: frozenset[str]
    """The collected files whose predictions all have their labels, by path."""
    outcome: int
    """The number of the newest outcome when these files were read."""
    correction: int
    """The number of the newest correction then."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What may have changed since the last matching."""

    rows: tuple[LabelRows, ...]
    """Labels that came, or became known or due. They are all labels of a key that had none."""
    has_withdrawals: bool
    """Whether labels are gone: every prediction that has a label is matched again."""
    predictions: frozenset[str] = frozenset()
    """Predictions whose labels their callers changed, or that were joined with one of them."""
    has_new_predictions: bool = False
    """Whether predictions are matched that are in no file of `Matched.files`."""

    @property
    def is_of_any_prediction(self) -> bool:
        """Whether the label of any prediction may have changed; False if only new ones and `predictions` are matched."""
        return any(self.rows) or self.has_withdrawals


def begin_matching(
    connection: Transaction,
    store: Store,
    model: Model,
    version: int,
    withheld: Withheld,
    *,
    before: Matched | None,
    is_complete: bool,
    epoch: int,
    now_us: int,
    at_once: int = PREDICTIONS_AT_ONCE,
) -> Matching:
    """Return the matching of collected predictions with the labels of a table version. No file is read yet.

    Parameters
    ----------
    version, withheld
        The table version, and the loads of each feed that are left out.
    before
        The result of the last matching; None to match every prediction with every label.
    is_complete
        Whether predictions are matched too that were collected, or labelled by their callers, since the last complete matching.
    epoch
        The epoch of the loop's lease.
    now_us
        Microseconds since 1970 UTC. A label that a row brought itself is used once it is due.
    at_once
        How many predictions are matched together.
    """
    feeds = feeds_of(model)
    live = (load for feed in feeds for load in batches.live_loads(connection, feed.name))
    loads = frozenset(live) - {load for held in withheld.values() for load in held}
    sent = key_labels.newest(connection, model.name)
    loaded_until = sent_by_key.loaded_until(connection, sent_by_key.feed_of(model))
    files = rows_at(connection, feeds, version, withheld)
    reached = Matched(
        epoch=epoch,
        at_us=now_us,
        loads=loads,
        sent=sent,
        loaded_until=loaded_until,
        files=frozenset(),
        outcome=outcomes.newest(connection, model.name),
        correction=labels.newest_correction(connection),
    )
    predicted = collected_log.files_of(connection, model.name)
    changed = None
    if before is not None:
        has_new = is_complete and any(file.path not in before.files for file in predicted)
        changed = _changed_since(
            connection, model, version, files, before, reached, is_complete=is_complete, has_new=has_new
        )
        reached = replace(reached, files=before.files)
        if not is_complete:
            reached = replace(reached, outcome=before.outcome, correction=before.correction)
    return Matching(
        LabelReader(store, model, now_us),
        LabelRows(files, (loaded_until, sent)),
        changed,
        reached,
        predicted,
        predicted if changed is None else _to_read(connection, predicted, changed, reached.files),
        at_once,
    )


def _to_read(
    connection: Transaction, files: Sequence[CollectedFile], changed: Changed, matched: frozenset[str]
) -> Sequence[CollectedFile]:
    """Return those of `files` with a prediction whose label may have changed."""
    if changed.is_of_any_prediction:
        return files
    located = collected_log.locate(connection, PREDICTIONS, changed.predictions)
    touched = {file.path for file, _ in located}
    return [
        file
        for file in files
        if file.path in touched or (changed.has_new_predictions and file.path not in matched)
    ]


def _changed_since(
    connection: Transaction,
    model: Model,
    version: int,
    files: LabelFiles,
    before: Matched,
    now: Matched,
    *,
    is_complete: bool,
    has_new: bool,
) -> Changed:
    feeds = feeds_of(model)
    delay_us = model.label_delay // timedelta(microseconds=1)
    came = sorted(now.loads - before.loads)
    added = {
        feed.name: data_files.entries_of_loads(
            connection, feed.name, version, [load for load in came if load[0] == feed.name]
        )
        for feed in feeds
    }
    since_us = {feed.name: before.at_us - (delay_us if feed is model.examples else 0) for feed in feeds}
    rows = [
        LabelRows(added, (max(before.sent, now.loaded_until), now.sent)),
        # A label can have a time that was still to come, and one that a row brought itself becomes due.
        LabelRows(newest_since(files, since_us), (now.loaded_until, now.sent), since_us=before.at_us),
    ]
    touched: frozenset[str] = frozenset()
    if has_new:
        by_id = {feed.name: files[feed.name] for feed in feeds if is_by_prediction(feed)}
        # A label by prediction id gives a label to its row's key once the prediction is collected.
        rows.append(LabelRows(by_id, (0, 0), without_predictions_of=before.files))
    if is_complete:
        joined = labels.first_since(connection, model.name, before.outcome, without=FEED_SOURCE)
        corrected = labels.corrections_since(connection, model.name, before.correction)
        touched = frozenset(each.prediction_id for each in (*joined, *corrected))
    return Changed(
        tuple(rows),
        has_withdrawals=bool(before.loads - now.loads) or before.loaded_until != now.loaded_until,
        predictions=touched,
        has_new_predictions=has_new,
    )


class Matching:
    """One matching of labels with collected predictions, a part in each round.

    A file of predictions that cannot be read is reported once and skipped: its labels stay as they are.
    """

    _lease: Lease

    def __init__(
        self,
        reader: LabelReader,
        every: LabelRows,
        changed: Changed | None,
        reached: Matched,
        files: Sequence[CollectedFile],
        to_read: Sequence[CollectedFile],
        at_once: int,
    ) -> None:
        self._reader = reader
        self._store, self._model = reader.store, reader.model
        self._every = every
        self._changed = changed
        self._reached = reached
        self._files, self._to_read = files, to_read
        self._at_once = at_once
        self._read_paths: set[str] = set()
        self._unread_paths: set[str] = set()
        self._now_us = reached.at_us
        self._steps = self._match_all()

    def advance(self, lease: Lease, *, rows: int, now_us: int) -> bool:
        """Read about `rows` rows, give predictions the labels that count, and return True if the matching is done.

        Raises `ConflictError` HF304 when another loop has the lease, and `IntegrityError` for a file of labels that cannot be
        read. The matching cannot go on then; a later one begins again.
        """
        self._lease, self._now_us = lease, now_us
        for read in self._steps:
            rows -= read
            if rows <= 0:
                return False
        return True

    def result(self) -> Matched | None:
        """Return how far labels are matched after the last step; None if labels may be there that could not be read."""
        if not self._reader.is_complete:
            return None
        complete = self._changed is None or self._changed.has_new_predictions
        files = self._reached.files | self._read_paths if complete else self._reached.files
        there = {file.path for file in self._files}
        return replace(self._reached, files=frozenset((files & there) - self._unread_paths))

    def _match_all(self) -> Iterator[int]:
        for files in _grouped(self._to_read, self._at_once):
            predictions: list[pl.DataFrame] = []
            for file in files:
                predictions.append(self._keys_of(file))
                yield file.rows
            yield from self._match(pl.concat(predictions))

    def _keys_of(self, file: CollectedFile) -> pl.DataFrame:
        """Return the predictions of `file` with their keys, null without one, and whether they were matched before."""
        every, damaged = collected_log.read_file_inputs(self._store.root, file)
        if damaged is not None:
            emit_damaged(self._store, [damaged], self._now_us)
        found = prediction_keys.of_readable_versions(self._store, every)
        is_whole = damaged is None and len(found) == len(every)
        (self._read_paths if is_whole else self._unread_paths).add(file.path)
        keys = prediction_keys.key_rows(self._store, self._model.examples.contract, found)
        was_matched = pl.lit(file.path in self._reached.files).alias(_WAS_MATCHED)
        return found.select("prediction").join(keys, on="prediction", how="left").with_columns(was_matched)

    def _match(self, predictions: pl.DataFrame) -> Iterator[int]:
        """Give `predictions` the labels that count, where these may have changed."""
        key = list(self._model.examples.contract.key)
        waiting, others = predictions.clear(), predictions
        came: list[pl.DataFrame] = []
        if self._changed is not None:
            keys = predictions.select(key).drop_nulls().unique()
            for rows in self._changed.rows:
                yield from self._reader.read(rows, keys, came)
            waiting, others = self._affected(predictions, self._reader.history(came).select(key).unique())
        # A matched prediction that still waits for a label had none, so those that came are all that its key has.
        yield from self._label(waiting, self._reader.history(came))
        every: list[pl.DataFrame] = []
        yield from self._reader.read(self._every, others.select(key).drop_nulls().unique(), every)
        yield from self._label(others, self._reader.history(every))

    def _affected(self, predictions: pl.DataFrame, came: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the predictions that waited for one of the labels that came, and the others whose label may have changed."""
        assert self._changed is not None, "otherwise every prediction is matched"
        changed = pl.Series(sorted(self._changed.predictions), dtype=pl.String).implode()
        is_new = ~pl.col(_WAS_MATCHED) if self._changed.has_new_predictions else pl.lit(value=False)
        by_key = predictions.join(came, on=came.columns, how="semi")["prediction"].implode()
        may_change = pl.col("prediction").is_in(by_key) | pl.col("prediction").is_in(changed) | is_new
        looked_up = predictions if self._changed.has_withdrawals else predictions.filter(may_change)
        with self._store.ledger.read() as connection:
            found = labels.labelled(connection, looked_up["prediction"].to_list())
        is_labelled = pl.col("prediction").is_in(pl.Series(sorted(found), dtype=pl.String).implode())
        if self._changed.has_withdrawals:
            may_change |= is_labelled
        affected = predictions.filter(may_change)
        is_waiting = pl.col(_WAS_MATCHED) & ~is_labelled
        return affected.filter(is_waiting), affected.filter(~is_waiting)

    def _label(self, predictions: pl.DataFrame, history: pl.DataFrame) -> Iterator[int]:
        """Give `predictions` the labels that count by `history` and by their callers."""
        key = list(self._model.examples.contract.key)
        for some in predictions.iter_slices(_LABELLED_AT_ONCE):
            matched = some.join(history, on=key, how="inner").select(
                "prediction", pl.col(self._model.label).cast(pl.Float64).alias("value"), KNOWN_AT
            )
            self._write(some["prediction"].to_list(), matched)
            yield some.height

    def _write(self, predictions: list[str], matched: pl.DataFrame) -> None:
        # Decided twice: most rounds change nothing, and those must not hold the ledger for writing.
        with self._store.ledger.read() as connection:
            if not self._decide(connection, predictions, matched):
                return
        with self._store.ledger.write() as connection:
            assert_epoch(connection, self._lease.name, self._lease.epoch)
            changes = self._decide(connection, predictions, matched)
            labels.add(connection, changes.new, {each.prediction_id: self._now_us for each in changes.new})
            labels.replace_first(connection, [*changes.corrected, *changes.stand_ins])
            outcomes.correct(connection, changes.outcomes)
            outcomes.withdraw(connection, changes.gone)
            corrected = changes.outcomes.keys() | {label.prediction_id for label in changes.corrected}
            withdrawn = len(changes.gone) + len(changes.stand_ins)
            _emit(connection, self._model.name, len(corrected), withdrawn, self._now_us)

    def _decide(self, connection: Transaction, predictions: list[str], matched: pl.DataFrame) -> Changes:
        corrections, until_us = self._model.corrections, self._reached.at_us
        of_feeds = {
            name: KnownLabel(value, FEED_SOURCE, known_at_us)
            for name, value, known_at_us in _newest_or_first(matched, corrections, until_us).iter_rows()
        }
        held = labels.known_labels(connection, predictions)
        ours = {name: each for name, history in held.items() if (each := history[0]).source == FEED_SOURCE}
        sent: dict[str, list[KnownLabel]] = {}
        for name, history in held.items():
            of_callers = [each for each in history if each.source != FEED_SOURCE]
            if of_callers:
                sent[name] = [
                    replace(each, received_at_us=min(each.received_at_us, until_us)) for each in of_callers
                ]
        wanted = {
            name: counting_label([*sent.get(name, ()), *_one(of_feeds.get(name))], corrections).value
            for name in of_feeds.keys() | sent.keys()
        }
        joined = outcomes.labels_of(connection, wanted)
        gone = ours.keys() - of_feeds.keys() if self._reader.is_complete else set()
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


def _newest_or_first(matched: pl.DataFrame, corrections: Corrections, until_us: int) -> pl.DataFrame:
    """Return the label of each prediction that counts among those of feeds, and when it became known."""
    known = matched.filter(pl.col(KNOWN_AT) <= until_us, pl.col("value").is_not_null())
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


def _grouped(files: Sequence[CollectedFile], rows: int) -> Iterator[list[CollectedFile]]:
    """Yield `files` in groups of at most `rows` rows, but at least one file."""
    group: list[CollectedFile] = []
    held = 0
    for file in files:
        if group and held + file.rows > rows:
            yield group
            group, held = [], 0
        group.append(file)
        held += file.rows
    if group:
        yield group


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
