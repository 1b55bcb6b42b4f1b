"""Declarations of features: the numbers that a model sees of a row.

A declaration names columns of the contract, or aggregates, without their data; `fit` turns it into constants.

The contract decides what a *missing* value becomes (R24), and every feature but `Passthrough` reads its column after
that: `Log("distance")` of a row without a distance is the logarithm of the fitted median if the contract
declares "median", and NaN if it declares "keep". `Passthrough` is the number unchanged, for learners that handle NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

from holdfast.contract.schema.missing import Missing, as_policy
from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.records import check_name

MOST_BUCKETS: Final = 100
"""The maximum number of buckets of one feature: the graph compares every row with every edge."""


@dataclass(frozen=True, slots=True)
@checked()
class Passthrough:
    """A number, integer, boolean (0 or 1) or aggregate, unchanged; NaN if missing. Named like its column."""

    column: str
    name: str = ""


@dataclass(frozen=True, slots=True)
@checked()
class Impute:
    """A number, integer, boolean or aggregate with its missing values replaced; named like its column (R26).

    A policy with `flag=True` adds a second feature `<name>_missing`, 1 where the value was missing (R27).

    Parameters
    ----------
    missing
        The policy of this feature; by default the column's own. Required for an aggregate, which has none.
    """

    column: str
    name: str = ""
    missing: Missing | str | None = None

    def __post_init__(self) -> None:
        if self.missing is not None:
            object.__setattr__(self, "missing", as_policy(self.missing))


@dataclass(frozen=True, slots=True)
@checked()
class Ordinal:
    """A category as an integer: 0 missing, 1 unseen, from 2 on the known words in alphabetical order (R25).

    The known words are the contract's, or else those of the training snapshot. Named `<column>_ordinal`. A column
    whose policy has `flag=True` adds `<column>_missing`.

    Parameters
    ----------
    at_least
        Words in fewer rows of the snapshot than this are encoded as unseen; 1 or more. Above 1 the learner meets
        the unseen code in training, so it can handle new words.
    """

    column: str
    name: str = ""
    at_least: int = 1

    def __post_init__(self) -> None:
        if self.at_least < 1:
            raise InputError(
                "HF105",
                f"Ordinal({self.column!r}): at_least is a number of rows from 1, not {self.at_least!r}",
            )


@dataclass(frozen=True, slots=True)
@checked()
class Log:
    """The natural logarithm of a number; named `<column>_log`.

    A value at or under 0 counts as the smallest positive value of the snapshot: finite, and in order.
    """

    column: str
    name: str = ""


@dataclass(frozen=True, slots=True)
@checked()
class Clip:
    """A number limited to `low` and `high`, both in the column's unit, at least one of them; named `<column>_clip`."""

    column: str
    low: float | None = None
    high: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        ends = [end for end in (self.low, self.high) if end is not None]
        if not ends or not all(math.isfinite(end) for end in ends) or ends != sorted(ends):
            raise InputError(
                "HF105", f"Clip({self.column!r}) needs low, high or both, finite, and low <= high"
            )


@dataclass(frozen=True, slots=True)
@checked()
class Bucket:
    """The number of edges at or under a number, from 0 to the number of edges; named `<column>_bucket`.

    Parameters
    ----------
    edges
        Strictly rising, at most 99, in the column's unit. A value that equals an edge is in the bucket above it.
    quantiles
        Instead of `edges`: the number of buckets, 2 to 100, of nearly equal count in the snapshot; equal edges
        are merged.
    """

    column: str
    edges: tuple[float, ...] = ()
    quantiles: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(float(edge) for edge in self.edges))
        if bool(self.edges) == bool(self.quantiles):
            raise InputError("HF105", f"Bucket({self.column!r}) needs either edges or quantiles")
        if not 2 <= max(self.quantiles, len(self.edges) + 1) <= MOST_BUCKETS:
            raise InputError("HF105", f"Bucket({self.column!r}) makes 2 to {MOST_BUCKETS} buckets")
        rising = all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False))
        if not rising or not all(math.isfinite(edge) for edge in self.edges):
            raise InputError("HF105", f"Bucket({self.column!r}): edges must be finite and strictly rising")


@dataclass(frozen=True, slots=True)
@checked()
class Hour:
    """The hour, 0 to 23, in the column's time zone; named `<column>_hour`."""

    column: str
    name: str = ""


@dataclass(frozen=True, slots=True)
@checked()
class Weekday:
    """The day of the week in the column's time zone, 0 Monday to 6 Sunday; named `<column>_weekday`."""

    column: str
    name: str = ""


@dataclass(frozen=True, slots=True)
@checked()
class Month:
    """The month in the column's time zone, 1 to 12; named `<column>_month`."""

    column: str
    name: str = ""


@dataclass(frozen=True, slots=True)
@checked()
class Ratio:
    """`numerator / denominator`, or `by_zero` if the denominator is 0; named `<numerator>_per_<denominator>`."""

    numerator: str
    denominator: str
    by_zero: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.by_zero):
            raise InputError(
                "HF105", f"Ratio({self.numerator!r}, {self.denominator!r}): by_zero must be finite"
            )


@dataclass(frozen=True, slots=True)
@checked()
class Difference:
    """`left - right`, two columns of the same unit; named `<left>_minus_<right>`."""

    left: str
    right: str
    name: str = ""


Feature: TypeAlias = (
    Passthrough | Impute | Ordinal | Log | Clip | Bucket | Hour | Weekday | Month | Ratio | Difference
)


def feature_name(feature: Feature) -> str:
    """Return the name of `feature` in the feature matrix: its own, or one derived from its columns.

    >>> feature_name(Log("distance")), feature_name(Ratio("distance", "hours", name="speed"))
    ('distance_log', 'speed')
    """
    match feature:
        case Passthrough(column) | Impute(column):
            natural = column
        case Ratio(numerator, denominator):
            natural = f"{numerator}_per_{denominator}"
        case Difference(left, right):
            natural = f"{left}_minus_{right}"
        case _:
            natural = f"{feature.column}_{type(feature).__name__.lower()}"
    return check_name(feature.name or natural, "feature")


def columns_read(feature: Feature) -> tuple[str, ...]:
    """Return the columns and aggregates that `feature` reads.

    >>> columns_read(Difference("arrival", "departure"))
    ('arrival', 'departure')
    """
    match feature:
        case Ratio(numerator, denominator):
            return (numerator, denominator)
        case Difference(left, right):
            return (left, right)
        case _:
            return (feature.column,)
