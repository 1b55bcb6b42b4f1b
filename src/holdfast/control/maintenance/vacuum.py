"""Vacuum: list the files that nothing needs any more, and remove exactly these on request."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from holdfast.store import Store
from holdfast.store.catalog import retention
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.telemetry import collected_files, replaced_files
from holdfast.tables.retention import VacuumPlan

KEEP: Final = timedelta(days=30)
"""How long replaced or backed-out rows stay readable at their old table version."""

KEEP_PREDICTIONS: Final = timedelta(days=400)
"""How long collected predictions stay: labels that come later cannot be joined with them."""

KEEP_REPLACED: Final = timedelta(days=1)
"""How long files of predictions stay that a compaction replaced: a back-out that lists predictions may read them so long."""

NEWEST: Final = 10
"""Number of newest snapshots that stay at any age."""


def plan(store: Store, *, now_us: int, keep: timedelta = KEEP, newest: int = NEWEST) -> VacuumPlan:
    """Return what `vacuum` would remove at `now_us`; nothing is changed.

    The current files of the tables stay, and those of every pinned snapshot: one of a version that may still be given
    traffic, one that an exported table has, one of the `newest`, and one younger than `keep`.

    Parameters
    ----------
    now_us
        Timestamp of the vacuum, microseconds since 1970 UTC.
    keep
        How long replaced or backed-out rows stay readable.
    newest
        Number of newest snapshots that stay at any age.
    """
    with store.ledger.read() as connection:
        return retention.plan(connection, store.root, now_us=now_us, keep_us=_us(keep), newest=newest)


def vacuum(
    store: Store, shown: VacuumPlan, *, now_us: int, keep: timedelta = KEEP, newest: int = NEWEST
) -> VacuumPlan:
    """Remove what `shown` names; `plan` made it with the same time, `keep` and `newest`. Returns what was removed.

    The ledger changes first, then the files are removed: a kill in between leaves orphans for the next sweep.
    Raises `ConflictError` HF304 if the plan would differ now; then nothing is removed.
    """
    with store.ledger.write() as connection:
        retention.remove(connection, store.root, shown, now_us=now_us, keep_us=_us(keep), newest=newest)
    failpoint("vacuum.after_commit")
    with store.ledger.read() as connection:
        retention.remove_files(connection, store.root, shown)
    return shown


def plan_expiry(store: Store, *, now_us: int, keep: timedelta = KEEP_PREDICTIONS) -> dict[str, list[str]]:
    """Return the files of collected predictions and shadow copies that are wholly older than `keep`, by kind.

    `replaced` has those that a compaction replaced more than `KEEP_REPLACED` ago.
    """
    before_us = now_us - _us(keep)
    with store.ledger.read() as connection:
        found = {
            table.name: collected_files.expired(connection, table, before_us)
            for table in collected_files.KINDS
        }
    replaced = replaced_files.older_than(store.root, now_us - _us(KEEP_REPLACED))
    return found | {replaced_files.REPLACED_DIRECTORY: replaced}


def delete_replaced(store: Store, *, now_us: int) -> None:
    """Delete the files of predictions that a compaction replaced more than `KEEP_REPLACED` ago."""
    old = replaced_files.older_than(store.root, now_us - _us(KEEP_REPLACED))
    collected_files.delete_files(store.root, old)


def expire(store: Store, shown: dict[str, list[str]], *, now_us: int) -> None:
    """Remove what `shown` names: from the ledger in one transaction, then from the disk.

    Labels for these predictions that come later cannot be joined, and a back-out no longer lists them. Outcomes and
    evidence stay. Raises `ConflictError` HF304 if one of the files is gone; then nothing is removed.
    """
    with store.ledger.write() as connection:
        for table in collected_files.KINDS:
            collected_files.expire(connection, table, shown[table.name], now_us=now_us)
    failpoint("vacuum.after_commit")
    for paths in shown.values():
        collected_files.delete_files(store.root, paths)


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
