"""Additive profile of one column of a batch: the profile of two batches is the sum of their profiles."""

from __future__ import annotations

import math
import operator
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

BINS: Final = 256
"""The number of bins of equal width of a column with both bounds."""

_Key = TypeVar("_Key", int, str)

_MANTISSA_BITS: Final = 3
_SHIFT: Final = 52 - _MANTISSA_BITS
_LARGEST: Final = sys.float_info.max

SPACINGS_SECONDS: Final = (
    1e-6, 1e-3, 1, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800,
)  # fmt: skip
"""Upper ends of the classes of the time between consecutive timestamps; longer times are one more class."""


QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles by which batches are compared."""

MOST_DECIMALS: Final = 6
"""Values with more decimals than this are counted together."""

_ROUNDING: Final = 1e-15
"""The relative error within which a double is the nearest to a decimal number, after one multiplication."""


@dataclass(frozen=True)
class NumberProfile:
    """The profile of a column of numbers, or of lengths of texts.

    `count` values are present and `missing` are not; `zeros`, `whole` and `tens` of them are 0, whole numbers and
    multiples of ten; `total` and `squares` are their sum and the sum of their squares, `low` and `high` the smallest
    and the largest (0 without values). `bins` counts the values per bin. With a `scale` (the bounds of the contract)
    a bin is 1/256 of the range between them; without one it is an eighth of a power of two, of either sign. `decimals`
    counts the values that need exactly 0, 1, ... `MOST_DECIMALS` and more decimals; empty in a profile of earlier versions.
    """

    count: int
    missing: int
    zeros: int
    whole: int
    tens: int
    total: float
    squares: float
    low: float
    high: float
    scale: tuple[float, float] | None
    bins: Mapping[int, int]
    decimals: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Return the number of present and missing values."""
        return self.count + self.missing

    @property
    def mean(self) -> float:
        """Return the mean of the present values; 0 if there is none."""
        return self.total / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the present values."""
        if self.count == 0:
            return 0.0
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2))

    @cached_property
    def compared_quantiles(self) -> tuple[float, ...]:
        """Return the quantiles of `QUANTILES`, computed once: a batch is compared with many later ones."""
        return self.quantiles(QUANTILES)

    def quantiles(self, rising: Sequence[float]) -> tuple[float, ...]:
        """Return the values below which rising shares (0 to 1) of them lie, linear within a bin; 0 if there is none.

        >>> profile_numbers(np.arange(256.0), 0, (0.0, 256.0)).quantiles((0.25, 0.5))
        (64.0, 128.0)
        """
        found: list[float] = []
        below = 0
        for place in sorted(self.bins):
            count = self.bins[place]
            low, high = bin_edges(place, self.scale)
            low, high = max(low, self.low), min(high, self.high)
            if place == 0 and self.scale is None:
                low = high = 0.0  # The bin holds 0 and the subnormal numbers, which no unit resolves.
            while len(found) < len(rising) and rising[len(found)] * self.count <= below + count:
                found.append(low + (high - low) * ((rising[len(found)] * self.count - below) / count))
            below += count
        return (*found, *[self.high] * (len(rising) - len(found)))

    def resolution(self, value: float) -> float:
        """Return the width of the bin that `value` is in: differences below it are not measured.

        >>> profile_numbers(np.arange(256.0), 0, (0.0, 512.0)).resolution(100.0)
        2.0
        """
        if self.scale is None and value == 0.0:
            return 0.0
        (place,) = _bins_of(np.array([value]), self.scale).tolist()
        low, high = bin_edges(place, self.scale)
        return high - low

    def share_at(self, value: float) -> float:
        """Return the share of the present values that are in the bin of `value`."""
        (place,) = _bins_of(np.array([value]), self.scale).tolist()
        return self.bins.get(place, 0) / max(1, self.count)

    def share_within(self, decimals: int) -> float | None:
        """Return the share of the present values that need at most so many decimals; None if they were not counted."""
        if not self.decimals or not self.count:
            return None
        return sum(self.decimals[: decimals + 1]) / self.count


@dataclass(frozen=True)
class WordProfile:
    """The profile of a column of words: counts of the most frequent, `other` for the rest together, and `missing`."""

    counts: Mapping[str, int]
    other: int
    missing: int

    @property
    def rows(self) -> int:
        """Return the number of rows, missing ones included."""
        return self.named + self.missing

    @cached_property
    def named(self) -> int:
        """Return the number of rows that have a word."""
        return sum(self.counts.values()) + self.other

    @cached_property
    def shares(self) -> dict[str, float]:
        """Return the share of each word among the rows that have one, with "(other)" for those not counted by name."""
        total = max(1, self.named)
        counted = {word: count / total for word, count in self.counts.items()}
        return counted | {"(other)": self.other / total} if self.other else counted


@dataclass(frozen=True, slots=True)
class BooleanProfile:
    """The profile of a column that is true, false or missing."""

    true: int
    false: int
    missing: int

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return self.true + self.false + self.missing

    @property
    def share(self) -> float:
        """Return the share of true among the present values; 0 if there is none."""
        return self.true / max(1, self.true + self.false)


@dataclass(frozen=True, slots=True)
class LabelSums:
    """Count and sum of a number column's values, for true and for false labels."""

    true_count: int
    true_total: float
    false_count: int
    false_total: float

    @property
    def difference(self) -> float | None:
        """Return by how much the mean is larger for true labels; None if either side has no value."""
        if not self.true_count or not self.false_count:
            return None
        return self.true_total / self.true_count - self.false_total / self.false_count


