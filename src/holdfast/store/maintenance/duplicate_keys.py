"""Keys that a feed has more than once: rows that count twice although each batch by itself is valid.

Only the columns of the key are read, and eight bytes of each key are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import Connection, select

from holdfast.errors import IntegrityError
from holdfast.store.db import schema
from holdfast.store.db.statements import not_removed
from holdfast.store.files import parquet

_FILES: Final = schema.files
_ROW_GROUPS: Final = schema.file_row_groups
_READERS: Final = 4


@dataclass(frozen=True, slots=True)
class Repeated:
    """Duplicate keys of a feed.

    `rows` counts the rows after the first of their key, `example` is one of the keys, and `batches` are the ids of the
    batches that have it.
    """

    feed: str
    rows: int
    example: str
    batches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of a feed's rows with its live parts in order: the batch and the rows of each.

    `row_groups` are those of the live parts, None for all.
    """

    path: str
    feed: str
    parts: tuple[tuple[str, int], ...]
    row_groups: tuple[int, ...] | None = None


def live_files(connection: Connection) -> list[KeyFile]:
    """Return every file of valid rows of the current tables, feed by feed."""
    query = (
        select(
            _FILES.c.path,
            _FILES.c.feed,
            _ROW_GROUPS.c.batch,
            _ROW_GROUPS.c.row_group,
            _ROW_GROUPS.c.rows,
            _FILES.c.rows,
        )
        .join(_ROW_GROUPS, _ROW_GROUPS.c.path == _FILES.c.path)
        .where(
            _FILES.c.table_name == _FILES.c.feed,
            not_removed(_FILES, _ROW_GROUPS),
        )
        .order_by(_FILES.c.feed, _FILES.c.added_version, _FILES.c.path, _ROW_GROUPS.c.row_group)
    )
    rows = connection.execute(query)
    return [_key_file([_Part(*row) for row in parts]) for _, parts in groupby(rows, key=lambda row: row[0])]


class _Part(NamedTuple):
    path: str
    feed: str
    batch: str
    row_group: int
    rows: int
    of_file: int


def _key_file(parts: Sequence[_Part]) -> KeyFile:
    all_live = sum(part.rows for part in parts) == parts[0].of_file
    groups = None if all_live else tuple(part.row_group for part in parts)
    return KeyFile(parts[0].path, parts[0].feed, tuple((part.batch, part.rows) for part in parts), groups)


def repeated(root: Path, files: list[KeyFile]) -> list[Repeated]:
    """Find keys that more than one batch has, at most one result per feed and key.

    Unreadable files are skipped: other checks find them.
    """
    by_key: dict[tuple[str, str], list[KeyFile]] = {}
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        for file, key in zip(files, pool.map(lambda file: _key_of(root / file.path), files), strict=True):
            if key:
                by_key.setdefault((file.feed, key), []).append(file)
        found: list[Repeated] = []
        for (feed, key), members in by_key.items():
            columns = key.split("+")
            hashes = pool.map(partial(_hashes, root, columns), members)
            twice = _twice(np.concatenate(list(hashes)))
            if len(twice):
                found += _confirmed(root, feed, columns, members, twice)
    return found


def _key_of(path: Path) -> str:
    try:
        return str(parquet.manifest(path).get("key", ""))
    except IntegrityError:
        return ""


def _keys(root: Path, file: KeyFile, columns: list[str]) -> pl.DataFrame:
    """Return the keys in one file as text, so that two contracts that write a key differently agree."""
    try:
        frame = parquet.read(root / file.path, columns, row_groups=file.row_groups)
    except IntegrityError:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return frame.select(
        pl.col(name).dt.epoch("us").cast(pl.String) if kind.is_temporal() else pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
    )


def _hashes(root: Path, columns: list[str], file: KeyFile) -> npt.NDArray[np.uint64]:
    return _hashed(_keys(root, file, columns)).to_numpy()


def _hashed(keys: pl.DataFrame) -> pl.Series:
    return keys.hash_rows(1)


def _twice(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _confirmed(
    root: Path, feed: str, columns: list[str], files: list[KeyFile], twice: npt.NDArray[np.uint64]
) -> Iterator[Repeated]:
    """Compare the keys whose hashes are equal; two keys may have one hash by chance."""
    suspects = pl.Series(twice).implode()
    candidates = []
    for file in files:
        keys = _keys(root, file, columns)
        if keys.is_empty():
            continue
        owners = np.repeat([batch for batch, _ in file.parts], [rows for _, rows in file.parts])
        suspect = keys.with_columns(pl.Series("_batch", owners, pl.String))
        candidates.append(suspect.filter(_hashed(keys).is_in(suspects)))
    counted = (
        pl.concat(candidates)
        .group_by(columns, maintain_order=True)
        .agg(_rows=pl.len(), _batches=pl.col("_batch").unique(maintain_order=True))
        .filter(pl.col("_rows") > 1)
    )
    if counted.height:
        first = counted.row(0, named=True)
        example = ", ".join(f"{name} {first[name]!r}" for name in columns)
        yield Repeated(feed, int(counted["_rows"].sum()) - counted.height, example, tuple(first["_batches"]))
