"""Manifest files of snapshots: the loads of each, so that a lost ledger can be rebuilt with its snapshots.

A manifest is written before the transaction that registers its snapshot commits. A crash between the two leaves a manifest
without a snapshot, which a rebuild may register: it names rows that were loaded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, exists, or_, select

from holdfast.errors import IntegrityError
from holdfast.store.db import schema
from holdfast.store.db.predicates import LIVE, same_load
from holdfast.store.durability import checked_json, fsync
from holdfast.tables import Snapshot, SnapshotTable
from holdfast.tables.snapshots import LoadKey

SNAPSHOTS_DIRECTORY: Final = "snapshots"
"""Directory of the manifests under the store's root: `snapshots/<snapshot>.json`."""

_BATCHES: Final = schema.batches
_BACKOUT_BATCHES: Final = schema.backout_batches


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """A snapshot and the table version of each load that its tables had, incomplete loads among them."""

    snapshot: Snapshot
    loads: dict[LoadKey, int]


def path_of(root: Path, snapshot: str) -> Path:
    """Return the path of the manifest of `snapshot`."""
    return root / SNAPSHOTS_DIRECTORY / f"{snapshot}.json"


def write(root: Path, connection: Connection, snapshot: Snapshot) -> None:
    """Write the manifest of `snapshot`; it is durable on return. Equal snapshots give equal manifests."""
    fsync.make_directory(root / SNAPSHOTS_DIRECTORY)
    content = asdict(snapshot) | {
        "loads": [[*load, version] for load, version in _loads(connection, snapshot)]
    }
    fsync.replace(path_of(root, snapshot.snapshot), checked_json.encode(content))


def read(path: Path) -> SnapshotManifest:
    """Load the manifest at `path`; `IntegrityError` HF301 if it is missing, damaged, or of another snapshot."""
    try:
        content = checked_json.decode(path.read_bytes())
        loads = {(feed, batch, epoch): version for feed, batch, epoch, version in content.pop("loads")}
        tables = tuple(SnapshotTable(**each) for each in content.pop("tables"))
        incomplete = tuple((feed, batch, epoch) for feed, batch, epoch in content.pop("incomplete_loads"))
        snapshot = Snapshot(**content, tables=tables, incomplete_loads=incomplete)
    except OSError as error:
        raise _damaged(path, "is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"is damaged: {error}") from error
    if snapshot.snapshot != path.stem:
        raise _damaged(path, f"is that of snapshot {snapshot.snapshot}")
    return SnapshotManifest(snapshot, loads)


def on_disk(root: Path) -> list[Path]:
    """Return the path of every manifest, in order of its name."""
    return sorted(path for path in (root / SNAPSHOTS_DIRECTORY).glob("*.json") if path.name[0] != ".")


def _loads(connection: Connection, snapshot: Snapshot) -> list[tuple[LoadKey, int]]:
    version = snapshot.table_version
    removed_later = exists().where(
        same_load(_BACKOUT_BATCHES, _BATCHES), _BACKOUT_BATCHES.c.removed_version > version
    )
    key = (_BATCHES.c.feed, _BATCHES.c.batch, _BATCHES.c.epoch)
    query = (
        select(*key, _BATCHES.c.table_version)
        .where(
            _BATCHES.c.feed.in_([table.table for table in snapshot.tables]),
            _BATCHES.c.table_version <= version,
            or_(LIVE, removed_later),
        )
        .order_by(*key)
    )
    return [((row.feed, row.batch, row.epoch), row.table_version) for row in connection.execute(query)]


def _damaged(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        "HF301",
        f"manifest {path.name} {reason}",
        state="nothing was changed",
        next_command="holdfast verify --repair",
    )
