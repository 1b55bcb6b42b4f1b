"""Recorded requests with their predictions, read back from the collected files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
from sqlalchemy import Connection

from holdfast.store.telemetry import collected_log

_COLUMNS: Final = ("prediction", "at_us", "unit", "arm", "version", "probability", "inputs")


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request that a champion answered, with the probability of each row.

    `rows` are as logged, in the order and the units of the request columns of `version`'s contract.
    """

    id: str
    at_us: int
    unit: bytes
    version: str
    rows: tuple[tuple[Any, ...], ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RecordedRequests:
    """Recorded requests, the newest first, and the files that could not be read, with the reason."""

    requests: tuple[RecordedRequest, ...]
    damaged: dict[str, str]


def newest(connection: Connection, root: Path, model: str, *, most: int, since_us: int) -> RecordedRequests:
    """Return the newest requests that champions answered; requests of a challenger are left to its own canary.

    Parameters
    ----------
    connection, root
        The ledger, and the store's root directory.
    model
        The model.
    most
        How many requests to return at most.
    since_us
        The oldest time of a request, microseconds since 1970 UTC.
    """
    found: list[RecordedRequest] = []
    damaged: dict[str, str] = {}
    for part in collected_log.newest_of_champion(connection, root, model, _COLUMNS, since_us=since_us):
        if isinstance(part, collected_log.Damaged):
            damaged[part.path] = part.explanation
            continue
        found += _requests(part)
        if len(found) >= most:
            break
    found.sort(key=lambda each: (-each.at_us, each.id))
    return RecordedRequests(tuple(found[:most]), damaged)


def _requests(frame: pl.DataFrame) -> list[RecordedRequest]:
    parts = pl.col("prediction").str.split("/")
    grouped = (
        frame.sort(parts.list.last().cast(pl.Int64))
        .group_by(parts.list.first(), maintain_order=True)
        .agg(pl.col("at_us", "unit", "version").first(), pl.col("inputs", "probability"))
    )
    return [
        RecordedRequest(
            name,
            at_us,
            unit,
            version,
            tuple(tuple(json.loads(each)) for each in inputs),
            tuple(probabilities),
        )
        for name, at_us, unit, version, inputs, probabilities in grouped.iter_rows()
    ]
