"""Export snapshots as Delta tables over the files of the store, for Spark, DuckDB, Polars and others.

Each feed has one exported table, `exported/<feed>`, and each export is the next Delta version of it. Whole files are not
copied: the table's directory has hard links to the immutable files. Of a file that holds rows of other loads too, the
snapshot's rows are written as a file of their own. After a back-out the removed rows are withdrawn: a new Delta version
has the others alone. The ledger stays the only truth; an exported table may be deleted at any time and exported again.
Older releases wrote a table for each snapshot, `published/<snapshot>/<feed>`; these are still checked, repaired and withdrawn
from. These functions work on files, and so take a `Store` or its root.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from holdfast.contract import Contract
from holdfast.errors import IntegrityError, UnavailableError, missing_extra
from holdfast.records import canonical_json, sha256_hex
from holdfast.store.catalog import delta_log, snapshots
from holdfast.store.catalog.delta_columns import column_stats, schema_of
from holdfast.store.catalog.delta_log import DRAFT, LOG_DIRECTORY, AddedFile
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store
from holdfast.store.db.statements import BACKED_OUT, load_columns
from holdfast.store.durability import file_locks, fsync
from holdfast.store.files import data_files, parquet
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.snapshots import LoadKey

_BATCHES: Final = schema.batches

EXPORTED_DIRECTORY: Final = "exported"
"""Where exported tables lie, under the store's root: `exported/<feed>`."""

PUBLISHED_DIRECTORY: Final = "published"
"""Where older releases exported each snapshot: `published/<snapshot>/<feed>`."""


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """An exported table: its directory, and its feed."""

    directory: Path
    feed: str

    @property
    def snapshot(self) -> str | None:
        """Return the snapshot that its newest version has; None if its log names none."""
        if self.directory.parent.name == EXPORTED_DIRECTORY:
            return delta_log.newest_snapshot(self.directory)
        return self.directory.parent.name


def exported_tables(root: Path) -> Iterator[ExportedTable]:
    """Yield every exported table below `root`, also those of older releases."""
    for pattern in (f"{EXPORTED_DIRECTORY}/*", f"{PUBLISHED_DIRECTORY}/*/*"):
        for directory in sorted(root.glob(pattern)):
            if directory.is_dir() and not directory.name.endswith(DRAFT):
                yield ExportedTable(directory, directory.name)


def at(root: Path, path: str) -> ExportedTable:
    """Return the exported table at `path` below `root`."""
    return ExportedTable(root / path, Path(path).name)


def export(store: Store, snapshot: str, *, now_us: int) -> dict[str, Path]:
    """Export each table of `snapshot` as the next Delta version of its feed's table; return their paths by feed.

    Exporting the same snapshot again changes nothing. Rows that were backed out since are not exported; see `exportable`.

    Readers see each table's timestamps in UTC, because Delta knows no other zone; the tests read it back by Polars and by
    DuckDB's own extension. Raises `NotFoundError` HF303 for an unknown snapshot, `IntegrityError` HF301 for a missing file
    or a damaged log, `InputError` HF212 when a column has no type that all its files' values have, HF112 without the extra
    `delta`, and `UnavailableError` HF313 on a file system without hard links.
    """
    with store.ledger.read() as connection:
        found = snapshots.get(connection, snapshot)
    made = {}
    for table in found.tables:
        place = ExportedTable(store.root / EXPORTED_DIRECTORY / table.table, table.table)
        export_to(store, place, found.snapshot, now_us=now_us)
        made[table.table] = place.directory
    return made


def export_to(store: Store, table: ExportedTable, snapshot: str, *, now_us: int) -> None:
    """Make `snapshot` the newest version of `table`, which is created if it is missing. Raises as `export`."""
    if not table.directory.is_dir():
        _create(store, table, snapshot, now_us)
    _update(store, table, snapshot, now_us)
    # A back-out may have come since the files were read, and its withdrawal may have found no table yet.
    withdraw(store, table, now_us=now_us)


def exportable(connection: Connection, snapshot: str, table: str) -> list[FileFacts]:
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


def holding(root: Path, snapshots_: Sequence[str], feeds: Sequence[str]) -> tuple[str, ...]:
    """Return the paths below `root` of the exported tables of `feeds` whose newest version has one of `snapshots_`.

    A table whose log names no snapshot is among them.
    """
    return tuple(
        str(table.directory.relative_to(root))
        for table in exported_tables(root)
        if table.feed in feeds and table.snapshot in (None, *snapshots_)
    )


