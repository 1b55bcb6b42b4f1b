"""Rows of `snapshots` and `snapshot_tables`: named cuts, which is all that training reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, insert, select

from holdfast.errors import NotFoundError
from holdfast.store import Store, batches, files, schema
from holdfast.store.files import FileFacts
from holdfast.tables import Snapshot, TableCut, snapshot_name

_SNAPSHOTS: Final = schema.snapshots
_TABLES: Final = schema.snapshot_tables


def create(store: Store, tables: Sequence[str], *, contract_hash: str, now_us: int) -> Snapshot:
    """A cut of `tables` at the newest table version; the same cut again is the same snapshot.

    All tables are cut at one version, so that feeds which were loaded up to different moments are still seen
    as they stood together. Raises `NotFoundError` HF303 when a table has no row.
    """
    with store.ledger.write() as connection:
        version = batches.current_version(connection)
        cuts = tuple(_cut(connection, table, version) for table in dict.fromkeys(tables))
        name = snapshot_name(version, contract_hash, cuts)
        known = _find(connection, name)
        if known is not None:
            return known
        connection.execute(
            insert(_SNAPSHOTS).values(
                snapshot=name, table_version=version, contract_hash=contract_hash, created_us=now_us
            )
        )
        connection.execute(
            insert(_TABLES),
            [
                {"snapshot": name, "table_name": cut.table, "rows": cut.rows, "files": cut.files}
                for cut in cuts
            ],
        )
    return Snapshot(name, version, contract_hash, now_us, cuts)


def get(store: Store, snapshot: str) -> Snapshot:
    """The snapshot of that name; `NotFoundError` HF303 when there is none."""
    with store.ledger.read() as connection:
        found = _find(connection, snapshot)
    if found is None:
        raise NotFoundError("HF303", f"there is no snapshot {snapshot!r}", next_command="holdfast status")
    return found


def table_files(connection: Connection, snapshot: Snapshot, table: str) -> list[FileFacts]:
    """The files of `table` in `snapshot`, in order of event time; `NotFoundError` HF303 for a table that it
    does not cut.
    """
    if table not in {cut.table for cut in snapshot.tables}:
        raise NotFoundError("HF303", f"snapshot {snapshot.snapshot} has no table {table!r}")
    return files.entries(connection, table, snapshot.table_version)


def _cut(connection: Connection, table: str, version: int) -> TableCut:
    found = files.entries(connection, table, version)
    rows = sum(fact.rows for fact in found)
    if rows == 0:
        raise NotFoundError(
            "HF303",
            f"table {table!r} has no row to take a snapshot of",
            state="no snapshot was made",
            next_command=f"holdfast ingest {table} <file>",
        )
    return TableCut(table, rows, len(found))


def _find(connection: Connection, name: str) -> Snapshot | None:
    row = connection.execute(select(_SNAPSHOTS).where(_SNAPSHOTS.c.snapshot == name)).one_or_none()
    if row is None:
        return None
    query = select(_TABLES).where(_TABLES.c.snapshot == name).order_by(_TABLES.c.table_name)
    cuts = tuple(TableCut(cut.table_name, cut.rows, cut.files) for cut in connection.execute(query))
    return Snapshot(row.snapshot, row.table_version, row.contract_hash, row.created_us, cuts)
