"""Export a snapshot as Delta tables over the files of the store, for Spark, DuckDB, Polars and others.

Whole files are not copied: a published table is a directory of hard links to the immutable files and one Delta commit
that names them. Of a file that holds rows of other loads too, the snapshot's rows are written as a file of their own.
After a back-out the removed rows are withdrawn: a new Delta version of each published table has the others alone.
The ledger stays the only truth; a published table may be deleted at any time and published again. These functions work on
files, and so take a `Store` or its root.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, select

from holdfast.contract import Contract
from holdfast.errors import InputError, UnavailableError, missing_extra
from holdfast.records import canonical_json, sha256_hex
from holdfast.store.catalog import snapshots
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store
from holdfast.store.db.statements import BACKED_OUT, load_columns
from holdfast.store.durability import file_locks, fsync
from holdfast.store.files import data_files, parquet
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.snapshots import LoadKey

if TYPE_CHECKING:
    from deltalake import Schema

_BATCHES: Final = schema.batches
_MOST_ATTEMPTS: Final = 8
_MOST_ROWS_READ: Final = 100_000
_COMPARED: Final = (int, float, str, datetime)
"""The types of values of which a published table has bounds."""

PUBLISHED_DIRECTORY: Final = "published"
"""Where published snapshots lie, under the store's root: `published/<snapshot>/<table>`."""

DRAFT: Final = ".draft"
"""Suffix of a table that is being published; its maker holds its lock."""

CHECKSUM_FILE: Final = "_holdfast.json"
"""The SHA-256 of each file of the table's log. Delta has none, and other readers pass over names that begin so."""


@dataclass(frozen=True, slots=True)
class AddedFile:
    """A file that a commit adds, with its statistics as JSON."""

    path: str
    size: int
    modification_time: int
    stats: str


def file_checksums(table: Path) -> dict[str, str]:
    """Return the SHA-256 of the commit of the published `table`, by file."""
    commits = sorted((table / "_delta_log").glob("*.json"))
    return {path.name: sha256_hex(path.read_bytes()) for path in commits}


def publish(store: Store, snapshot: str) -> dict[str, Path]:
    """Publish a Delta table for each table of `snapshot`; return their paths by the table's name.

    Publishing again changes nothing. Rows that were backed out since are not published; see `publishable`.

    Readers see each table's timestamps in UTC, because Delta knows no other zone; the tests read it back by Polars and by
    DuckDB's own extension. Raises `NotFoundError` HF303 for an unknown snapshot, `IntegrityError` HF301 for a missing file,
    `InputError` HF212 when a column has no type that all its files' values have, HF112 without the extra `delta`, and
    `UnavailableError` HF313 on a file system without hard links.
    """
    with store.ledger.read() as connection:
        found = snapshots.get(connection, snapshot)
    made = {}
    for table in found.tables:
        target = store.root / PUBLISHED_DIRECTORY / found.snapshot / table.table
        if not target.is_dir():
            with store.ledger.read() as connection:
                facts = publishable(connection, found.snapshot, table.table)
                contract = _contract(connection, table.table, found.table_version)
            _publish_table(store.root, target, facts, contract, found.created_at_us)
            # A back-out may have come since the files were read, and its withdrawal may have found no table yet.
            withdraw(store, found.snapshot, table.table, now_us=found.created_at_us)
        made[table.table] = target
    return made


def publishable(connection: Connection, snapshot: str, table: str) -> list[FileFacts]:
    """Return the files of `table` in `snapshot` without the rows that were backed out since.

    Raises as `data_files.snapshot_entries`.
    """
    version = snapshots.get(connection, snapshot).table_version
    gone = select(*load_columns(_BATCHES)).where(
        _BATCHES.c.feed == table, _BATCHES.c.state == BACKED_OUT, _BATCHES.c.table_version <= version
    )
    removed: list[LoadKey] = [(feed, batch, epoch) for feed, batch, epoch in connection.execute(gone)]
    facts = data_files.snapshot_entries(connection, snapshot, table)
    if not removed:
        return facts
    held = data_files.incomplete_loads(connection, snapshot)
    return data_files.entries(connection, table, version, excluded=[*held, *removed])