def withdraw(store: Store, table: ExportedTable, *, now_us: int) -> bool:
    """Withdraw backed-out rows from `table` by a new Delta version; return False if it had none.

    Readers of the newest version have the other rows alone. Idempotent. A table that is missing is left alone.
    """
    return table.directory.is_dir() and _update(store, table, None, now_us)


def _update(store: Store, table: ExportedTable, snapshot: str | None, now_us: int) -> bool:
    """Write the next version of `table` with the rows of `snapshot`, or of the snapshot that it has.

    Returns False if its newest version is that one.
    """
    directory = table.directory
    try:
        lock = file_locks.lock_existing(directory)
    except FileNotFoundError:
        return False  # another process has moved it aside
    try:
        log = delta_log.read(directory)
        name = snapshot or log.snapshot or directory.parent.name
        with store.ledger.read() as connection:
            wanted = {name_in_table(fact): fact for fact in exportable(connection, name, table.feed)}
            contract = _contract(connection, name, table.feed)
        kept = {each for each, rows in log.files.items() if is_exported(each, rows, wanted)}
        missing = [fact for each, fact in wanted.items() if not {each, Path(fact.path).name} & kept]
        removed = sorted(log.files.keys() - kept)
        if not removed and not missing and name == (log.snapshot or name):
            delta_log.complete_checksums(directory, name)
            return False
        exported = name != (log.snapshot or directory.parent.name)
        if exported:
            _require_deltalake()
        placed = [_place(store.root, directory, fact) for fact in missing]
        columns = None
        if exported:  # a withdrawal changes no column
            files = [directory / each for each in {*kept, *(Path(fact.path).name for fact in placed)}]
            columns = schema_of(files, contract).to_json() if files else None
            same = columns is None or json.loads(columns) == json.loads(log.metadata["schemaString"])
            columns = None if same else columns
        added = [_added_file(fact, directory, now_us) for fact in placed]
        try:
            delta_log.commit(
                directory, log, snapshot=name, removed=removed, added=added, schema=columns, now_us=now_us
            )
        except FileExistsError as error:
            raise _overtaken(table) from error
        return True
    finally:
        os.close(lock)


def _overtaken(table: ExportedTable) -> UnavailableError:
    return UnavailableError(
        "HF311",
        f"the exported table {table.directory.parent.name}/{table.feed} was not changed: other writers came first",
        state="the table is as it was",
        next_command="the same command again, or holdfast control",
    )


def name_in_table(fact: FileFacts) -> str:
    """Return the name of a file in an exported table: that of the whole file, or one for some of its row groups."""
    path = Path(fact.path)
    if fact.row_groups is None:
        return path.name
    return f"{path.stem}-{sha256_hex(canonical_json(list(fact.row_groups)))[:12]}{path.suffix}"


def is_exported(name: str, rows: int | None, wanted: Mapping[str, FileFacts]) -> bool:
    """Return True if the file `name` with `rows` in an exported table has rows of `wanted` alone.

    Some rows of a file were once published under the name of the whole file; their count shows it.
    """
    fact = wanted.get(name)
    if fact is not None:
        return rows in (None, fact.rows)
    return any(
        Path(each.path).name == name and each.row_groups is not None and rows == each.rows
        for each in wanted.values()
    )


