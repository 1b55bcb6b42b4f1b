"""Differences between two snapshots: volume, contracts and column distributions, from the batches' profiles (R36).

No row is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from holdfast.contract.evolution.compatibility import Evolution
from holdfast.contract.evolution.diff import compare
from holdfast.contract.profile.column_profile import (
    BooleanProfile,
    ColumnProfile,
    NumberProfile,
    TimestampProfile,
    WordProfile,
    is_same_kind,
)
from holdfast.contract.profile.profile import Profile
from holdfast.contract.schema.contract import Contract
from holdfast.stats.divergence import jensen_shannon, population_stability

GROUPS: Final = 10
"""Numbers are compared over tenths of the older snapshot's rows, as near as its bins allow."""

MOVED: Final = 0.1
"""The stability index from which on a column counts as moved."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table in a snapshot: its rows and loads, their profile, and the newest contract that checked them.

    `profile` is None if a load has none, `contract` if it was not kept. `incompatible` columns are absent from the
    profile, because the loads were checked with different bounds or types.
    """

    table: str
    rows: int
    loads: frozenset[tuple[str, int]]
    profile: Profile | None
    contract: Contract | None
    incompatible: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """The change of a column's distribution. `stability` and `divergence` are those of `stats.divergence`.

    `effect` is the difference of the means in standard deviations of the older for numbers, of the shares for
    booleans and words (the largest), None for timestamps. Shares are of all rows.
    """

    column: str
    stability: float
    divergence: float
    effect: float | None
    missing_before: float
    missing_after: float
    description: str


@dataclass(frozen=True, slots=True)
class TableChange:
    """The change of a table. `rows_before` is 0 for a new one and `rows_after` for a removed one.

    `label_before` and `label_after` are the shares of positive labels. `columns` is in order of how far they moved.
    `not_compared` gives the reason for each other column; "" is the whole table.
    """

    table: str
    rows_before: int
    rows_after: int
    loads_added: int
    loads_removed: int
    evolution: Evolution | None
    columns: tuple[ColumnChange, ...]
    label_before: float | None
    label_after: float | None
    not_compared: tuple[tuple[str, str], ...] = ()

    @property
    def moved(self) -> tuple[ColumnChange, ...]:
        """Return the columns whose stability index is at least `MOVED`."""
        return tuple(change for change in self.columns if change.stability >= MOVED)

    def as_dict(self) -> dict[str, Any]:
        """Return the change in plain JSON types."""
        return {
            "table": self.table,
            "rows_before": self.rows_before,
            "rows_after": self.rows_after,
            "loads_added": self.loads_added,
            "loads_removed": self.loads_removed,
            "contract": None if self.evolution is None else self.evolution.as_dict(),
            "columns": [asdict(change) for change in self.columns],
            "label_before": self.label_before,
            "label_after": self.label_after,
            "not_compared": [{"column": column, "why": why} for column, why in self.not_compared],
        }


def compare_tables(before: Sequence[TableFacts], after: Sequence[TableFacts]) -> tuple[TableChange, ...]:
    """Return the change of each table of `before` and `after`, in order of their names."""
    old, new = {facts.table: facts for facts in before}, {facts.table: facts for facts in after}
    return tuple(
        _compare_table(name, old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())
    )


def _compare_table(name: str, before: TableFacts | None, after: TableFacts | None) -> TableChange:
    old = before or TableFacts(name, 0, frozenset(), None, None)
    new = after or TableFacts(name, 0, frozenset(), None, None)
    evolution = None
    if old.contract is not None and new.contract is not None and old.contract.hash != new.contract.hash:
        evolution = compare(old.contract, new.contract)
    columns = list(_compare_columns(old.profile, new.profile)) if old.profile and new.profile else []
    return TableChange(
        name,
        old.rows,
        new.rows,
        len(new.loads - old.loads),
        len(old.loads - new.loads),
        evolution,
        tuple(sorted(columns, key=lambda change: (-change.stability, change.column))),
        old.profile.label_share if old.profile else None,
        new.profile.label_share if new.profile else None,
        tuple(_not_compared(old, new)),
    )