def published_of(root: Path, snapshots_: Sequence[str], tables: Sequence[str]) -> tuple[str, ...]:
    """Return `<snapshot>/<table>` of those that are published."""
    found = ((snapshot, table) for snapshot in snapshots_ for table in dict.fromkeys(tables))
    return tuple(
        f"{snapshot}/{table}"
        for snapshot, table in found
        if (root / PUBLISHED_DIRECTORY / snapshot / table).is_dir()
    )


def withdraw(store: Store, snapshot: str, table: str, *, now_us: int) -> bool:
    """Withdraw backed-out rows from the published `table` of `snapshot` by a new Delta version; return False if it had none.

    Readers of the newest version have the other rows alone. Idempotent. A table that is not published is left alone.
    """
    directory = store.root / PUBLISHED_DIRECTORY / snapshot / table
    for _ in range(_MOST_ATTEMPTS):
        if not directory.is_dir():
            return False
        with store.ledger.read() as connection:
            wanted = {name_in_table(fact): fact for fact in publishable(connection, snapshot, table)}
        there = active_files(directory)
        kept = {name for name, rows in there.items() if is_published(name, rows, wanted)}
        missing = [fact for name, fact in wanted.items() if not {name, Path(fact.path).name} & kept]
        if kept == there.keys() and not missing:
            _complete_checksums(directory)
            return False
        added = [_added_file(_place(store.root, directory, fact), directory, now_us) for fact in missing]
        removed = sorted(there.keys() - kept)
        try:
            _commit(directory, removed, added, now_us)
        except FileExistsError:
            continue  # another process committed the same version first
        return True
    raise UnavailableError(
        "HF311",
        f"withdrawal from published/{snapshot}/{table} failed: other writers came first {_MOST_ATTEMPTS} times",
        state="the table is as it was",
        next_command="holdfast control",
    )


def name_in_table(fact: FileFacts) -> str:
    """Return the name of a file in a published table: that of the whole file, or one for some of its row groups."""
    path = Path(fact.path)
    if fact.row_groups is None:
        return path.name
    return f"{path.stem}-{sha256_hex(canonical_json(list(fact.row_groups)))[:12]}{path.suffix}"


def is_published(name: str, rows: int | None, wanted: Mapping[str, FileFacts]) -> bool:
    """Return True if the file `name` with `rows` in a published table has rows of `wanted` alone.

    Some rows of a file were once published under the name of the whole file; their count shows it.
    """
    fact = wanted.get(name)
    if fact is not None:
        return rows in (None, fact.rows)
    return any(
        Path(each.path).name == name and each.row_groups is not None and rows == each.rows
        for each in wanted.values()
    )


