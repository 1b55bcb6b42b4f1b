"""What was collected from prediction logs: rows of `log_positions`, `prediction_files` and `shadow_files`, and Parquet files.

The read position of a segment moves only in the transaction that stores what was read, and only from where the reader found
it. A killed collector reads the same records again and nothing counts twice; of two collectors that race, one is refused.

A file is written and synced before the transaction that names it, as every file of the store is (`store/files/staging.py`).
A killed collector leaves an orphan, which means nothing and is deleted later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Insert, Table, Update, func, insert, select, update

from holdfast.errors import ConflictError, IntegrityError
from holdfast.feedback import Frontier, Prediction, parse_id
from holdfast.lazy_module import LazyModule
from holdfast.records import Arm
from holdfast.store.db import schema
from holdfast.store.db.schema import log_positions
from holdfast.store.db.statements import inserting, total
from holdfast.store.files.staging import Stage
from holdfast.store.telemetry import replaced_files

if TYPE_CHECKING:
    import polars as pl
else:
    pl = LazyModule("polars")


@dataclass(frozen=True, slots=True)
class Position:
    """How far one segment has been collected."""

    server: str
    segment: int
    collected_bytes: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything that was collected: prediction requests, labels, and rejected labels."""

    predictions: int
    feedback: int
    rejected_labels: int


def positions(connection: Connection, server: str) -> dict[int, Position]:
    """Return how far each segment of `server` has been collected, by segment; a new one is absent."""
    query = select(log_positions.c.segment, log_positions.c.collected_bytes).where(
        log_positions.c.server == server
    )
    return {segment: Position(server, segment, collected) for segment, collected in connection.execute(query)}


def advance(
    connection: Connection,
    found: Position,
    collected_bytes: int,
    *,
    predictions: int,
    feedback: int,
) -> None:
    """Move the read position of a segment, and add to its counts.

    Parameters
    ----------
    connection
        The caller's transaction.
    found
        The position from which the reader began.
    collected_bytes
        The new position.
    predictions, feedback
        Collected prediction requests and labels.

    Raises
    ------
    ConflictError
        HF304 when another collector has moved it since; the transaction must not commit.
    """
    if found.collected_bytes == 0:
        statement: Insert | Update = (
            inserting(connection, log_positions)
            .on_conflict_do_nothing()
            .values(
                server=found.server,
                segment=found.segment,
                collected_bytes=collected_bytes,
                predictions=predictions,
                feedback=feedback,
                rejected_labels=0,
            )
        )
    else:
        statement = (
            update(log_positions)
            .where(log_positions.c.server == found.server, log_positions.c.segment == found.segment)
            .where(log_positions.c.collected_bytes == found.collected_bytes)
            .values(
                collected_bytes=collected_bytes,
                predictions=log_positions.c.predictions + predictions,
                feedback=log_positions.c.feedback + feedback,
            )
        )
    # Without the option an INSERT on PostgreSQL has no count: SQLAlchemy reads the key that it returns and closes the cursor.
    counted = statement.execution_options(preserve_rowcount=True)
    if connection.execute(counted).rowcount != 1:
        raise ConflictError(
            "HF304",
            f"another collector has moved on from byte {found.collected_bytes} of {found.server}/{found.segment}",
            state="nothing of this part was written; the other collector has it",
        )


def count_rejected(connection: Connection, found: Position, rejected: int) -> None:
    """Add to the count of rejected labels of a segment, in the transaction that moved its read position."""
    if rejected:
        connection.execute(
            update(log_positions)
            .where(log_positions.c.server == found.server, log_positions.c.segment == found.segment)
            .values(rejected_labels=log_positions.c.rejected_labels + rejected)
        )


def delete_collected(collected: Sequence[Path], *, keep_bytes: int) -> list[Path]:
    """Delete completely collected segments, the oldest first, until `keep_bytes` are left; return the deleted ones.

    A server stops logging when its directory is full; what was collected is in the ledger and in Parquet. Pass the
    segments in order, and never the one that a server may still write.
    """
    sizes = {path: path.stat().st_size for path in collected}
    excess = sum(sizes.values()) - keep_bytes
    removed = []
    for path, size in sizes.items():
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        removed.append(path)
        excess -= size
    return removed


