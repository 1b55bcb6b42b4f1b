"""Loaded rows that a delivery refers to or whose keys it repeats, and the loads that hold them: rows of `batch_references`.

The ledger knows the span of event times of every file: a delivery whose span meets no other costs one query of an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

import polars as pl
from sqlalchemy import Connection, bindparam, select
from sqlalchemy import insert as insert_into

from holdfast.errors import InputError
from holdfast.records import BatchId
from holdfast.store.db import schema
from holdfast.store.db.statements import LIVE, Prepared, not_removed, pieces, refers_to, same_load
from holdfast.store.files import data_files as files
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.snapshots import LoadKey

_REFERENCES: Final = schema.batch_references
_BATCHES: Final = schema.batches
_PARTS: Final = schema.file_row_groups
_INSERT: Final = insert_into(_REFERENCES)

_FILES: Final = schema.files
_ROW_GROUPS: Final = schema.file_row_groups

_SMALL: Final = 4_096
"""Files with at most so many rows have the hashes of their keys kept in memory, for the next load near them."""
_SEED: Final = 7
_Columns: TypeAlias = tuple[tuple[str, pl.DataType], ...]
_IN_SPAN: Final = select(_FILES.c.path).where(
    _FILES.c.table_name == bindparam("of_feed"),
    _FILES.c.event_time_max_us >= bindparam("low_us"),
    _FILES.c.event_time_min_us <= bindparam("high_us"),
    _FILES.c.added_version > bindparam("since"),
    not_removed(_FILES),
)
_ANY: Final = Prepared(_IN_SPAN.limit(1))
_ALL: Final = Prepared(_IN_SPAN)


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


def insert_references(
    connection: Connection, batch: BatchId, epoch: int, referred: Sequence[Referred]
) -> None:
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


@dataclass(frozen=True, slots=True)
class Span:
    """Event times of a feed, microseconds UTC, both ends included."""

    feed: str
    low_us: int
    high_us: int

    def _values(self, since: int) -> dict[str, str | int]:
        return {"of_feed": self.feed, "low_us": self.low_us, "high_us": self.high_us, "since": since}

    def meets_any(self, connection: Connection, *, since: int = 0) -> bool:
        """Return True if a file of the feed that came after table version `since` has events in the span."""
        return bool(_ANY.rows(connection, self._values(since)))

    def files(self, connection: Connection, version: int, *, since: int = 0) -> list[FileFacts]:
        """Return those files as they are at table version `version`, without what was backed out of them."""
        in_span = {row.path for row in _ALL.rows(connection, self._values(since))}
        if not in_span:
            return []
        found = files.entries(connection, self.feed, version, lookback_start_us=self.low_us)
        return [fact for fact in found if fact.path in in_span]


def known(root: Path, keys: pl.DataFrame, found: Sequence[FileFacts]) -> tuple[pl.Series, list[str]] | None:
    """Return flags of those `keys` that `found` has too, and the paths of the files with any; None if there is none.

    The frame's columns are those of the key and nothing else. Hashes are compared first, then the keys themselves, read with
    their checksums verified: raises `IntegrityError` HF301 as `files.read` does.
    """
    mine = keys.hash_rows(_SEED)
    columns = tuple(keys.schema.items())
    flags, paths = pl.repeat(value=False, n=keys.height, dtype=pl.Boolean(), eager=True), list[str]()
    hashed = [(fact, (_kept if fact.rows <= _SMALL else _hashes)(root, fact, columns)) for fact in found]
    theirs = [(fact, hashes) for fact, hashes in hashed if hashes is not None]
    # All at once first: a delivery mostly brings no key again, and many small files cost more one by one.
    if not theirs or not mine.is_in(pl.concat([hashes for _, hashes in theirs]).implode()).any():
        return None
    for fact, hashes in theirs:
        if not mine.is_in(hashes.implode()).any():
            continue
        there = files.read(root, [fact], dict(columns))
        again = keys.with_row_index("_row").join(there, on=keys.columns, how="semi", nulls_equal=True)["_row"]
        if not again.is_empty():
            flags |= pl.int_range(keys.height, eager=True).is_in(again.implode())
            paths.append(fact.path)
    return (flags, paths) if paths else None


def batches_in(connection: Connection, paths: Sequence[str]) -> list[str]:
    """Return the ids of the live loads whose rows are in the files at `paths`, by name."""
    query = (
        select(_ROW_GROUPS.c.batch).where(_ROW_GROUPS.c.path.in_(paths), not_removed(_ROW_GROUPS)).distinct()
    )
    return sorted(connection.execute(query).scalars())


def _hashes(root: Path, fact: FileFacts, columns: _Columns) -> pl.Series | None:
    try:
        return files.read(root, [fact], dict(columns)).hash_rows(_SEED)
    except InputError:
        return None  # a key of another type, under a contract of before, is another key


_kept: Final = lru_cache(maxsize=4_096)(_hashes)
