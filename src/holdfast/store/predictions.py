"""Rows of prediction_files, and the Parquet files that they name: every answered row, to join and to audit.

A file is written and synced before the transaction that names it. What a killed collector leaves is a file
without a name: `sweep` removes it. While a file has no name its writer holds a kernel lock on it, which ends
with the writer.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import polars as pl
from sqlalchemy import Connection, func, insert, select

from holdfast.feedback import Answer, Frontier, PredictionId, parse_id
from holdfast.store import Store, durable, parquet
from holdfast.store.schema import prediction_files, segments

DIRECTORY: Final = "predictions"
"""Where the files lie, under the store's root."""

SCHEMA: Final = pl.Schema(
    {
        "prediction": pl.String,
        "at_us": pl.Int64,
        "event_us": pl.Int64,
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

_ANSWER_COLUMNS: Final = ("prediction", "event_us", "unit", "arm", "version", "rollout", "probability")


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
    answered_low_us: int
    answered_high_us: int
    number_low: int
    number_high: int


@contextmanager
def written(
    store: Store, frame: pl.DataFrame, *, model: str, server: str, segment: int, numbers: tuple[int, int]
) -> Iterator[PredictionFile]:
    """Write `frame` (in `SCHEMA`, not empty) and sync file and name; register it inside the block."""
    directory = store.root / DIRECTORY
    durable.make_directory(directory)
    manifest: dict[str, str | int] = {"model": model, "server": server, "segment": segment}
    data = parquet.encode(frame, manifest)
    path = directory / f"{uuid.uuid4().hex}.parquet"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        durable.write_all(descriptor, data)
        os.fsync(descriptor)
        durable.sync_directory(directory)
        yield PredictionFile(
            path=str(path.relative_to(store.root)),
            model=model,
            server=server,
            segment=segment,
            rows=frame.height,
            bytes=data.nbytes,
            sha256=hashlib.sha256(data).hexdigest(),
            answered_low_us=int(frame["at_us"].to_numpy().min()),
            answered_high_us=int(frame["at_us"].to_numpy().max()),
            number_low=numbers[0],
            number_high=numbers[1],
        )
    finally:
        os.close(descriptor)


def register(connection: Connection, file: PredictionFile) -> None:
    """Name `file` in the ledger, in the caller's transaction. Its segment must be there."""
    connection.execute(insert(prediction_files).values(asdict(file)))


def files(store: Store) -> tuple[PredictionFile, ...]:
    """Every file that the ledger names, in the order of its server, segment and numbers."""
    query = select(prediction_files).order_by(
        prediction_files.c.server, prediction_files.c.segment, prediction_files.c.number_low
    )
    with store.ledger.read() as connection:
        return tuple(PredictionFile(**row) for row in connection.execute(query).mappings())


def answers(store: Store, predictions: Iterable[str]) -> dict[str, Answer]:
    """The collected answers among `predictions`, by id. Only the files that can hold one of them are read.

    Raises `IntegrityError` HF301 when such a file is missing or damaged.
    """
    places: dict[tuple[str, int], list[int]] = defaultdict(list)
    wanted: list[str] = []
    for prediction in predictions:
        place = parse_id(prediction)
        if place is not None:
            places[place.server, place.segment].append(place.number)
            wanted.append(prediction)
    chosen: dict[str, PredictionFile] = {}
    with store.ledger.read() as connection:
        for (server, segment), numbers in places.items():
            for file in _holding(connection, server, segment, min(numbers), max(numbers)):
                if any(file.number_low <= number <= file.number_high for number in numbers):
                    chosen[file.path] = file
    found: dict[str, Answer] = {}
    sought = pl.Series("prediction", wanted, dtype=pl.String).implode()
    for file in chosen.values():
        rows = parquet.read(store.root / file.path, _ANSWER_COLUMNS).filter(
            pl.col("prediction").is_in(sought)
        )
        for prediction, event_us, unit, arm, version, rollout, probability in rows.select(
            _ANSWER_COLUMNS
        ).iter_rows():
            found[prediction] = Answer(
                prediction, file.model, version, arm, rollout, unit, probability, event_us
            )
    return found


def frontiers(connection: Connection) -> dict[str, Frontier]:
    """How far the log of every server has been collected, by server."""
    furthest = select(segments.c.server, func.max(segments.c.segment)).group_by(segments.c.server)
    newest = {str(row[0]): int(row[1]) for row in connection.execute(furthest)}
    query = select(
        prediction_files.c.server, prediction_files.c.segment, func.max(prediction_files.c.number_high)
    ).group_by(prediction_files.c.server, prediction_files.c.segment)
    numbers = {(server, segment): number for server, segment, number in connection.execute(query)}
    return {
        server: Frontier(segment, numbers.get((server, segment), 0)) for server, segment in newest.items()
    }


def newest_inputs(store: Store, model: str, version: str | None = None) -> str | None:
    """The newest answered row of `model` (by `version`) as it was received, as JSON; None without one."""
    query = (
        select(prediction_files.c.path)
        .where(prediction_files.c.model == model)
        .order_by(prediction_files.c.answered_high_us.desc())
        .limit(1)
    )
    with store.ledger.read() as connection:
        path = connection.execute(query).scalar_one_or_none()
    if path is None:
        return None
    rows = parquet.read(store.root / path, ("inputs", "version"))
    if version is not None:
        rows = rows.filter(pl.col("version") == version)
    return None if rows.is_empty() else str(rows["inputs"][-1])


def sweep(store: Store) -> list[str]:
    """Remove files that no row names and whose writer is dead; the removed paths, relative to the root."""
    directory = store.root / DIRECTORY
    if not directory.is_dir():
        return []
    removed = []
    for path in sorted(directory.glob("*.parquet")):
        relative = str(path.relative_to(store.root))
        if not _named(store, relative) and _ownerless(path) and not _named(store, relative):
            path.unlink(missing_ok=True)
            removed.append(relative)
    return removed


def number_range(ids: Sequence[PredictionId]) -> tuple[int, int]:
    """The smallest and the largest record number among `ids`, of which there is at least one."""
    numbers = [each.number for each in ids]
    return min(numbers), max(numbers)


def _holding(connection: Connection, server: str, segment: int, low: int, high: int) -> list[PredictionFile]:
    query = select(prediction_files).where(
        prediction_files.c.server == server,
        prediction_files.c.segment.between(segment, segment + _LATER_SEGMENTS),
        prediction_files.c.number_low <= high,
        prediction_files.c.number_high >= low,
    )
    return [PredictionFile(**row) for row in connection.execute(query).mappings()]


def _named(store: Store, path: str) -> bool:
    with store.ledger.read() as connection:
        query = select(prediction_files.c.path).where(prediction_files.c.path == path)
        return connection.execute(query).first() is not None


def _ownerless(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
