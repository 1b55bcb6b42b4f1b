"""Groups of feeds: which batches of them belong together, by the period of their event times.

Batches of different feeds belong together if they are of the same period, such as a day: their ids need not be equal.
A snapshot leaves a period out until every feed of the group has it, and a back-out removes it from all of them (R8, R56).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final
from zoneinfo import ZoneInfo

DAY_US: Final = 86_400_000_000

_MOST_PERIODS: Final = 10_000
"""A load of more periods has its first and last alone: one date of the year 9999 would otherwise make millions."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FeedGroup:
    """The group of a feed: its name, the length of its periods, and the time zone in which they begin."""

    name: str
    period_us: int = DAY_US
    zone: str = "UTC"

    def periods(self, low_us: int, high_us: int, period_us: int | None = None) -> range:
        """Return the periods from `low_us` to `high_us`, event times in microseconds UTC; see `periods_of`."""
        length_us = self.period_us if period_us is None else period_us
        return periods_of(_local_us(low_us, self.zone), _local_us(high_us, self.zone), length_us)


def _local_us(at_us: int, zone: str) -> int:
    """Return what a clock in `zone` shows, in microseconds since its 1970."""
    if zone == "UTC":
        return at_us
    try:
        offset = (_EPOCH + timedelta(microseconds=at_us)).astimezone(ZoneInfo(zone)).utcoffset()
    except OverflowError:  # an event time outside the years 1 to 9999 has no offset
        return at_us
    return at_us + (offset or timedelta(0)) // timedelta(microseconds=1)


def periods_of(low_us: int, high_us: int, period_us: int) -> range:
    """Return the numbers of the periods that rows from `low_us` to `high_us` are of, counted from 1970.

    The length is rounded to whole periods around the middle, so that some rows of the evening before make no period.
    Of more than 10,000 periods the range has the first and the last alone.

    >>> periods_of(18, 39, period_us=20), periods_of(0, 59, period_us=20), list(periods_of(0, 10**6, period_us=20))
    (range(1, 2), range(0, 3), [0, 49999])
    """
    count = max(1, round((high_us - low_us) / period_us))
    first = (low_us + high_us - (count - 1) * period_us) // 2 // period_us
    return range(first, first + count, 1 if count <= _MOST_PERIODS else count - 1)


@dataclass(frozen=True, slots=True)
class GroupLoad:
    """A live load of a feed of a group: batch id, epoch, and the periods of its rows, which follow each other.

    Of two loads, the later one has the greater `order`. `alone` means that an operator wants it without what it waits
    for.
    """

    batch: str
    epoch: int
    periods: range
    order: int
    alone: bool = False


def is_sibling(batch: str, periods: range, other: GroupLoad, known: Mapping[str, int], as_of: int) -> bool:
    """Return True if `other`, of another feed of the group, belongs to `batch` of `periods`.

    It does if it has the same id, or is of one of the periods and its id is of no other batch that `known` (ids of the feed
    of `batch`, with their order) has as of the order `as_of`: the sender has then named its sibling.
    """
    if other.batch == batch:
        return True
    named = known.get(other.batch)
    return (named is None or named > as_of) and _overlap(periods, other.periods)


def find_siblings(
    batch: str, periods: range, mine: Sequence[GroupLoad], others: Sequence[GroupLoad]
) -> list[GroupLoad]:
    """Return the loads of another feed of the group that are backed out with `batch`.

    Parameters
    ----------
    batch, periods
        The batch, and the periods of its rows.
    mine, others
        All live loads of its feed, and of the other feed.

    The load with the same id; without one, those within the periods whose ids the feed of `batch` does not have. A load that
    reaches beyond the periods stays: snapshots hold it back until the periods are delivered again.
    """
    same = [each for each in others if each.batch == batch]
    if same:
        return same
    known = {each.batch for each in mine}
    return [each for each in others if each.batch not in known and _contains(periods, each.periods)]


def find_incomplete_loads(group: Mapping[str, Sequence[GroupLoad]]) -> tuple[tuple[str, str, int], ...]:
    """Return the loads (feed, batch, epoch) of a group that a snapshot leaves out, in order: those of incomplete periods.

    Parameters
    ----------
    group
        The live loads of each feed of one group. A feed without any does not count: it has not begun to deliver.

    A load is complete with respect to another feed that has siblings for each of its periods; see `is_sibling`. For a
    period without a sibling it waits for that feed:

    1. until the feed has a later period;
    2. and then, if the feed had an older period by that time: it has skipped one, and still owes it.

    A load that an operator wants alone takes its siblings along, and so does one that need not wait.

    Guarantee: once every feed of the group has begun, one more delivery removes nothing from the next snapshot that
    was in this one. The decision depends on the order of the loads, or changes with more loads only towards
    admission.

    >>> first, second = GroupLoad("f1", 0, range(1), 1), GroupLoad("f2", 0, range(1, 2), 3)
    >>> find_incomplete_loads({"flights": [first, second], "weather": [GroupLoad("w1", 0, range(1), 2)]})
    (('flights', 'f2', 0),)
    """
    begun = {feed: _Deliveries.of(loads) for feed, loads in group.items() if loads}
    waiting = {
        (feed, load.batch)
        for feed, mine in begun.items()
        for load in mine.loads
        if _is_waiting(load, mine, begun, feed)
    }
    return tuple(
        sorted(
            (feed, load.batch, load.epoch)
            for feed, mine in begun.items()
            for load in mine.loads
            if (feed, load.batch) in waiting and not _is_taken_along(load, feed, begun, waiting)
        )
    )


