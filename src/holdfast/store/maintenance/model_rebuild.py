"""Rows of models and predictions of a ledger that is rebuilt."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
from sqlalchemy import Connection, func, insert, select

from holdfast.errors import InputError, IntegrityError
from holdfast.feedback import parse_id
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store
from holdfast.store.db.sqlite_handles import TrackedConnection
from holdfast.store.files import blobs, parquet
from holdfast.store.maintenance.footer_scan import ScannedFile
from holdfast.store.models import versions
from holdfast.store.serving import log_directory
from holdfast.store.serving.log_directory import LOGS_DIRECTORY
from holdfast.store.telemetry.collected_files import PREDICTIONS

if TYPE_CHECKING:
    from holdfast.train.artifact import VersionMetadata

_FILES: Final = schema.prediction_files
_SEGMENTS: Final = schema.log_positions


def must_be_lost(root: Path) -> None:
    """Raise `InputError` HF306 if the SQLite ledger in `root` is intact and has batches.

    A rebuild of it would lose gates, rollouts and traffic.
    """
    path = root / "ledger.db"
    if not path.exists():
        return
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, factory=TrackedConnection)) as connection:
            connection.track()
            intact = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            known = connection.execute("SELECT count(*) FROM batches").fetchone()[0]
    except (sqlite3.Error, IntegrityError):  # it is lost
        return
    if intact and known:
        raise InputError(
            "HF306",
            f"the ledger is not lost: it is intact and has {known} batches",
            state="nothing was changed",
            next_command="holdfast verify --repair; to rebuild all the same, move ledger.db away first",
        )


def must_be_empty(connection: Connection) -> None:
    """Raise `InputError` HF306 if the ledger has any batch: then it is not lost."""
    if connection.execute(select(schema.batches.c.batch).limit(1)).first():
        raise InputError(
            "HF306",
            "the ledger to rebuild into has batches already",
            state="nothing was written",
            next_command="holdfast verify --repair",
        )


def count_contracts(connection: Connection) -> int:
    """Return how many contracts the ledger has."""
    return int(connection.execute(select(func.count()).select_from(schema.contracts)).scalar_one())


def put_version(
    connection: Connection, root: Path, digest: str, metadata: VersionMetadata, *, now_us: int
) -> str:
    """Register the version of a blob again. Returns its name."""
    size = blobs.path_of(root, digest).stat().st_size
    return versions.register(connection, metadata, digest=digest, size_bytes=size, now_us=now_us).version


def named_files(store: Store) -> set[str]:
    """Return every file of predictions that the ledger names."""
    with store.ledger.read() as connection:
        return set(connection.execute(select(_FILES.c.path)).scalars())


def take_predictions(connection: Connection, root: Path, found: Iterable[ScannedFile]) -> int:
    """Insert the files of collected predictions whose logs are gone. Returns their number.

    Those whose logs are there are not inserted: the control loop collects these logs again, with their labels.
    """
    taken = 0
    for each in sorted(found, key=lambda each: each.path):
        if each.predictions is None or each.table != PREDICTIONS.name:
            continue  # shadow copies belong to rollouts, which are in no file
        server, segment = str(each.predictions["server"]), int(each.predictions["segment"])
        if (segment, _log(root, server, segment)) in log_directory.segments(root / LOGS_DIRECTORY / server):
            continue
        frame = parquet.read(root / each.path, ["prediction", "at_us"])
        places = [parse_id(text) for text in frame["prediction"].to_list()]
        numbers = [place.number for place in places if place is not None]
        if not numbers:
            continue
        _put_segment(connection, server, segment, frame)
        times = frame["at_us"].to_numpy()
        connection.execute(
            insert(_FILES).values(
                path=each.path,
                model=str(each.predictions["model"]),
                server=server,
                segment=segment,
                rows=each.rows,
                bytes=each.bytes,
                sha256=each.sha256,
                predicted_at_min_us=int(times.min()),
                predicted_at_max_us=int(times.max()),
                record_number_min=min(numbers),
                record_number_max=max(numbers),
            )
        )
        taken += 1
    return taken


def _put_segment(connection: Connection, server: str, segment: int, frame: pl.DataFrame) -> None:
    here = select(_SEGMENTS.c.segment).filter_by(server=server, segment=segment)
    if connection.execute(here).first() is None:
        counts = {"collected_bytes": 1, "predictions": frame.height, "feedback": 0, "rejected_labels": 0}
        connection.execute(insert(_SEGMENTS).values(server=server, segment=segment, **counts))


def _log(root: Path, server: str, segment: int) -> Path:
    return log_directory.path_of(root / LOGS_DIRECTORY / server, segment)
