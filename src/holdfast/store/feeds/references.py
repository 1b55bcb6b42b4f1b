"""Rows of `batch_references`: for whose keys the rows of a load were let in, so that it is known what dangles when these go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select

from holdfast.records import BatchId
from holdfast.store.db import schema
from holdfast.store.db.dialects import pieces
from holdfast.store.db.predicates import LIVE, refers_to, same_load
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.snapshots import LoadKey

_REFERENCES: Final = schema.batch_references
_BATCHES: Final = schema.batches
_PARTS: Final = schema.file_row_groups
_INSERT: Final = insert(_REFERENCES)


@dataclass(frozen=True, slots=True)
class Referred:
    """Values of `column` stood in column `key` of `load`. `lookback_start_us` is how far back in event time was looked,
    microseconds UTC; None for all the rows there were.
    """

    column: str
    key: str
    load: LoadKey
    lookback_start_us: int | None


@dataclass(frozen=True, slots=True, order=True)
class Dependent:
    """A load that is there, of which values of `column` stood in column `to_key` of `to_load`."""

    load: LoadKey
    column: str
    to_load: LoadKey
    to_key: str
    lookback_start_us: int | None


def keep(connection: Connection, batch: BatchId, epoch: int, referred: Sequence[Referred]) -> None:
    """Keep what a load refers to, in the transaction that publishes it."""
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
    """The loads that are there and refer to any of `loads`, in an order of their own."""
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
    """The load and the number of each stretch of rows of `found`, in the order in which `files.read` gives them."""
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