def find_lacking_feeds(group: Mapping[str, Sequence[GroupLoad]], feed: str, batch: str) -> tuple[str, ...]:
    """Return the feeds of a group that lack a sibling of `batch` of `feed` for one of its periods."""
    known = {load.batch: load.order for load in group[feed]}
    load = next(load for load in group[feed] if load.batch == batch)

    def has(period: int, others: Sequence[GroupLoad]) -> bool:
        """Return True if `others` have a sibling for `period`."""
        return any(
            each.batch == batch
            or (
                each.periods.start <= period < each.periods.stop
                and is_sibling(batch, load.periods, each, known, max(each.order, load.order))
            )
            for each in others
        )

    return tuple(
        other
        for other, others in sorted(group.items())
        if other != feed and not all(has(period, others) for period in load.periods)
    )


@dataclass(frozen=True, slots=True)
class _Deliveries:
    """The loads of one feed in order of arrival, the newest period up to each, and the order of each id.

    `by_period` has the loads of each period, without those of too many periods, which `long` has.
    """

    loads: tuple[GroupLoad, ...]
    newest: tuple[int, ...]
    arrived: Mapping[str, int]
    by_period: Mapping[int, list[GroupLoad]] = field(repr=False)
    long: tuple[GroupLoad, ...] = ()

    @classmethod
    def of(cls, loads: Sequence[GroupLoad]) -> _Deliveries:
        ordered = tuple(sorted(loads, key=lambda load: load.order))
        newest = tuple(accumulate((load.periods[-1] for load in ordered), max))
        by_period: dict[int, list[GroupLoad]] = {}
        long = tuple(load for load in ordered if load.periods.step > 1)
        for load in ordered:
            for period in load.periods if load.periods.step == 1 else ():
                by_period.setdefault(period, []).append(load)
        return cls(ordered, newest, {load.batch: load.order for load in ordered}, by_period, long)

    def of_period(self, period: int) -> Iterator[GroupLoad]:
        """Yield the loads that have `period`, or have it between their first and their last."""
        yield from self.by_period.get(period, ())
        yield from (load for load in self.long if load.periods.start <= period < load.periods.stop)

    def named(self, batch: str) -> list[GroupLoad]:
        """Return the loads with the id `batch`."""
        return [load for load in self.loads if load.batch == batch] if batch in self.arrived else []


def _is_waiting(load: GroupLoad, mine: _Deliveries, begun: Mapping[str, _Deliveries], feed: str) -> bool:
    return not load.alone and any(
        load.batch not in others.arrived
        and any(_is_owed(period, load, mine, others) for period in load.periods)
        for other, others in begun.items()
        if other != feed
    )


def _is_owed(period: int, load: GroupLoad, mine: _Deliveries, others: _Deliveries) -> bool:
    """Return True if `others` are still to deliver `period` of `load`."""
    if any(
        is_sibling(load.batch, load.periods, each, mine.arrived, max(each.order, load.order))
        for each in others.of_period(period)
    ):
        return False
    passed = bisect_right(others.newest, period)
    if passed == len(others.loads):
        return True
    since = max(others.loads[passed].order, load.order)
    return any(each.order <= since and each.periods.start < period for each in others.loads)


def _is_taken_along(
    load: GroupLoad, feed: str, begun: Mapping[str, _Deliveries], waiting: set[tuple[str, str]]
) -> bool:
    """Return True if a load of another feed, with the same id or of all its periods, need not wait."""
    arrived = begun[feed].arrived
    return any(
        (other, each.batch) not in waiting
        and is_sibling(load.batch, load.periods, each, arrived, max(each.order, load.order))
        and (each.batch == load.batch or _contains(each.periods, load.periods))
        for other, others in begun.items()
        if other != feed
        for each in (*others.of_period(load.periods.start), *others.named(load.batch))
    )


def _contains(outer: range, inner: range) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop


def _overlap(first: range, second: range) -> bool:
    return first.start < second.stop and second.start < first.stop