def totals(connection: Connection, model: str | None = None) -> Totals:
    """Return what was collected from all servers (of `model`) since the ledger began."""
    rows, servers = log_positions.c, schema.servers
    query = select(total(rows.predictions), total(rows.feedback), total(rows.rejected_labels))
    if model is not None:
        query = query.where(rows.server.in_(select(servers.c.server).where(servers.c.model == model)))
    predictions, feedback, rejected = connection.execute(query).one()
    return Totals(predictions, feedback, rejected)


@dataclass(frozen=True, slots=True)
class FileTable:
    """One kind of collected file."""

    name: str
    """The table's name in the footers of the files."""
    rows: Table
    """The ledger's table that names the files."""
    types: Mapping[str, str]
    """The columns of the files, each with the name of its Polars type."""

    @property
    def schema(self) -> pl.Schema:
        """The columns of the files with their types."""
        return pl.Schema({column: getattr(pl, kind) for column, kind in self.types.items()})


PREDICTIONS: Final = FileTable(
    "predictions",
    schema.prediction_files,
    {
        "prediction": "String",
        "at_us": "Int64",
        "event_time_us": "Int64",
        "unit": "Binary",
        "arm": "String",
        "version": "String",
        "rollout": "Int64",
        "latency_us": "Int64",
        "probability": "Float64",
        "inputs": "String",
        "share_ppm": "Int64",
    },
)
"""One row for each predicted row. `prediction` is the id with its row; `inputs` is the row as received, as JSON.

Files of earlier releases lack `share_ppm`, which is read as null.
"""

SHADOWS: Final = FileTable(
    "shadows",
    schema.shadow_files,
    {
        "prediction": "String",
        "at_us": "Int64",
        "unit": "Binary",
        "rollout": "Int64",
        "version": "String",
        "result": "String",
        "latency_us": "Int64",
        "champion_rerun_us": "Int64",
        "probability": "Float64",
        "champion": "String",
        "champion_result": "String",
        "champion_latency_us": "Int64",
        "champion_probability": "Float64",
    },
)
"""One row for each row of the copied request, with nulls where a side has no prediction."""

_LATER_SEGMENTS: Final = 2
"""A request that ended after its segment was closed is logged in one of the next."""
_PREDICTION_COLUMNS: Final = (
    "prediction", "version", "arm", "rollout", "unit", "probability", "event_time_us", "at_us",
    "inputs", "share_ppm",
)  # fmt: skip
_INPUT_COLUMNS: Final = ("prediction", "version", "inputs")
_PAIR_COLUMNS: Final = ("prediction", "unit", "rollout", "probability", "champion_probability")


@dataclass(frozen=True, slots=True)
class CollectedFile:
    """One file as the ledger names it. `path` is relative to the store's root; only files of predictions have numbers."""

    path: str
    model: str
    server: str
    segment: int
    rows: int
    bytes: int
    sha256: str
    predicted_at_min_us: int
    predicted_at_max_us: int
    record_number_min: int | None = None
    record_number_max: int | None = None


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that cannot be read, the predictions that were sought in it, and why."""

    path: str
    sought: frozenset[str]
    explanation: str


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """One row that shadow and champion both predicted, with both probabilities."""

    prediction: str
    unit: bytes
    rollout: int
    shadow: float
    champion: float


Located = Sequence[tuple[CollectedFile, Sequence[str]]]
"""Files with the prediction ids that may be in them."""


def write(
    stage: Stage,
    table: FileTable,
    frame: pl.DataFrame,
    *,
    model: str,
    server: str,
    segment: int,
    numbers: tuple[int, int] | None = None,
) -> CollectedFile:
    """Write `frame` on `stage`. Sync the stage, and register the file before it ends.

    Parameters
    ----------
    stage
        An open stage.
    table
        The kind of file.
    frame
        Rows in the table's schema; not empty.
    model, server, segment
        The log that the rows are from.
    numbers
        The smallest and the largest record number of the collected part, for files of predictions.
    """
    facts = stage.write(table.name, frame, {"model": model, "server": server, "segment": segment})
    at_us = frame["at_us"].to_numpy()
    low, high = numbers or (None, None)
    return CollectedFile(
        facts.path, model, server, segment, facts.rows, facts.bytes, facts.sha256, int(at_us.min()), int(at_us.max()),
        low, high,
    )  # fmt: skip


def register(connection: Connection, table: FileTable, file: CollectedFile) -> None:
    """Name `file` in the ledger, in the caller's transaction. Its log position must be there."""
    values = {name: value for name, value in asdict(file).items() if name in table.rows.c}
    connection.execute(insert(table.rows).values(values))


