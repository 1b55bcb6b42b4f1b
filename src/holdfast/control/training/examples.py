"""Read the rows that a model is trained on and evaluated by: labelled, valid, joined only with what was known in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

from holdfast.contract.batch.aliases import map_aliases
from holdfast.contract.batch.compiler import compile_batch, dtype, dtypes
from holdfast.contract.batch.reasons import REASONS, has_reason_of
from holdfast.contract.batch.text_input import TypedBatch, from_text
from holdfast.control.training import labels
from holdfast.declaration import Model
from holdfast.errors import InputError
from holdfast.features import Aggregate
from holdfast.features.asof import aggregate_rows, join_as_of
from holdfast.feeds import quarantine_table
from holdfast.formatting import counted
from holdfast.records import BATCH_COLUMN
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.files import data_files
from holdfast.tables import Snapshot
from holdfast.tables.labels import KNOWN_AT, LABEL_LOADS
from holdfast.tables.row_selection import SelectedRows, name_sources, select_rows
from holdfast.train import Split, time_split

_ROW: Final = "_row"


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled rows in the contract's columns and dtypes, with one more column for each aggregate.

    `unlabelled` counts rows that were left out because they have no label, `not_due` those whose label
    could not be known yet. `dropped` is the number of rows that each reason of the model's contract rejected
    ("distance|range"). `rejected` has these rows, and those that the feed's contract quarantined when they were loaded, if the
    model declares a discard budget. Columns of the feed that only the model's selection reads, and metadata columns, are in
    both. With labels that come later, `frame` has the time at which each label became known in the column `KNOWN_AT`.
    """

    frame: pl.DataFrame
    unlabelled: int
    not_due: int
    dropped: dict[str, int]
    rejected: pl.DataFrame


def read_examples(
    store: Store, model: Model, aggregates: Iterable[Aggregate], snapshot: str, *, with_batches: bool = False
) -> Examples:
    """Read the labelled rows of `model` in `snapshot`, joined with `aggregates` of the same snapshot.

    Labels of the model's label feeds are joined as they were known when the snapshot was made (`tables.labels`). A row without
    one is counted and not used.

    A row whose label was not due when the snapshot was made (event time plus the label's delay) is left out:
    its value is a guess or will still change (R55, R65). The time of the snapshot counts, not that of
    reading. So a snapshot gives the same examples, and training the same version, whenever it is read. The label is in
    the next snapshot after the next load.

    Parameters
    ----------
    store, model
        The store, and the model of the rows.
    aggregates
        The aggregates to join.
    snapshot
        The name of the snapshot.
    with_batches
        Whether `frame` has the metadata column `_batch`, the batch of each row, and with labels that come later the
        column `LABEL_LOADS`, the loads that its label was taken from.

    Raises
    ------
    InputError
        HF401 if no labelled row is due.
    NotFoundError
        HF303 if there is no such snapshot.
    IntegrityError
        HF301 if a file is damaged.
    """
    also = {
        name: kind for name, kind in dtypes(model.examples.contract).items() if name in model.selected_besides
    }
    also |= dict.fromkeys(model.selection.metadata_columns, pl.String())
    also |= {BATCH_COLUMN: pl.String()} if with_batches else {}
    with store.ledger.read() as connection:
        taken = snapshots.get(connection, snapshot)
    created_at_us = taken.created_at_us
    if model.label_feeds or model.selection.discard:
        also |= {name: dtype(model.examples.contract.column(name)) for name in model.examples.contract.key}
    rows = data_files.read_rows(store, snapshot, model.examples.name, dtypes(model.contract) | also)
    # Rows that were loaded before an alias was declared have it as a word of their own.
    for contract in (model.examples.contract, model.contract):
        rows = map_aliases(contract, rows)[0]
    rows = name_sources(rows, model.selection)
    if model.label_feeds and rows.width:
        rows = labels.join_labels(store, model, taken, rows, with_loads=with_batches)
        also |= {KNOWN_AT: pl.Int64()} | ({LABEL_LOADS: labels.LOADS_TYPE} if with_batches else {})
    labelled = rows.drop_nulls(model.label) if rows.width else rows
    due = _due(model, labelled, created_at_us)
    if due.is_empty():
        raise InputError(
            "HF401",
            f"snapshot {snapshot} has {counted(rows.height, 'row')} of {model.examples.name!r}, {labelled.height} of them with "
            f"a label and none with one that was due when the snapshot was made",
            state="nothing was trained",
            next_command=f"holdfast ingest {model.examples.name} <file>",
        )
    brought = [name for name in also if name not in model.contract.names]
    valid, rejected, dropped = _judge(model, due, brought)
    if model.selection.discard:
        rejected = pl.concat([rejected, _quarantined(store, model, taken, rows)], how="diagonal_relaxed")
    return Examples(
        with_aggregates(store, model, aggregates, snapshot, valid),
        unlabelled=rows.height - labelled.height,
        not_due=labelled.height - due.height,
        dropped=dropped,
        rejected=rejected,
    )


