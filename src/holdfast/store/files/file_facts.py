"""Rows of `files`: which immutable Parquet files a table version or a snapshot consists of. `data_files.py` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, bindparam, insert, null, select

from holdfast.errors import IntegrityError, NotFoundError
from holdfast.store.db import schema
from holdfast.store.db.statements import at_version, load_columns, of_load, pieces, same_load
from holdfast.tables.snapshots import LoadKey

ROWS_DIRECTORY: Final = "rows"
"""Where the files of all tables lie, under the store's root. Their names are random: what they are is in the
ledger.
"""

_FILES: Final = schema.files
_PARTS_TABLE: Final = schema.file_row_groups
_VACUUMED: Final = schema.vacuumed_snapshots


_COLUMNS: Final = (
    _FILES.c.path,
    _FILES.c.table_name,
    _FILES.c.rows,
    _FILES.c.bytes,
    _FILES.c.sha256,
    null(),
    _FILES.c.event_time_min_us,
    _FILES.c.event_time_max_us,
)
"""The columns in the order of the fields of `FileFacts`."""
# Built once: putting a statement together costs more than running it.
_ENTRIES: Final = (
    select(*_COLUMNS)
    .where(_FILES.c.table_name == bindparam("of_table"), at_version(_FILES, bindparam("at_version")))
    .order_by(_FILES.c.event_time_min_us, _FILES.c.added_version, _FILES.c.path)
)
_ENTRIES_SINCE: Final = _ENTRIES.where(_FILES.c.event_time_max_us >= bindparam("lookback_start_us"))
# Of all tables: few parts are ever removed, and a join with the files would not use their index.
_GONE: Final = select(_PARTS_TABLE.c.path, _PARTS_TABLE.c.row_group).where(
    _PARTS_TABLE.c.removed_version <= bindparam("at_version")
)
_OF_LOAD: Final = select(_PARTS_TABLE.c.path, _PARTS_TABLE.c.row_group).where(
    of_load(_PARTS_TABLE, (bindparam("of_feed"), bindparam("of_batch"), bindparam("of_epoch")))
)
_PARTS: Final = (
    select(_PARTS_TABLE.c.row_group, _PARTS_TABLE.c.rows)
    .where(_PARTS_TABLE.c.path == bindparam("of_path"))
    .order_by(_PARTS_TABLE.c.row_group)
)


_LOADS_OF_FILES: Final = (
    select(
        _PARTS_TABLE.c.path,
        _PARTS_TABLE.c.row_group,
        _PARTS_TABLE.c.rows,
        _PARTS_TABLE.c.batch,
        schema.batches.c.source,
    )
    .join(schema.batches, same_load(schema.batches, _PARTS_TABLE))
    .order_by(_PARTS_TABLE.c.path, _PARTS_TABLE.c.row_group)
)


@dataclass(frozen=True, slots=True)
class RowsOfLoad:
    """Adjacent rows of one load in a file: how many, the batch's id, and what it was read from."""

    rows: int
    batch: str
    source: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file as the ledger knows it. `path` is relative to the store's root; `bytes` and `sha256` are of the file.

    `row_groups` are those to read, None for all; `rows` is their number of rows. `event_time_min_us` and
    `event_time_max_us` bound the event times in the file, None if unknown.
    """

    path: str
    table: str
    rows: int
    bytes: int
    sha256: str
    row_groups: tuple[int, ...] | None = None
    event_time_min_us: int | None = None
    event_time_max_us: int | None = None


def entries(
    connection: Connection,
    table: str,
    version: int,
    *,
    lookback_start_us: int | None = None,
    excluded: Sequence[LoadKey] = (),
) -> list[FileFacts]:
    """Return the files of `table` at table version `version` in order of event time.

    Each names the row groups of its current loads.

    Parameters
    ----------
    lookback_start_us
        Only files whose newest event time is at or after it, microseconds UTC: reading the last hours of a feed then costs what
        those hours hold, not what its history holds.
    excluded
        Loads to leave out, such as the incomplete loads of a snapshot.
    """
    query = _ENTRIES if lookback_start_us is None else _ENTRIES_SINCE
    values = {"of_table": table, "at_version": version, "lookback_start_us": lookback_start_us}
    found = [FileFacts(*row) for row in connection.execute(query, values)]
    gone = {tuple(row) for row in connection.execute(_GONE, {"at_version": version})}
    for feed, batch, epoch in excluded:
        load = {"of_feed": feed, "of_batch": batch, "of_epoch": epoch}
        gone.update(tuple(row) for row in connection.execute(_OF_LOAD, load))
    return found if not gone else _without(connection, found, gone)


def _without(
    connection: Connection, found: Sequence[FileFacts], gone: set[tuple[str, int]]
) -> list[FileFacts]:
    """Return `found` without the parts in `gone`, each a path and the first row group of its load."""
    paths = {path for path, _ in gone}
    kept: list[FileFacts] = []
    for fact in found:
        if fact.path not in paths:
            kept.append(fact)
            continue
        parts = connection.execute(_PARTS, {"of_path": fact.path}).all()
        there = [(group, rows) for group, rows in parts if (fact.path, group) not in gone]
        if len(there) == len(parts):
            kept.append(fact)
        elif there:
            groups = tuple(group for group, _ in there)
            kept.append(replace(fact, rows=sum(rows for _, rows in there), row_groups=groups))
    return kept


def entries_of_loads(
    connection: Connection, table: str, version: int, loads: Iterable[LoadKey]
) -> list[FileFacts]:
    """Return the files of `table` at table version `version` with rows of `loads`, each with their row groups alone."""
    held: dict[str, list[tuple[int, int]]] = {}
    for load in loads:
        query = (
            select(_PARTS_TABLE.c.path, _PARTS_TABLE.c.row_group, _PARTS_TABLE.c.rows)
            .join(_FILES, _FILES.c.path == _PARTS_TABLE.c.path)
            .where(
                of_load(_PARTS_TABLE, load),
                _FILES.c.table_name == table,
                at_version(_FILES, version),
                at_version(_PARTS_TABLE, version),
            )
        )
        for path, row_group, rows in connection.execute(query):
            held.setdefault(path, []).append((row_group, rows))
    return [
        fact
        if sum(rows for _, rows in held[fact.path]) == fact.rows
        else replace(
            fact,
            rows=sum(rows for _, rows in held[fact.path]),
            row_groups=tuple(sorted(group for group, _ in held[fact.path])),
        )
        for fact in at_paths(connection, sorted(held))
    ]


def at_paths(connection: Connection, paths: Sequence[str]) -> list[FileFacts]:
    """Return the files at `paths`, in that order, without those that the ledger does not name."""
    found = {
        row.path: FileFacts(*row)
        for some in pieces(paths)
        for row in connection.execute(select(*_COLUMNS).where(_FILES.c.path.in_(some)))
    }
    return [found[path] for path in paths if path in found]


def loads_of_rows(connection: Connection, found: Sequence[FileFacts]) -> dict[str, list[RowsOfLoad]]:
    """Return by path the loads of the rows that are read of each of `found`, in the order of the rows."""
    read = {fact.path: fact.row_groups for fact in found}
    loads: dict[str, list[RowsOfLoad]] = {path: [] for path in read}
    for some in pieces(list(read)):
        query = _LOADS_OF_FILES.where(_PARTS_TABLE.c.path.in_(some))
        for path, row_group, rows, batch, source in connection.execute(query):
            groups = read[path]
            if groups is None or row_group in groups:
                loads[path].append(RowsOfLoad(rows, batch, source))
    return loads


def unknown_snapshot(snapshot: str) -> NotFoundError:
    """Return the error for a name that no snapshot has: HF303."""
    return NotFoundError("HF303", f"there is no snapshot {snapshot!r}", next_command="holdfast snapshot list")


def snapshot_entries(connection: Connection, snapshot: str, table: str) -> list[FileFacts]:
    """Return the files of `table` in `snapshot`, without its incomplete loads; as `entries`.

    Raises
    ------
    NotFoundError
        HF303 for an unknown snapshot or a table that it does not have, HF315 for one that a vacuum removed rows of.
    IntegrityError
        HF301 if the ledger does not find all rows of the snapshot: never fewer rows.
    """
    snapshots, tables = schema.snapshots, schema.snapshot_tables
    known = select(snapshots.c.table_version).where(snapshots.c.snapshot == snapshot)
    version = connection.execute(known).scalar_one_or_none()
    if version is None:
        raise unknown_snapshot(snapshot)
    raise_if_vacuumed(connection, snapshot)
    query = select(tables.c.rows).where(tables.c.snapshot == snapshot, tables.c.table_name == table)
    rows = connection.execute(query).scalar_one_or_none()
    if rows is None:
        raise NotFoundError(
            "HF303", f"snapshot {snapshot} has no table {table!r}", next_command="holdfast train"
        )
    found = entries(connection, table, version, excluded=incomplete_loads(connection, snapshot))
    there = sum(fact.rows for fact in found)
    if there != rows:
        raise IntegrityError(
            "HF301",
            f"table {table} has {there} rows in snapshot {snapshot}, which has {rows}",
            state="nothing was read",
            next_command="holdfast verify",
        )
    return found


def incomplete_loads(connection: Connection, snapshot: str) -> list[LoadKey]:
    """Return the incomplete loads that `snapshot` leaves out."""
    held = schema.snapshot_incomplete_loads
    query = select(*load_columns(held)).where(held.c.snapshot == snapshot)
    return [(feed, batch, epoch) for feed, batch, epoch in connection.execute(query)]


def mark_vacuumed(connection: Connection, snapshots: Sequence[str], *, now_us: int) -> None:
    """Note in the caller's transaction that `snapshots` can no longer be read."""
    if snapshots:
        connection.execute(
            insert(_VACUUMED), [{"snapshot": snapshot, "vacuumed_at_us": now_us} for snapshot in snapshots]
        )


def vacuumed_snapshots(connection: Connection) -> frozenset[str]:
    """Return every snapshot that can no longer be read."""
    return frozenset(connection.execute(select(_VACUUMED.c.snapshot)).scalars())


def raise_if_vacuumed(connection: Connection, snapshot: str) -> None:
    """Raise `NotFoundError` HF315 if a vacuum removed rows of `snapshot`."""
    query = select(_VACUUMED.c.vacuumed_at_us).where(_VACUUMED.c.snapshot == snapshot)
    at_us = connection.execute(query).scalar_one_or_none()
    if at_us is not None:
        removed_at = datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        raise NotFoundError(
            "HF315",
            f"rows of snapshot {snapshot} were removed at {removed_at}, so it can no longer be read",
            state="nothing was read; holdfast lineage still shows what was in it",
            next_command="holdfast snapshot create, or holdfast train",
        )