_NO_PROFILE: Final = "a load has no profile"
_OTHER_BOUNDS: Final = "its loads were checked with different bounds or types"


def _not_compared(old: TableFacts, new: TableFacts) -> Iterator[tuple[str, str]]:
    if not old.rows or not new.rows:
        return  # a new or removed table has no counterpart
    if old.profile is None or new.profile is None:
        yield "", _NO_PROFILE
        return
    differing = [
        name
        for name, shape in old.profile.columns.items()
        if name in new.profile.columns and not is_same_kind(shape, new.profile.columns[name])
    ]
    for name in dict.fromkeys((*old.incompatible, *new.incompatible, *differing)):
        yield name, _OTHER_BOUNDS


def _compare_columns(before: Profile, after: Profile) -> Iterator[ColumnChange]:
    for name, old in before.columns.items():
        new = after.columns.get(name)
        if new is not None and is_same_kind(old, new):
            yield _compare_column(name, before.values.get(name, old), after.values.get(name, new), old, new)


def _compare_column(
    name: str,
    before_values: ColumnProfile,
    after_values: ColumnProfile,
    old: ColumnProfile,
    new: ColumnProfile,
) -> ColumnChange:
    first, second = _bin_counts(before_values, after_values)
    effect, description = _effect(before_values, after_values)
    return ColumnChange(
        name,
        population_stability(first, second),
        jensen_shannon(first, second),
        effect,
        old.missing / max(1, old.rows),
        new.missing / max(1, new.rows),
        description,
    )


def _bin_counts(old: ColumnProfile, new: ColumnProfile) -> tuple[list[int], list[int]]:
    """Return counts of both over the same bins, with the rows without a value in one of them."""
    match old, new:
        case NumberProfile(), NumberProfile():
            first, second = _group_bins(old, new)
        case WordProfile(), WordProfile():
            words = sorted(old.counts.keys() | new.counts.keys())
            first = [*(old.counts.get(word, 0) for word in words), old.other]
            second = [*(new.counts.get(word, 0) for word in words), new.other]
        case BooleanProfile(), BooleanProfile():
            first, second = [old.true, old.false], [new.true, new.false]
        case TimestampProfile(), TimestampProfile():
            first, second = list(old.hours), list(new.hours)
        case _:
            return [0], [0]
    return [*first, old.missing], [*second, new.missing]


def _group_bins(old: NumberProfile, new: NumberProfile) -> tuple[list[int], list[int]]:
    ends: list[int] = []
    seen = 0
    for place in sorted(old.bins):
        seen += old.bins[place]
        if seen * GROUPS >= old.count * (len(ends) + 1):
            ends.append(place)
    edges = [-(2**62), *ends[:-1], 2**62]

    def counted(bins: Mapping[int, int]) -> list[int]:
        return [
            sum(count for place, count in bins.items() if low < place <= high)
            for low, high in pairwise(edges)
        ]

    return counted(old.bins), counted(new.bins)


def _effect(old: ColumnProfile, new: ColumnProfile) -> tuple[float | None, str]:
    match old, new:
        case NumberProfile(), NumberProfile():
            spread = old.deviation or abs(old.mean) or 1.0
            medians = old.compared_quantiles[2], new.compared_quantiles[2]
            means = f"mean {old.mean:,.4g} -> {new.mean:,.4g}, median {medians[0]:,.4g} -> {medians[1]:,.4g}"
            return (new.mean - old.mean) / spread, means
        case WordProfile(), WordProfile():
            shares = old.shares.keys() | new.shares.keys()
            if not shares:
                return 0.0, "no value"
            most = max(
                sorted(shares), key=lambda word: abs(new.shares.get(word, 0.0) - old.shares.get(word, 0.0))
            )
            was, after_values = old.shares.get(most, 0.0), new.shares.get(most, 0.0)
            return after_values - was, f"{most!r} {was:.1%} -> {after_values:.1%}"
        case BooleanProfile(), BooleanProfile():
            return new.share - old.share, f"true {old.share:.1%} -> {new.share:.1%}"
        case _:
            return None, "hours of the day"
