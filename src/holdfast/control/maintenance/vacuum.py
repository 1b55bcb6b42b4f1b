"""Vacuum: list the files that nothing needs any more, and remove exactly these on request."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from holdfast.store import Store
from holdfast.store.catalog import retention
from holdfast.store.durability.failpoints import failpoint
from holdfast.tables.retention import VacuumPlan

KEEP: Final = timedelta(days=30)
"""How long replaced or backed-out rows stay readable at their old table version."""

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


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
