"""Backups: ledger and files of one time, in a directory of their own, taken while loaders run.

    objects/<2 digits>/<SHA-256>     every file and every dump of the ledger, once, by its content
    backups/<timestamp>.json         one backup: which file of the store has which content

The ledger is read first, in one transaction, as lines of JSON that any database can load. Named files are immutable and
vanish only by a vacuum; then the ledger is read again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, text

from holdfast import records
from holdfast.errors import InputError, IntegrityError, UnavailableError
from holdfast.records import Progress, sha256_hex
from holdfast.store.backout import tombstones
from holdfast.store.catalog import snapshots
from holdfast.store.db import migrate, schema
from holdfast.store.db.ledger import Store
from holdfast.store.durability import fsync
from holdfast.store.feeds.contracts import CONTRACTS_DIRECTORY
from holdfast.store.files import blobs
from holdfast.store.maintenance.derived_checks import sha256_of
from holdfast.store.serving import log_directory

OBJECTS_DIRECTORY: Final = "objects"
"""Directory of the files: `objects/<first two digits>/<SHA-256>`."""

BACKUPS_DIRECTORY: Final = "backups"
FORMAT: Final = 1


_ROWS_AT_ONCE: Final = 2_000
_MOST_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a backup: its path under the store's root, its size and its content."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup. `at_us` is the time that it shows, microseconds UTC; `ledger` is the digest of the ledger's rows."""

    name: str
    at_us: int
    revision: str
    table_version: int
    rows: int
    ledger: str
    ledger_rows: int
    files: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        """Return the size of all its files."""
        return sum(entry.bytes for entry in self.files)


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup that was taken, and how much of it was copied."""

    backup: Backup
    copied_files: int
    copied_bytes: int


class _VanishedError(Exception):
    """A file that the ledger named was vacuumed before it was copied."""


def object_path(directory: Path, sha256: str) -> Path:
    """Return where a backup keeps the file of that digest; backups in one directory share it."""
    return directory / OBJECTS_DIRECTORY / sha256[:2] / sha256


def take(store: Store, directory: Path, *, now_us: int, progress: Progress | None = None) -> Taken:
    """Back the store up into `directory`, durably. Files of earlier backups there are not copied again.

    Parameters
    ----------
    directory
        A directory outside the store; created if it does not exist.
    now_us
        Timestamp of the backup, microseconds since 1970 UTC; its name.
    progress
        Called with (files done, files in all).

    Raises
    ------
    UnavailableError
        HF306 if the directory cannot be written.
    IntegrityError
        HF301 if a file of the store is damaged: a backup of it would hide the damage.
    """
    if directory.resolve().is_relative_to(store.root.resolve()):
        raise InputError(
            "HF306",
            f"{directory} is inside the store",
            state="nothing was written",
            next_command="name another directory",
        )
    try:
        for name in (OBJECTS_DIRECTORY, BACKUPS_DIRECTORY):
            fsync.make_directory(directory / name)
        for _ in range(_MOST_ATTEMPTS):
            try:
                return _take(store, directory, now_us, progress)
            except _VanishedError:
                continue
    except OSError as error:
        raise UnavailableError(
            "HF306",
            f"the backup cannot be written into {directory}: {error.strerror}",
            state="earlier backups there are intact; files of this one are kept and used next time",
            next_command="the same command again, with room for it",
        ) from error
    raise UnavailableError(
        "HF306",
        f"files were removed {_MOST_ATTEMPTS} times while they were copied",
        next_command="the same command again",
    )


def _take(store: Store, directory: Path, now_us: int, progress: Progress | None) -> Taken:
    tails = _log_tails(store)
    with store.ledger.read() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        dump = b"".join(_dump(connection))
        named = list(_named(store, connection))
        revision = migrate.revision(connection) or ""
        version = max(connection.execute(select(schema.table_versions.c.table_version)).scalars(), default=0)
        rows = sum(connection.execute(select(schema.files.c.rows)).scalars())
    copied: list[Entry] = []
    entries: list[Entry] = []
    for done, (path, size, sha256) in enumerate(named, start=1):
        if _keep(store.root / path, directory, sha256):
            copied.append(Entry(path, size, sha256))
        entries.append(Entry(path, size, sha256))
        if progress is not None:
            progress(done, len(named))
    for path, data in _small_files(store, tails):
        sha256 = sha256_hex(data)
        entry = Entry(path, len(data), sha256)
        if _keep_bytes(data, directory, sha256):
            copied.append(entry)
        entries.append(entry)
    ledger = sha256_hex(dump)
    _keep_bytes(dump, directory, ledger)
    _sync_objects(directory)
    backup = Backup(
        name=f"{now_us:020d}",
        at_us=now_us,
        revision=revision,
        table_version=version,
        rows=rows,
        ledger=ledger,
        ledger_rows=dump.count(b"\n"),
        files=tuple(entries),
    )
    fsync.replace(directory / BACKUPS_DIRECTORY / f"{backup.name}.json", _encoded(backup))
    return Taken(backup, len(copied), sum(entry.bytes for entry in copied))


def _named(store: Store, connection: Connection) -> Iterator[tuple[str, int, str]]:
    """Yield every immutable file that the ledger names: path, size, digest."""
    for table in (schema.files, schema.prediction_files, schema.shadow_files):
        for row in connection.execute(
            select(table.c.path, table.c.bytes, table.c.sha256).order_by(table.c.path)
        ):
            yield row.path, int(row.bytes), row.sha256
    versions = schema.versions
    models = select(versions.c.digest, versions.c.bytes).order_by(versions.c.digest)
    for digest, size in connection.execute(models):
        yield str(blobs.path_of(store.root, digest).relative_to(store.root)), int(size), digest


def _log_tails(store: Store) -> list[Path]:
    """Return the logs that exist before the ledger is read: one that is removed afterwards must be looked for again."""
    found: list[Path] = []
    for directory in log_directory.all_of(store.root):
        found += [path for _, path in log_directory.segments(directory)]
        found += [
            path
            for path in (directory / log_directory.NEWEST, directory / log_directory.OWNER)
            if path.is_file()
        ]
    return found


def _small_files(store: Store, logs: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield the files that carry their own checksums: contracts, snapshot manifests, tombstones and logs."""
    contracts = sorted((store.root / CONTRACTS_DIRECTORY).glob("*.json"))
    for path in (
        *contracts,
        *snapshots.manifests_on_disk(store.root),
        *tombstones.on_disk(store.root),
        *logs,
    ):
        if path.name[0] != ".":
            try:
                yield str(path.relative_to(store.root)), path.read_bytes()
            except FileNotFoundError as error:
                raise _VanishedError from error


