"""The rows that a model learns from and is judged by: labelled, valid, and joined only with what was known
in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from holdfast.contract import compile_batch
from holdfast.declaration import Model
from holdfast.errors import InputError
from holdfast.features import Aggregate, aggregate_rows, join_as_of
from holdfast.store import Store, files


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled rows in the contract's columns and dtypes, with one more column for each aggregate.

    `unlabelled` counts rows that were left out because their label is not known, `dropped` says how many
    rows each reason struck ("distance|range"); the rows that were struck are not in `frame`.
    """

    frame: pl.DataFrame
    unlabelled: int
    dropped: dict[str, int]


def read_examples(store: Store, model: Model, aggregates: Iterable[Aggregate], snapshot: str) -> Examples:
    """The labelled rows of `model` as they stand in `snapshot`, joined with `aggregates` of the same
    snapshot.

    Raises `InputError` HF401 when there is no labelled row, `NotFoundError` HF303 for an unknown snapshot and
    `IntegrityError` HF301 for a damaged file.
    """
    rows = files.read_rows(store, snapshot, model.rows.name, model.contract.names)
    labelled = rows.drop_nulls(model.label) if rows.width else rows
    if labelled.is_empty():
        raise InputError(
            "HF401",
            f"snapshot {snapshot} has {rows.height} rows of {model.rows.name!r} and no label among them",
            state="nothing was trained",
            next_command=f"holdfast ingest {model.rows.name} <file>",
        )
    verdict = compile_batch(model.contract)(labelled.select(model.contract.names))
    frame = verdict.valid
    for aggregate in aggregates:
        source = files.read_rows(
            store, snapshot, aggregate.over, (aggregate.by, aggregate.value, aggregate.known)
        )
        if source.is_empty():
            frame = frame.with_columns(pl.lit(None, pl.Float64).alias(aggregate.name))
            continue
        known = aggregate_rows(aggregate, source)
        frame = join_as_of(frame, at=model.contract.event_time, aggregate=aggregate, rows=known)
    return Examples(frame, rows.height - labelled.height, verdict.counts)
