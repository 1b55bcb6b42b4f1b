"""Export a snapshot as Delta tables over the files of the store, for Spark, DuckDB, Polars and others.

Whole files are not copied: a published table is a directory of hard links to the immutable files and one Delta commit
that names them. Of a file that holds rows of other loads too, the snapshot's rows are written as a file of their own.
The ledger stays the only truth; a published table may be deleted at any time and published again. These functions work on
files, and so take a `Store` or its root.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import Schema
from deltalake.transaction import AddAction, create_table_with_add_actions

from holdfast.errors import InputError, UnavailableError
from holdfast.records import sha256_hex
from holdfast.store.catalog import snapshots
from holdfast.store.db.ledger import Store
from holdfast.store.durability import file_locks, fsync
from holdfast.store.files import data_files, parquet
from holdfast.store.files.data_files import FileFacts

PUBLISHED_DIRECTORY: Final = "published"
"""Where published snapshots lie, under the store's root: `published/<snapshot>/<table>`."""

DRAFT: Final = ".draft"
"""Suffix of a table that is being published; its maker holds its lock."""

CHECKSUM_FILE: Final = "_holdfast.json"
"""The SHA-256 of each file of the table's log. Delta has none, and other readers pass over names that begin so."""


def file_checksums(table: Path) -> dict[str, str]:
    """Return the SHA-256 of the commit of the published `table`, by file."""
    commits = sorted((table / "_delta_log").glob("*.json"))
    return {path.name: sha256_hex(path.read_bytes()) for path in commits}


def publish(store: Store, snapshot: str) -> dict[str, Path]:
    """Publish a Delta table for each table of `snapshot`; return their paths by the table's name.

    Publishing again changes nothing.

    Readers see each table's timestamps in UTC, because Delta knows no other zone; the tests read it back by Polars and by
    DuckDB's own extension. Raises `NotFoundError` HF303 for an unknown snapshot, `IntegrityError` HF301 for a missing file,
    `InputError` HF212 when a column has no type that all its files' values have, and `UnavailableError` HF313 on a file
    system without hard links.
    """
    with store.ledger.read() as connection:
        found = snapshots.get(connection, snapshot)
    made = {}
    for table in found.tables:
        target = store.root / PUBLISHED_DIRECTORY / found.snapshot / table.table
        if not target.is_dir():
            with store.ledger.read() as connection:
                facts = data_files.snapshot_entries(connection, found.snapshot, table.table)
            _publish_table(store.root, target, facts, found.created_at_us)
        made[table.table] = target
    return made


def _publish_table(root: Path, target: Path, facts: list[FileFacts], created_at_us: int) -> None:
    fsync.make_directory(target.parent)
    draft = target.with_name(f"{uuid.uuid4().hex}{DRAFT}")
    lock = file_locks.create_locked(draft, directory=True)
    try:
        placed = [_place(root, draft, fact) for fact in facts]
        create_table_with_add_actions(
            str(draft),
            _schema(draft),
            [_add_action(fact, created_at_us) for fact in placed],
            mode="error",
            partition_by=[],
        )
        # deltalake syncs nothing by itself, and a commit file of length zero would read as an empty table
        # (F1, F2).
        fsync.sync_tree(draft / "_delta_log")
        fsync.replace(draft / CHECKSUM_FILE, json.dumps(file_checksums(draft)).encode())
        _settle(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)
    fsync.sync(target.parent)


def _settle(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError as error:
        # Another process may have published the same table.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _place(root: Path, draft: Path, fact: FileFacts) -> FileFacts:
    """Put `fact` into `draft`, as a hard link or as a file of the rows that the snapshot has; return its facts."""
    target = draft / Path(fact.path).name
    if fact.row_groups is None:
        _link(root / fact.path, target)
        return fact
    frame = parquet.read(root / fact.path, sha256=fact.sha256, row_groups=fact.row_groups)
    data = parquet.encode(frame, {"table": fact.table})
    fsync.replace(target, bytes(data))
    return replace(fact, bytes=data.nbytes)


def _link(source: Path, link: Path) -> None:
    try:
        os.link(source, link)
    except FileNotFoundError as error:
        raise parquet.damaged(source, error) from error
    except OSError as error:
        raise UnavailableError(
            "HF313",
            f"this file system makes no hard links ({error.strerror}), and publishing makes no copies",
            state="nothing was published",
        ) from error


def _add_action(fact: FileFacts, created_at_us: int) -> AddAction:
    return AddAction(
        path=Path(fact.path).name,
        size=fact.bytes,
        partition_values={},
        modification_time=created_at_us // 1000,
        data_change=True,
        stats=json.dumps({"numRecords": fact.rows}),
    )


def _schema(directory: Path) -> Schema:
    """Return the columns of all files together, in the types of Delta."""
    # Converted before they are merged: files of before and after a change of zone have the same timestamps.
    schemas = [
        pa.schema([field.with_type(_delta_type(field.type)) for field in pq.read_schema(path)])
        for path in sorted(directory.glob("*.parquet"))
    ]
    try:
        merged = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise InputError(
            "HF212",
            f"a column has values of several kinds in different files, and a Delta table has one for each: {error}",
            state="this table was not published",
            next_command="give the new column of the contract a name of its own, or back out the batches of the old contract",
        ) from error
    return Schema.from_arrow(merged)


def _delta_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(found) and found.tz is not None:
        return pa.timestamp("us", "UTC")
    if pa.types.is_large_string(found):
        return pa.string()
    if pa.types.is_large_list(found):
        return pa.list_(_delta_type(found.value_type))
    return found