def active_files(table: Path) -> dict[str, int | None]:
    """Return the files of the newest Delta version of the published `table`, each with its number of rows if known.

    Raises `IntegrityError` HF301 if its log is damaged.
    """
    found: dict[str, int | None] = {}
    for commit in _commits(table):
        try:
            actions = [json.loads(line) for line in commit.read_text().splitlines()]
            for action in actions:
                if "add" in action:
                    stats = json.loads(action["add"].get("stats") or "{}")
                    found[action["add"]["path"]] = stats.get("numRecords")
                elif "remove" in action:
                    found.pop(action["remove"]["path"], None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise parquet.damaged(commit, error) from error
    return found


def _commits(table: Path) -> list[Path]:
    return sorted((table / "_delta_log").glob("*.json"))


def _commit(table: Path, removed: Sequence[str], added: Sequence[AddedFile], now_us: int) -> None:
    """Write the next Delta version of `table`; raise `FileExistsError` if another process wrote it."""
    at_ms = now_us // 1000
    actions: list[dict[str, object]] = [
        {"commitInfo": {"timestamp": at_ms, "operation": "DELETE", "engineInfo": "holdfast"}}
    ]
    actions += [
        {"remove": {"path": name, "deletionTimestamp": at_ms, "dataChange": True}} for name in removed
    ]
    actions += [
        {
            "add": {
                "path": each.path,
                "size": each.size,
                "partitionValues": {},
                "modificationTime": each.modification_time,
                "dataChange": True,
                "stats": each.stats,
            }
        }
        for each in added
    ]
    log = table / "_delta_log"
    target = log / f"{len(_commits(table)):020}.json"
    data = "".join(f"{json.dumps(action)}\n" for action in actions).encode()
    draft = log / f".{uuid.uuid4().hex}{DRAFT}"
    fsync.replace(draft, data)
    try:
        os.link(draft, target)  # never replaces a version that another process wrote
    finally:
        draft.unlink()
    fsync.sync(log)
    fsync.replace(table / CHECKSUM_FILE, json.dumps(file_checksums(table)).encode())


def _complete_checksums(table: Path) -> None:
    """Add the checksum of the newest commit if its writer was killed before it wrote that."""
    try:
        listed = json.loads((table / CHECKSUM_FILE).read_bytes())
    except (OSError, ValueError):
        return  # that is damage, which `verify` reports
    found = file_checksums(table)
    if listed == {name: found[name] for name in sorted(found)[:-1]}:
        fsync.replace(table / CHECKSUM_FILE, json.dumps(found).encode())


def _publish_table(
    root: Path, target: Path, facts: list[FileFacts], contract: Contract | None, created_at_us: int
) -> None:
    transaction = _delta_writer()
    fsync.make_directory(target.parent)
    draft = target.with_name(f"{uuid.uuid4().hex}{DRAFT}")
    lock = file_locks.create_locked(draft, directory=True)
    try:
        placed = [_place(root, draft, fact) for fact in facts]
        added = [_added_file(fact, draft, created_at_us) for fact in placed]
        transaction.create_table_with_add_actions(
            str(draft),
            _schema(draft, contract),
            [
                transaction.AddAction(
                    path=each.path,
                    size=each.size,
                    partition_values={},
                    modification_time=each.modification_time,
                    data_change=True,
                    stats=each.stats,
                )
                for each in added
            ],
            mode="error",
            partition_by=[],
        )
        # deltalake syncs nothing by itself, and a commit file of length zero would read as an empty table.
        fsync.sync_tree(draft / "_delta_log")
        fsync.replace(draft / CHECKSUM_FILE, json.dumps(file_checksums(draft)).encode())
        _settle(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)
    fsync.sync(target.parent)


def _delta_writer() -> ModuleType:
    """Return `deltalake.transaction`; raise HF112 if it is not installed. Only a new table needs it, no withdrawal."""
    try:
        return import_module("deltalake.transaction")
    except ModuleNotFoundError as error:
        raise missing_extra("delta", "exporting Delta tables", state="nothing was published") from error


def _settle(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError as error:
        # Another process may have published the same table.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _place(root: Path, draft: Path, fact: FileFacts) -> FileFacts:
    """Put `fact` into `draft`, as a hard link or as a file of the rows that the snapshot has; return its facts."""
    target = draft / name_in_table(fact)
    if fact.row_groups is None:
        _link(root / fact.path, target)
        return fact
    frame = parquet.read(root / fact.path, sha256=fact.sha256, row_groups=fact.row_groups)
    data = parquet.encode(frame, {"table": fact.table})
    fsync.replace(target, bytes(data))
    return replace(fact, path=str(Path(fact.path).with_name(target.name)), bytes=data.nbytes, row_groups=None)


def _link(source: Path, link: Path) -> None:
    try:
        os.link(source, link)
    except FileExistsError:
        return  # files are immutable: it is the same one
    except FileNotFoundError as error:
        raise parquet.damaged(source, error) from error
    except OSError as error:
        raise UnavailableError(
            "HF313",
            f"this file system makes no hard links ({error.strerror}), and publishing makes no copies",
            state="nothing was published",
        ) from error


def _added_file(fact: FileFacts, directory: Path, at_us: int) -> AddedFile:
    return AddedFile(
        path=Path(fact.path).name,
        size=fact.bytes,
        modification_time=at_us // 1000,
        stats=json.dumps({"numRecords": fact.rows} | _column_stats(directory / Path(fact.path).name)),
    )


def _column_stats(file: Path) -> dict[str, object]:
    """Return the bounds and the missing values of each column as Delta's statistics, so that readers skip files by them."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    missing: dict[str, int] = {}
    for name, (least, most, nulls) in _bounds(file).items():
        missing[name] = nulls
        if isinstance(least, _COMPARED) and isinstance(most, _COMPARED):
            if any(isinstance(each, float) and not math.isfinite(each) for each in (least, most)):
                continue
            low[name], high[name] = _stat(least, up=False), _stat(most, up=True)
    return {"minValues": low, "maxValues": high, "nullCount": missing}


def _bounds(file: Path) -> dict[str, tuple[Any, Any, int]]:
    """Return the least and greatest value and the missing ones of each plain column, from the footer or from few rows."""
    footer = pq.read_metadata(file)
    found: dict[str, tuple[Any, Any, int]] = {}
    for index in range(footer.num_columns if footer.num_row_groups else 0):
        groups = [footer.row_group(group).column(index) for group in range(footer.num_row_groups)]
        name, stats = groups[0].path_in_schema, [group.statistics for group in groups]
        if any(each is None or not (each.has_min_max and each.has_null_count) for each in stats):
            if footer.num_rows > _MOST_ROWS_READ:
                continue
            column = pl.read_parquet(file, columns=[name.partition(".")[0]]).to_series()
            if not column.dtype.is_nested():
                found[name] = column.min(), column.max(), column.null_count()
        elif "." not in name:
            least, most = min(each.min for each in stats), max(each.max for each in stats)
            found[name] = least, most, sum(each.null_count for each in stats)
    return found


def _stat(bound: Any, *, up: bool) -> Any:
    """Return a bound as Delta writes it: a timestamp has milliseconds."""
    if isinstance(bound, datetime):
        at = bound.astimezone(UTC) if bound.tzinfo is not None else bound
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        at += timedelta(milliseconds=1) if up and at.microsecond != bound.microsecond else timedelta(0)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return bound


def _contract(connection: Connection, table: str, version: int) -> Contract | None:
    """Return the contract of the newest load of `table` at a table version; None if the ledger does not have it."""
    contracts = schema.contracts
    newest = (
        select(contracts.c.contract_json)
        .join(_BATCHES, _BATCHES.c.contract_hash == contracts.c.contract_hash)
        .where(_BATCHES.c.feed == table, _BATCHES.c.table_version <= version)
        .order_by(_BATCHES.c.table_version.desc())
        .limit(1)
    )
    found = connection.execute(newest).scalar()
    return None if found is None else Contract.from_json(found)


def _described(columns: pa.Schema, contract: Contract | None) -> pa.Schema:
    """Return `columns` with the unit and the meaning of each in the metadata of its field."""
    for column in contract.columns if contract is not None else ():
        stated = {name: getattr(column, name, None) for name in ("unit", "semantic")}
        metadata = {name: str(value) for name, value in stated.items() if value is not None}
        index = columns.get_field_index(column.name)
        if metadata and index >= 0:
            columns = columns.set(index, columns.field(index).with_metadata(metadata))
    return columns


def _schema(directory: Path, contract: Contract | None) -> Schema:
    """Return the columns of all files together, in the types of Delta, with their units and meanings."""
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
    from deltalake import Schema

    return Schema.from_arrow(_described(merged, contract))


def _delta_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(found) and found.tz is not None:
        return pa.timestamp("us", "UTC")
    if pa.types.is_large_string(found):
        return pa.string()
    if pa.types.is_large_list(found):
        return pa.list_(_delta_type(found.value_type))
    return found
