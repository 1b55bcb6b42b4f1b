"""The single repairs of `holdfast verify --repair`.

Each changes one thing, and only where the store itself proves the correct value.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, func, or_, select, update

from holdfast.contract import Contract
from holdfast.errors import HoldfastError
from holdfast.records import sha256_hex
from holdfast.store.backout import tombstones
from holdfast.store.catalog import snapshots
from holdfast.store.catalog.delta import PUBLISHED_DIRECTORY
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store
from holdfast.store.db.predicates import BACKED_OUT, of_load
from holdfast.store.durability import fsync
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs, parquet
from holdfast.store.maintenance import backup, file_checks
from holdfast.store.maintenance.derived_checks import sha256_of
from holdfast.store.serving import log_directory, prediction_log
from holdfast.store.serving.aborts import SERVERS_DIRECTORY

ASIDE_DIRECTORY: Final = "aside"
"""Directory of removed files under the store's root; nothing reads it, and the operator may delete it."""

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups
_COUNTED: Final = ("rows_loaded", "rows_quarantined", "event_time_min_us", "event_time_max_us", "source")


@dataclass(frozen=True, slots=True)
class Lost:
    """A file whose bytes are lost, and their size and digest."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Corrected:
    """A row of the ledger that was corrected, and the proof."""

    subject: str
    action: str
    proof: str


def damaged_files(store: Store) -> Iterator[Lost]:
    """Yield every file and blob of the ledger that is missing or altered."""
    with store.ledger.read() as connection:
        expected = file_checks.expected_files(connection)
        versions = file_checks.version_blobs(connection)
    for file in expected:
        lost = Lost(file.path, file.bytes, file.sha256)
        if not _has_bytes(store.root / file.path, lost):
            yield lost
    for _, digest, size in versions:
        path = blobs.path_of(store.root, digest)
        lost = Lost(str(path.relative_to(store.root)), size, digest)
        if not _has_bytes(path, lost):
            yield lost


def find_bytes(store: Store, lost: Lost, sources: Sequence[Path]) -> Path | None:
    """Return a file with the lost bytes; None if there is none."""
    name = Path(lost.path).name
    candidates = list((store.root / PUBLISHED_DIRECTORY).glob(f"*/*/{name}"))
    candidates += (store.root / SERVERS_DIRECTORY).glob(f"*/{name}.onnx")
    for source in sources:
        candidates += [backup.object_path(source, lost.sha256), source / lost.path]
    return next((path for path in candidates if path.is_file() and _has_bytes(path, lost)), None)


def restore_file(store: Store, lost: Lost, found: Path) -> None:
    """Copy `found` to the place of the lost file; a damaged file there is moved aside."""
    target = store.root / lost.path
    if target.exists():
        set_aside(store.root, target)
    fsync.make_directory(target.parent)
    fsync.replace(target, found.read_bytes())


def set_aside(root: Path, path: Path) -> Path:
    """Move `path` to a directory that nothing reads. Returns its new path."""
    directory = root / ASIDE_DIRECTORY
    fsync.make_directory(directory)
    name = "_".join(path.relative_to(root).parts)
    target = next(
        candidate
        for number in range(1, 1_000_000)
        if not (candidate := directory / f"{name}.{number}").exists()
    )
    path.rename(target)
    fsync.sync_directory(directory)
    fsync.sync_directory(path.parent)
    return target


def set_ledger_aside(root: Path, now_us: int) -> str:
    """Move the SQLite ledger in `root` aside, with its log and its page checksums.

    Returns its new path relative to `root`, empty without a ledger. The checksums go last: as long as they are there, another
    file in the ledger's place does not open.
    """
    moved = ""
    fsync.make_directory(root / ASIDE_DIRECTORY)
    for suffix in ("-shm", "-wal", "", "-checksums"):
        path = root / f"ledger.db{suffix}"
        if path.exists():
            target = root / ASIDE_DIRECTORY / f"ledger.{now_us}.db{suffix}"
            path.rename(target)
            moved = moved if suffix == "-checksums" else str(target.relative_to(root))
    fsync.sync_directory(root / ASIDE_DIRECTORY)
    fsync.sync_directory(root)
    return moved


def correct_counts(store: Store) -> list[Corrected]:
    """Correct rows of the ledger that the footer of an unchanged file contradicts."""
    with store.ledger.read() as connection:
        known = connection.execute(select(_FILES).order_by(_FILES.c.path)).all()
    footers = {row.path: footer for row in known if (footer := _footer(store.root / row.path, row.sha256))}
    corrected: list[Corrected] = []
    with store.ledger.write() as connection:
        for row in known:
            footer = footers.get(row.path)
            if footer is None:
                continue
            size = (store.root / row.path).stat().st_size
            expected = {"rows": footer["rows_in_footer"], "bytes": size, "table_name": footer["table"]}
            corrected += _corrected(connection, _FILES, row.path, {"path": row.path}, row, expected)
            for entry in footer.get("parts", [{**footer, "row_group": 0}]):
                corrected += _correct_part(connection, row.path, entry)
    return corrected


def _footer(path: Path, sha256: str) -> dict[str, Any] | None:
    """Return the footer of a file with that digest; None if it has another, or no footer."""
    try:
        return parquet.manifest(path) if sha256_of(path) == sha256 else None
    except HoldfastError:
        return None


def _correct_part(connection: Connection, path: str, entry: dict[str, Any]) -> Iterator[Corrected]:
    where = {"path": path, "row_group": entry["row_group"]}
    part = connection.execute(select(_PARTS).filter_by(**where)).one_or_none()
    if part is None:
        return
    named = {name: entry[name] for name in ("feed", "batch", "epoch")}
    subject = f"batch {named['feed']}/{named['batch']}"
    yield from _corrected(connection, _PARTS, subject, where, part, {**named, "rows": entry["rows"]})
    batch = connection.execute(select(_BATCHES).filter_by(**named)).one_or_none()
    if batch is None or "files" not in entry:
        return
    expected = {name: entry.get(name) for name in (*_COUNTED, "digest", "contract_hash")}
    expected["rows_received"] = entry["rows_loaded"] + entry["rows_quarantined"]
    yield from _corrected(connection, _BATCHES, subject, named, batch, expected)


def _corrected(
    connection: Connection,
    table: Table,
    subject: str,
    where: dict[str, Any],
    row: Any,
    expected: dict[str, Any],
) -> Iterator[Corrected]:
    wrong = {name: value for name, value in expected.items() if getattr(row, name) != value}
    if wrong:
        connection.execute(update(table).filter_by(**where).values(wrong))
        changes = ", ".join(
            f"{name} from {getattr(row, name)!r} to {value!r}" for name, value in wrong.items()
        )
        yield Corrected(
            subject, f"corrected in the ledger ({changes})", "the footer of its file, whose SHA-256 matches"
        )


def rewrite_tombstones(store: Store) -> list[str]:
    """Write missing and damaged tombstones of backed-out loads anew. Returns their names."""
    written = []
    with store.ledger.read() as connection:
        gone = select(_BATCHES).where(_BATCHES.c.state == BACKED_OUT)
        for row in connection.execute(gone).all():
            load = (row.feed, row.batch, row.epoch)
            path = tombstones.path_of(store.root, load)
            try:
                tombstones.read(path)
            except HoldfastError:
                of = schema.backout_batches
                named = select(func.max(of.c.backout_id)).where(of_load(of, load))
                backout = connection.execute(named).scalar() or 0
                version = select(schema.table_versions.c.committed_at_us).filter_by(
                    table_version=row.table_version
                )
                at_us = int(connection.execute(version).scalar_one())
                tombstones.record(store.root, connection, [load], backout=backout, at_us=at_us)
                written.append(path.name)
    return written


def rewrite_contracts(store: Store, *, now_us: int) -> list[str]:
    """Make ledger and contract copies agree: the one whose bytes have the hash replaces the other.

    Returns the hashes of the repaired contracts.
    """
    repaired = []
    with store.ledger.write() as connection:
        known = {row.contract_hash: row.contract_json for row in connection.execute(select(schema.contracts))}
        used = set(connection.execute(select(_BATCHES.c.contract_hash)).scalars())
        there = {path.stem for path in (store.root / contracts.CONTRACTS_DIRECTORY).glob("*.json")}
        for contract_hash in sorted((used & known.keys()) | there):
            text = known.get(contract_hash)
            intact = text is not None and sha256_hex(text) == contract_hash
            try:
                copy = contracts.read_copy(store.root, contract_hash)
            except HoldfastError:
                copy = None
            if intact and copy is None and text is not None:
                fsync.make_directory(store.root / contracts.CONTRACTS_DIRECTORY)
                fsync.replace(contracts.copy_path(store.root, contract_hash), text.encode())
                repaired.append(contract_hash)
            elif copy is not None and not intact and contract_hash in used:
                connection.execute(delete(schema.contracts).filter_by(contract_hash=contract_hash))
                contracts.put(connection, Contract.from_json(copy), now_us=now_us)
                repaired.append(contract_hash)
    return repaired


def rewrite_snapshot_manifests(store: Store) -> list[str]:
    """Write the missing and damaged manifests of the ledger's snapshots anew. Returns the snapshots' names.

    A damaged manifest of a snapshot that the ledger lacks is moved aside.
    """
    written = []
    with store.ledger.read() as connection:
        known = set(connection.execute(select(schema.snapshots.c.snapshot)).scalars())
        for name in sorted(known | {path.stem for path in snapshots.manifests_on_disk(store.root)}):
            path = snapshots.manifest_path(store.root, name)
            try:
                snapshots.read_manifest(path)
            except HoldfastError:
                snapshot = snapshots.find(connection, name)
                if snapshot is not None:
                    snapshots.write_manifest(store.root, connection, snapshot)
                else:
                    set_aside(store.root, path)
                written.append(name)
    return written


def truncate_torn_tails(store: Store) -> Iterator[tuple[Path, int]]:
    """Truncate the torn end of each log whose server does not run. Yields (segment, new size)."""
    rows = schema.log_positions
    with store.ledger.read() as connection:
        collected = {
            (row.server, row.segment): row.collected_bytes for row in connection.execute(select(rows))
        }
    for directory in log_directory.all_of(store.root):
        if not _is_free(directory / log_directory.OWNER):
            continue
        for number, path in log_directory.segments(directory):
            end = _complete_bytes(path)
            if end is not None and collected.get((directory.name, number), 0) <= end < path.stat().st_size:
                descriptor = os.open(path, os.O_WRONLY)
                try:
                    os.ftruncate(descriptor, end)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                yield path, end


def _complete_bytes(path: Path) -> int | None:
    """Return where the last complete record ends; None if the segment is damaged before its end."""
    offset = 0
    try:
        while True:
            _, end = prediction_log.read(path, offset)
            if end == offset:
                return offset
            offset = end
    except HoldfastError:
        return None


def _is_free(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def remove_invalid_leases(store: Store) -> list[str]:
    """Remove leases that no call of `acquire` can have written. Returns their names."""
    leases = schema.leases
    invalid = or_(leases.c.duration_us <= 0, leases.c.epoch < 1)
    with store.ledger.write() as connection:
        names = [str(name) for name in connection.execute(select(leases.c.lease).where(invalid)).scalars()]
        connection.execute(delete(leases).where(invalid))
    return names


def _has_bytes(path: Path, lost: Lost) -> bool:
    try:
        return path.stat().st_size == lost.bytes and sha256_of(path) == lost.sha256
    except OSError:
        return False
