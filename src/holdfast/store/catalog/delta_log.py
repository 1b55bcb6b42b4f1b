"""Read the log of a Delta table, and write its next commit.

A commit is linked under its number, so that no version is ever replaced, and the writer holds the lock of the table's
directory. `CHECKSUM_FILE` has the SHA-256 of each file of the log, because Delta has none.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import IntegrityError
from holdfast.records import sha256_hex
from holdfast.store.durability import fsync
from holdfast.store.files import parquet

LOG_DIRECTORY: Final = "_delta_log"

CHECKSUM_FILE: Final = "_holdfast.json"
"""The snapshot of the newest version, and the SHA-256 of each file of the log. Other readers pass over names that begin so."""

DRAFT: Final = ".draft"
"""Suffix of a table or a commit that is being written."""

CHECKPOINT_EVERY: Final = 10
"""Each tenth version has a checkpoint, so that a reader reads at most nine commits more; Delta's own default."""

_LAST_CHECKPOINT: Final = "_last_checkpoint"
_SNAPSHOT: Final = "userMetadata"
"""The field of a commit that Spark and delta-rs show in a table's history."""


@dataclass(frozen=True, slots=True)
class AddedFile:
    """A file that a commit adds, with its statistics as JSON."""

    path: str
    size: int
    modification_time: int
    stats: str


@dataclass(slots=True)
class TableLog:
    """The state of a table after all its commits.

    `files` are those of the newest version with their rows if known; `removed` gives the time at which others left it,
    milliseconds UTC; `snapshot` is the snapshot of the newest version; `metadata` is the newest `metaData` action.
    """

    version: int = -1
    files: dict[str, int | None] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    snapshot: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def read(table: Path) -> TableLog:
    """Return the log of `table`; raise `IntegrityError` HF301 if it is damaged or missing."""
    log = TableLog()
    for commit in _commits(table):
        try:
            first, *others = commit.read_text().splitlines()
            for line in (first, *others):
                _apply(log, json.loads(line))
            log.version = int(commit.stem)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise parquet.damaged(commit, error) from error
    if log.version < 0 or not log.metadata:
        raise parquet.damaged(table / LOG_DIRECTORY, ValueError("it names no table"))
    return log


def newest_snapshot(table: Path) -> str | None:
    """Return the snapshot of the newest version, from the file of checksums if the log is damaged; None if neither has it."""
    with suppress(IntegrityError):
        return read(table).snapshot
    return _listed(table).snapshot


def _apply(log: TableLog, action: dict[str, Any]) -> None:
    if "add" in action:
        path = action["add"]["path"]
        log.files[path] = json.loads(action["add"].get("stats") or "{}").get("numRecords")
        log.removed.pop(path, None)
    elif "remove" in action:
        path = action["remove"]["path"]
        log.files.pop(path, None)
        log.removed[path] = int(action["remove"].get("deletionTimestamp") or 0)
    elif "metaData" in action:
        log.metadata = action["metaData"]
    elif "commitInfo" in action:
        log.snapshot = action["commitInfo"].get(_SNAPSHOT) or log.snapshot


def commit_info(snapshot: str) -> dict[str, str]:
    """Return what the commit of a version states in addition to its actions: the snapshot that it has."""
    return {_SNAPSHOT: snapshot}


def commit(
    table: Path,
    log: TableLog,
    *,
    snapshot: str,
    removed: Sequence[str],
    added: Sequence[AddedFile],
    schema: str | None,
    now_us: int,
) -> None:
    """Write the version of `table` after `log`. The caller holds the lock of the directory.

    Parameters
    ----------
    snapshot
        The snapshot that the version has.
    removed, added
        The files that leave the table and those that come.
    schema
        The columns as Delta's JSON if they change, else None.
    now_us
        The time of the version, microseconds UTC.

    Raises `FileExistsError` if another program wrote that version.
    """
    at_ms = now_us // 1000
    info = {"timestamp": at_ms, "operation": "WRITE" if added else "DELETE", "engineInfo": "holdfast"}
    actions: list[dict[str, Any]] = [{"commitInfo": info | commit_info(snapshot)}]
    if schema is not None:
        actions.append({"metaData": log.metadata | {"schemaString": schema}})
    actions += [
        {"remove": {"path": name, "deletionTimestamp": at_ms, "dataChange": True}} for name in removed
    ]
    actions += [{"add": _added(each)} for each in added]
    version = log.version + 1
    _link(table / LOG_DIRECTORY, f"{version:020}.json", actions)
    write_checksums(table, snapshot)
    if version % CHECKPOINT_EVERY == 0:
        _write_checkpoint(table, snapshot)


