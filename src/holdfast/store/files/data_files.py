"""Rows of the immutable Parquet files that the ledger names, at a table version or in a snapshot.

Which files those are is in `file_facts.py`, which needs no Polars; its names stand here too. A file means nothing until a
transaction publishes it: `staging` writes files, `batches` publishes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from holdfast.errors import IntegrityError, NotFoundError
from holdfast.lazy_module import LazyModule
from holdfast.records import BATCH_COLUMN, METADATA_COLUMNS, SOURCE_COLUMN
from holdfast.store.db.ledger import Store
from holdfast.store.files import parquet
from holdfast.store.files.file_facts import (
    ROWS_DIRECTORY,
    FileFacts,
    RowsOfLoad,
    at_paths,
    entries,
    entries_of_loads,
    incomplete_loads,
    loads_of_rows,
    mark_vacuumed,
    raise_if_vacuumed,
    snapshot_entries,
    vacuumed_snapshots,
)
from holdfast.store.files.parquet import concat
from holdfast.tables.snapshots import LoadKey

if TYPE_CHECKING:
    import polars as pl
else:
    pl = LazyModule("polars")

__all__ = [
    "ROWS_DIRECTORY", "Columns", "FileFacts", "RowsOfLoad", "at_paths", "entries", "entries_of_loads", "incomplete_loads",
    "loads_of_rows", "mark_vacuumed", "raise_if_vacuumed", "read", "read_in_parts", "read_rows", "snapshot_entries",
    "vacuumed_snapshots",
]  # fmt: skip

Columns: TypeAlias = "Sequence[str] | Mapping[str, pl.DataType]"
"""Columns to read: their names, or with each name the dtype that it is to have."""


def read(
    root: Path,
    files: Sequence[FileFacts],
    columns: Columns | None = None,
    *,
    at_least: tuple[str, Any] | None = None,
    loads: Mapping[str, Sequence[RowsOfLoad]] = MappingProxyType({}),
) -> pl.DataFrame:
    """Return the rows of `files`, one after the other; each file's SHA-256 and page checksums are verified.

    Parameters
    ----------
    columns
        The columns to read, None for all that any file has. Files of different contracts differ in columns and in
        time zones: what a file lacks is null, and a timestamp is shown in the zone of the requested dtype, or else in
        that of the last file. With dtypes, a column that no file has is null in its dtype.
    at_least
        A column and a value: only rows that have this much in it; files that lack the column give all theirs.
    loads
        The loads of the rows of each file, by path: they give the metadata columns `_batch` and `_source`. Not with
        `at_least`, which leaves rows out.

    `IntegrityError` HF301 names the file that is missing or damaged; `InputError` HF202 names the column of which the
    files hold values that are no common type, because the contract gave its name another meaning.
    """
    names = None if columns is None else list(columns)

    def one(fact: FileFacts) -> pl.DataFrame:
        frame = parquet.read(
            root / fact.path, names, sha256=fact.sha256, at_least=at_least, row_groups=fact.row_groups
        )
        if at_least is None and frame.height != fact.rows:
            raise IntegrityError(
                "HF301", f"file {fact.path} has {frame.height} rows, the ledger has {fact.rows}"
            )
        return _with_load(frame, loads[fact.path]) if fact.path in loads else frame

    with ThreadPoolExecutor(max_workers=4) as pool:
        frames = list(pool.map(one, files))
    if not frames:
        return pl.DataFrame()
    return concat(frames, columns if isinstance(columns, Mapping) else {})


def read_in_parts(
    root: Path, files: Iterable[FileFacts], columns: Mapping[str, pl.DataType], *, rows: int
) -> Iterator[pl.DataFrame]:
    """Yield the rows of `files` in their order as `read` does, at most `rows` at a time.

    Raises `IntegrityError` HF301 and `InputError` HF212 as `read` does, at the file that has the fault.
    """
    for fact in files:
        found = 0
        for frame in parquet.read_in_parts(
            root / fact.path, list(columns), rows=rows, sha256=fact.sha256, row_groups=fact.row_groups
        ):
            found += frame.height
            yield concat([frame], columns)
        if found != fact.rows:
            raise IntegrityError("HF301", f"file {fact.path} has {found} rows, the ledger has {fact.rows}")


def _with_load(frame: pl.DataFrame, loads: Sequence[RowsOfLoad]) -> pl.DataFrame:
    """Return `frame` with those of its columns that are metadata columns filled from the loads of its rows."""
    wanted = [name for name in METADATA_COLUMNS if name in frame.columns]
    repeated = pl.DataFrame(
        {
            BATCH_COLUMN: [each.batch for each in loads],
            SOURCE_COLUMN: [each.source for each in loads],
        },
        schema=dict.fromkeys(METADATA_COLUMNS, pl.String),
    )[np.repeat(np.arange(len(loads)), [each.rows for each in loads])]
    if repeated.height != frame.height:
        raise IntegrityError(
            "HF301", f"the ledger has the loads of {repeated.height} of {frame.height} rows of a file"
        )
    return frame.with_columns(repeated.select(wanted))


def read_rows(
    store: Store,
    at: int | str,
    table: str,
    columns: Columns | None = None,
    *,
    excluded: Sequence[LoadKey] = (),
) -> pl.DataFrame:
    """Return the rows of `table` at a table version (a number), without `excluded` loads, or in a snapshot (its name).

    The files follow each other in order of event time.

    A snapshot gives the same rows in the same order for as long as it can be read. `columns` may name the metadata columns:
    `_batch` is the id of the row's batch, `_source` what that load of it was read from. Raises as `snapshot_entries` and
    `read` do, and `NotFoundError` HF303 if a vacuum removed the rows while they were read.
    """
    with store.ledger.read() as connection:
        found = (
            entries(connection, table, at, excluded=excluded)
            if isinstance(at, int)
            else snapshot_entries(connection, at, table)
        )
        of_load = columns is not None and any(name in METADATA_COLUMNS for name in columns)
        loads = loads_of_rows(connection, found) if of_load else {}
    try:
        return read(store.root, found, columns, loads=loads)
    except IntegrityError as error:
        with store.ledger.read() as connection:
            gone = len(found) - len(at_paths(connection, [each.path for each in found]))
        if not gone:
            raise
        raise NotFoundError(
            "HF315",
            f"a vacuum removed {gone} files of {at if isinstance(at, str) else f'version {at}'} while they were read",
            state="nothing was read",
            next_command="holdfast snapshot list, and next time holdfast vacuum with a longer --keep",
        ) from error
