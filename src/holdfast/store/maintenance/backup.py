"""Backups: ledger and files of one time, in a directory of their own, taken while loaders run.

    objects/<2 digits>/<SHA-256>     every file and every dump of the ledger, once, by its content
    backups/<timestamp>.json         one backup: which file of the store has which content

The ledger is read first, in one transaction, as lines of JSON that any database can load. Named files are immutable and
vanish only by a vacuum; then the ledger is read again. A ledger has a row for each label, so it is never held in memory as a
whole: it is read, written and loaded some thousand lines at a time.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Double, Table, func, insert, select

from holdfast import records
from holdfast.errors import InputError, IntegrityError
from holdfast.store.backout import tombstones
from holdfast.store.catalog import snapshots
from holdfast.store.db import schema
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
_BYTES_AT_ONCE: Final = 1 << 18
_ENCODE_LINE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ENCODE_LINES: Final = msgspec.json.Encoder().encode_lines
_DECODE_LINES: Final = msgspec.json.Decoder(tuple[Any, ...]).decode_lines


class Entry(NamedTuple):
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


class VanishedError(Exception):
    """A file that the ledger named was vacuumed before it was copied."""


def object_path(directory: Path, sha256: str) -> Path:
    """Return where a backup keeps the file of that digest; backups in one directory share it."""
    return directory / OBJECTS_DIRECTORY / sha256[:2] / sha256


def named_files(connection: Connection, root: Path) -> Iterator[Entry]:
    """Yield every immutable file that the ledger names."""
    for table in (schema.files, schema.prediction_files, schema.shadow_files):
        query = select(table.c.path, table.c.bytes, table.c.sha256).order_by(table.c.path)
        yield from (Entry(*row) for row in connection.execute(query))
    versions = schema.versions
    models = select(versions.c.digest, versions.c.bytes).order_by(versions.c.digest)
    for digest, size in connection.execute(models):
        yield Entry(str(blobs.path_of(root, digest).relative_to(root)), size, digest)


def table_version_and_rows(connection: Connection) -> tuple[int, int]:
    """Return the newest table version, and how many rows all files of tables have."""
    newest = select(func.coalesce(func.max(schema.table_versions.c.table_version), 0))
    rows = select(func.coalesce(func.sum(schema.files.c.rows), 0))
    return int(connection.execute(newest).scalar_one()), int(connection.execute(rows).scalar_one())


def log_files(root: Path) -> list[Path]:
    """Return the logs. Call it before the ledger is read: one that is removed afterwards must be looked for again."""
    found: list[Path] = []
    for directory in log_directory.all_of(root):
        found += [path for _, path in log_directory.segments(directory)]
        kept = (log_directory.NEWEST, log_directory.OWNER, log_directory.IDENTITY)
        found += [path for name in kept if (path := directory / name).is_file()]
    return found


def small_files(root: Path, logs: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of the files that carry their own checksums: contracts, snapshot manifests, tombstones, logs.

    Raises `VanishedError` if one is gone.
    """
    contracts = sorted((root / CONTRACTS_DIRECTORY).glob("*.json"))
    for path in (*contracts, *snapshots.manifests_on_disk(root), *tombstones.on_disk(root), *logs):
        if path.name[0] != ".":
            try:
                yield str(path.relative_to(root)), path.read_bytes()
            except FileNotFoundError as error:
                raise VanishedError from error


def keep(content: Path | bytes, directory: Path, sha256: str) -> bool:
    """Write `content`, or that of the file `content`, unless it is there. Returns whether it was written.

    The name becomes durable by `sync`. Raises `VanishedError` if the file is gone, and `IntegrityError` HF301 if its SHA-256
    is another: a backup of it would hide the damage.
    """
    target = object_path(directory, sha256)
    unfinished = target.with_name(f"{sha256}.{os.getpid()}{fsync.UNFINISHED}")
    try:
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        if target.exists() and target.stat().st_size == size:
            return False
        fsync.make_directory(target.parent)
        if isinstance(content, Path):
            shutil.copyfile(content, unfinished)
        else:
            unfinished.write_bytes(content)
    except FileNotFoundError as error:
        raise VanishedError from error
    fsync.sync(unfinished)
    if sha256_of(unfinished) != sha256:
        unfinished.unlink()
        name = content.name if isinstance(content, Path) else sha256
        raise IntegrityError(
            "HF301",
            f"file {name} was altered: its SHA-256 is not the one that was acknowledged",
            state="no backup was taken; earlier ones are intact",
            next_command="holdfast verify --repair --backup BACKUP",
        )
    unfinished.replace(target)
    return True