def _create(store: Store, table: ExportedTable, snapshot: str, now_us: int) -> None:
    """Write version 0 of `table` in a draft, which then takes its name."""
    target = table.directory
    with store.ledger.read() as connection:
        facts = exportable(connection, snapshot, table.feed)
        contract = _contract(connection, snapshot, table.feed)
    _require_deltalake()
    from deltalake import CommitProperties
    from deltalake.transaction import AddAction, create_table_with_add_actions

    fsync.make_directory(target.parent)
    draft = target.with_name(f"{uuid.uuid4().hex}{DRAFT}")
    lock = file_locks.create_locked(draft, directory=True)
    try:
        placed = [_place(store.root, draft, fact) for fact in facts]
        added = [_added_file(fact, draft, now_us) for fact in placed]
        create_table_with_add_actions(
            str(draft),
            schema_of(draft.glob("*.parquet"), contract),
            [
                AddAction(
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
            commit_properties=CommitProperties(custom_metadata=delta_log.commit_info(snapshot)),
        )
        # deltalake syncs nothing by itself, and a commit file of length zero would read as an empty table.
        fsync.sync_tree(draft / LOG_DIRECTORY)
        delta_log.write_checksums(draft, snapshot)
        _settle(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)
    fsync.sync(target.parent)


def _require_deltalake() -> None:
    """Raise HF112 if deltalake is not installed. Only an export needs it, no withdrawal."""
    try:
        import_module("deltalake.transaction")
    except ModuleNotFoundError as error:
        raise missing_extra("delta", "exporting Delta tables", state="nothing was exported") from error


def _settle(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError as error:
        # Another process may have exported the same table.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _place(root: Path, draft: Path, fact: FileFacts) -> FileFacts:
    """Put `fact` into `draft`, as a hard link or as a file of the rows that the snapshot has; return its facts."""
    target = draft / name_in_table(fact)
    if fact.row_groups is None:
        _link(root / fact.path, target)
        return fact
    frame = parquet.read(root / fact.path, sha256=fact.sha256, row_groups=fact.row_groups)
    fields = parquet.field_metadata([root / fact.path])
    data = parquet.encode(frame, {"table": fact.table}, fields)
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
            f"this file system makes no hard links ({error.strerror}), and an export makes no copies",
            state="this table was not exported",
        ) from error


def _added_file(fact: FileFacts, directory: Path, at_us: int) -> AddedFile:
    return AddedFile(
        path=Path(fact.path).name,
        size=fact.bytes,
        modification_time=at_us // 1000,
        stats=json.dumps({"numRecords": fact.rows} | column_stats(directory / Path(fact.path).name)),
    )


def pinned_snapshots(root: Path) -> dict[str, str]:
    """Return the snapshots that exported tables have now, each with the path of one of its tables below `root`."""
    tables = (each for each in exported_tables(root) if each.directory.parent.name == EXPORTED_DIRECTORY)
    found = {each.snapshot: str(each.directory.relative_to(root)) for each in tables}
    return {snapshot: path for snapshot, path in found.items() if snapshot is not None}


def expired_files(root: Path, *, before_us: int) -> tuple[str, ...]:
    """Return the files that left the exported tables before `before_us`, and those that a killed export left behind.

    Older Delta versions that have such a file cannot be read without it, as after a vacuum of Delta. Paths are relative to
    `root`; a table whose log is damaged has none.
    """
    found: list[str] = []
    for table in exported_tables(root):
        with suppress(FileNotFoundError, IntegrityError):
            lock = file_locks.lock_existing(table.directory)  # no file of an export under way is among them
            try:
                log = delta_log.read(table.directory)
                young = {name for name, at_ms in log.removed.items() if at_ms * 1000 > before_us}
                there = {path.name for path in table.directory.glob("*.parquet")}
                found += [
                    str((table.directory / name).relative_to(root))
                    for name in there - log.files.keys() - young
                ]
            finally:
                os.close(lock)
    return tuple(sorted(found))


def remove_expired(root: Path, files: Sequence[str]) -> None:
    """Remove those of `files`, which `expired_files` returned, that no newest version has."""
    for directory in {(root / path).parent for path in files}:
        with suppress(FileNotFoundError, IntegrityError):
            lock = file_locks.lock_existing(directory)
            try:
                there = delta_log.read(directory).files
                for path in (root / each for each in files):
                    if path.parent == directory and path.name not in there:
                        path.unlink(missing_ok=True)
            finally:
                os.close(lock)


def _contract(connection: Connection, snapshot: str, table: str) -> Contract | None:
    """Return the contract of the newest load of `table` in `snapshot`; None if the ledger does not have it."""
    contracts = schema.contracts
    newest = (
        select(contracts.c.contract_json)
        .join(_BATCHES, _BATCHES.c.contract_hash == contracts.c.contract_hash)
        .where(
            _BATCHES.c.feed == table,
            _BATCHES.c.table_version <= snapshots.get(connection, snapshot).table_version,
        )
        .order_by(_BATCHES.c.table_version.desc())
        .limit(1)
    )
    found = connection.execute(newest).scalar()
    return None if found is None else Contract.from_json(found)
