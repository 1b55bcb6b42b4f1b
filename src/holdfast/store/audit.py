"""What the ledger says must be true of the files, and of itself; `holdfast verify` holds the disk against
it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, or_, select

from holdfast.errors import IntegrityError
from holdfast.feeds import Manifest, quarantine_table
from holdfast.store import parquet, schema
from holdfast.store.files import entries, held_back

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_HELD: Final = schema.file_batches
_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Expected:
    """One file as the ledger knows it; `footer` holds the fields that its manifest must have."""

    path: str
    rows: int
    bytes: int
    sha256: str
    footer: dict[str, str | int]


def expected_files(connection: Connection) -> list[Expected]:
    """Every file that the ledger names: rows of tables, removed ones too (time travel reads them), and
    predictions.
    """
    same_load = (
        (_BATCHES.c.feed == _HELD.c.feed)
        & (_BATCHES.c.batch == _HELD.c.batch)
        & (_BATCHES.c.epoch == _HELD.c.epoch)
    )
    query = (
        select(_FILES, _HELD.c.batch, _HELD.c.epoch, _BATCHES.c.digest, _BATCHES.c.contract_hash)
        .join(_HELD, _HELD.c.path == _FILES.c.path)
        .join(_BATCHES, same_load)
    )
    found = [
        Expected(
            row.path,
            row.rows,
            row.bytes,
            row.sha256,
            Manifest(row.feed, row.batch, row.epoch, row.digest, row.contract_hash).load()
            | {"table": row.table_name, "rows": row.rows},
        )
        for row in connection.execute(query)
    ]
    predictions = schema.prediction_files
    found.extend(
        Expected(
            row.path,
            row.rows,
            row.bytes,
            row.sha256,
            {"model": row.model, "server": row.server, "segment": row.segment, "rows": row.rows},
        )
        for row in connection.execute(select(predictions))
    )
    return found


def troubles(root: Path, expected: Expected) -> list[str]:
    """What is wrong with one file, in words; empty when it is, to the bit, what was acknowledged."""
    path = root / expected.path
    try:
        size = path.stat().st_size
    except OSError:
        return ["is missing"]
    if size != expected.bytes:
        return [f"has {size} bytes, {expected.bytes} were acknowledged"]
    if _sha256(path) != expected.sha256:
        return ["was altered: its SHA-256 is not the one that was acknowledged"]
    try:
        footer = parquet.manifest(path)
    except IntegrityError as error:
        return [error.what]
    wrong = [
        f"its footer says {name} is {footer.get(name)!r}, the ledger says {value!r}"
        for name, value in expected.footer.items()
        if footer.get(name) != value
    ]
    if footer["rows_in_footer"] != expected.rows:
        wrong.append(f"it holds {footer['rows_in_footer']} rows, the ledger says {expected.rows}")
    return wrong


def miscounted_batches(connection: Connection) -> list[tuple[str, str]]:
    """Batches whose files do not add up to their rows: (batch, what is wrong)."""
    by_load = (_HELD.c.feed, _HELD.c.batch, _HELD.c.epoch)
    query = (
        select(*by_load, _FILES.c.table_name, func.sum(_HELD.c.rows))
        .join(_FILES, _FILES.c.path == _HELD.c.path)
        .group_by(*by_load, _FILES.c.table_name)
    )
    held = {tuple(row[:4]): int(row[4]) for row in connection.execute(query)}
    wrong = []
    for row in connection.execute(select(_BATCHES)):
        load = (row.feed, row.batch, row.epoch)
        loaded, quarantined = (
            held.get((*load, table), 0) for table in (row.feed, quarantine_table(row.feed))
        )
        if (loaded, quarantined) != (row.rows_loaded, row.rows_quarantined):
            wrong.append(
                (
                    f"{row.feed}/{row.batch}",
                    (
                        f"its files hold {loaded} + {quarantined} rows (loaded + quarantined), "
                        f"the ledger says {row.rows_loaded} + {row.rows_quarantined}"
                    ),
                )
            )
    return wrong


def changed_snapshots(connection: Connection) -> list[tuple[str, str]]:
    """Snapshots whose tables do not have the files and rows that they had: (snapshot, what is wrong)."""
    snapshots, tables = schema.snapshots, schema.snapshot_tables
    cuts = select(snapshots.c.table_version, tables).join(tables, tables.c.snapshot == snapshots.c.snapshot)
    wrong = []
    for cut in connection.execute(cuts):
        held = held_back(connection, cut.snapshot)
        found = entries(connection, cut.table_name, cut.table_version, held_back=held)
        files, rows = len(found), sum(fact.rows for fact in found)
        if (files, rows) != (cut.files, cut.rows):
            wrong.append(
                (
                    cut.snapshot,
                    (
                        f"table {cut.table_name} has {rows} rows in {files} files; the snapshot was cut with "
                        f"{cut.rows} in {cut.files}"
                    ),
                )
            )
    return wrong


def strange_leases(connection: Connection) -> list[tuple[str, str]]:
    """Leases that no acquire can have written: (lease, what is wrong)."""
    leases = schema.leases
    strange = or_(leases.c.duration_us <= 0, leases.c.epoch < 1)
    return [
        (row.lease, f"epoch {row.epoch} lasts {row.duration_us} microseconds")
        for row in connection.execute(select(leases).where(strange))
    ]


def database_troubles(connection: Connection) -> list[str]:
    """What the database finds wrong with its own pages, indexes and references; PostgreSQL checks these as
    it goes.
    """
    if connection.dialect.name != "sqlite":
        return []
    pages = [str(line) for line in connection.exec_driver_sql("PRAGMA integrity_check").scalars()]
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    found = [] if pages == ["ok"] else pages[:10]
    return found + [
        f"a row of {row[0]} refers to a row of {row[2]} that is not there" for row in dangling[:10]
    ]


def version_blobs(connection: Connection) -> list[tuple[str, str, int]]:
    """Every version with the digest and the size in bytes of its file."""
    versions = schema.versions
    query = select(versions.c.version, versions.c.digest, versions.c.bytes).order_by(versions.c.version)
    return [(row.version, row.digest, row.bytes) for row in connection.execute(query)]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