@dataclass(frozen=True, slots=True)
class TimestampProfile:
    """The profile of a column of timestamps.

    `hours` of the day (24 counts) and `weekdays` (7, Monday first) are in the column's zone. `low_us` and `high_us`
    are the first and last in microseconds UTC (0 without any). `spacings` counts the times between consecutive
    timestamps by class of `SPACINGS_SECONDS`.
    """

    missing: int
    low_us: int
    high_us: int
    hours: tuple[int, ...]
    weekdays: tuple[int, ...]
    spacings: tuple[int, ...]

    @property
    def count(self) -> int:
        """Return the number of present timestamps."""
        return sum(self.hours)

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return self.count + self.missing

    @property
    def spacing_seconds(self) -> float | None:
        """Return the most frequent time between consecutive timestamps, as the upper end of its class; None without any."""
        most = max(self.spacings)
        place = self.spacings.index(most)
        return SPACINGS_SECONDS[place] if most and place < len(SPACINGS_SECONDS) else None

    @property
    def mean_spacing_seconds(self) -> float | None:
        """Return the mean time between consecutive timestamps if it is in the class of the most frequent; None if not."""
        end = self.spacing_seconds
        steps = sum(self.spacings)
        if end is None or not steps:
            return None
        place = SPACINGS_SECONDS.index(end)
        mean = (self.high_us - self.low_us) / 1e6 / steps
        return mean if (SPACINGS_SECONDS[place - 1] if place else 0.0) < mean <= end else None


ColumnProfile: TypeAlias = NumberProfile | WordProfile | BooleanProfile | TimestampProfile
_Shape = TypeVar("_Shape", bound=ColumnProfile)

_KINDS: Final[dict[str, type[ColumnProfile]]] = {
    "numbers": NumberProfile,
    "words": WordProfile,
    "flags": BooleanProfile,
    "timestamps": TimestampProfile,
}
_FACTS: Final[dict[type[Any], tuple[str, tuple[str, ...]]]] = {
    cls: (kind, tuple(field.name for field in fields(cls))) for kind, cls in _KINDS.items()
}


def profile_numbers(
    values: NDArray[np.float64], missing: int, scale: tuple[float, float] | None
) -> NumberProfile:
    """Return the profile of finite `values`; `scale` is the pair of bounds in the contract."""
    if values.size == 0:
        return NumberProfile(0, missing, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, scale, {})
    low, high = float(values.min()), float(values.max())
    whole = values[values == np.rint(values)]
    tenth = whole / 10.0
    with np.errstate(over="ignore"):
        total, squares = float(values.sum()), float(values @ values)
    return NumberProfile(
        count=values.size,
        missing=missing,
        zeros=values.size - int(np.count_nonzero(values)),
        whole=whole.size,
        tens=int(np.count_nonzero(tenth == np.rint(tenth))),
        total=_finite(total),
        squares=_finite(squares),
        low=low,
        high=high,
        scale=scale,
        bins=_count_bins(_bins_of(values, scale)),
        decimals=_count_decimals(values, whole.size),
    )


def bin_edges(place: int, scale: tuple[float, float] | None) -> tuple[float, float]:
    """Return the values between which bin `place` lies.

    >>> bin_edges(128, (0.0, 512.0)), bin_edges(8192, None)
    ((256.0, 258.0), (2.0, 2.25))
    """
    if scale is not None:
        width = (scale[1] - scale[0]) / BINS
        return scale[0] + place * width, scale[0] + (place + 1) * width
    if place < 0:
        low, high = bin_edges(-1 - place, None)
        return -high, -low
    ends = np.array([place << _SHIFT, (place + 1) << _SHIFT], np.int64).view(np.float64)
    return float(ends[0]), min(_LARGEST, float(ends[1]))


def _bins_of(values: NDArray[np.float64], scale: tuple[float, float] | None) -> NDArray[np.int64]:
    if scale is not None:
        width = (scale[1] - scale[0]) / BINS
        if width <= 0.0:
            return np.zeros(values.size, np.int64)
        return np.minimum(((values - scale[0]) / width).astype(np.int64), BINS - 1)
    magnitude = np.abs(values).view(np.int64) >> _SHIFT
    return np.where(values < 0.0, -1 - magnitude, magnitude)


def _count_bins(places: NDArray[np.int64]) -> dict[int, int]:
    first = int(places.min())
    counts = np.bincount(places - first)
    filled = np.flatnonzero(counts)
    return dict(zip((filled + first).tolist(), counts[filled].tolist(), strict=True))


