"""Cuts: what a set of tables was at one table version, and what a cut leaves out.

Every load makes one new table version, which counts across *all* tables: so one number cuts them all at the
same moment. Feeds of one group are loaded one after the other all the same: between two of their loads one has
a delivery that the other lacks. A cut leaves such a delivery out until it is whole (R8, R56).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
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

    `contract_hash` is of the contract that the rows were read for; `created_us` is microseconds since 1970
    UTC.
    """

    snapshot: str
    table_version: int
    contract_hash: str
    created_us: int
    tables: tuple[TableCut, ...]
    held_back: tuple[LoadKey, ...] = ()
    """Loads that were there and are left out: the rest of their group had not delivered them yet."""

    @property
    def rows(self) -> int:
        """Rows over all tables."""
        return sum(cut.rows for cut in self.tables)


@dataclass(frozen=True, slots=True)
class CutLoad:
    """A live load of a feed of a group: the sender's id, and the bounds of its rows' event time in microseconds UTC."""

    batch: str
    epoch: int
    event_low_us: int
    event_high_us: int


def held_back(group: Mapping[str, Sequence[CutLoad]]) -> tuple[LoadKey, ...]:
    """The loads of a group of feeds that a cut leaves out, in order: those whose delivery is not whole yet.

    Parameters
    ----------
    group
        The live loads of each feed of one group. A feed without any holds nothing back: it has not begun to deliver.

    Two feeds that have an id in common name their deliveries alike. Of these, an id that one of them lacks is held
    back, unless all its rows are older than the other's first: histories may begin at different times, and what was
    before the other began will never be delivered by it. Two feeds without a common id name their deliveries each in
    its own way, so that only time tells: a load is held back while it begins after everything that the other has. An
    id that is held back for one feed is held back for all: half a delivery is what this is about.

    >>> first, second = CutLoad("d1", 0, 0, 9), CutLoad("d2", 0, 10, 19)
    >>> held_back({"flights": [first, second], "weather": [first]})
    (('flights', 'd2', 0),)
    """
    begun = {feed: loads for feed, loads in group.items() if loads}
    newest_us: dict[str, int] = {}
    for loads in begun.values():
        for load in loads:
            newest_us[load.batch] = max(load.event_high_us, newest_us.get(load.batch, load.event_high_us))
    held: set[str] = set()
    for (_, mine), (_, others) in permutations(begun.items(), 2):
        held |= _lacked(mine, others, newest_us)
    return tuple(
        sorted(
            (feed, load.batch, load.epoch)
            for feed, loads in begun.items()
            for load in loads
            if load.batch in held
        )
    )


def _lacked(mine: Sequence[CutLoad], others: Sequence[CutLoad], newest_us: Mapping[str, int]) -> set[str]:
    """The ids in `mine` that wait for `others`."""
    theirs = {load.batch for load in others}
    if any(load.batch in theirs for load in mine):
        begins_us = min(load.event_low_us for load in others)
        return {
            load.batch for load in mine if load.batch not in theirs and newest_us[load.batch] >= begins_us
        }
    ends_us = max(load.event_high_us for load in others)
    return {load.batch for load in mine if load.event_low_us > ends_us}


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