def locate(connection: Connection, table: FileTable, predictions: Iterable[str]) -> Located:
    """Return the files that can hold one of `predictions`, each with those that it can hold."""
    places: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for prediction in predictions:
        place = parse_id(prediction)
        if place is not None:
            places[place.server, place.segment][prediction] = place.number
    located: dict[str, tuple[CollectedFile, list[str]]] = {}
    for (server, segment), numbers in places.items():
        query = select(table.rows).where(
            table.rows.c.server == server,
            table.rows.c.segment.between(segment, segment + _LATER_SEGMENTS),
        )
        if "record_number_min" in table.rows.c:
            query = query.where(
                table.rows.c.record_number_min <= max(numbers.values()),
                table.rows.c.record_number_max >= min(numbers.values()),
            )
        for row in connection.execute(query).mappings():
            file = CollectedFile(**row)
            sought = [name for name, number in numbers.items() if _can_hold(file, number)]
            if sought:
                located.setdefault(file.path, (file, []))[1].extend(sought)
    return tuple(located.values())


def read_predictions(root: Path, located: Located) -> tuple[dict[str, Prediction], tuple[Damaged, ...]]:
    """Return the located predictions by id, and the files that cannot be read. Such a file does not stop the others."""
    frames, damaged = _read(root, located, _PREDICTION_COLUMNS)
    found = {
        prediction: Prediction(prediction, file.model, *rest)
        for file, frame in frames
        for prediction, *rest in frame.iter_rows()
    }
    return found, damaged


def count_rows(
    root: Path, located: Located, requests: Collection[str]
) -> tuple[dict[str, int], tuple[Damaged, ...]]:
    """Return the predicted rows of each of `requests`, ids without a row, and the files that cannot be read.

    A request that is in no located file is left out. One file has all rows of a request.
    """
    counts: dict[str, int] = {}
    damaged = []
    wanted = pl.Series("request", sorted(requests), dtype=pl.String).implode()
    request = pl.col("prediction").str.replace(r"/[0-9]+$", "").alias("request")
    for file, sought in located:
        try:
            frame = replaced_files.read(root, file.path, ["prediction"])
        except IntegrityError as error:
            damaged.append(Damaged(file.path, frozenset(sought), str(error)))
        else:
            found = frame.unique().group_by(request).len().filter(pl.col("request").is_in(wanted))
            counts.update(found.iter_rows())
    return counts, tuple(damaged)


def read_inputs(root: Path, located: Located) -> tuple[pl.DataFrame, tuple[Damaged, ...]]:
    """Return the located predictions with their version and inputs, and the files that cannot be read."""
    frames, damaged = _read(root, located, _INPUT_COLUMNS)
    empty = pl.DataFrame(schema={name: pl.String() for name in _INPUT_COLUMNS})
    return pl.concat([empty, *(frame for _, frame in frames)]), damaged


def files_of(connection: Connection, model: str) -> tuple[CollectedFile, ...]:
    """Return every file of predictions of `model`, the oldest first."""
    files = schema.prediction_files
    query = select(files).where(files.c.model == model).order_by(files.c.predicted_at_min_us, files.c.path)
    return tuple(CollectedFile(**row) for row in connection.execute(query).mappings())


