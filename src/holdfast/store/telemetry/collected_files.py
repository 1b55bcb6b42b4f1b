"""Merge and expire collected files: the ledger names the new files in the transaction that drops the old ones.

After the commit replaced files are set aside (`replaced_files`), and expired ones deleted. A process that dies in between
leaves files that no row names, which `holdfast verify --repair` removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from holdfast.errors import ConflictError
from holdfast.formatting import counted
from holdfast.store.db import events, schema
from holdfast.store.db.ledger import Transaction
from holdfast.store.db.statements import pieces
from holdfast.store.files import parquet
from holdfast.store.files.staging import Stage
from holdfast.store.telemetry import collected_log
from holdfast.store.telemetry.collected_log import PREDICTIONS, SHADOWS, CollectedFile, FileTable
from holdfast.tables.collected_files import LogFile

KINDS: Final = (PREDICTIONS, SHADOWS)


def all_of(connection: Connection, table: FileTable) -> list[LogFile]:
    """Return every file of one kind."""
    row = table.rows.c
    query = select(row.path, row.model, row.server, row.segment, row.rows).order_by(row.path)
    return [LogFile(*found) for found in connection.execute(query)]


def newest_segments(connection: Connection) -> dict[str, int]:
    """Return the newest segment of each server that was collected from."""
    position = schema.log_positions.c
    query = select(position.server, func.max(position.segment).label("segment")).group_by(position.server)
    return {row.server: row.segment for row in connection.execute(query)}


def record_numbers(
    connection: Connection, table: FileTable, group: Sequence[LogFile]
) -> tuple[int, int] | None:
    """Return the smallest and the largest record number of `group`; None for files that have none, or are all gone."""
    row = table.rows.c
    if "record_number_min" not in row:
        return None
    bounds = select(func.min(row.record_number_min), func.max(row.record_number_max))
    paths = [each.path for each in group]
    found = [connection.execute(bounds.where(row.path.in_(some))).one() for some in pieces(paths)]
    known = [(low, high) for low, high in found if low is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def merge(
    stage: Stage, table: FileTable, group: Sequence[LogFile], numbers: tuple[int, int] | None
) -> CollectedFile:
    """Write the rows of `group`, which are of one segment, as one file on `stage`; in the order in which they were served.

    `numbers` are their `record_numbers`. Raises `IntegrityError` HF301 for a damaged file; its path is in the text.
    """
    frames = [
        parquet.read(stage.root / each.path, list(table.schema)).select(list(table.schema)) for each in group
    ]
    first = group[0]
    merged = parquet.concat(frames, table.schema).sort("at_us", maintain_order=True)
    return collected_log.write(
        stage, table, merged, model=first.model, server=first.server, segment=first.segment, numbers=numbers
    )


def replace(
    connection: Transaction, table: FileTable, group: Sequence[LogFile], merged: CollectedFile
) -> None:
    """Name `merged` in place of `group`, in the caller's transaction.

    Raises `ConflictError` HF304 if one of the group is gone; the transaction must not commit.
    """
    _drop(connection, table, [each.path for each in group])
    values = {name: value for name, value in asdict(merged).items() if name in table.rows.c}
    connection.execute(insert(table.rows).values(values))


def expired(connection: Connection, table: FileTable, before_us: int) -> list[str]:
    """Return the paths of the files whose newest prediction is older than `before_us`, microseconds since 1970 UTC."""
    row = table.rows.c
    query = select(row.path).where(row.predicted_at_max_us < before_us).order_by(row.path)
    return list(connection.scalars(query))


def expire(connection: Transaction, table: FileTable, paths: Sequence[str], *, now_us: int) -> None:
    """Drop the files at `paths` from the ledger, with an event. Raises `ConflictError` HF304 if one is gone."""
    if not paths:
        return
    _drop(connection, table, paths)
    events.append(
        connection,
        at_us=now_us,
        kind="predictions.expired",
        subject="store",
        explanation=f"{counted(len(paths), 'file')} of collected {table.name} removed",
    )


def delete_files(root: Path, paths: Sequence[str]) -> None:
    """Delete files that the ledger names no more."""
    for path in paths:
        (root / path).unlink(missing_ok=True)


def _drop(connection: Transaction, table: FileTable, paths: Sequence[str]) -> None:
    dropped = 0
    for some in pieces(list(paths)):
        dropped += connection.execute(delete(table.rows).where(table.rows.c.path.in_(some))).rowcount
    if dropped != len(paths):
        raise _dropped()


def raise_if_dropped(connection: Connection, table: FileTable, group: Sequence[LogFile]) -> None:
    """Raise `ConflictError` HF304 if the ledger names one of `group` no more."""
    named = 0
    for some in pieces([each.path for each in group]):
        query = select(func.count()).select_from(table.rows).where(table.rows.c.path.in_(some))
        named += connection.execute(query).scalar_one()
    if named != len(group):
        raise _dropped()


def _dropped() -> ConflictError:
    return ConflictError(
        "HF304", "another process compacted or expired collected files", state="nothing was written"
    )
