"""What one column of a batch looks like, in numbers that add up: the shape of two batches together is the sum of
the shapes of each."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, TypeAlias, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError

BINS: Final = 256
"""How many bins of equal width a column with both bounds has."""

_MANTISSA_BITS: Final = 3
_SHIFT: Final = 52 - _MANTISSA_BITS
_LARGEST: Final = sys.float_info.max

SPACINGS_SECONDS: Final = (
    1e-6, 1e-3, 1, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800,
)  # fmt: skip
"""Upper ends of the classes into which the time from one instant to the next falls; anything longer is one more."""


QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles by which batches are compared."""


@dataclass(frozen=True)
class Numbers:
    """A column of numbers, or of lengths of texts.

    `count` values are there and `missing` are not; `zeros`, `whole` and `tens` of them are 0, whole numbers and
    multiples of ten; `total` and `squares` are their sum and that of their squares, `low` and `high` the smallest
    and the largest (0 without values). `bins` says how many fall into each bin. With a `scale` (the bounds of the
    contract) a bin is 1/256 of what lies between them; without one it is an eighth of a power of two, of either
    sign.
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

    @property
    def rows(self) -> int:
        """Values that are there and that are not."""
        return self.count + self.missing

    @property
    def mean(self) -> float:
        """The mean of the values that are there; 0 when there is none."""
        return self.total / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """Their standard deviation."""
        if self.count == 0:
            return 0.0
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2))

    @cached_property
    def told(self) -> tuple[float, ...]:
        """The quantiles of `QUANTILES`, computed once: a batch is compared with many after it."""
        return self.quantiles(QUANTILES)

    def quantile(self, share: float) -> float:
        """The value below which `share` (0 to 1) of them lie, by straight lines within the bins; 0 when there is none.

        >>> numbers_of(np.arange(256.0), 0, (0.0, 256.0)).quantile(0.25)
        64.0
        """
        return self.quantiles((share,))[0]

    def quantiles(self, rising: Sequence[float]) -> tuple[float, ...]:
        """The quantiles of shares that rise, in one pass."""
        found: list[float] = []
        below = 0
        for place in sorted(self.bins):
            held = self.bins[place]
            low, high = bin_edges(place, self.scale)
            low, high = max(low, self.low), min(high, self.high)
            while len(found) < len(rising) and rising[len(found)] * self.count <= below + held:
                found.append(low + (high - low) * ((rising[len(found)] * self.count - below) / held))
            below += held
        return (*found, *[self.high] * (len(rising) - len(found)))


@dataclass(frozen=True)
class Words:
    """A column of words: how often each of the commonest occurs, `other` for the rest together, and `missing`."""

    counts: Mapping[str, int]
    other: int
    missing: int

    @property
    def rows(self) -> int:
        """All rows, those without a word among them."""
        return self.named + self.missing

    @cached_property
    def named(self) -> int:
        """Rows that have a word."""
        return sum(self.counts.values()) + self.other

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of each word among the rows that have one, with "(other)" for those not counted by name."""
        total = max(1, self.named)
        counted = {word: count / total for word, count in self.counts.items()}
        return counted | {"(other)": self.other / total} if self.other else counted


@dataclass(frozen=True, slots=True)
class Flags:
    """A column that is true, false or missing."""

    true: int
    false: int
    missing: int

    @property
    def rows(self) -> int:
        """All rows."""
        return self.true + self.false + self.missing

    @property
    def share(self) -> float:
        """The share that is true of those that are there; 0 when none is."""
        return self.true / max(1, self.true + self.false)


@dataclass(frozen=True, slots=True)
class ByLabel:
    """How many values of a column of numbers are there where the label is true and where it is false, and their sums."""

    true_count: int
    true_total: float
    false_count: int
    false_total: float

    @property
    def difference(self) -> float | None:
        """By how much the mean is larger where the label is true; None when there is no value on either side."""
        if not self.true_count or not self.false_count:
            return None
        return self.true_total / self.true_count - self.false_total / self.false_count


@dataclass(frozen=True, slots=True)
class Instants:
    """A column of instants: `hours` of the day (24 counts) and `weekdays` (7, Monday first) by the clocks of the
    column's zone, the first and the last in microseconds UTC (0 without any), and into which class of
    `SPACINGS_SECONDS` the times from each to the next fall."""

    missing: int
    low_us: int
    high_us: int
    hours: tuple[int, ...]
    weekdays: tuple[int, ...]
    spacings: tuple[int, ...]

    @property
    def count(self) -> int:
        """Instants that are there."""
        return sum(self.hours)

    @property
    def rows(self) -> int:
        """All rows."""
        return self.count + self.missing

    @property
    def spacing_seconds(self) -> float | None:
        """The commonest time from one instant to the next, as the upper end of its class; None without any."""
        most = max(self.spacings)
        place = self.spacings.index(most)
        return SPACINGS_SECONDS[place] if most and place < len(SPACINGS_SECONDS) else None


Shape: TypeAlias = Numbers | Words | Flags | Instants

_KINDS: Final[dict[str, type[Shape]]] = {
    "numbers": Numbers,
    "words": Words,
    "flags": Flags,
    "instants": Instants,
}
_FACTS: Final = {cls: (kind, tuple(field.name for field in fields(cls))) for kind, cls in _KINDS.items()}