def _count_decimals(values: NDArray[np.float64], whole: int) -> tuple[int, ...]:
    rest = np.abs(values[values != np.rint(values)]) if whole < values.size else values[:0]
    # First the most decimals: nearly all columns have more of them, or few that the rest is quick for.
    few = rest[~_needs_more(rest, MOST_DECIMALS)]
    counts = [whole]
    left = few
    for decimals in range(1, MOST_DECIMALS):
        more = left[_needs_more(left, decimals)]
        counts.append(left.size - more.size)
        left = more
    return (*counts, left.size, rest.size - few.size)


def _needs_more(values: NDArray[np.float64], decimals: int) -> NDArray[np.bool_]:
    scaled = values * 10.0**decimals
    needs: NDArray[np.bool_] = np.abs(scaled - np.rint(scaled)) > _ROUNDING * scaled
    return needs


def _finite(value: float) -> float:
    return max(-_LARGEST, min(_LARGEST, value))


def is_same_kind(one: ColumnProfile, other: ColumnProfile) -> bool:
    """Return True if two profiles can be added and compared: the same kind, and the same bins for numbers."""
    if isinstance(one, NumberProfile) and isinstance(other, NumberProfile):
        return one.scale == other.scale
    return type(one) is type(other)


def add(shapes: Sequence[_Shape]) -> _Shape:
    """Return the profile of all rows together. Counts add exactly; sums to the rounding of double precision.

    The time between the last timestamp of one batch and the first of another is not counted. Raises `ValueError`
    if they are not of one kind, and without any profile.
    """
    if not shapes or not all(is_same_kind(shapes[0], shape) for shape in shapes):
        raise ValueError("only shapes of one kind, over the same bins, can be added")
    kind = type(shapes[0])
    filled = [shape for shape in shapes if getattr(shape, "count", 1)] or shapes[:1]
    return kind(
        **{
            name: _ADD.get(name, sum)(
                [getattr(shape, name) for shape in (filled if name in _ENDS else shapes)]
            )
            for name in _FACTS[kind][1]
        }
    )


def add_label_sums(parts: Sequence[LabelSums]) -> LabelSums:
    """Return the sums of all parts together."""
    return LabelSums(
        sum(part.true_count for part in parts),
        _finite(sum(part.true_total for part in parts)),
        sum(part.false_count for part in parts),
        _finite(sum(part.false_total for part in parts)),
    )


def sum_by_label(
    values: NDArray[np.float64], label: NDArray[np.bool_], known: NDArray[np.bool_]
) -> LabelSums:
    """Return the sums of `values` (NaN if missing) by `label`, over the rows in which it is `known`."""
    there = known & ~np.isnan(values)
    true, false = values[there & label], values[there & ~label]
    with np.errstate(over="ignore"):
        return LabelSums(true.size, _finite(float(true.sum())), false.size, _finite(float(false.sum())))


def _sum_finite(parts: Sequence[float]) -> float:
    return _finite(sum(parts))


def _sum_places(parts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*parts, strict=True)))


def _sum_decimals(parts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return _sum_places(parts) if all(parts) else ()  # An earlier version did not count them.


def _sum_counts(parts: Sequence[Mapping[_Key, int]]) -> dict[_Key, int]:
    whole: Counter[_Key] = Counter()
    for part in parts:
        whole.update(part)
    return {key: whole[key] for key in sorted(whole)}


_ADD: Final[dict[str, Callable[[Sequence[Any]], Any]]] = {
    "total": _sum_finite,
    "squares": _sum_finite,
    "low": min,
    "low_us": min,
    "high": max,
    "high_us": max,
    "scale": operator.itemgetter(0),
    "bins": _sum_counts,
    "counts": _sum_counts,
    "decimals": _sum_decimals,
    "hours": _sum_places,
    "weekdays": _sum_places,
    "spacings": _sum_places,
}
"""How the facts of several profiles become one; every other is a sum."""

_ENDS: Final = frozenset({"low", "low_us", "high", "high_us", "decimals"})
"""The facts that a profile without values does not have."""


def column_to_json(shape: ColumnProfile) -> dict[str, Any]:
    """Return a column profile in JSON types, bins as a flat list of place and count."""
    kind, names = _FACTS[type(shape)]
    value: dict[str, Any] = {"kind": kind}
    for name in names:
        fact = getattr(shape, name)
        if name == "bins":
            fact = [number for pair in sorted(fact.items()) for number in pair]
        value[name] = dict(fact) if isinstance(fact, Mapping) else fact
    return value


def column_from_json(value: Mapping[str, Any]) -> ColumnProfile:
    """Return the profile that `column_to_json` wrote. Raises KeyError, TypeError or ValueError if it is invalid."""
    facts = dict(value)
    kind = _KINDS[facts.pop("kind")]
    if "bins" in facts:
        flat = facts["bins"]
        facts["bins"] = dict(zip(flat[::2], flat[1::2], strict=True))
    for name in ("scale", "decimals", "hours", "weekdays", "spacings"):
        if facts.get(name) is not None:
            facts[name] = tuple(facts[name])
    return kind(**facts)
