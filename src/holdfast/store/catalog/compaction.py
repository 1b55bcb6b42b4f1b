"""Merge small files into one, with a row group for the rows of each load, and publish it in one transaction.

Older table versions keep reading the old files; from the new version on the table is the new file. The load of a row is
never lost: the ledger and the new file's footer name the load of every row group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, TypeAlias

import polars as pl
from sqlalchemy import Connection, bindparam, func, select, tuple_, update

from holdfast.formatting import counted
from holdfast.store.catalog import batches, online_features
from holdfast.store.db import events, schema
from holdfast.store.db.statements import PUBLISHED, not_removed, pieces, same_load, total
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files import data_files, parquet, staging
from holdfast.store.files.data_files import FileFacts
from holdfast.store.files.parquet import concat
from holdfast.store.files.staging import Stage
from holdfast.tables.compaction import TableFile
from holdfast.tables.snapshots import LoadKey

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups
_OF_LEDGER: Final = frozenset({"parts", "row_group", "rows", "rows_in_footer", "format", "table"})


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one load that are read now: where they begin in which file, and how many they are."""

    path: str
    row_group: int
    load: LoadKey
    rows: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """A new file, and the parts that were copied into it, each as the row group of its place in `parts`."""

    facts: FileFacts
    parts: tuple[Part, ...]


Source: TypeAlias = tuple[FileFacts, list[Part]]
"""A file, and the rows that are read of it now."""


def tables(connection: Connection) -> list[str]:
    """Return every table that has a file now."""
    query = select(_FILES.c.table_name).where(not_removed(_FILES)).distinct()
    return sorted(connection.execute(query).scalars())


def table_files(connection: Connection, table: str) -> list[TableFile]:
    """Return the files of `table` as it is now, in the order in which they are read."""
    query = (
        select(
            _FILES.c.path,
            total(_PARTS.c.rows),
            _FILES.c.event_time_min_us,
            func.min(_BATCHES.c.contract_hash),
            func.max(_BATCHES.c.contract_hash),
        )
        .join(_PARTS, _PARTS.c.path == _FILES.c.path)
        .join(_BATCHES, same_load(_BATCHES, _PARTS))
        .where(_FILES.c.table_name == table, not_removed(_FILES, _PARTS))
        .group_by(_FILES.c.path, _FILES.c.event_time_min_us, _FILES.c.added_version)
        .order_by(_FILES.c.event_time_min_us, _FILES.c.added_version, _FILES.c.path)
    )
    return [
        TableFile(path, rows, low_us, first if first == last else None)
        for path, rows, low_us, first, last in connection.execute(query)
    ]


def sources(connection: Connection, group: Sequence[TableFile]) -> list[Source]:
    """Return the files of `group`, each with the rows that are read of it now."""
    paths = [file.path for file in group]
    parts = _live_parts(connection, paths)
    return [
        (fact, [part for part in parts if part.path == fact.path])
        for fact in data_files.at_paths(connection, paths)
    ]


def write(stage: Stage, table: str, found: Sequence[Source]) -> Compacted:
    """Write the rows of `found` as one file on `stage`; `IntegrityError` HF301 names a file that is damaged."""
    parts = tuple(part for _, mine in found for part in mine)
    frames: list[pl.DataFrame] = []
    footers: list[dict[str, Any]] = []
    for fact, mine in found:
        frames += _frames(stage.root, fact, mine)
        footers += _footers(stage.root, fact, mine)
    manifest = {
        "table": table,
        "feed": parts[0].load[0],
        "key": footers[0].get("key", ""),
        "parts": [
            {**footer, "row_group": place, "rows": frame.height}
            for place, (footer, frame) in enumerate(zip(footers, frames, strict=True))
        ],
    }
    whole = concat(frames, {})
    starts = accumulate((frame.height for frame in frames), initial=0)
    aligned = [whole.slice(start, frame.height) for start, frame in zip(starts, frames, strict=False)]
    low_us = found[0][0].event_time_min_us
    high_us = max(
        (fact.event_time_max_us for fact, _ in found if fact.event_time_max_us is not None), default=None
    )
    described = FileFacts("", table, whole.height, 0, "", None, low_us, high_us)
    fields = parquet.field_metadata(stage.root / fact.path for fact, _ in found)
    return Compacted(stage.put(parquet.encode_parts(aligned, manifest, fields), described), parts)


