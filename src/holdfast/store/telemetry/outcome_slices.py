"""Rows of `outcome_slices`: the slices of the contract that each labelled prediction is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from holdfast.monitor.quality import Outcomes
from holdfast.records import canonical_json
from holdfast.store.db import schema
from holdfast.store.db.statements import inserting

_SLICES: Final = schema.outcome_slices
_OUTCOMES: Final = schema.outcomes
_TRAINED: Final = schema.snapshot_slices
_decode: Final = msgspec.json.Decoder(dict[str, str]).decode


@dataclass(frozen=True, slots=True)
class SlicedOutcomes:
    """N outcomes, and their values (N,) by column; empty where a version has no such column."""

    outcomes: Outcomes
    values: dict[str, NDArray[np.str_]]


def add(connection: Connection, slices: Mapping[str, Mapping[str, str]]) -> None:
    """Insert the values of the slices of each prediction, by its id, in the transaction that inserts its outcome."""
    found = [
        {"prediction_id": prediction, "slices_json": canonical_json(values)}
        for prediction, values in slices.items()
        if values
    ]
    if found:
        connection.execute(inserting(connection, _SLICES).on_conflict_do_nothing(), found)


def of_model(connection: Connection, model: str, *, since_us: int) -> SlicedOutcomes:
    """Return the outcomes of `model` that have slices and were predicted since `since_us`, by the servers' clocks."""
    query = (
        select(
            _OUTCOMES.c.version,
            _OUTCOMES.c.predicted_at_us,
            _OUTCOMES.c.event_time_us,
            _OUTCOMES.c.probability,
            _OUTCOMES.c.label,
            _SLICES.c.slices_json,
        )
        .join(_SLICES, _SLICES.c.prediction_id == _OUTCOMES.c.prediction_id)
        .where(_OUTCOMES.c.model == model, _OUTCOMES.c.predicted_at_us >= since_us)
    )
    found = connection.execute(query).all()
    decoded: dict[str, dict[str, str]] = {}  # slices repeat: each text is decoded once
    values = [decoded.setdefault(row.slices_json, _decode(row.slices_json)) for row in found]
    columns = sorted({column for each in decoded.values() for column in each})
    return SlicedOutcomes(
        Outcomes(
            version=np.array([row.version for row in found], dtype=np.str_),
            predicted_at_us=np.array([row.predicted_at_us for row in found], dtype=np.int64),
            event_time_us=np.array([row.event_time_us for row in found], dtype=np.int64),
            probability=np.array([row.probability for row in found], dtype=np.float64),
            label=np.array([row.label for row in found], dtype=np.float64),
        ),
        {column: np.array([each.get(column, "") for each in values], dtype=np.str_) for column in columns},
    )


def trained_values(connection: Connection, model: str) -> dict[str, set[str]]:
    """Return the values of each slice that a version of `model` was trained on, by column."""
    versions = schema.versions
    query = (
        select(_TRAINED.c.column_name, _TRAINED.c.value)
        .where(
            _TRAINED.c.rows_selected > 0,
            _TRAINED.c.snapshot.in_(select(versions.c.snapshot).where(versions.c.model == model)),
        )
        .distinct()
    )
    found: dict[str, set[str]] = {}
    for column, value in connection.execute(query):
        found.setdefault(column, set()).add(value)
    return found
