"""Inputs of a traffic comparison: newest predictions of a version, their labels, its training rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from holdfast.errors import HoldfastError
from holdfast.records import sha256_hex
from holdfast.store.catalog import snapshots
from holdfast.store.db import schema
from holdfast.store.feeds import batch_profiles
from holdfast.store.telemetry.collected_log import Damaged, newest_of_champion

_COMPARISONS: Final = schema.traffic_comparisons
_OUTCOMES: Final = schema.outcomes
_SLICES: Final = schema.snapshot_slices
_COLUMNS: Final = ("prediction", "at_us", "arm", "version", "probability", "inputs")

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Predictions with labels: ids, probabilities and labels (0 to 1), of one length."""

    predictions: list[str]
    probabilities: Numbers
    labels: Numbers


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The training rows of a version: their number by value of each slice, and the share of positive labels if known."""

    slices: dict[str, dict[str, int]]
    label_share: float | None


def newest_predictions(
    connection: Connection, root: Path, model: str, version: str, *, most_rows: int, most_files: int
) -> tuple[pl.DataFrame, tuple[Damaged, ...]]:
    """Return the newest predictions of `version` as champion, and the files that could not be read.

    Parameters
    ----------
    connection, root
        The ledger, and the store's root directory.
    model, version
        The model and its version.
    most_rows, most_files
        How many rows to return, and how many of the newest files to read, at most.
    """
    parts, damaged, height = [], [], 0
    for part in islice(newest_of_champion(connection, root, model, _COLUMNS), most_files):
        if isinstance(part, Damaged):
            damaged.append(part)
            continue
        parts.append(part.filter(pl.col("version") == version).select(_COLUMNS))
        height += parts[-1].height
        if height >= most_rows:
            break
    if not parts:
        return pl.DataFrame(), tuple(damaged)
    return pl.concat(parts).sort("at_us", "prediction").tail(most_rows), tuple(damaged)


def labelled(connection: Connection, model: str, version: str, *, most: int) -> Labelled:
    """Return the predictions of `version` that have labels, the newest by the servers' clocks first."""
    query = (
        select(_OUTCOMES.c.prediction_id, _OUTCOMES.c.probability, _OUTCOMES.c.label)
        .where(_OUTCOMES.c.model == model, _OUTCOMES.c.version == version)
        .order_by(_OUTCOMES.c.predicted_at_us.desc())
        .limit(most)
    )
    found = connection.execute(query).all()
    return Labelled(
        [row.prediction_id for row in found],
        np.array([row.probability for row in found], np.float64),
        np.array([row.label for row in found], np.float64),
    )


def training_rows(connection: Connection, snapshot: str, selection_json: str, seed: int) -> TrainingRows:
    """Return the training rows of `snapshot` by slice after the selection, or all its rows without a stored selection.

    The share of positive labels is that of the snapshot's rows, from the profiles of their loads.
    """
    query = select(_SLICES.c.column_name, _SLICES.c.value, _SLICES.c.rows_selected).where(
        _SLICES.c.snapshot == snapshot, _SLICES.c.selection_hash == sha256_hex(f"{seed} {selection_json}")
    )
    slices: dict[str, dict[str, int]] = {}
    for column, value, selected in connection.execute(query):
        slices.setdefault(column, {})[value] = selected
    try:
        facts = batch_profiles.of_snapshot(connection, snapshots.get(connection, snapshot))
    except HoldfastError:
        return TrainingRows(slices, None)  # its loads are unknown, as after a rebuild of the ledger
    shares = [each.profile.label_share for each in facts if each.profile is not None]
    return TrainingRows(slices, next((share for share in shares if share is not None), None))
