"""The vacuum: shows what nothing needs any more, and lets exactly that go when it is asked to."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from holdfast.store import Store
from holdfast.store.catalog import retention
from holdfast.tables.retention import VacuumPlan

KEEP: Final = timedelta(days=30)
"""How long what was replaced or backed out stays readable at its old version."""

NEWEST: Final = 10
"""So many snapshots stay, however old they are."""


def plan(store: Store, *, now_us: int, keep: timedelta = KEEP, newest: int = NEWEST) -> VacuumPlan:
    """What `vacuum` would let go at `now_us` (microseconds since 1970 UTC); nothing is changed.

    Files of the tables as they are now stay, and those of every pinned snapshot: one that a version was trained on which
    may still be given traffic, one of the `newest`, and one that is younger than `keep`.
    """
    with store.ledger.read() as connection:
        return retention.look(connection, now_us=now_us, keep_us=_us(keep), newest=newest)


def vacuum(
    store: Store, shown: VacuumPlan, *, now_us: int, keep: timedelta = KEEP, newest: int = NEWEST
) -> VacuumPlan:
    """Let go of what `shown` says, which `plan` made of the same moment, `keep` and `newest`; what was let go.

    The ledger first, then the files: killed in between, it leaves orphans, which the next sweep removes. Raises
    `ConflictError` HF304 when the plan would be another one by now; then nothing was let go.
    """
    retention.let_go(store, shown, now_us=now_us, keep_us=_us(keep), newest=newest)
    return shown


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