def numbers_of(values: NDArray[np.float64], missing: int, scale: tuple[float, float] | None) -> Numbers:
    """The shape of finite `values`; `scale` is what the contract says they lie between."""
    if values.size == 0:
        return Numbers(0, missing, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, scale, {})
    low, high = float(values.min()), float(values.max())
    whole = values[values == np.rint(values)]
    tenth = whole / 10.0
    with np.errstate(over="ignore"):
        total, squares = float(values.sum()), float(values @ values)
    return Numbers(
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
        bins=_tally(_bins_of(values, scale)),
    )


def bin_edges(place: int, scale: tuple[float, float] | None) -> tuple[float, float]:
    """The values between which bin `place` lies.

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


def _tally(places: NDArray[np.int64]) -> dict[int, int]:
    first = int(places.min())
    counts = np.bincount(places - first)
    held = np.flatnonzero(counts)
    return dict(zip((held + first).tolist(), counts[held].tolist(), strict=True))


def _finite(value: float) -> float:
    return max(-_LARGEST, min(_LARGEST, value))


def same_kind(one: Shape, other: Shape) -> bool:
    """Whether two shapes can be added and compared: of one kind, and of numbers with the same bins."""
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        return one.scale == other.scale
    return type(one) is type(other)


def add(shapes: Sequence[Shape]) -> Shape:
    """The shape of all rows together. Counts add exactly; sums to the rounding of double precision; of times from one
    instant to the next, those between the last of one batch and the first of another are in none.

    Raises `InputError` HF101 when they are not of one kind, and without any shape.
    """
    if not shapes or not all(same_kind(shapes[0], shape) for shape in shapes):
        raise InputError("HF101", "only shapes of one kind, over the same bins, can be added")
    match shapes[0]:
        case Numbers():
            return _add_numbers([shape for shape in shapes if isinstance(shape, Numbers)])
        case Words():
            words = [shape for shape in shapes if isinstance(shape, Words)]
            counts = _sum_counts([shape.counts for shape in words])
            return Words(counts, sum(shape.other for shape in words), sum(shape.missing for shape in words))
        case Flags():
            flags = [shape for shape in shapes if isinstance(shape, Flags)]
            return Flags(
                sum(shape.true for shape in flags),
                sum(shape.false for shape in flags),
                sum(shape.missing for shape in flags),
            )
        case Instants():
            return _add_instants([shape for shape in shapes if isinstance(shape, Instants)])
        case _:
            assert_never(shapes[0])


def add_by_label(parts: Sequence[ByLabel]) -> ByLabel:
    """The sums of all parts together."""
    return ByLabel(
        sum(part.true_count for part in parts),
        _finite(sum(part.true_total for part in parts)),
        sum(part.false_count for part in parts),
        _finite(sum(part.false_total for part in parts)),
    )


def by_label(values: NDArray[np.float64], label: NDArray[np.bool_], known: NDArray[np.bool_]) -> ByLabel:
    """The sums of `values` (NaN where missing) by `label`, over the rows where it is `known`."""
    there = known & ~np.isnan(values)
    true, false = values[there & label], values[there & ~label]
    with np.errstate(over="ignore"):
        return ByLabel(true.size, _finite(float(true.sum())), false.size, _finite(float(false.sum())))


def _add_numbers(shapes: Sequence[Numbers]) -> Numbers:
    filled = [shape for shape in shapes if shape.count] or shapes[:1]
    return Numbers(
        count=sum(shape.count for shape in shapes),
        missing=sum(shape.missing for shape in shapes),
        zeros=sum(shape.zeros for shape in shapes),
        whole=sum(shape.whole for shape in shapes),
        tens=sum(shape.tens for shape in shapes),
        total=_finite(sum(shape.total for shape in shapes)),
        squares=_finite(sum(shape.squares for shape in shapes)),
        low=min(shape.low for shape in filled),
        high=max(shape.high for shape in filled),
        scale=shapes[0].scale,
        bins=_sum_counts([shape.bins for shape in shapes]),
    )


def _add_instants(shapes: Sequence[Instants]) -> Instants:
    filled = [shape for shape in shapes if shape.count] or shapes[:1]
    return Instants(
        sum(shape.missing for shape in shapes),
        min(shape.low_us for shape in filled),
        max(shape.high_us for shape in filled),
        _sum_places([shape.hours for shape in shapes]),
        _sum_places([shape.weekdays for shape in shapes]),
        _sum_places([shape.spacings for shape in shapes]),
    )


def _sum_places(parts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*parts, strict=True)))


_Key = TypeVar("_Key", int, str)


def _sum_counts(parts: Sequence[Mapping[_Key, int]]) -> dict[_Key, int]:
    whole: Counter[_Key] = Counter()
    for part in parts:
        whole.update(part)
    return {key: whole[key] for key in sorted(whole)}


def shape_json(shape: Shape) -> dict[str, Any]:
    """`shape` in JSON types, bins as a flat list of place and count."""
    kind, names = _FACTS[type(shape)]
    value: dict[str, Any] = {"kind": kind}
    for name in names:
        fact = getattr(shape, name)
        if name == "bins":
            fact = [number for pair in sorted(fact.items()) for number in pair]
        value[name] = dict(fact) if isinstance(fact, Mapping) else fact
    return value


def shape_from_json(value: Mapping[str, Any]) -> Shape:
    """The inverse of `shape_json`; KeyError, TypeError or ValueError when `value` is not one."""
    facts = dict(value)
    kind = _KINDS[facts.pop("kind")]
    if "bins" in facts:
        flat = facts["bins"]
        facts["bins"] = dict(zip(flat[::2], flat[1::2], strict=True))
    for name in ("scale", "hours", "weekdays", "spacings"):
        if facts.get(name) is not None:
            facts[name] = tuple(facts[name])
    return kind(**facts)
