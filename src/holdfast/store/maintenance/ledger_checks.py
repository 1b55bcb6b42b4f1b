"""Checks of the ledger's rows against each other, beyond its constraints. Each returns (subject, what is wrong)."""

from __future__ import annotations

from typing import Final, TypeAlias

from sqlalchemy import Connection, Select, and_, func, or_, select

from holdfast.feeds import quarantine_table
from holdfast.records import sha256_hex
from holdfast.store.catalog import lineage
from holdfast.store.db import schema
from holdfast.store.db.statements import LIVE, PUBLISHED, at_version, load_columns, not_removed, same_load
from holdfast.store.files import data_files
from holdfast.store.models import untrained_loads
from holdfast.tables.backout import BackoutState
from holdfast.tables.row_use import RowUse, use_of_loads

Mismatch: TypeAlias = tuple[str, str]
"""A subject and what is wrong with it."""

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_ROW_GROUPS: Final = schema.file_row_groups
_TAINTS: Final = schema.taints
_SNAPSHOTS: Final = schema.snapshots
_VERSIONS: Final = schema.versions
_MOST: Final = 20

INVALID_LEASE: Final = or_(schema.leases.c.duration_us <= 0, schema.leases.c.epoch < 1)
"""True for a row of `leases` that no call of `acquire` can have written."""


def find_mismatches(connection: Connection) -> list[Mismatch]:
    """Run all checks of this module."""
    checks = (
        miscounted_batches,
        mismatched_parts,
        changed_snapshots,
        unfinished_backouts,
        missing_taints,
        altered_contracts,
        invalid_definitions,
        invalid_leases,
    )
    return [reason for check in checks for reason in check(connection)]


def miscounted_batches(connection: Connection) -> list[Mismatch]:
    """Find loads whose files do not add up to their rows; one that was backed out has none."""
    by_load = load_columns(_ROW_GROUPS)
    query = (
        select(*by_load, _FILES.c.table_name, func.sum(_ROW_GROUPS.c.rows))
        .join(_FILES, _FILES.c.path == _ROW_GROUPS.c.path)
        .where(not_removed(_FILES, _ROW_GROUPS))
        .group_by(*by_load, _FILES.c.table_name)
    )
    counted = {tuple(row[:4]): int(row[4]) for row in connection.execute(query)}
    wrong = []
    for row in connection.execute(select(_BATCHES)):
        load = (row.feed, row.batch, row.epoch)
        tables = (row.feed, quarantine_table(row.feed))
        loaded, quarantined = (counted.get((*load, table), 0) for table in tables)
        live = row.state == PUBLISHED
        expected = (row.rows_loaded, row.rows_quarantined) if live else (0, 0)
        if (loaded, quarantined) != expected:
            declared = f"{expected[0]} + {expected[1]}" + ("" if live else ", because it was backed out")
            reason = (
                f"its files have {loaded} + {quarantined} rows (loaded + quarantined), the ledger {declared}"
            )
            wrong.append((f"batch {row.feed}/{row.batch}", reason))
    return wrong


def mismatched_parts(connection: Connection) -> list[Mismatch]:
    """Find files whose rows are not those of the loads in them, or that are older than these."""
    sums = (
        select(_ROW_GROUPS.c.path, func.sum(_ROW_GROUPS.c.rows).label("rows"))
        .group_by(_ROW_GROUPS.c.path)
        .subquery()
    )
    query = (
        select(_FILES.c.path, _FILES.c.rows, func.coalesce(sums.c.rows, 0).label("of_loads"))
        .outerjoin(sums, sums.c.path == _FILES.c.path)
        .where(func.coalesce(sums.c.rows, 0) != _FILES.c.rows)
        .limit(_MOST)
    )
    wrong = [
        (row.path, f"it has {row.rows} rows in the ledger, its loads have {row.of_loads}")
        for row in connection.execute(query)
    ]
    early = (
        select(_FILES.c.path, _FILES.c.added_version, _BATCHES.c.table_version)
        .join(_ROW_GROUPS, _ROW_GROUPS.c.path == _FILES.c.path)
        .join(_BATCHES, same_load(_BATCHES, _ROW_GROUPS))
        .where(_FILES.c.added_version < _BATCHES.c.table_version)
        .limit(_MOST)
    )
    wrong += [
        (row.path, f"it was added in version {row.added_version}, before its load, in {row.table_version}")
        for row in connection.execute(early)
    ]
    return wrong


def changed_snapshots(connection: Connection) -> list[Mismatch]:
    """Find snapshots whose tables do not have the files and rows that they had, except vacuumed ones."""
    tables = schema.snapshot_tables
    tables_of_snapshots = (
        select(_SNAPSHOTS.c.table_version, tables)
        .join(tables, tables.c.snapshot == _SNAPSHOTS.c.snapshot)
        .where(_SNAPSHOTS.c.snapshot.not_in(select(schema.vacuumed_snapshots.c.snapshot)))
    )
    wrong = []
    for table in connection.execute(tables_of_snapshots).all():
        excluded = data_files.incomplete_loads(connection, table.snapshot)
        found = data_files.entries(connection, table.table_name, table.table_version, excluded=excluded)
        rows = sum(fact.rows for fact in found)
        if (len(found), rows) != (table.files, table.rows):
            reason = (
                f"table {table.table_name} has {rows} rows in {len(found)} files; the snapshot has "
                f"{table.rows} in {table.files}"
            )
            wrong.append((f"snapshot {table.snapshot}", reason))
    return wrong


