"""The single repairs of `holdfast verify --repair`, on the files below the store's root and the rows of the ledger.

Each changes one thing, and only where the store itself proves the correct value.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, func, select, update

from holdfast.contract import Contract
from holdfast.errors import HoldfastError
from holdfast.records import sha256_hex
from holdfast.store.backout import tombstones
from holdfast.store.catalog import delta, snapshots
from holdfast.store.db import schema
from holdfast.store.db.statements import BACKED_OUT, load_columns, of_load
from holdfast.store.durability import fsync
from holdfast.store.durability.file_locks import seized
from holdfast.store.feeds import contracts
from holdfast.store.files import parquet
from holdfast.store.maintenance import backup, derived_checks
from holdfast.store.maintenance.backup import Entry
from holdfast.store.maintenance.derived_checks import sha256_of
from holdfast.store.maintenance.file_checks import COUNTED
from holdfast.store.maintenance.ledger_checks import INVALID_LEASE
from holdfast.store.serving import log_directory, prediction_log
from holdfast.store.serving.aborts import SERVERS_DIRECTORY

ASIDE_DIRECTORY: Final = "aside"
"""Directory of removed files under the store's root; nothing reads it, and the operator may delete it."""

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair: what was repaired, how, and what proves that it is right."""

    subject: str
    action: str
    proof: str


def damaged_files(connection: Connection, root: Path) -> list[Entry]:
    """Return every file and blob of the ledger that is missing or altered, with the size and digest that it had."""
    return [each for each in backup.named_files(connection, root) if not _has_bytes(root / each.path, each)]


def restore_files(root: Path, damaged: Iterable[Entry], sources: Sequence[Path]) -> Iterator[Repair]:
    """Put intact copies in the place of damaged files, which are moved aside; copies are searched for in `sources` too."""
    for lost in damaged:
        found = _find_bytes(root, lost, sources)
        if found is None:
            continue
        target = root / lost.path
        if target.exists():
            set_aside(root, target)
        fsync.make_directory(target.parent)
        fsync.replace(target, found.read_bytes())
        yield Repair(lost.path, "restored", f"{found} has its size and SHA-256 {lost.sha256[:12]}")


def _find_bytes(root: Path, lost: Entry, sources: Sequence[Path]) -> Path | None:
    name = Path(lost.path).name
    candidates = [table.directory / name for table in delta.exported_tables(root)]
    candidates += (root / SERVERS_DIRECTORY).glob(f"*/{name}.onnx")
    for source in sources:
        candidates += [backup.object_path(source, lost.sha256), source / lost.path]
    return next((path for path in candidates if path.is_file() and _has_bytes(path, lost)), None)


def _has_bytes(path: Path, lost: Entry) -> bool:
    try:
        return path.stat().st_size == lost.bytes and sha256_of(path) == lost.sha256
    except OSError:
        return False


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
    fsync.sync(directory)
    fsync.sync(path.parent)
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
    fsync.sync(root / ASIDE_DIRECTORY)
    fsync.sync(root)
    return moved


def read_footers(connection: Connection, root: Path) -> dict[str, dict[str, Any]]:
    """Return the footer and the size in bytes of each file of rows whose SHA-256 matches, by its path."""
    found = {}
    for path, sha256 in connection.execute(select(_FILES.c.path, _FILES.c.sha256).order_by(_FILES.c.path)):
        if sha256_of(root / path) == sha256:
            try:
                found[path] = parquet.manifest(root / path) | {"bytes": (root / path).stat().st_size}
            except HoldfastError:
                continue
    return found


def correct_counts(connection: Connection, footers: Mapping[str, dict[str, Any]]) -> list[Repair]:
    """Correct rows of the ledger that the footer of an unchanged file contradicts."""
    corrected: list[Repair] = []
    for path, footer in footers.items():
        expected = {"rows": footer["rows_in_footer"], "bytes": footer["bytes"], "table_name": footer["table"]}
        corrected += _corrected(connection, _FILES, path, {"path": path}, expected)
        for entry in footer.get("parts", [{**footer, "row_group": 0}]):
            where = {"path": path, "row_group": entry["row_group"]}
            named = {name: entry[name] for name in ("feed", "batch", "epoch")}
            subject = f"batch {named['feed']}/{named['batch']}"
            corrected += _corrected(connection, _PARTS, subject, where, named | {"rows": entry["rows"]})
            if "files" in entry:
                expected = {name: entry.get(name) for name in (*COUNTED, "digest", "contract_hash")}
                expected["rows_received"] = entry["rows_loaded"] + entry["rows_quarantined"]
                corrected += _corrected(connection, _BATCHES, subject, named, expected)
    return corrected


def _corrected(
    connection: Connection, table: Table, subject: str, where: dict[str, Any], expected: dict[str, Any]
) -> Iterator[Repair]:
    row = connection.execute(select(table).filter_by(**where)).mappings().one_or_none()
    wrong = {} if row is None else {name: value for name, value in expected.items() if row[name] != value}
    if row is not None and wrong:
        connection.execute(update(table).filter_by(**where).values(wrong))
        changes = ", ".join(f"{name} from {row[name]!r} to {value!r}" for name, value in wrong.items())
        proof = "the footer of its file, whose SHA-256 matches"
        yield Repair(subject, f"corrected in the ledger ({changes})", proof)


def rewrite_tombstones(connection: Connection, root: Path) -> Iterator[Repair]:
    """Write missing and damaged tombstones of backed-out loads anew."""
    made, of = schema.table_versions, schema.backout_batches
    gone = select(*load_columns(_BATCHES), made.c.committed_at_us).join(made)
    for row in connection.execute(gone.where(_BATCHES.c.state == BACKED_OUT)).all():
        load = (row.feed, row.batch, row.epoch)
        path = tombstones.path_of(root, load)
        try:
            tombstones.read(path)
        except HoldfastError:
            named = select(func.max(of.c.backout_id)).where(of_load(of, load))
            backout = connection.execute(named).scalar() or 0
            tombstones.record(root, connection, [load], backout=backout, at_us=row.committed_at_us)
            proof = "the ledger has the back-out of that load"
            yield Repair(f"tombstones/{path.name}", "written again", proof)


def rewrite_contracts(connection: Connection, root: Path, *, now_us: int) -> list[Repair]:
    """Make ledger and contract copies agree: the one whose bytes have the hash replaces the other."""
    repaired = []
    known = {row.contract_hash: row.contract_json for row in connection.execute(select(schema.contracts))}
    used = set(connection.execute(select(_BATCHES.c.contract_hash)).scalars())
    for contract_hash in derived_checks.copied_contracts(connection, root):
        text = known.get(contract_hash, "")
        intact = sha256_hex(text) == contract_hash
        try:
            copy = contracts.read_copy(root, contract_hash)
        except HoldfastError:
            copy = ""
        if intact and not copy:
            fsync.make_directory(root / contracts.CONTRACTS_DIRECTORY)
            fsync.replace(contracts.copy_path(root, contract_hash), text.encode())
        elif copy and not intact and contract_hash in used:
            connection.execute(delete(schema.contracts).filter_by(contract_hash=contract_hash))
            contracts.put(connection, Contract.from_json(copy), now_us=now_us)
        else:
            continue
        repaired.append(Repair(f"contract {contract_hash[:12]}", "written again", "its SHA-256 is its name"))
    return repaired


def rewrite_snapshot_manifests(connection: Connection, root: Path) -> Iterator[Repair]:
    """Write the missing and damaged manifests of the ledger's snapshots anew.

    A damaged manifest of a snapshot that the ledger lacks is moved aside.
    """
    for name, _ in derived_checks.damaged_manifests(connection, root):
        snapshot = snapshots.find(connection, name)
        if snapshot is not None:
            snapshots.write_manifest(root, connection, snapshot)
        else:
            set_aside(root, snapshots.manifest_path(root, name))
        yield Repair(f"snapshot {name}", "given its manifest again", "the ledger has its loads")


def truncate_torn_tails(connection: Connection, root: Path) -> Iterator[Repair]:
    """Truncate the torn end of each log whose server does not run."""
    collected = derived_checks.collected_bytes(connection)
    for directory in log_directory.all_of(root):
        with seized(directory / log_directory.OWNER) as stopped:
            for number, path in log_directory.segments(directory) if stopped else ():
                end, kept = _complete_bytes(path), collected.get((directory.name, number), 0)
                if end is None or not kept <= end < path.stat().st_size:
                    continue
                with path.open("r+b") as file:
                    file.truncate(end)
                    os.fsync(file.fileno())
                proof = (
                    f"no record from byte {end} on is complete, and an incomplete one was never acknowledged"
                )
                yield Repair(str(path.relative_to(root)), "truncated", proof)


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


def remove_invalid_leases(connection: Connection) -> list[Repair]:
    """Remove leases that no call of `acquire` can have written."""
    leases = schema.leases
    names = connection.execute(select(leases.c.lease).where(INVALID_LEASE)).scalars().all()
    connection.execute(delete(leases).where(INVALID_LEASE))
    proof = "no holder can have written it; the next holder creates it anew"
    return [Repair(f"lease {name}", "removed", proof) for name in names]
