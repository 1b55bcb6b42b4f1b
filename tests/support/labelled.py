"""Predictions with their labels, as the control loop stores them."""

from __future__ import annotations

import numpy as np
from sqlalchemy import insert

from holdfast.monitor.usage import UsageRow
from holdfast.records import MINUTE_US
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.telemetry import request_counts


def predict(
    store: Store,
    number: int,
    predicted_at_us: int,
    event_time_us: int,
    *,
    version: str = "v1",
    inverted: bool = False,
    labelled: bool = True,
) -> None:
    """One row that was predicted, with its label. It is `inverted` if high probabilities have label 0."""
    random = np.random.default_rng(number)
    probability = random.uniform()
    label = float((random.uniform() < probability) != inverted)
    row = {"prediction_id": f"s1-1-{number}/0", "model": "m", "version": version, "arm": "champion"}
    minute_us = predicted_at_us - predicted_at_us % MINUTE_US
    with store.ledger.write() as connection:
        if labelled:
            connection.execute(
                insert(schema.labels).values(
                    prediction_id=row["prediction_id"], value=label, source="t", joined=1,
                    received_at_us=predicted_at_us,
                )
            )  # fmt: skip
            connection.execute(
                insert(schema.outcomes).values(
                    **row, probability=probability, label=label, event_time_us=event_time_us,
                    predicted_at_us=predicted_at_us, joined_at_us=predicted_at_us,
                )
            )  # fmt: skip
        request_counts.add(
            connection, "m", [UsageRow(version, "champion", "ok", minute_us, 1, 1, 900, {10: 1})]
        )