def unfinished_backouts(connection: Connection) -> list[Mismatch]:
    """Find loads of a finished back-out that are still loaded."""
    of = schema.backout_batches
    query = (
        select(of)
        .join(_BATCHES, same_load(_BATCHES, of))
        .join(schema.backouts, schema.backouts.c.backout_id == of.c.backout_id)
        .where(LIVE, schema.backouts.c.state != BackoutState.UNDER_WAY)
    )
    return [
        (f"batch {row.feed}/{row.batch}", f"back-out {row.backout_id} has ended, and it is still loaded")
        for row in connection.execute(query)
    ]


def missing_taints(connection: Connection) -> list[Mismatch]:
    """Find versions of a tainted snapshot, and snapshots with backed-out rows, that are not tainted.

    A version that used no backed-out row of its snapshot is clean.
    """
    bad = select(_TAINTS.c.subject).where(_TAINTS.c.kind == "snapshot")
    marked = select(_TAINTS.c.subject).where(_TAINTS.c.kind == "version")
    versions = select(_VERSIONS.c.version, _VERSIONS.c.snapshot).where(
        _VERSIONS.c.snapshot.in_(bad), _VERSIONS.c.version.not_in(marked)
    )
    unmarked = connection.execute(versions).all()
    wrong = [
        (f"version {row.version}", f"it is not tainted, but its snapshot {row.snapshot} is")
        for row in unmarked
        if not _is_clean(connection, row.version, row.snapshot)
    ]
    return wrong + [
        (
            f"snapshot {row.snapshot}",
            f"it is not tainted, but has backed-out rows of {row.feed}/{row.batch}",
        )
        for row in connection.execute(_snapshots_of_removed().where(_SNAPSHOTS.c.snapshot.not_in(bad)))
    ]


def _is_clean(connection: Connection, version: str, snapshot: str) -> bool:
    """Return True if no training row of `version`, and no held-out row, is from a backed-out load of its snapshot."""
    removed = [
        each.key for each in lineage.loads_in(connection, snapshot) if each.removed_version is not None
    ]
    feeds = {feed for feed, _, _ in removed}
    known = untrained_loads.of_versions(connection, [version], feeds)[version]
    return bool(removed) and use_of_loads(removed, known) is RowUse.UNUSED


def _snapshots_of_removed() -> Select[tuple[str, str, str]]:
    """Return snapshots with the loads in them that a finished back-out removed."""
    of, tables, left_out = schema.backout_batches, schema.snapshot_tables, schema.snapshot_incomplete_loads
    in_snapshot = and_(
        tables.c.table_name == _FILES.c.table_name,
        at_version(_FILES, _SNAPSHOTS.c.table_version),
        at_version(_ROW_GROUPS, _SNAPSHOTS.c.table_version),
    )
    is_left_out = and_(left_out.c.snapshot == _SNAPSHOTS.c.snapshot, same_load(left_out, _ROW_GROUPS))
    return (
        select(_SNAPSHOTS.c.snapshot, _ROW_GROUPS.c.feed, _ROW_GROUPS.c.batch)
        .distinct()
        .select_from(_ROW_GROUPS)
        .join(_FILES, _FILES.c.path == _ROW_GROUPS.c.path)
        .join(of, same_load(of, _ROW_GROUPS))
        .join(schema.backouts, schema.backouts.c.backout_id == of.c.backout_id)
        .join(tables, tables.c.table_name == _FILES.c.table_name)
        .join(_SNAPSHOTS, _SNAPSHOTS.c.snapshot == tables.c.snapshot)
        .where(in_snapshot, schema.backouts.c.state != BackoutState.UNDER_WAY)
        .where(~select(left_out.c.snapshot).where(is_left_out).exists())
        .limit(_MOST)
    )


def altered_contracts(connection: Connection) -> list[Mismatch]:
    """Find contracts whose JSON does not have their hash."""
    return [
        (f"contract {row.contract_hash[:12]}", "its JSON in the ledger does not have its hash")
        for row in connection.execute(select(schema.contracts))
        if sha256_hex(row.contract_json) != row.contract_hash
    ]


def invalid_definitions(connection: Connection) -> list[Mismatch]:
    """Find aggregates whose values claim a table version that does not exist."""
    newest = select(func.coalesce(func.max(schema.table_versions.c.table_version), 0)).scalar_subquery()
    definitions = schema.online_definitions
    return [
        (f"aggregate {row.aggregate}", f"its values claim version {row.table_version}, which does not exist")
        for row in connection.execute(select(definitions).where(definitions.c.table_version > newest))
    ]


def invalid_leases(connection: Connection) -> list[Mismatch]:
    """Find leases that no call of `acquire` can have written."""
    return [
        (f"lease {row.lease}", f"epoch {row.epoch} lasts {row.duration_us} microseconds")
        for row in connection.execute(select(schema.leases).where(INVALID_LEASE))
    ]
