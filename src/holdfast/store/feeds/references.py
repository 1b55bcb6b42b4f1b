"""Rows of `batch_references`: the loads that hold the values which the rows of a load refer to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy import insert as insert_into

from holdfast.records import BatchId
from holdfast.store.db import schema
from holdfast.store.db.predicates import LIVE, refers_to, same_load
from holdfast.store.db.statements import pieces
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.snapshots import LoadKey

_REFERENCES: Final = schema.batch_references
_BATCHES: Final = schema.batches
_PARTS: Final = schema.file_row_groups
_INSERT: Final = insert_into(_REFERENCES)


@dataclass(frozen=True, slots=True)
class Referred:
    """Values of `column` that are in column `key` of `load`.

    `lookback_start_us` is the earliest event time that was looked at, microseconds UTC; None for all rows.
    """

    column: str
    key: str
    load: LoadKey
    lookback_start_us: int | None


@dataclass(frozen=True, slots=True, order=True)
class Dependent:
    """A live load, of which values of `column` are in column `to_key` of `to_load`."""

    load: LoadKey
    column: str
    to_load: LoadKey
    to_key: str
    lookback_start_us: int | None


def insert(connection: Connection, batch: BatchId, epoch: int, referred: Sequence[Referred]) -> None:
    """Insert what load `epoch` of `batch` refers to."""
    if referred:
        named = {"feed": batch.feed, "batch": batch.batch, "epoch": epoch}
        connection.execute(
            _INSERT,
            [
                {
                    **named,
                    "column_name": each.column,
                    "to_feed": each.load[0],
                    "to_key": each.key,
                    "to_batch": each.load[1],
                    "to_epoch": each.load[2],
                    "lookback_start_us": each.lookback_start_us,
                }
                for each in referred
            ],
        )


def dependents(connection: Connection, loads: Iterable[LoadKey]) -> list[Dependent]:
    """Return the live loads that refer to any of `loads`, sorted."""
    found: list[Dependent] = []
    for load in loads:
        query = (
            select(_REFERENCES).join(_BATCHES, same_load(_BATCHES, _REFERENCES)).where(refers_to(load), LIVE)
        )
        found += [
            Dependent(
                (row.feed, row.batch, row.epoch), row.column_name, load, row.to_key, row.lookback_start_us
            )
            for row in connection.execute(query)
        ]
    return sorted(found, key=lambda each: (each.load, each.column, each.to_load, each.to_key))


def whose(connection: Connection, found: Sequence[FileFacts]) -> list[tuple[LoadKey, int]]:
    """Return the load and the number of each run of rows of `found`, in the order of `data_files.read`."""
    parts: dict[str, list[tuple[int, LoadKey, int]]] = {}
    paths = [fact.path for fact in found]
    for some in pieces(paths):
        query = select(_PARTS).where(_PARTS.c.path.in_(some))
        for row in connection.execute(query.order_by(_PARTS.c.path, _PARTS.c.row_group)):
            load = (row.feed, row.batch, row.epoch)
            parts.setdefault(row.path, []).append((row.row_group, load, row.rows))
    return [
        (load, rows)
        for fact in found
        for group, load, rows in parts[fact.path]
        if fact.row_groups is None or group in fact.row_groups
    ]
