"""Cuts: what a set of tables was at one table version, and what a cut leaves out.

Every load makes one new table version, which counts across *all* tables: so one number cuts them all at the
same moment. Feeds of one group are loaded one after the other all the same: between two of their loads one has
a delivery that the other lacks. A cut leaves such a delivery out until it is whole (R8, R56).
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
"""A load as the ledger names it: feed, batch, epoch."""


@dataclass(frozen=True, slots=True)
class TableCut:
    """One table in a snapshot: how many rows in how many files it had."""

    table: str
    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Exact versions of every table that a training reads. It never changes, because versions never do.

    `contract_hash` is of the contract that the rows were read for; `created_at_us` is microseconds since 1970
    UTC.
    """

    snapshot: str
    table_version: int
    contract_hash: str
    created_at_us: int
    tables: tuple[TableCut, ...]
    held_back: tuple[LoadKey, ...] = ()
    """Loads that were there and are left out: the rest of their group had not delivered them yet."""

    @property
    def rows(self) -> int:
        """Rows over all tables."""
        return sum(cut.rows for cut in self.tables)


@dataclass(frozen=True, slots=True)
class CutLoad:
    """A live load of a feed of a group: the sender's id, and the bounds of its rows' event time in microseconds UTC.

    Of two loads, the later one has the greater `order`. `alone` says that a person wants it in without what it waits for.
    """

    batch: str
    epoch: int
    event_time_min_us: int
    event_time_max_us: int
    order: int
    alone: bool = False


def held_back(group: Mapping[str, Sequence[CutLoad]]) -> tuple[LoadKey, ...]:
    """The loads of a group of feeds that a cut leaves out, in order: those whose delivery is not whole yet.

    Parameters
    ----------
    group
        The live loads of each feed of one group. A feed without any holds nothing back: it has not begun to deliver.

    A load with an id that another feed has too is whole as far as that feed goes. Any other waits for the feed:

    1. while it begins after everything that the feed has;
    2. and later, if the feed came past its beginning with a delivery that had a sibling of the same id here, for as long
       as the feed, which had older rows before, has nothing of its own for the time of the load. Who skips an id that way
       owes it.

    An id goes in as soon as one of its loads need not wait: half a delivery is what this is about.

    Guarantee: once every feed of the group has begun, one more delivery takes nothing out of the next cut that was in this
    one. What decides is either settled by the order in which the loads came, or changed by more loads only towards
    letting in.

    >>> first, second = CutLoad("d1", 0, 0, 9, 1), CutLoad("d2", 0, 10, 19, 3)
    >>> held_back({"flights": [first, second], "weather": [CutLoad("d1", 0, 0, 9, 2)]})
    (('flights', 'd2', 0),)
    """
    begun = {feed: _Deliveries.of(loads) for feed, loads in group.items() if loads}
    waiting = {
        feed: {load.batch for load in mine.loads if _waits(load, mine, begun, feed)}
        for feed, mine in begun.items()
    }
    let_in = {
        load.batch for feed, mine in begun.items() for load in mine.loads if load.batch not in waiting[feed]
    }
    return tuple(
        sorted(
            (feed, load.batch, load.epoch)
            for feed, mine in begun.items()
            for load in mine.loads
            if load.batch not in let_in
        )
    )


@dataclass(frozen=True, slots=True)
class _Deliveries:
    """The loads of one feed in the order in which they came, the newest event time up to each, and when each id came."""

    loads: tuple[CutLoad, ...]
    reached_us: tuple[int, ...]
    came: Mapping[str, int]

    @classmethod
    def of(cls, loads: Sequence[CutLoad]) -> _Deliveries:
        ordered = tuple(sorted(loads, key=lambda load: load.order))
        reached_us = tuple(accumulate((load.event_time_max_us for load in ordered), max))
        return cls(ordered, reached_us, {load.batch: load.order for load in ordered})

    def had(self, batch: str, order: int) -> bool:
        """Whether the id was there when, or before, the load of that order came."""
        came = self.came.get(batch)
        return came is not None and came <= order


def _waits(load: CutLoad, mine: _Deliveries, begun: Mapping[str, _Deliveries], feed: str) -> bool:
    return not load.alone and any(
        load.batch not in others.came and _is_owed(load, mine, others)
        for other, others in begun.items()
        if other != feed
    )


def _is_owed(load: CutLoad, mine: _Deliveries, others: _Deliveries) -> bool:
    """Whether `others`, who lack the id of `load`, are to deliver something for its time still."""
    passed = bisect_left(others.reached_us, load.event_time_min_us)
    if passed == len(others.loads):
        return True
    past = others.loads[passed]
    since = max(past.order, load.order)
    if not mine.had(past.batch, since):
        return False  # they name their deliveries otherwise, and have come as far
    older = any(
        each.order <= since and each.event_time_min_us < load.event_time_min_us for each in others.loads
    )
    return older and not any(
        each.event_time_min_us <= load.event_time_max_us
        and each.event_time_max_us >= load.event_time_min_us
        and not mine.had(each.batch, max(each.order, load.order))
        for each in others.loads
    )


def known_day(now_us: int, last_due_us: int) -> int:
    """The day (since 1970, UTC) that a cut is of, as far as it matters: once the last label is due, all days are one.

    Parameters
    ----------
    now_us
        When the cut is made, microseconds since 1970 UTC.
    last_due_us
        When the label of the newest row is due.

    Which labels count is settled by the moment of the cut. Unchanged tables therefore give the same cut all day, and
    another on the next day for as long as labels come due.

    >>> [known_day(day * DAY_US, last_due_us=3 * DAY_US + 5) for day in (2, 3, 4, 99)]
    [2, 3, 4, 4]
    """
    return min(now_us // DAY_US, last_due_us // DAY_US + 1)


def snapshot_name(
    table_version: int,
    contract_hash: str,
    tables: Sequence[TableCut],
    *,
    held_back: Sequence[LoadKey] = (),
    day: int | None = None,
) -> str:
    """The name of a cut: the same cut has the same name, whoever asks for it and however often.

    Parameters
    ----------
    held_back
        The loads that it leaves out.
    day
        `known_day` where labels come due later than their rows, None otherwise.

    >>> snapshot_name(7, "ab", [TableCut("flights", 10, 1)])
    's7-c61bc883'
    """
    content: list[object] = [
        table_version,
        contract_hash,
        [[cut.table, cut.rows, cut.files] for cut in tables],
    ]
    if held_back or day is not None:
        content += [[list(load) for load in held_back], day]
    return f"s{table_version}-{sha256_hex(canonical_json(content))[:8]}"
