"""Rows of `snapshot_quality`, and the loads of a snapshot that they are made from."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, exists, select

from holdfast.store.catalog import snapshots
from holdfast.store.db import rows, schema
from holdfast.store.db.statements import load_columns, same_load
from holdfast.tables import Snapshot
from holdfast.tables.snapshot_quality import LoadQuality, SnapshotQuality

_BATCHES: Final = schema.batches
_ADMISSIONS: Final = schema.admissions
_VIOLATIONS: Final = schema.violations
_QUALITY: Final = schema.snapshot_quality


def loads_of(connection: Connection, snapshot: Snapshot) -> list[LoadQuality]:
    """Return the loads of `snapshot`, without those that it holds back."""
    held = set(snapshot.incomplete_loads)
    wanted = {load for load, _ in snapshots.loads_of(connection, snapshot)} - held
    query = (
        select(
            *load_columns(_BATCHES),
            _BATCHES.c.rows_received,
            _BATCHES.c.rows_loaded,
            _ADMISSIONS.c.rows_expected,
            exists().where(same_load(_VIOLATIONS, _BATCHES)).label("is_violated"),
        )
        .outerjoin(_ADMISSIONS, same_load(_ADMISSIONS, _BATCHES))
        .where(_BATCHES.c.feed.in_([table.table for table in snapshot.tables]))
        .where(_BATCHES.c.table_version <= snapshot.table_version)
    )
    return [
        LoadQuality(row.rows_received, row.rows_loaded, row.rows_expected, not row.is_violated)
        for row in connection.execute(query)
        if (row.feed, row.batch, row.epoch) in wanted
    ]


def put(connection: Connection, snapshot: str, quality: SnapshotQuality, *, now_us: int) -> None:
    """Keep the quality of `snapshot` in the caller's transaction, in place of an earlier assessment."""
    values = {
        "snapshot": snapshot,
        "score": quality.score,
        "complete": quality.complete,
        "valid": quality.valid,
        "as_expected": quality.as_expected,
        "assessed_at_us": now_us,
    }
    rows.put(connection, _QUALITY, values)


def find(connection: Connection, snapshot: str) -> SnapshotQuality | None:
    """Return the quality of `snapshot` as last assessed; None if it never was."""
    return rows.first(connection, select(_QUALITY).where(_QUALITY.c.snapshot == snapshot), SnapshotQuality)
