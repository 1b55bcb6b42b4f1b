"""Checks of files that are derived from the catalog; each yields (subject, what is wrong).

Exported tables, local copies and logs of servers, contract copies, snapshot manifests and tombstones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from sqlalchemy import Connection, func, select

from holdfast.errors import HoldfastError
from holdfast.feedback import parse_id
from holdfast.records import sha256_hex
from holdfast.store.backout import tombstones
from holdfast.store.catalog import delta, delta_log, snapshots
from holdfast.store.db import schema
from holdfast.store.db.statements import BACKED_OUT, load_columns
from holdfast.store.feeds import contracts
from holdfast.store.files.data_files import FileFacts
from holdfast.store.maintenance.ledger_checks import Mismatch
from holdfast.store.serving import log_directory, prediction_log
from holdfast.store.serving.aborts import SERVERS_DIRECTORY
from holdfast.store.serving.prediction_log import PredictionRecord
from holdfast.tables.backout import BackoutState


class _Checksummed(msgspec.Struct):
    sha256: str
    state: msgspec.Raw


class _State(msgspec.Struct):
    plan: dict[str, object]
    versions: dict[str, dict[str, object]]


def exported_tables(connection: Connection, root: Path) -> Iterator[tuple[delta.ExportedTable, str]]:
    """Yield the exported tables that differ from their snapshot, each with what is wrong."""
    for table in delta.exported_tables(root):
        try:
            snapshot = delta_log.read(table.directory).snapshot or table.snapshot
            files = [] if snapshot is None else delta.exportable(connection, snapshot, table.feed)
            reason = (
                "its log names no snapshot" if snapshot is None else _exported(root, table.directory, files)
            )
        except HoldfastError as error:
            reason = error.what
        if reason:
            yield table, reason


def _exported(root: Path, directory: Path, facts: list[FileFacts]) -> str:
    expected = {Path(fact.path).name: fact for fact in facts if fact.row_groups is None}
    log = delta_log.read(directory)
    there = {path.name for path in directory.glob("*.parquet")}
    missing = sorted((expected.keys() | log.files.keys()) - there)
    if missing:
        return f"its file {missing[0]} is missing"
    for name, fact in expected.items():
        link = directory / name
        if not _same(link, root / fact.path) and sha256_of(link) != fact.sha256:
            return f"its file {name} is not the one of the snapshot"
    same = delta_log.has_checksums(directory, log.snapshot)
    if same is None:
        return "its checksum file is missing or cannot be read"
    if not same:
        return "its commit, or the snapshot that its checksum file names, is not the one that was written"
    wanted = {delta.name_in_table(fact): fact for fact in facts}
    backed_out = [name for name, rows in log.files.items() if not delta.is_exported(name, rows, wanted)]
    return f"its file {backed_out[0]} holds rows that were backed out" if backed_out else ""


def _same(link: Path, file: Path) -> bool:
    try:
        return link.samefile(file)
    except OSError:
        return False


def local_copies(root: Path, plans: dict[str, int]) -> Iterator[tuple[Path, str]]:
    """Yield the damaged files of servers' local copies; `plans` are the newest plans in the ledger, by model."""
    for directory in sorted((root / SERVERS_DIRECTORY).glob("*")):
        for path in sorted(directory.glob("*.onnx")):
            if sha256_of(path) != path.stem:
                yield path, "was altered: its SHA-256 is not its name"
        online = directory / "online.msgpack"
        if online.exists():
            data = online.read_bytes()
            if sha256_hex(data[32:]) != data[:32].hex():
                yield online, "was altered: its SHA-256 is not the one that it begins with"
        plan = directory / "plan.json"
        if plan.exists() or any(directory.glob("*.onnx")):
            reason = _plan(plan, directory, plans.get(directory.name, 0))
            if reason:
                yield plan, reason


def _plan(path: Path, directory: Path, newest: int) -> str:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Checksummed)
        if sha256_hex(bytes(found.state)) != found.sha256:
            return "was altered: its SHA-256 is not the one that it names"
        state = msgspec.json.decode(found.state, type=_State)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return "is missing or cannot be read"
    if state.plan.get("model") != directory.name:
        return f"is the plan of model {state.plan.get('model')}"
    lost = [
        version["digest"]
        for version in state.versions.values()
        if not (directory / f"{version['digest']}.onnx").exists()
    ]
    if lost:
        return f"names {lost[0]}.onnx, which is missing"
    number = state.plan.get("plan_id")
    return (
        f"has plan {number}, which the ledger does not have"
        if isinstance(number, int) and number > newest
        else ""
    )