def with_aggregates(
    store: Store, model: Model, aggregates: Iterable[Aggregate], snapshot: str, frame: pl.DataFrame
) -> pl.DataFrame:
    """Return `frame` with a column for each of `aggregates`: its value in `snapshot` at each row's event time.

    Parameters
    ----------
    store, model
        The store, and the model of the rows.
    aggregates
        The aggregates to add.
    snapshot
        The snapshot that the values are read from.
    frame
        The rows.
    """
    wanted = list(aggregates)
    for over in dict.fromkeys(aggregate.over for aggregate in wanted):
        mine = [aggregate for aggregate in wanted if aggregate.over == over]
        kinds = next(dtypes(feed.contract) for feed in model.feeds if feed.name == over)
        columns = {column: kinds[column] for each in mine for column in (each.by, each.value, each.known_at)}
        source = data_files.read_rows(store, snapshot, over, columns)
        for aggregate in mine:
            if source.is_empty():
                frame = frame.with_columns(pl.lit(None, pl.Float64).alias(aggregate.name))
                continue
            known = aggregate_rows(aggregate, source)
            frame = join_as_of(frame, at=model.contract.event_time, aggregate=aggregate, rows=known)
    return frame


def split_days(model: Model, frame: pl.DataFrame) -> Split:
    """Split examples of `model` with `time_split`, by its holdout, its label's delay, and when each label became known."""
    return time_split(
        frame,
        model.contract.event_time,
        model.holdout_span,
        delay=model.label_delay,
        label_known_at=KNOWN_AT if KNOWN_AT in frame.columns else None,
    )


def choose(model: Model, rows: pl.DataFrame, rejected: pl.DataFrame, seed: int) -> SelectedRows:
    """Choose the training rows by the model's selection.

    Parameters
    ----------
    model
        The model.
    rows
        The candidates for training.
    rejected
        The rows that the contract rejected. Those newer than `rows` are in the holdout, and do not count.
    seed
        Decides which rows a sample or a cap keeps.

    Raises as `select_rows` does.
    """
    at = pl.col(model.contract.event_time)
    return select_rows(
        rows,
        model.selection,
        seed,
        columns=model.selection_columns,
        key=model.contract.key,
        slices=model.contract.slices,
        rejected=rejected.filter(at.is_null() | (at <= rows[model.contract.event_time].max())),
    )


def _quarantined(store: Store, model: Model, taken: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that would be examples, had the feed's contract not quarantined them at load.

    A row counts once by its key, and not at all if `rows` has its key: it was a repeat, or came again and was valid. What
    cannot be read as the type of its column is null.
    """
    feed = model.examples
    of_load = model.selection.metadata_columns
    columns = dict.fromkeys((*feed.contract.names, *of_load), pl.String()) | {REASONS: pl.List(pl.String)}
    with store.ledger.read() as connection:
        files = data_files.entries(
            connection, quarantine_table(feed.name), taken.table_version, excluded=taken.incomplete_loads
        )
        loads = data_files.loads_of_rows(connection, files) if of_load else {}
    texts = data_files.read(store.root, files, columns, loads=loads)
    if texts.is_empty():
        return pl.DataFrame()
    read = from_text(
        feed.contract, texts.select(feed.contract.names), missing_words=feed.missing_words, csv=feed.csv
    )
    typed = map_aliases(feed.contract, read.frame)[0].with_columns(texts.select(REASONS, *of_load))
    typed = name_sources(typed, model.selection)
    key = list(feed.contract.key)
    without_key = pl.any_horizontal(pl.col(key).is_null())
    once = typed.filter(without_key | pl.struct(key).is_first_distinct()).join(rows, on=key, how="anti")
    if not model.label_feeds:
        once = once.filter(pl.col(model.label).is_not_null() | has_reason_of(model.label))
    due_us = taken.created_at_us - model.label_delay // timedelta(microseconds=1)
    return once.filter((pl.col(feed.contract.event_time).dt.epoch("us") <= due_us).fill_null(value=True))


def _judge(
    model: Model, rows: pl.DataFrame, brought: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Return the rows that keep the model's contract, the others, and their number by reason.

    Both have the columns `brought` of their own row: two rows may have one key, if the model's key is not that of the feed.
    """
    of_contract = rows.select(model.contract.names)
    numbered = rows.select(*model.contract.names, *brought).with_row_index(_ROW)
    verdict = compile_batch(model.contract)(TypedBatch(of_contract, numbered, {}))
    kept = numbered.join(verdict.quarantined, on=_ROW, how="anti", maintain_order="left")
    return verdict.valid.with_columns(kept.select(brought)), verdict.quarantined.drop(_ROW), verdict.counts


def _due(model: Model, labelled: pl.DataFrame, known_at_us: int) -> pl.DataFrame:
    if labelled.is_empty():
        return labelled
    delay_us = model.label_delay // timedelta(microseconds=1)
    return labelled.filter(pl.col(model.contract.event_time).dt.epoch("us") + delay_us <= known_at_us)
