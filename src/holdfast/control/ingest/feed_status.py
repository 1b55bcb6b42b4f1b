"""The status of each feed: its state, what is loaded, what is missing and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.feeds import Feed
from holdfast.feeds.state_machine import State
from holdfast.records import Level
from holdfast.store import Store
from holdfast.store.catalog import batches, snapshots
from holdfast.store.catalog.batches import FeedTotals
from holdfast.store.feeds import admissions, violations
from holdfast.store.feeds.violations import ViolationRow

NEWEST_VIOLATIONS = 50


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """One feed. `state` is None before its first delivery; `totals` is None while nothing of it is loaded.

    `overdue_us` is how long the next batch is overdue by what the feed expects of the time since the newest load, by our own
    clock: an event time is what the sender wrote. It is None when no batch is overdue or nothing is expected.
    `open` are the newest violations that stand, of loads and of refused deliveries, as `violations.open_ones` returns them.
    `waiting` are the loaded batches that the next snapshot leaves out, because other feeds of the group lack them, and `alone`
    those that it takes without the others, because an operator accepted that. `reregistered` are those of `suspect` that were
    re-registered from their files.
    """

    feed: str
    state: State | None
    reason: str
    changed_at_us: int | None
    totals: FeedTotals | None
    suspect: tuple[str, ...]
    overdue_us: int | None
    open: tuple[ViolationRow, ...]
    waiting: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    reregistered: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Return how many of the newest open violations have each level."""
        return {level: sum(row.level is level for row in self.open) for level in Level}


def of_model(store: Store, declared: Sequence[Feed], *, now_us: int) -> tuple[FeedStatus, ...]:
    """Return the status of every declared feed, and of each that delivered and is no longer declared, by name."""
    expected = {feed.name: feed.expects for feed in declared}
    groups = {feed.name: feed.membership for feed in declared}
    with store.ledger.read() as connection:
        waiting = snapshots.waiting(connection, groups)
        owed = snapshots.waiting(connection, groups, accepted=False)
        rows = {row.feed: row for row in admissions.feed_rows(connection)}
        totals = {each.feed: each for each in batches.totals(connection)}
        statuses = []
        for name in sorted({*expected, *rows, *totals}):
            row, total = rows.get(name), totals.get(name)
            expects = expected.get(name)
            statuses.append(
                FeedStatus(
                    feed=name,
                    state=None if row is None else row.state,
                    reason="" if row is None else row.reason,
                    changed_at_us=None if row is None else row.changed_at_us,
                    totals=total,
                    suspect=tuple(violations.suspect_batches(connection, name)),
                    reregistered=tuple(violations.reregistered_batches(connection, name)),
                    overdue_us=None
                    if expects is None or expects.interval_us is None
                    else _overdue(total, expects.interval_us + expects.grace_us, now_us),
                    open=tuple(violations.open_ones(connection, feed=name, limit=NEWEST_VIOLATIONS)),
                    waiting=tuple(batch for feed, batch, _ in waiting if feed == name),
                    alone=tuple(load[1] for load in owed if load[0] == name and load not in waiting),
                )
            )
    return tuple(statuses)


def _overdue(total: FeedTotals | None, after_us: int, now_us: int) -> int | None:
    if total is None or total.newest_load_at_us is None:
        return None
    late_us = now_us - total.newest_load_at_us - after_us
    return late_us if late_us > 0 else None