def _added(each: AddedFile) -> Mapping[str, object]:
    return {
        "path": each.path,
        "size": each.size,
        "partitionValues": {},
        "modificationTime": each.modification_time,
        "dataChange": True,
        "stats": each.stats,
    }


def _link(directory: Path, name: str, actions: Sequence[Mapping[str, object]]) -> None:
    draft = directory / f".{uuid.uuid4().hex}{DRAFT}"
    fsync.replace(draft, "".join(f"{json.dumps(action)}\n" for action in actions).encode())
    try:
        os.link(draft, directory / name)  # never replaces a version that another program wrote
    finally:
        draft.unlink()
    fsync.sync(directory)


def _write_checkpoint(table: Path, snapshot: str) -> None:
    """Write the state of the newest version as one file; without it, or without deltalake, readers read more commits."""
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ModuleNotFoundError:
        return
    with suppress(DeltaError, OSError):
        DeltaTable(str(table)).create_checkpoint()
        fsync.sync_tree(table / LOG_DIRECTORY)
    write_checksums(table, snapshot)


class _Listed(msgspec.Struct, forbid_unknown_fields=True):
    """The content of `CHECKSUM_FILE`; older releases wrote the files alone, and no snapshot."""

    files: dict[str, str]
    snapshot: str | None


def write_checksums(table: Path, snapshot: str) -> None:
    """Write the checksums of the log of `table`, whose newest version has `snapshot`."""
    fsync.replace(table / CHECKSUM_FILE, msgspec.json.encode(_Listed(_checksums(table), snapshot)))


def has_checksums(table: Path, snapshot: str | None) -> bool | None:
    """Return True if the log of `table`, whose newest version has `snapshot`, is the one that was written.

    None if the file of its checksums is lost, or is damaged so that it cannot be read.
    """
    listed = _listed(table)
    if not listed.files:
        return None
    return listed.files == _checksums(table) and listed.snapshot in (None, snapshot)


def complete_checksums(table: Path, snapshot: str) -> None:
    """Add the checksums of the newest version if its writer was killed before it wrote them."""
    listed, found = _listed(table).files, _checksums(table)
    newest = _commits(table)[-1].stem
    since = {name for name in found if name.startswith(newest) or name == _LAST_CHECKPOINT}
    older = {name for name in found if name not in since}
    unlisted = since - listed.keys()
    if unlisted and older <= listed.keys() and all(listed[name] == found[name] for name in older):
        write_checksums(table, snapshot)


def _checksums(table: Path) -> dict[str, str]:
    log = table / LOG_DIRECTORY
    found = [*_commits(table), *log.glob("*.checkpoint*.parquet"), *log.glob(_LAST_CHECKPOINT)]
    return {path.name: sha256_hex(path.read_bytes()) for path in sorted(found)}


def _listed(table: Path) -> _Listed:
    """Return what the file of checksums lists, nothing if it is lost or damaged."""
    try:
        data = (table / CHECKSUM_FILE).read_bytes()
        if b'"files"' in data:
            return msgspec.json.decode(data, type=_Listed)
        return _Listed(msgspec.json.decode(data, type=dict[str, str]), None)
    except (OSError, msgspec.DecodeError):
        return _Listed({}, None)


def _commits(table: Path) -> list[Path]:
    return sorted((table / LOG_DIRECTORY).glob("*.json"))
