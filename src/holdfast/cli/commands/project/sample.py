"""Write the sample of a project that begins without a file."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl


def write_sample(path: Path) -> None:
    """Write 6,000 parcels over sixty days; lateness depends on weight, service, town and hour."""
    rng = random.Random(20130101)  # noqa: S311 - a sample, not a secret
    towns = {"bergen": 0.9, "oslo": -0.4, "tromso": 1.3, "stavanger": 0.1, "bodo": 0.7}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = []
    for number in range(6000):
        when = start + timedelta(minutes=14.4 * number)
        town = rng.choice(list(towns))
        weight, express = round(rng.lognormvariate(0.8, 0.7), 2), rng.random() < 0.3
        risk = -2.2 + towns[town] + 0.25 * weight - 1.2 * express + (0.8 if when.hour >= 16 else 0.0)
        late = rng.random() < 1 / (1 + 2.718281828**-risk)
        rows.append((f"p{number:05d}", when.strftime("%Y-%m-%dT%H:%M:%SZ"), town, weight, express, late))
    frame = pl.DataFrame(rows, ["parcel", "handed_in", "town", "weight_kg", "express", "late"], orient="row")
    frame.write_csv(path)
