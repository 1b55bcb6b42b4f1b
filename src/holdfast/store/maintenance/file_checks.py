"""Checks of files against the ledger, and of the database against itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import SQLAlchemyError

from holdfast.errors import IntegrityError
from holdfast.store.db import schema, sqlite_handles
from holdfast.store.db.statements import same_load
from holdfast.store.files import parquet
from holdfast.store.maintenance.derived_checks import sha256_of
from holdfast.store.telemetry import replaced_files

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_ROW_GROUPS: Final = schema.file_row_groups
_LOAD: Final = ("feed", "batch", "epoch", "digest", "contract_hash")
COUNTED: Final = ("rows_loaded", "rows_quarantined", "event_time_min_us", "event_time_max_us", "source")
"""Columns of `batches` that are in the footers of a load's files too."""

LEDGER_ERRORS: Final = (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError, OverflowError)
"""Errors that reading a damaged ledger may raise."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One file as the ledger knows it; `footer` has the fields of its manifest, `loads` those of each of its parts."""

    path: str
    rows: int
    bytes: int
    sha256: str
    footer: dict[str, Any]
    loads: tuple[dict[str, Any], ...] = ()


def expected_files(connection: Connection) -> list[Expected]:
    """Return every file that the ledger names: rows of tables, removed ones too (time travel reads them), and predictions."""
    query = (
        select(
            _FILES.c.path,
            _FILES.c.table_name,
            _FILES.c.rows,
            _FILES.c.bytes,
            _FILES.c.sha256,
            _ROW_GROUPS.c.row_group,
            _ROW_GROUPS.c.rows.label("of_load"),
            *(_BATCHES.c[name] for name in (*_LOAD, *COUNTED)),
        )
        .join(_ROW_GROUPS, _ROW_GROUPS.c.path == _FILES.c.path)
        .join(_BATCHES, same_load(_BATCHES, _ROW_GROUPS))
        .order_by(_FILES.c.path, _ROW_GROUPS.c.row_group)
    )
    found: list[Expected] = []
    for path, parts in groupby(connection.execute(query), key=lambda row: str(row.path)):
        rows = list(parts)
        first = rows[0]
        footer: dict[str, Any] = {"table": first.table_name, "rows": first.rows}
        loads = tuple(_load_of(row) for row in rows)
        found.append(Expected(path, first.rows, first.bytes, first.sha256, footer, loads))
    collected = (schema.prediction_files, schema.shadow_files)
    found.extend(
        Expected(
            row.path,
            row.rows,
            row.bytes,
            row.sha256,
            {"model": row.model, "server": row.server, "segment": row.segment, "rows": row.rows},
        )
        for table in collected
        for row in connection.execute(select(table))
    )
    return found


def _load_of(row: Row[Any]) -> dict[str, Any]:
    """Return the fields that a footer must have for one load in its file."""
    named = {name: getattr(row, name) for name in (*_LOAD, *COUNTED)}
    return named | {"row_group": row.row_group, "rows": row.of_load}


def check_file_quickly(root: Path, expected: Expected) -> list[str]:
    """Check the name and size of one file; as `check_file`."""
    return _check(root, expected, _check_size)


def check_file(root: Path, expected: Expected) -> list[str]:
    """Return what is wrong with one file; empty if it is exactly what was acknowledged.

    A file of predictions that a compaction replaced since the ledger was read is checked where it is now.
    """
    return _check(root, expected, _check_content)


def _check(root: Path, expected: Expected, look: Callable[[Path, Expected], list[str]]) -> list[str]:
    for path in replaced_files.places_of(root, expected.path):
        with suppress(FileNotFoundError):
            return look(path, expected)
    return ["is missing"]


def _check_size(path: Path, expected: Expected) -> list[str]:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise
    except OSError as error:
        return [f"cannot be looked at: {error.strerror or error}"]
    return [] if size == expected.bytes else [f"has {size} bytes, {expected.bytes} were acknowledged"]


def _check_content(path: Path, expected: Expected) -> list[str]:
    wrong = _check_size(path, expected)
    if wrong:
        return wrong
    if sha256_of(path) != expected.sha256:
        return ["was altered: its SHA-256 is not the one that was acknowledged"]
    try:
        footer = parquet.manifest(path)
    except IntegrityError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        return [error.what]
    wrong = [
        f"{name} is {footer.get(name)!r} in its footer, {value!r} in the ledger"
        for name, value in expected.footer.items()
        if footer.get(name) != value
    ]
    wrong += _wrong_loads(footer, expected.loads)
    if footer["rows_in_footer"] != expected.rows:
        wrong.append(f"it has {footer['rows_in_footer']} rows, {expected.rows} in the ledger")
    return wrong


def _wrong_loads(footer: dict[str, Any], loads: tuple[dict[str, Any], ...]) -> list[str]:
    declared = footer.get("parts", [{**footer, "row_group": 0}])
    wrong = []
    if len(declared) != len(loads) and loads:
        wrong.append(f"its footer names {len(declared)} loads, the ledger {len(loads)}")
    for entry, load in zip(sorted(declared, key=lambda each: int(each["row_group"])), loads, strict=False):
        # Counts are compared only if the footer has them.
        wrong += [
            f"{name} of {load['batch']} is {entry.get(name)!r} in its footer, {value!r} in the ledger"
            for name, value in load.items()
            if entry.get(name) != value and (name in entry or name in _LOAD)
        ]
    return wrong


def has_valid_checksums(connection: Connection) -> bool:
    """Return True if the SQLite file matches its page checksums.

    False if there are none: the ledger is in use, a process was killed, or it is on PostgreSQL. Raises `IntegrityError` HF309
    on a mismatch.
    """
    handle = sqlite_handles.handle_of(connection)
    return handle is not None and sqlite_handles.has_valid_checksums(handle)


def check_database(connection: Connection) -> list[str]:
    """Return the errors of the database in its pages, indexes and references; PostgreSQL checks these itself."""
    if connection.dialect.name != "sqlite":
        return []
    pages = [str(line) for line in connection.exec_driver_sql("PRAGMA integrity_check").scalars()]
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    found = [] if pages == ["ok"] else pages[:10]
    return found + [f"a row of {row[0]} refers to a missing row of {row[2]}" for row in dangling[:10]]


def version_blobs(connection: Connection) -> list[tuple[str, str, int]]:
    """Return every version with the digest and the size in bytes of its file."""
    versions = schema.versions
    query = select(versions.c.version, versions.c.digest, versions.c.bytes).order_by(versions.c.version)
    return [(row.version, row.digest, row.bytes) for row in connection.execute(query)]