def read_file_inputs(root: Path, file: CollectedFile) -> tuple[pl.DataFrame, Damaged | None]:
    """Return the predictions of a file with their version and inputs; without a row if it cannot be read, and why."""
    try:
        return replaced_files.read(root, file.path, _INPUT_COLUMNS).select(_INPUT_COLUMNS), None
    except IntegrityError as error:
        empty = pl.DataFrame(schema={name: pl.String() for name in _INPUT_COLUMNS})
        return empty, Damaged(file.path, frozenset(), str(error))


def read_file(root: Path, file: CollectedFile, columns: Sequence[str]) -> pl.DataFrame | Damaged:
    """Return the named columns of a file; why it cannot be read if it is damaged."""
    try:
        return replaced_files.read(root, file.path, columns).select(columns)
    except IntegrityError as error:
        return Damaged(file.path, frozenset(), str(error))


def read_shadow_pairs(root: Path, located: Located) -> tuple[dict[str, ShadowPair], tuple[Damaged, ...]]:
    """Return the located rows that both sides predicted by id, and the files that cannot be read."""
    frames, damaged = _read(root, located, _PAIR_COLUMNS)
    return {each.prediction: each for _, frame in frames for each in shadow_pairs(frame)}, damaged


def shadow_pairs(frame: pl.DataFrame) -> list[ShadowPair]:
    """Return the rows of `frame` that both sides predicted within a rollout."""
    both = frame.drop_nulls(["rollout", "probability", "champion_probability"])
    return [ShadowPair(*row) for row in both.select(_PAIR_COLUMNS).iter_rows()]


def newest_of_champion(
    connection: Connection, root: Path, model: str, columns: Sequence[str], *, since_us: int = 0
) -> Iterator[pl.DataFrame | Damaged]:
    """Yield from each file of `model`, the newest first, the predictions of champions from `since_us` on.

    A file that cannot be read is yielded as damaged.
    """
    files = schema.prediction_files.c
    query = (
        select(files.path)
        .where(files.model == model, files.predicted_at_max_us >= since_us)
        .order_by(files.predicted_at_max_us.desc(), files.path)
    )
    for path in connection.execute(query).scalars().all():
        try:
            frame = replaced_files.read(root, path, columns)
        except IntegrityError as error:
            yield Damaged(path, frozenset(), str(error))
        else:
            yield frame.filter((pl.col("arm") == Arm.CHAMPION.value) & (pl.col("at_us") >= since_us))


def frontiers(connection: Connection) -> dict[str, Frontier]:
    """Return how far the log of every server has been collected, by server."""
    positions, rows = schema.log_positions, schema.prediction_files
    newest = select(positions.c.server, func.max(positions.c.segment).label("segment"))
    last = newest.group_by(positions.c.server).subquery()
    same = (rows.c.server == last.c.server) & (rows.c.segment == last.c.segment)
    query = select(last.c.server, last.c.segment, func.coalesce(func.max(rows.c.record_number_max), 0))
    found = connection.execute(query.outerjoin(rows, same).group_by(last.c.server, last.c.segment))
    return {server: Frontier(segment, number) for server, segment, number in found}


def _can_hold(file: CollectedFile, number: int) -> bool:
    if file.record_number_min is None or file.record_number_max is None:
        return True
    return file.record_number_min <= number <= file.record_number_max


def _read(
    root: Path, located: Located, columns: tuple[str, ...]
) -> tuple[list[tuple[CollectedFile, pl.DataFrame]], tuple[Damaged, ...]]:
    found, damaged = [], []
    for file, sought in located:
        wanted = pl.Series("prediction", sought, dtype=pl.String).implode()
        try:
            frame = replaced_files.read(root, file.path, columns).filter(pl.col("prediction").is_in(wanted))
        except IntegrityError as error:
            damaged.append(Damaged(file.path, frozenset(sought), str(error)))
        else:
            found.append((file, frame.select(columns)))
    return found, tuple(damaged)
