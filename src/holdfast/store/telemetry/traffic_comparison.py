"""Rows of `traffic_comparisons`: the last comparison of each model. Its inputs are read by `comparison_inputs.py`."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from holdfast.monitor.traffic_record import TrafficComparison
from holdfast.records import canonical_json
from holdfast.store.db import rows, schema

_COMPARISONS: Final = schema.traffic_comparisons
_OUTCOMES: Final = schema.outcomes
_SLICES: Final = schema.snapshot_slices
_COLUMNS: Final = ("prediction", "at_us", "arm", "version", "probability", "inputs")

Numbers = NDArray[np.float64]


def put(connection: Connection, model: str, found: TrafficComparison) -> None:
    """Store `found` as the last comparison of `model`, in the caller's transaction."""
    values = {
        "model": model,
        "version": found.version,
        "newest_prediction_at_us": found.last_us,
        "computed_at_us": found.computed_at_us,
        "comparison_json": canonical_json(found),
    }
    rows.put(connection, _COMPARISONS, values)


def last(connection: Connection, model: str) -> TrafficComparison | None:
    """Return the last comparison of `model`; None before the first."""
    text = connection.execute(
        select(_COMPARISONS.c.comparison_json).where(_COMPARISONS.c.model == model)
    ).scalar_one_or_none()
    return None if text is None else msgspec.json.decode(text, type=TrafficComparison)
