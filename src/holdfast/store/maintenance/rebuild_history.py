"""Rebuild of the rest of a lost ledger: snapshots, back-outs, taints and collected predictions.

Snapshots come from their manifests, back-outs and taints from tombstones, predictions from their files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, insert, select

from holdfast.errors import InputError, IntegrityError
from holdfast.feedback import parse_id
from holdfast.formatting import counted
from holdfast.records import canonical_json
from holdfast.store.backout import backouts, taints
from holdfast.store.backout.tombstones import Tombstone
from holdfast.store.catalog import snapshots
from holdfast.store.catalog.snapshots import SnapshotManifest
from holdfast.store.db import schema
from holdfast.store.db.sqlite_handles import TrackedConnection
from holdfast.store.db.statements import BACKED_OUT, inserting, load_columns, of_load
from holdfast.store.files import data_files, parquet
from holdfast.store.maintenance.footer_scan import Choice, ScannedFile
from holdfast.store.serving import log_directory
from holdfast.store.serving.log_directory import LOGS_DIRECTORY
from holdfast.store.telemetry.collected_log import PREDICTIONS
from holdfast.tables.backout import BackoutPlan, BackoutState
from holdfast.tables.snapshots import LoadKey

_BATCHES: Final = schema.batches
_PARTS: Final = schema.file_row_groups


def must_be_lost(root: Path) -> None:
    """Raise `InputError` HF306 if the SQLite ledger in `root` is intact and has batches.

    A rebuild of it would lose gates, rollouts and traffic.
    """
    path = root / "ledger.db"
    if not path.exists():
        return
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, factory=TrackedConnection)) as connection:
            connection.track()
            intact = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            known = connection.execute("SELECT count(*) FROM batches").fetchone()[0]
    except (sqlite3.Error, IntegrityError):  # it is lost
        return
    if intact and known:
        raise InputError(
            "HF306",
            f"the ledger is not lost: it is intact and has {counted(known, 'batch')}",
            state="nothing was changed",
            next_command="holdfast verify --repair; to rebuild all the same, move ledger.db away first",
        )


def must_be_empty(connection: Connection) -> None:
    """Raise `InputError` HF306 if the ledger has any batch: then it is not lost."""
    if connection.execute(select(_BATCHES.c.batch).limit(1)).first():
        raise InputError(
            "HF306",
            "the ledger to rebuild into has batches already",
            state="nothing was written",
            next_command="holdfast verify --repair",
        )


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
        connection.execute(insert(schema.table_versions).values(values))


def put_snapshots(connection: Connection, manifests: Sequence[SnapshotManifest], *, now_us: int) -> list[str]:
    """Insert the snapshots in the caller's transaction, after the loads. Returns a message for each without all its rows.

    Such a snapshot stays known, because versions were trained on it, but it can no longer be read.
    """
    loads = {tuple(row) for row in connection.execute(select(*load_columns(_BATCHES)))}
    missing = []
    for each in manifests:
        incomplete = tuple(load for load in each.snapshot.incomplete_loads if load in loads)
        snapshot = replace(each.snapshot, incomplete_loads=incomplete)
        snapshots.put(connection, snapshot)
        rows = sum(
            file.rows
            for table in snapshot.tables
            for file in data_files.entries(
                connection, table.table, snapshot.table_version, excluded=incomplete
            )
        )
        if rows != snapshot.rows:
            data_files.mark_vacuumed(connection, [snapshot.snapshot], now_us=now_us)
            missing.append(f"snapshot {snapshot.snapshot}: {rows} of its {snapshot.rows} rows are left")
    return missing


def put_backouts(connection: Connection, tombstones: Iterable[Tombstone]) -> None:
    """Insert the back-outs of `tombstones` as done, with the loads that they removed and what they tainted.

    Call it when loads and versions are in the ledger. A version is found by its digest, because it may have another name
    now. An unreadable tombstone names only its load, and nothing is inserted for it.
    """
    known = sorted(
        (each for each in tombstones if each.why), key=lambda each: (*_backout_of(each), each.load)
    )
    for _, of_one in groupby(known, key=_backout_of):
        _put_backout(connection, list(of_one))


def _backout_of(tombstone: Tombstone) -> tuple[int, str]:
    return tombstone.backout_id, canonical_json(tombstone.why)


def _put_backout(connection: Connection, tombstones: list[Tombstone]) -> None:
    why, at_us = tombstones[0].why, max(tombstone.at_us for tombstone in tombstones)
    plan = BackoutPlan.from_json(str(why["plan_json"]))
    number = backouts.begin(
        connection, plan, reason=why["reason"], actor=why["actor"], now_us=why["requested_at_us"], loads=()
    )
    for tombstone in tombstones:
        version = _removed_version(connection, tombstone.load)
        if version is not None:
            backouts.record_loads(connection, number, [tombstone.load], removed_version=version)
    row = backouts.get(connection, number)
    backouts.advance(connection, row, steps_done=len(plan.steps), now_us=at_us, state=BackoutState.DONE)
    tainted = sorted({name for tombstone in tombstones for name in tombstone.snapshots})
    taints.add(connection, "snapshot", tainted, backout=number, now_us=at_us)
    digests = sorted({digest for tombstone in tombstones for digest in tombstone.versions})
    names = select(schema.versions.c.version).where(schema.versions.c.digest.in_(digests))
    taints.add(connection, "version", connection.execute(names).scalars().all(), backout=number, now_us=at_us)


def _removed_version(connection: Connection, load: LoadKey) -> int | None:
    """Return the first table version without the load; that of the load itself if nothing was left of it, None if unknown."""
    removed = select(func.max(_PARTS.c.removed_version)).where(of_load(_PARTS, load))
    own = select(_BATCHES.c.table_version).where(of_load(_BATCHES, load), _BATCHES.c.state == BACKED_OUT)
    found: int | None = connection.execute(removed).scalar() or connection.execute(own).scalar()
    return found


def put_predictions(connection: Connection, root: Path, found: Iterable[ScannedFile]) -> list[str]:
    """Insert the files of collected predictions whose logs are gone. Returns their paths.

    Those whose logs are there are not inserted: the control loop collects these logs again, with their labels.
    """
    put = []
    seen: dict[tuple[str, int], set[str]] = {}
    # The longest first: a file whose rows are all in a merged one is what a compaction had not deleted yet.
    for each in sorted(found, key=lambda each: (-each.rows, each.path)):
        if each.predictions is None or each.table != PREDICTIONS.name:
            continue  # shadow copies belong to rollouts, which are in no file
        server, segment = str(each.predictions["server"]), int(each.predictions["segment"])
        logs = root / LOGS_DIRECTORY / server
        if (segment, log_directory.path_of(logs, segment)) in log_directory.segments(logs):
            continue
        frame = parquet.read(root / each.path, ["prediction", "at_us"])
        places = [parse_id(text) for text in frame["prediction"].to_list()]
        numbers = [place.number for place in places if place is not None]
        known, names = seen.setdefault((server, segment), set()), set(frame["prediction"].to_list())
        if not numbers or names <= known:
            continue
        known |= names
        counts = {"collected_bytes": 1, "predictions": frame.height, "feedback": 0, "rejected_labels": 0}
        position = inserting(connection, schema.log_positions).values(
            server=server, segment=segment, **counts
        )
        connection.execute(position.on_conflict_do_nothing())
        times = frame["at_us"].to_numpy()
        connection.execute(
            insert(schema.prediction_files).values(
                path=each.path,
                model=str(each.predictions["model"]),
                server=server,
                segment=segment,
                rows=each.rows,
                bytes=each.bytes,
                sha256=each.sha256,
                predicted_at_min_us=int(times.min()),
                predicted_at_max_us=int(times.max()),
                record_number_min=min(numbers),
                record_number_max=max(numbers),
            )
        )
        put.append(each.path)
    return put
