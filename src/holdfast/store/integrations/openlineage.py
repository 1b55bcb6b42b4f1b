"""Read the facts of an operation from the ledger, for the events of OpenLineage."""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import Connection, func, select

from holdfast.store.backout import backouts, taints
from holdfast.store.catalog.lineage import load_of
from holdfast.store.db import failed_operations, rows, schema
from holdfast.store.db.events import EventRow
from holdfast.store.db.statements import of_load
from holdfast.store.feeds import contracts
from holdfast.tables.backout import RemoveRows, TaintSnapshots, TaintVersions
from holdfast.tables.lineage import Node, NodeKind
from holdfast.tables.openlineage import (
    BackoutFacts,
    Facts,
    FailedLoadFacts,
    FailedTrainingFacts,
    LoadFacts,
    SnapshotFacts,
    TableRows,
    TrainFacts,
)
from holdfast.tables.snapshots import LoadKey

_BATCHES: Final = schema.batches
_VERSIONS: Final = schema.table_versions
_PARTS: Final = schema.file_row_groups
_FILES: Final = schema.files
_SNAPSHOTS: Final = schema.snapshots
_TABLES: Final = schema.snapshot_tables
_MODELS: Final = schema.versions


def of_node(connection: Connection, node: Node) -> list[Facts]:
    """Return the operations that made `node`, and for a removed load its back-out."""
    match node.kind:
        case NodeKind.BATCH:
            load = load_of(connection, node.name)
            if load is None:
                return []
            made = _load(connection, load.key)
            gone = [] if load.removed_version is None else _back_outs(connection, load.key)
            return [*made, *gone]
        case NodeKind.SNAPSHOT:
            return _snapshot(connection, node.name)
        case NodeKind.VERSION:
            return _trained(connection, node.name)
        case NodeKind.ROLLOUT | NodeKind.PLAN | NodeKind.PREDICTIONS | NodeKind.LABELS:
            return []  # OpenLineage knows no deployments


def of_event(connection: Connection, event: EventRow) -> list[Facts]:
    """Return the operations of an event: a load, a back-out, a training with its snapshot, or one of them that failed."""
    feed, _, batch = event.subject.partition("/")
    match event.kind:
        case "batch.published":
            query = select(_BATCHES.c.epoch).join(
                _VERSIONS, _VERSIONS.c.table_version == _BATCHES.c.table_version
            )
            here = query.where(
                _BATCHES.c.feed == feed, _BATCHES.c.batch == batch, _VERSIONS.c.committed_at_us <= event.at_us
            )
            epoch = connection.execute(here.order_by(_BATCHES.c.epoch.desc()).limit(1)).scalar_one_or_none()
            return [] if epoch is None else _load(connection, (feed, batch, epoch))
        case "batch.refused":
            return _failed_load(connection, event, "refused")
        case "load.failed":
            return _failed_load(connection, event, "failed")
        case "load.interrupted":
            return _failed_load(connection, event, "interrupted")
        case "training.failed":
            failed = failed_operations.find(connection, event.event_id)
            if failed is None:
                return []
            return [
                FailedTrainingFacts(
                    event.at_us, event.subject, failed.source, event.explanation, failed.begun_at_us
                )
            ]
        case "batch.backed_out":
            done = backouts.newest_of(connection, feed, batch)
            return [] if done is None or done.feed != feed else [_backout_facts(connection, done)]
        case "version.registered":
            query = select(_MODELS.c.snapshot).where(_MODELS.c.version == event.subject)
            snapshot = connection.execute(query).scalar_one_or_none()
            made = [] if snapshot is None else _snapshot(connection, snapshot)
            return [*made, *_trained(connection, event.subject)]
        case _:
            return []


def _failed_load(
    connection: Connection, event: EventRow, outcome: Literal["refused", "failed", "interrupted"]
) -> list[Facts]:
    feed, _, batch = event.subject.partition("/")
    failed = failed_operations.find(connection, event.event_id)
    source, begun_us = ("", None) if failed is None else (failed.source, failed.begun_at_us)
    return [FailedLoadFacts(event.at_us, feed, batch, event.explanation, outcome, source, begun_us)]


def _load(connection: Connection, load: LoadKey) -> list[Facts]:
    feed, batch, epoch = load
    query = (
        select(_BATCHES, _VERSIONS.c.committed_at_us)
        .join(_VERSIONS, _VERSIONS.c.table_version == _BATCHES.c.table_version)
        .where(of_load(_BATCHES, load))
    )
    row = connection.execute(query).one()
    written = (
        select(func.count())
        .select_from(_PARTS.join(_FILES, _FILES.c.path == _PARTS.c.path))
        .where(of_load(_PARTS, load))
        .where(_FILES.c.added_version == row.table_version, _FILES.c.table_name == feed)
    )
    contract = contracts.find(connection, row.contract_hash)
    return [
        LoadFacts(
            at_us=row.committed_at_us,
            begun_us=row.begun_at_us,
            feed=feed,
            batch=batch,
            epoch=epoch,
            source=row.source,
            digest=row.digest,
            contract_hash=row.contract_hash,
            rows_quarantined=row.rows_quarantined,
            wrote=TableRows(
                feed, row.table_version, row.rows_loaded, int(connection.execute(written).scalar_one())
            ),
            fields=()
            if contract is None
            else tuple((column.name, type(column).__name__) for column in contract.columns),
        )
    ]


def _snapshot(connection: Connection, snapshot: str) -> list[Facts]:
    row = connection.execute(select(_SNAPSHOTS).where(_SNAPSHOTS.c.snapshot == snapshot)).one()
    query = select(_TABLES).where(_TABLES.c.snapshot == snapshot).order_by(_TABLES.c.table_name)
    read = tuple(
        TableRows(part.table_name, row.table_version, part.rows, part.files)
        for part in connection.execute(query)
    )
    return [
        SnapshotFacts(
            row.created_at_us,
            snapshot,
            read,
            taints.tainted(connection, "snapshot", snapshot),
            row.begun_at_us,
        )
    ]


def _trained(connection: Connection, version: str) -> list[Facts]:
    row = connection.execute(select(_MODELS).where(_MODELS.c.version == version)).mappings().one()
    tainted = taints.tainted(connection, "version", version)
    return [
        rows.record(
            {**row, "at_us": row["created_at_us"], "begun_us": row["begun_at_us"], "tainted": tainted},
            TrainFacts,
        )
    ]


def _back_outs(connection: Connection, load: LoadKey) -> list[Facts]:
    of = schema.backout_batches
    query = select(of.c.backout_id).where(of_load(of, load))
    return [
        _backout_facts(connection, backouts.get(connection, number))
        for number in connection.execute(query.order_by(of.c.backout_id)).scalars()
    ]


def _backout_facts(connection: Connection, row: backouts.BackoutRow) -> BackoutFacts:
    steps = row.plan.steps
    removed = [step for step in steps if isinstance(step, RemoveRows)]
    return BackoutFacts(
        begun_us=row.requested_at_us,
        at_us=row.changed_at_us,
        feed=row.feed,
        batch=row.batch,
        backout_id=row.backout_id,
        reason=row.reason,
        actor=row.actor,
        removed=tuple(
            TableRows(part.table, (load and load.removed_version) or 0, part.rows, part.files)
            for step in removed
            for load in [load_of(connection, Node.load(step.feed, step.batch, step.epoch).name)]
            for part in step.parts
        ),
        snapshots=tuple(
            name for step in steps if isinstance(step, TaintSnapshots) for name in step.snapshots
        ),
        versions=tuple(name for step in steps if isinstance(step, TaintVersions) for name in step.versions),
    )