def _keep(source: Path, directory: Path, sha256: str) -> bool:
    """Copy `source` unless its content is there. Returns whether it was copied."""
    target = object_path(directory, sha256)
    if target.exists() and target.stat().st_size == _size(source):
        return False
    fsync.make_directory(target.parent)
    unfinished = target.with_name(f"{sha256}.{os.getpid()}{fsync.UNFINISHED}")
    try:
        shutil.copyfile(source, unfinished)
    except FileNotFoundError as error:
        raise _VanishedError from error
    _settle(unfinished, target, sha256, source.name)
    return True


def _keep_bytes(data: bytes, directory: Path, sha256: str) -> bool:
    target = object_path(directory, sha256)
    if target.exists() and target.stat().st_size == len(data):
        return False
    fsync.make_directory(target.parent)
    unfinished = target.with_name(f"{sha256}.{os.getpid()}{fsync.UNFINISHED}")
    unfinished.write_bytes(data)
    _settle(unfinished, target, sha256, sha256)
    return True


def _settle(unfinished: Path, target: Path, sha256: str, name: str) -> None:
    descriptor = os.open(unfinished, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if sha256_of(unfinished) != sha256:
        unfinished.unlink()
        raise IntegrityError(
            "HF301",
            f"file {name} was altered: its SHA-256 is not the one that was acknowledged",
            state="no backup was taken; earlier ones are intact",
            next_command="holdfast verify --repair --backup BACKUP",
        )
    unfinished.replace(target)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise _VanishedError from error


def _sync_objects(directory: Path) -> None:
    for each in sorted((directory / OBJECTS_DIRECTORY).iterdir()):
        fsync.sync_directory(each)
    fsync.sync_directory(directory / OBJECTS_DIRECTORY)


def _encoded(backup: Backup) -> bytes:
    content: dict[str, Any] = {
        "format": FORMAT,
        "at_us": backup.at_us,
        "revision": backup.revision,
        "table_version": backup.table_version,
        "rows": backup.rows,
        "ledger": backup.ledger,
        "ledger_rows": backup.ledger_rows,
        "files": [[entry.path, entry.bytes, entry.sha256] for entry in backup.files],
    }
    return records.checked_json(content)


def names(directory: Path) -> list[str]:
    """Return the backups in `directory`, the oldest first."""
    found = (directory / BACKUPS_DIRECTORY).glob("*.json")
    return sorted(path.stem for path in found if path.name[0] != ".")


def read(directory: Path, name: str | None = None) -> Backup:
    """Load the backup of that name, or the newest.

    Raises `InputError` HF306 if there is none, and `IntegrityError` HF301 if its manifest was altered.
    """
    there = names(directory)
    chosen = name or (there[-1] if there else "")
    path = directory / BACKUPS_DIRECTORY / f"{chosen}.json"
    if chosen not in there:
        raise InputError("HF306", f"{directory} has no backup {chosen}".rstrip(), state="nothing was written")
    try:
        content = records.from_checked_json(path.read_bytes())
        if content["format"] > FORMAT:
            raise InputError(
                "HF306", f"backup {chosen} has format {content['format']}; this release reads {FORMAT}"
            )
        found = Backup(
            chosen,
            content["at_us"],
            content["revision"],
            content["table_version"],
            content["rows"],
            content["ledger"],
            content["ledger_rows"],
            tuple(Entry(*entry) for entry in content["files"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _altered(chosen) from error
    if f"{found.at_us:020d}" != chosen:
        raise _altered(chosen)
    return found


def _altered(name: str) -> IntegrityError:
    return IntegrityError(
        "HF301",
        f"the manifest of backup {name} was altered or cannot be read",
        state="nothing was written",
        next_command="holdfast restore BACKUP --at NAME, with an older one",
    )


def _dump(connection: Connection) -> Iterator[bytes]:
    """Yield every row of the ledger as one line of JSON, table after table, in order of the primary key."""
    for table in schema.METADATA.sorted_tables:
        query = select(table).order_by(*table.primary_key.columns)
        for row in connection.execute(query):
            yield json.dumps([table.name, *row], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def ledger_digest(store: Store) -> str:
    """Return the digest that a backup of the current ledger would have."""
    return sha256_hex(dump(store))


def dump(store: Store) -> bytes:
    """Return every row of the ledger as `fill` reads them."""
    with store.ledger.read() as connection:
        return b"".join(_dump(connection))


def fill(store: Store, dump: bytes) -> int:
    """Insert every row of `dump` into the empty ledger of `store`, in one transaction. Returns the number of rows."""
    tables = {table.name: table for table in schema.METADATA.sorted_tables}
    count = 0
    with store.ledger.write() as connection:
        if any(connection.execute(select(table).limit(1)).first() for table in tables.values()):
            raise InputError(
                "HF306",
                "the ledger to restore into is not empty",
                state="nothing was written",
                next_command="name an empty database in HOLDFAST_LEDGER",
            )
        waiting: dict[str, list[dict[str, Any]]] = {}
        for line in dump.splitlines():
            name, *values = json.loads(line)
            rows = waiting.setdefault(name, [])
            rows.append(dict(zip(tables[name].columns.keys(), values, strict=True)))
            count += 1
            if len(waiting) > 1 or len(rows) >= _ROWS_AT_ONCE:
                done = next(iter(waiting))
                connection.execute(insert(tables[done]), waiting.pop(done))
        for name, rows in waiting.items():
            connection.execute(insert(tables[name]), rows)
        advance_sequences(connection)
    return count


def written_us(store: Store) -> dict[str, int]:
    """Return when each file of rows was published and each blob registered, microseconds UTC, by path."""
    made = schema.table_versions
    query = select(schema.files.c.path, made.c.committed_at_us).join(
        made, made.c.table_version == schema.files.c.added_version
    )
    with store.ledger.read() as connection:
        found = {row.path: int(row.committed_at_us) for row in connection.execute(query)}
        registered = connection.execute(select(schema.versions.c.digest, schema.versions.c.created_at_us))
        for digest, at_us in registered:
            found[str(blobs.path_of(store.root, digest).relative_to(store.root))] = int(at_us)
    return found


def advance_sequences(connection: Connection) -> None:
    """Let PostgreSQL number new rows after those that were inserted with their numbers; SQLite does so itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in schema.METADATA.sorted_tables:
        for column in table.primary_key.columns:
            if column.autoincrement is True:
                newest = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                connection.execute(select(func.setval(sequence, newest, False)))