def write(directory: Path, backup: Backup) -> None:
    """Write the manifest of `backup`, durably, after the names of its files."""
    for each in (*sorted((directory / OBJECTS_DIRECTORY).iterdir()), directory / OBJECTS_DIRECTORY):
        fsync.sync(each)
    content = {"format": FORMAT, **asdict(backup)}
    del content["name"]
    fsync.replace(directory / BACKUPS_DIRECTORY / f"{backup.name}.json", records.checked_json(content))


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
        if (version := content.pop("format")) > FORMAT:
            raise InputError("HF306", f"backup {chosen} has format {version}; this release reads {FORMAT}")
        files = tuple(Entry(*entry) for entry in content.pop("files"))
        found = Backup(name=chosen, files=files, **content)
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


def dump(connection: Connection, *, without: Collection[Table] = ()) -> Iterator[bytes]:
    """Yield every row of the ledger as one line of JSON, table after table, in order of the primary key.

    Each piece has some thousand whole lines. Rows of the tables `without` are left out.
    """
    for table in schema.METADATA.sorted_tables:
        if table not in without:
            query = select(table).order_by(*table.primary_key.columns)
            found = connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
            real = [at for at, column in enumerate(table.columns, 1) if isinstance(column.type, Double)]
            for rows in found.partitions():
                yield encode_lines([(str(table.name), *row) for row in rows], real)


def encode_lines(rows: Sequence[tuple[Any, ...]], real: Sequence[int]) -> bytes:
    """Return a line for each row, as `json` writes it; `real` are the places that may hold a fraction.

    The digest of a backup covers these bytes. msgspec writes them in a third of the time, except for numbers that have an
    exponent in Python.
    """
    if all(_is_plain(row[at]) for at in real for row in rows):
        return _ENCODE_LINES(rows)
    return "".join(f"{_ENCODE_LINE(row)}\n" for row in rows).encode()


def _is_plain(value: float | None) -> bool:
    return value is None or value == 0 or 1e-4 <= abs(value) < 1e16


def write_dump(connection: Connection, path: Path) -> tuple[str, int]:
    """Write what `dump` yields to the file `path`. Returns its SHA-256 and the number of rows."""
    digest, count = sha256(), 0
    with path.open("wb") as file:
        for lines in dump(connection):
            digest.update(lines)
            count += lines.count(b"\n")
            file.write(lines)
    return digest.hexdigest(), count


def read_dump(path: Path) -> Iterator[bytes]:
    """Yield what `write_dump` wrote, some thousand whole lines at a time."""
    with path.open("rb") as file:
        while lines := file.readlines(_BYTES_AT_ONCE):
            yield b"".join(lines)


def ledger_digest(connection: Connection) -> str:
    """Return the digest that a backup of the current ledger would have."""
    digest = sha256()
    for lines in dump(connection):
        digest.update(lines)
    return digest.hexdigest()


def fill(connection: Connection, dumped: Iterable[bytes]) -> int:
    """Insert every row of pieces that `dump` yields into the empty ledger. Returns the number of rows."""
    tables = {table.name: table for table in schema.METADATA.sorted_tables}
    if any(connection.execute(select(table).limit(1)).first() for table in tables.values()):
        raise InputError(
            "HF306",
            "the ledger to restore into is not empty",
            state="nothing was written",
            next_command="name an empty database in HOLDFAST_LEDGER",
        )
    count = 0
    for lines in dumped:
        for name, of_table in groupby(_decode_lines(lines), key=itemgetter(0)):
            rows = [row[1:] for row in of_table]
            _insert(connection, tables[name], rows)
            count += len(rows)
    advance_sequences(connection)
    return count


def _decode_lines(lines: bytes) -> list[tuple[Any, ...]]:
    try:
        return _DECODE_LINES(lines)
    except msgspec.DecodeError:  # such as NaN, which `json` writes and reads
        return [tuple(json.loads(line)) for line in lines.splitlines()]


def _insert(connection: Connection, table: Table, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows that have every column of the table; on SQLite past SQLAlchemy, which takes twice the time of SQLite."""
    made = insert(table).compile(dialect=connection.dialect, column_keys=table.columns.keys())
    if made.positiontup == table.columns.keys():
        connection.exec_driver_sql(str(made), rows)
    else:
        names = table.columns.keys()
        connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])


def written_us(connection: Connection, root: Path) -> dict[str, int]:
    """Return when each file of rows was published and each blob registered, microseconds UTC, by path."""
    made, files, versions = schema.table_versions, schema.files, schema.versions
    query = select(files.c.path, made.c.committed_at_us).join(
        made, made.c.table_version == files.c.added_version
    )
    found = {path: int(at_us) for path, at_us in connection.execute(query)}
    for digest, at_us in connection.execute(select(versions.c.digest, versions.c.created_at_us)):
        found[str(blobs.path_of(root, digest).relative_to(root))] = int(at_us)
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