def _frames(root: Path, fact: FileFacts, parts: Sequence[Part]) -> Iterator[pl.DataFrame]:
    row_groups = None if sum(part.rows for part in parts) == fact.rows else [part.row_group for part in parts]
    frame = parquet.read(root / fact.path, sha256=fact.sha256, row_groups=row_groups)
    if frame.height != sum(part.rows for part in parts):
        raise parquet.damaged(root / fact.path, ValueError(f"it holds {frame.height} rows of those loads"))
    start = 0
    for part in parts:
        yield frame.slice(start, part.rows)
        start += part.rows


def _footers(root: Path, fact: FileFacts, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    """Yield the footer entry of each of `parts`."""
    footer = parquet.manifest(root / fact.path)
    noted = {entry["row_group"]: entry for entry in footer.get("parts", ())}
    for part in parts:
        entry = noted.get(part.row_group, footer)
        yield {name: value for name, value in entry.items() if name not in _OF_LEDGER}


def _live_parts(connection: Connection, paths: Sequence[str]) -> list[Part]:
    query = (
        select(_PARTS)
        .join(_FILES, _FILES.c.path == _PARTS.c.path)
        .where(not_removed(_FILES, _PARTS))
        .order_by(_PARTS.c.path, _PARTS.c.row_group)
    )
    found: list[Part] = []
    for some in pieces(paths):
        rows = connection.execute(query.where(_PARTS.c.path.in_(some)))
        found += [Part(row.path, row.row_group, (row.feed, row.batch, row.epoch), row.rows) for row in rows]
    return found


def publish(
    connection: Connection, root: Path, table: str, written: Sequence[Compacted], *, now_us: int
) -> list[Compacted]:
    """Publish the new files in place of those that they were made of, in the caller's transaction.

    Returns the new files that were published.

    A new file is left out if one of its loads was backed out meanwhile, or another process compacted one of its files.
    Loads that are under way meet a new version and are judged again.
    """
    taken = [
        each for each in written if _unchanged(connection, each) and staging.all_exist(root, [each.facts])
    ]
    if not taken:
        return []
    feed = taken[0].parts[0].load[0]
    # The values of an aggregate that hold every row of the feed hold them after a compaction too, which changes no row.
    complete = [
        definition
        for definition, reached in online_features.definitions(connection, feed)
        if not batches.rows_since(connection, feed, reached)
    ]
    version = batches.new_version(connection, f"compact {table}", now_us)
    parts = [(each.facts, [(part.load, part.rows) for part in each.parts]) for each in taken]
    batches.insert_files(connection, parts, version)
    merged = {part.path for each in taken for part in each.parts}
    gone = update(_FILES).where(_FILES.c.path == bindparam("of_path")).values(removed_version=version)
    connection.execute(gone, [{"of_path": path} for path in sorted(merged)])
    online_features.register(connection, complete, version)
    rows = sum(each.facts.rows for each in taken)
    events.append(
        connection,
        at_us=now_us,
        kind="table.compacted",
        subject=table,
        explanation=f"{counted(len(merged), 'file')} with {counted(rows, 'row')} became {len(taken)}; "
        "every row keeps its batch",
    )
    failpoint("compact.before_commit")
    return taken


def _unchanged(connection: Connection, compacted: Compacted) -> bool:
    """Return True if the copied parts are still those that readers see.

    A back-out that comes at the same time waits for this transaction, or this one for it.
    """
    loads = sorted({part.load for part in compacted.parts})
    for some in pieces(loads):
        keys = tuple_(_BATCHES.c.feed, _BATCHES.c.batch, _BATCHES.c.epoch)
        query = select(_BATCHES.c.state).where(keys.in_(some))
        if any(state != PUBLISHED for state in connection.execute(query.with_for_update()).scalars()):
            return False
    now = _live_parts(connection, sorted({part.path for part in compacted.parts}))
    return set(now) == set(compacted.parts)
