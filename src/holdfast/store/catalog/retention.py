"""Remove files that nothing needs: from the ledger in one transaction first, and then from the disk.

A process that dies in between leaves files that no row names; a sweep removes these.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, exists, select

from holdfast.errors import ConflictError
from holdfast.formatting import counted
from holdfast.store.catalog import delta
from holdfast.store.catalog.delta_log import DRAFT
from holdfast.store.db import events, schema
from holdfast.store.db.statements import pieces
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files import data_files
from holdfast.tables.retention import FileLifetime, ReadableSnapshot, VacuumPlan, plan_vacuum

_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups
_TABLES: Final = schema.snapshot_tables
_SNAPSHOTS: Final = schema.snapshots
_VERSIONS: Final = schema.versions
_TAINTS: Final = schema.taints


def plan(connection: Connection, root: Path, *, now_us: int, keep_us: int, newest: int) -> VacuumPlan:
    """Return what a vacuum would remove now; see `tables.retention.plan_vacuum`."""
    found = plan_vacuum(
        _files(connection),
        _readable_snapshots(connection, delta.pinned_snapshots(root)),
        now_us=now_us,
        keep_us=keep_us,
        keep_last=newest,
    )
    return replace(found, exported=delta.expired_files(root, before_us=now_us - keep_us))


def _files(connection: Connection) -> list[FileLifetime]:
    made, file = schema.table_versions, _FILES.c
    query = select(
        file.path,
        file.table_name,
        file.bytes,
        file.added_version,
        file.removed_version,
        made.c.committed_at_us,
    ).join(made, made.c.table_version == file.removed_version)
    return [FileLifetime(*row) for row in connection.execute(query)]


def _readable_snapshots(connection: Connection, exported: Mapping[str, str]) -> list[ReadableSnapshot]:
    gone = data_files.vacuumed_snapshots(connection)
    tables: dict[str, set[str]] = {}
    for row in connection.execute(select(_TABLES.c.snapshot, _TABLES.c.table_name)):
        tables.setdefault(row.snapshot, set()).add(row.table_name)
    tainted = exists().where(_TAINTS.c.kind == "version", _TAINTS.c.subject == _VERSIONS.c.version)
    needing: dict[str, list[str]] = {}
    query = select(_VERSIONS.c.snapshot, _VERSIONS.c.version).where(_VERSIONS.c.state != "refused", ~tainted)
    for row in connection.execute(query.order_by(_VERSIONS.c.version)):
        needing.setdefault(row.snapshot, []).append(row.version)
    return [
        ReadableSnapshot(
            row.snapshot,
            row.table_version,
            row.created_at_us,
            frozenset(tables[row.snapshot]),
            tuple(needing.get(row.snapshot, ())),
            exported.get(row.snapshot),
        )
        for row in connection.execute(select(_SNAPSHOTS))
        if row.snapshot in tables and row.snapshot not in gone
    ]


def remove(
    connection: Connection, root: Path, shown: VacuumPlan, *, now_us: int, keep_us: int, newest: int
) -> None:
    """Remove what `shown` names from the ledger, and nothing else; `ConflictError` HF304 if the plan would differ by now.

    Parameters
    ----------
    connection, root
        The ledger, and the root of its store.
    shown
        The plan that the operator saw; `plan` made it with the same `now_us`, `keep_us` and `newest`.
    now_us
        Microseconds since 1970 UTC.
    keep_us
        Younger snapshots stay readable, microseconds.
    newest
        Number of newest snapshots that stay readable.
    """
    if plan(connection, root, now_us=now_us, keep_us=keep_us, newest=newest) != shown:
        raise ConflictError(
            "HF304",
            "snapshots or versions changed while the vacuum was planned",
            state="nothing was removed",
            next_command="holdfast vacuum",
        )
    for paths in pieces([file.path for file in shown.files]):
        connection.execute(delete(_PARTS).where(_PARTS.c.path.in_(paths)))
        connection.execute(delete(_FILES).where(_FILES.c.path.in_(paths)))
    data_files.mark_vacuumed(connection, shown.snapshots, now_us=now_us)
    events.append(
        connection,
        at_us=now_us,
        kind="store.vacuumed",
        subject="store",
        explanation=f"{counted(len(shown.files), 'file')} with {counted(shown.bytes, 'byte')} removed; "
        f"{counted(len(shown.snapshots), 'snapshot')} cannot be read any more" + _named(shown.snapshots),
    )
    failpoint("vacuum.before_commit")


def remove_files(connection: Connection, root: Path, removed: VacuumPlan) -> None:
    """Remove the files of `removed` from the disk, and what older releases published of vacuumed snapshots.

    The links of a published table would keep its bytes on the disk.
    """
    delta.remove_expired(root, removed.exported)
    for file in removed.files:
        (root / file.path).unlink(missing_ok=True)
    known = set(connection.execute(select(_TABLES.c.snapshot)).scalars())
    readable = known - data_files.vacuumed_snapshots(connection)
    for directory in sorted((root / delta.PUBLISHED_DIRECTORY).glob("*")):
        drafts = any(path.name.endswith(DRAFT) for path in directory.iterdir())
        if directory.name not in readable and not drafts:
            shutil.rmtree(directory)


def _named(snapshots: Sequence[str]) -> str:
    more = f" and {len(snapshots) - 5} more" if len(snapshots) > 5 else ""
    return f": {', '.join(snapshots[:5])}{more}" if snapshots else ""
