"""Rows of `prediction_files`, and the Parquet files that they name: every answered row, to join and to audit.

A file is written and synced before the transaction that names it, as every file of the store is
(`store/files/staging.py`): what a killed collector leaves is an orphan, which means nothing and is swept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import polars as pl
from sqlalchemy import Connection, func, insert, select

from holdfast.errors import IntegrityError
from holdfast.feedback import Answer, Frontier, parse_id
from holdfast.store.db.schema import log_positions, prediction_files
from holdfast.store.db.store import Store
from holdfast.store.files import parquet
from holdfast.store.files.staging import Stage

TABLE: Final = "predictions"
"""What the files' footers call the table."""

SCHEMA: Final = pl.Schema(
    {
        "prediction": pl.String,
        "at_us": pl.Int64,
        "event_time_us": pl.Int64,
        "unit": pl.Binary,
        "arm": pl.String,
        "version": pl.String,
        "rollout": pl.Int64,
        "latency_us": pl.Int64,
        "probability": pl.Float64,
        "inputs": pl.String,
    }
)
"""One row per answered row. `prediction` is the id with its row; `inputs` is the row as received, as JSON."""

_LATER_SEGMENTS: Final = 2
"""A request that began before a segment was closed is logged in one of the next."""

_ANSWER_COLUMNS: Final = (
    "prediction", "event_time_us", "unit", "arm", "version", "rollout", "probability", "at_us",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """One file of collected answers, as the ledger knows it. `path` is relative to the store's root."""

    path: str
    model: str
    server: str
    segment: int
    rows: int
    bytes: int
    sha256: str
    predicted_at_min_us: int
    predicted_at_max_us: int
    record_number_min: int
    record_number_max: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that cannot be read, the predictions that were sought in it, and why."""

    path: str
    sought: frozenset[str]
    explanation: str


@dataclass(frozen=True, slots=True)
class Found:
    """Collected answers by the ids of their predictions, and the files that could not be looked into."""

    answers: dict[str, Answer]
    damaged: tuple[Damaged, ...]


def write(
    stage: Stage, frame: pl.DataFrame, *, model: str, server: str, segment: int, numbers: tuple[int, int]
) -> PredictionFile:
    """Write `frame` (in `SCHEMA`, not empty) on `stage`; seal it, and register the file before it ends.

    `numbers` are the smallest and the largest record number in the chunk that the frame was made from.
    """
    facts = stage.write(TABLE, frame, {"model": model, "server": server, "segment": segment})
    answered_us = frame["at_us"].to_numpy()
    return PredictionFile(
        path=facts.path,
        model=model,
        server=server,
        segment=segment,
        rows=facts.rows,
        bytes=facts.bytes,
        sha256=facts.sha256,
        predicted_at_min_us=int(answered_us.min()),
        predicted_at_max_us=int(answered_us.max()),
        record_number_min=numbers[0],
        record_number_max=numbers[1],
    )


def register(connection: Connection, file: PredictionFile) -> None:
    """Name `file` in the ledger, in the caller's transaction. Its segment must be there."""
    connection.execute(insert(prediction_files).values(asdict(file)))


def files(store: Store) -> tuple[PredictionFile, ...]:
    """Every file that the ledger names, in the order of its server, segment and numbers."""
    query = select(prediction_files).order_by(
        prediction_files.c.server, prediction_files.c.segment, prediction_files.c.record_number_min
    )
    with store.ledger.read() as connection:
        return tuple(PredictionFile(**row) for row in connection.execute(query).mappings())


def answers(store: Store, predictions: Iterable[str]) -> Found:
    """The collected answers among `predictions`. Only the files that can hold one of them are read.

    A file that is missing or damaged keeps nobody from the others: it is named in the result, with the
    predictions that may be in it.
    """
    places: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for prediction in predictions:
        place = parse_id(prediction)
        if place is not None:
            places[place.server, place.segment][prediction] = place.number
    chosen: list[tuple[PredictionFile, list[str]]] = []
    with store.ledger.read() as connection:
        for (server, segment), numbers in places.items():
            for file in _holding(connection, server, segment, min(numbers.values()), max(numbers.values())):
                sought = [
                    each
                    for each, number in numbers.items()
                    if file.record_number_min <= number <= file.record_number_max
                ]
                if sought:
                    chosen.append((file, sought))
    found: dict[str, Answer] = {}
    damaged = []
    for file, sought in chosen:
        try:
            found |= _read_answers(store, file, sought)
        except IntegrityError as error:
            damaged.append(Damaged(file.path, frozenset(sought), str(error)))
    return Found(found, tuple(damaged))


def _read_answers(store: Store, file: PredictionFile, sought: Sequence[str]) -> dict[str, Answer]:
    wanted = pl.Series("prediction", sought, dtype=pl.String).implode()
    rows = parquet.read(store.root / file.path, _ANSWER_COLUMNS).filter(pl.col("prediction").is_in(wanted))
    return {
        prediction: Answer(
            prediction, file.model, version, arm, rollout, unit, probability, event_time_us, at_us
        )
        for prediction, event_time_us, unit, arm, version, rollout, probability, at_us in rows.select(
            _ANSWER_COLUMNS
        ).iter_rows()
    }


def frontiers(connection: Connection) -> dict[str, Frontier]:
    """How far the log of every server has been collected, by server."""
    furthest = select(log_positions.c.server, func.max(log_positions.c.segment)).group_by(
        log_positions.c.server
    )
    newest = {str(row[0]): int(row[1]) for row in connection.execute(furthest)}
    query = select(
        prediction_files.c.server, prediction_files.c.segment, func.max(prediction_files.c.record_number_max)
    ).group_by(prediction_files.c.server, prediction_files.c.segment)
    numbers = {(server, segment): number for server, segment, number in connection.execute(query)}
    return {
        server: Frontier(segment, numbers.get((server, segment), 0)) for server, segment in newest.items()
    }


def _holding(connection: Connection, server: str, segment: int, low: int, high: int) -> list[PredictionFile]:
    query = select(prediction_files).where(
        prediction_files.c.server == server,
        prediction_files.c.segment.between(segment, segment + _LATER_SEGMENTS),
        prediction_files.c.record_number_min <= high,
        prediction_files.c.record_number_max >= low,
    )
    return [PredictionFile(**row) for row in connection.execute(query).mappings()]