def newest_plans(connection: Connection) -> dict[str, int]:
    """Return the newest traffic plan of each model."""
    plans = schema.traffic_plans
    query = select(plans.c.model, func.max(plans.c.plan_id)).group_by(plans.c.model)
    return {model: int(plan) for model, plan in connection.execute(query)}


def collected_bytes(connection: Connection) -> dict[tuple[str, int], int]:
    """Return how many bytes of each segment were collected, by server and number of the segment."""
    rows = connection.execute(select(schema.log_positions))
    return {(row.server, row.segment): int(row.collected_bytes) for row in rows}


def log_segments(connection: Connection, root: Path) -> Iterator[tuple[Path, str]]:
    """Yield segments of prediction logs that are missing, short, damaged, or of another server."""
    collected = collected_bytes(connection)
    for directory in log_directory.all_of(root):
        there = log_directory.segments(directory)
        for number, path in there:
            reason = _segment(path, directory.name, number, collected.get((directory.name, number), 0))
            if reason:
                yield path, reason
        # What was collected may be removed, but never the newest segment that there is.
        newest = max((number for server, number in collected if server == directory.name), default=0)
        if newest > (there[-1][0] if there else 0):
            yield log_directory.path_of(directory, newest), "is missing"


def _segment(path: Path, server: str, number: int, collected: int) -> str:
    size = path.stat().st_size
    if size < collected:
        return f"has {size} bytes, {collected} of it were collected"
    offset = 0
    try:
        while True:
            records, end = prediction_log.read(path, offset)
            for record in records:
                if isinstance(record, PredictionRecord):
                    place = parse_id(f"{record.id}/0")
                    if place is None or place.server != server or place.segment > number:
                        return f"has the prediction {record.id}, which belongs to another segment"
            if end == offset:
                break
            offset = end
    except HoldfastError as error:
        return error.what
    if offset < collected:
        return f"can be read up to byte {offset}, {collected} of it were collected"
    return f"ends in the middle of a record, at byte {offset}" if offset < path.stat().st_size else ""


def copied_contracts(connection: Connection, root: Path) -> list[str]:
    """Return the hashes of the contracts that have a copy, or should have one."""
    known = set(connection.execute(select(schema.contracts.c.contract_hash)).scalars())
    used = set(connection.execute(select(schema.batches.c.contract_hash)).scalars())
    there = (root / contracts.CONTRACTS_DIRECTORY).glob("*.json")
    return sorted((known & used) | {path.stem for path in there if path.name[0] != "."})


def damaged_copies(connection: Connection, root: Path) -> Iterator[Mismatch]:
    """Yield the hashes of contracts whose copy is missing or altered."""
    for contract_hash in copied_contracts(connection, root):
        try:
            contracts.read_copy(root, contract_hash)
        except HoldfastError as error:
            yield contract_hash, error.what


def damaged_manifests(connection: Connection, root: Path) -> Iterator[Mismatch]:
    """Yield the snapshots whose manifest is missing or damaged, and those of other damaged manifests."""
    known = set(connection.execute(select(schema.snapshots.c.snapshot)).scalars())
    for name in sorted(known | {path.stem for path in snapshots.manifests_on_disk(root)}):
        try:
            snapshots.read_manifest(snapshots.manifest_path(root, name))
        except HoldfastError as error:
            yield name, error.what


def tombstone_files(connection: Connection, root: Path) -> Iterator[Mismatch]:
    """Yield tombstones that are damaged, missing, or of a load that the ledger has as published."""
    of, backouts = schema.backout_batches, schema.backouts
    loads = select(*load_columns(schema.batches), schema.batches.c.state)
    states = {(row.feed, row.batch, row.epoch): row.state for row in connection.execute(loads)}
    unfinished = (
        select(*load_columns(of))
        .join(backouts, backouts.c.backout_id == of.c.backout_id)
        .where(backouts.c.state == BackoutState.UNDER_WAY)
    )
    under_way = {tuple(row) for row in connection.execute(unfinished)}
    intact = set()
    for path in tombstones.on_disk(root):
        try:
            tombstone = tombstones.read(path)
        except HoldfastError as error:
            yield f"{tombstones.TOMBSTONES_DIRECTORY}/{path.name}", error.what
            continue
        intact.add(tombstone.load)
        if states.get(tombstone.load) != BACKED_OUT and tombstone.load not in under_way:
            found = "has it as published" if tombstone.load in states else "does not have it"
            yield (
                f"batch {tombstone.load[0]}/{tombstone.load[1]}",
                f"it has a tombstone, but the ledger {found}",
            )
    for load, state in sorted(states.items()):
        path = tombstones.path_of(root, load)
        if state == BACKED_OUT and load not in intact and not path.exists():
            yield f"{tombstones.TOMBSTONES_DIRECTORY}/{path.name}", f"tombstone {path.name} is missing"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file's bytes; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
