"""Snapshots: several tables at one table version, without incomplete loads.

Every load makes one new table version, which counts across *all* tables, so one number fixes them all at the same
time. Feeds of one group are loaded one after the other: between two of their loads, one has a delivery that the other
lacks. A snapshot leaves such a delivery out until it is complete (R8, R56).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeAlias

from holdfast.records import canonical_json, sha256_hex

DAY_US: Final = 86_400_000_000

LoadKey: TypeAlias = tuple[str, str, int]
"""The key of a load in the ledger: feed, batch, epoch."""


@dataclass(frozen=True, slots=True)
class SnapshotTable:
    """One table in a snapshot, with its number of rows and files."""

    table: str
    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The exact version of every table that a training reads. It never changes, because versions never do.

    `contract_hash` is of the contract of the model's rows; `created_at_us` is microseconds since 1970 UTC.
    """

    snapshot: str
    table_version: int
    contract_hash: str
    created_at_us: int
    tables: tuple[SnapshotTable, ...]
    incomplete_loads: tuple[LoadKey, ...] = ()
    """Loads that are left out because the rest of their group had not delivered them yet."""

    @property
    def rows(self) -> int:
        """Return the number of rows over all tables."""
        return sum(table.rows for table in self.tables)


@dataclass(frozen=True, slots=True)
class GroupLoad:
    """A live load of a feed of a group: batch id, epoch, and bounds of its rows' event time in microseconds UTC.

    Of two loads, the later one has the greater `order`. `alone` means that an operator wants it without what it waits
    for.
    """

    batch: str
    epoch: int
    event_time_min_us: int
    event_time_max_us: int
    order: int
    alone: bool = False


def find_incomplete_loads(group: Mapping[str, Sequence[GroupLoad]]) -> tuple[LoadKey, ...]:
    """Return the loads of a group of feeds that a snapshot leaves out, in order: those with an incomplete delivery.

    Parameters
    ----------
    group
        The live loads of each feed of one group. A feed without any does not count: it has not begun to deliver.

    A load is complete with respect to another feed that has the same batch id. Otherwise it waits for that feed:

    1. while it begins after everything that the feed has;
    2. and later, if the feed passed its beginning with a delivery of an id that exists here too, as long as the feed, which
       had older rows before, has nothing of its own for the time of the load. A feed that skips an id this way still
       owes it.

    An id is admitted as soon as one of its loads need not wait.

    Guarantee: once every feed of the group has begun, one more delivery removes nothing from the next snapshot that
    was in this one. The decision depends on the order of the loads, or changes with more loads only towards
    admission.

    >>> first, second = GroupLoad("d1", 0, 0, 9, 1), GroupLoad("d2", 0, 10, 19, 3)
    >>> find_incomplete_loads({"flights": [first, second], "weather": [GroupLoad("d1", 0, 0, 9, 2)]})
    (('flights', 'd2', 0),)
    """
    begun = {feed: _Deliveries.of(loads) for feed, loads in group.items() if loads}
    waiting = {
        feed: {load.batch for load in mine.loads if _is_waiting(load, mine, begun, feed)}
        for feed, mine in begun.items()
    }
    admitted = {
        load.batch for feed, mine in begun.items() for load in mine.loads if load.batch not in waiting[feed]
    }
    return tuple(
        sorted(
            (feed, load.batch, load.epoch)
            for feed, mine in begun.items()
            for load in mine.loads
            if load.batch not in admitted
        )
    )


@dataclass(frozen=True, slots=True)
class _Deliveries:
    """The loads of one feed in order of arrival, the newest event time up to each, and the order of each id."""

    loads: tuple[GroupLoad, ...]
    newest_us: tuple[int, ...]
    arrived: Mapping[str, int]

    @classmethod
    def of(cls, loads: Sequence[GroupLoad]) -> _Deliveries:
        ordered = tuple(sorted(loads, key=lambda load: load.order))
        newest_us = tuple(accumulate((load.event_time_max_us for load in ordered), max))
        return cls(ordered, newest_us, {load.batch: load.order for load in ordered})

    def has_by(self, batch: str, order: int) -> bool:
        """Return True if the id existed at or before the load of that order."""
        arrived = self.arrived.get(batch)
        return arrived is not None and arrived <= order


def _is_waiting(load: GroupLoad, mine: _Deliveries, begun: Mapping[str, _Deliveries], feed: str) -> bool:
    return not load.alone and any(
        load.batch not in others.arrived and _is_owed(load, mine, others)
        for other, others in begun.items()
        if other != feed
    )


def _is_owed(load: GroupLoad, mine: _Deliveries, others: _Deliveries) -> bool:
    """Return True if `others`, which lack the id of `load`, are still to deliver something for its time."""
    passed = bisect_left(others.newest_us, load.event_time_min_us)
    if passed == len(others.loads):
        return True
    past = others.loads[passed]
    since = max(past.order, load.order)
    if not mine.has_by(past.batch, since):
        return False  # they name their deliveries differently, and are past this time
    older = any(
        each.order <= since and each.event_time_min_us < load.event_time_min_us for each in others.loads
    )
    return older and not any(
        each.event_time_min_us <= load.event_time_max_us
        and each.event_time_max_us >= load.event_time_min_us
        and not mine.has_by(each.batch, max(each.order, load.order))
        for each in others.loads
    )


def known_day(now_us: int, last_due_us: int) -> int:
    """Return the day (since 1970, UTC) of a snapshot; after the last label is due, all days are the same.

    Parameters
    ----------
    now_us
        The time of the snapshot, microseconds since 1970 UTC.
    last_due_us
        The time at which the label of the newest row is due.

    The time of the snapshot decides which labels count. Unchanged tables therefore give the same snapshot all day,
    and another one on the next day while labels come due.

    >>> [known_day(day * DAY_US, last_due_us=3 * DAY_US + 5) for day in (2, 3, 4, 99)]
    [2, 3, 4, 4]
    """
    return min(now_us // DAY_US, last_due_us // DAY_US + 1)


def snapshot_name(
    table_version: int,
    contract_hash: str,
    tables: Sequence[SnapshotTable],
    *,
    incomplete_loads: Sequence[LoadKey] = (),
    day: int | None = None,
) -> str:
    """Return the name of a snapshot: the same content always has the same name.

    Parameters
    ----------
    table_version
        The table version of all tables.
    contract_hash
        The hash of the contract of the model's rows.
    tables
        Rows and files of each table.
    incomplete_loads
        The loads that are left out.
    day
        `known_day` if labels come due later than their rows, None otherwise.

    >>> snapshot_name(7, "ab", [SnapshotTable("flights", 10, 1)])
    's7-c61bc883'
    """
    content: list[object] = [
        table_version,
        contract_hash,
        [[table.table, table.rows, table.files] for table in tables],
    ]
    if incomplete_loads or day is not None:
        content += [[list(load) for load in incomplete_loads], day]
    return f"s{table_version}-{sha256_hex(canonical_json(content))[:8]}"
