"""Rows of snapshots of a ledger that is rebuilt, from the snapshots' manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, insert, select

from holdfast.store.backout.tombstones import Tombstone
from holdfast.store.catalog import snapshots
from holdfast.store.catalog.snapshots import SnapshotManifest
from holdfast.store.db import schema
from holdfast.store.files import data_files
from holdfast.store.maintenance.footer_scan import Choice
from holdfast.tables.snapshots import LoadKey

_TABLE_VERSIONS: Final = schema.table_versions


def table_versions(
    choice: Choice, tombstones: Mapping[LoadKey, Tombstone], manifests: Sequence[SnapshotManifest]
) -> dict[LoadKey, int]:
    """Return the table version of each load: the former one if a file names it, else one after all of these.

    A load that no snapshot and no tombstone names was published after them, so that no snapshot may read it.
    """
    known = {load: version for each in manifests for load, version in each.loads.items()}
    known |= {load: each.table_version for load, each in tombstones.items() if each.table_version is not None}
    taken = [0, *known.values(), *(each.snapshot.table_version for each in manifests)]
    taken += [each.removed_version for each in tombstones.values() if each.removed_version is not None]
    others = sorted(
        choice.loads.keys() - known.keys(), key=lambda load: (choice.loads[load].written_us, load)
    )
    return known | {load: number for number, load in enumerate(others, start=max(taken) + 1)}


def put_table_versions(connection: Connection, manifests: Sequence[SnapshotManifest]) -> None:
    """Insert the table versions of the snapshots in the caller's transaction."""
    created = {each.snapshot.table_version: each.snapshot.created_at_us for each in manifests}
    for version, created_at_us in sorted(created.items()):
        values = {"table_version": version, "committed_at_us": created_at_us, "reason": "snapshot"}
        connection.execute(insert(_TABLE_VERSIONS).values(values))


def put_snapshots(connection: Connection, manifests: Sequence[SnapshotManifest], *, now_us: int) -> list[str]:
    """Insert the snapshots in the caller's transaction, after the loads. Returns a message for each without all its rows.

    Such a snapshot stays known, because versions were trained on it, but it can no longer be read.
    """
    batches = schema.batches
    loads = {
        tuple(row) for row in connection.execute(select(batches.c.feed, batches.c.batch, batches.c.epoch))
    }
    missing = []
    for each in manifests:
        incomplete = tuple(load for load in each.snapshot.incomplete_loads if load in loads)
        snapshot = replace(each.snapshot, incomplete_loads=incomplete)
        snapshots.put(connection, snapshot)
        rows = 0
        for table in snapshot.tables:
            files = data_files.entries(connection, table.table, snapshot.table_version, excluded=incomplete)
            rows += sum(file.rows for file in files)
        if rows != snapshot.rows:
            data_files.mark_vacuumed(connection, [snapshot.snapshot], now_us=now_us)
            missing.append(f"snapshot {snapshot.snapshot}: {rows} of its {snapshot.rows} rows are left")
    return missing
