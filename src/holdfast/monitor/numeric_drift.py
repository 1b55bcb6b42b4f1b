"""A column of numbers against its own history: moved, converted, turned around, rounded, constant, zeros for missing.

A batch is told by five quantiles. Its distance from the history is their mean distance from the history's own, in
units of the history's spread; how large that is on days when nothing is wrong, each past batch says itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from holdfast.contract.profile.column_profile import NumberProfile
from holdfast.records import Level, Violation

FEWEST_ROWS: Final = 20
"""Fewer values than this are told nothing of."""

_GROSS: Final = 1.0
"""A move of less than one spread is no error without an explanation, however still the column was before."""

_UNEXPLAINED: Final = 2.0
"""A move without an explanation is told from this many times the farthest past one: on the real days of a year, storms and
seasons go 1.3 times as far a few times in each month, and twice as far a few times in the year."""

_LEAST_SKEW: Final = 0.1
"""A distribution whose mean is nearer to its median than this, in standard deviations, has no long tail on one side."""

_Map = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Conversion:
    """A way in which numbers are read wrongly: `back` undoes it."""

    words: str
    back: _Map


def _times(factor: float) -> _Map:
    return lambda value: value / factor


_ANYTHING: Final = (
    Conversion("the sign turned around", lambda value: -value),
    Conversion("1,000 times as large", _times(1000.0)),
    Conversion("a 1,000th", _times(0.001)),
    Conversion("100 times as large, as percent in place of shares", _times(100.0)),
    Conversion("a 100th, as shares in place of percent", _times(0.01)),
)

_TIMES: Final = (
    Conversion("60 times as large, as seconds in place of minutes", _times(60.0)),
    Conversion("a 60th, as hours in place of minutes", _times(1 / 60.0)),
)

CONVERSIONS: Final[dict[str, tuple[Conversion, ...]]] = {
    "mi": (Conversion("miles read as kilometres", _times(1.609344)),),
    "km": (Conversion("kilometres read as miles", _times(1 / 1.609344)),),
    "mph": (
        Conversion("miles an hour read as kilometres an hour", _times(1.609344)),
        Conversion("miles an hour read as metres a second", _times(0.44704)),
    ),
    "km/h": (
        Conversion("kilometres an hour read as miles an hour", _times(1 / 1.609344)),
        Conversion("kilometres an hour read as metres a second", _times(1 / 3.6)),
    ),
    "m/s": (
        Conversion("metres a second read as kilometres an hour", _times(3.6)),
        Conversion("metres a second read as miles an hour", _times(1 / 0.44704)),
    ),
    "degF": (Conversion("Fahrenheit read as Celsius", lambda value: value * 1.8 + 32.0),),
    "degC": (
        Conversion("Celsius read as Fahrenheit", lambda value: (value - 32.0) / 1.8),
        Conversion("Celsius read as kelvin", lambda value: value - 273.15),
    ),
    "K": (Conversion("kelvin read as Celsius", lambda value: value + 273.15),),
    "ft": (Conversion("feet read as metres", _times(0.3048)),),
    "m": (Conversion("metres read as feet", _times(1 / 0.3048)),),
    "in": (
        Conversion("inches read as millimetres", _times(25.4)),
        Conversion("inches read as centimetres", _times(2.54)),
    ),
    "mm": (Conversion("millimetres read as inches", _times(1 / 25.4)),),
    "cm": (Conversion("centimetres read as inches", _times(1 / 2.54)),),
    "lb": (Conversion("pounds read as kilograms", _times(0.45359237)),),
    "kg": (Conversion("kilograms read as pounds", _times(1 / 0.45359237)),),
    "s": _TIMES,
    "min": _TIMES,
    "h": _TIMES,
}
"""What a column in each unit may have been read as by mistake; a wrong sign and powers of ten are looked for in all.
What such a reading leaves behind, taken back, must look like the column's ordinary days."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a column was like: its usual quantiles, its spread, and how far its ordinary batches lie from them."""

    quantiles: tuple[float, ...]
    spread: float
    width: float
    usual: float
    farthest: float

    def distance(self, quantiles: Sequence[float]) -> float:
        """The mean distance of `quantiles` from the usual ones, in units of the spread."""
        pairs = zip(quantiles, self.quantiles, strict=True)
        return sum(abs(found - usual) for found, usual in pairs) / len(self.quantiles) / self.spread


def reference(past: Sequence[NumberProfile]) -> Reference | None:
    """What `past` batches say of a column; None when it never varied."""
    each = [shape.compared_quantiles for shape in past]
    usual = tuple(median(values) for values in zip(*each, strict=True))
    deviation = median(shape.deviation for shape in past)
    width = usual[3] - usual[1]
    spread = max(width / 1.35, 0.25 * deviation)
    if spread <= 0.0:
        return None
    bare = Reference(usual, spread, width, 0.0, 0.0)
    distances = sorted(bare.distance(quantiles) for quantiles in each)
    return Reference(usual, spread, width, median(distances), distances[-1])


def judge_numbers(
    name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile]
) -> Iterator[Violation]:
    """What is wrong with the column `name` of a batch, the plainest first; at most one word on its distribution."""
    past = [shape for shape in past if shape.count >= FEWEST_ROWS]
    if now.count < FEWEST_ROWS or not past:
        return
    yield from _zeros(name, now, past)
    known = reference(past)
    if known is None:
        return
    moved = _moved(name, unit, now, past, known)
    plain = [found for found in moved if found.level is Level.ERROR] or _fractions(name, unit, now, past)
    plain = plain or _turned(name, now, past)
    yield from _constant(name, now, past) or plain or _rounded(name, now, past) or moved


def _constant(name: str, now: NumberProfile, past: Sequence[NumberProfile]) -> list[Violation]:
    usual = median(shape.deviation for shape in past)
    if now.low != now.high or min(shape.deviation for shape in past) < 0.1 * usual:
        return []
    words = (
        f"{name}: all {now.count:,} values are {now.low:,.6g}; in {len(past)} batches before they spread by "
        f"{usual:,.4g} (standard deviation): a stuck sensor, or a default in place of values?"
    )
    return [Violation("constant", name, Level.ERROR, words, 0.0, usual)]


def _rounded(name: str, now: NumberProfile, past: Sequence[NumberProfile]) -> list[Violation]:
    for fact, words in (("whole", "whole numbers"), ("tens", "multiples of ten")):
        share = getattr(now, fact) / now.count
        before = max(getattr(shape, fact) / shape.count for shape in past)
        if share > 0.99 and before < 0.6:
            told = (
                f"{name}: {share:.0%} of its values are {words}, at most {before:.0%} in {len(past)} batches before: "
                f"rounded on the way?"
            )
            return [Violation("rounded", name, Level.ERROR, told, share, before)]
    return []


def _fractions(name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile]) -> list[Violation]:
    """A column of whole numbers that is one no more: it was divided by something on the way."""
    share = now.whole / now.count
    before = min(shape.whole / shape.count for shape in past)
    if before < 0.99 or share > 0.6:
        return []
    told = (
        f"{name}: {share:.0%} of its values are whole numbers, at least {before:.0%} in {len(past)} batches before: "
        f"no more in {unit}, but in a larger unit, or averaged?"
    )
    return [Violation("shift", name, Level.ERROR, told, share, before)]


def _turned(name: str, now: NumberProfile, past: Sequence[NumberProfile]) -> list[Violation]:
    """A column whose long tail is on the other side: its sign was turned around, although its middle is near 0."""
    before, found = [_skew(shape) for shape in past], _skew(now)
    least = min(abs(skew) for skew in before)
    same = len({skew > 0.0 for skew in before}) == 1
    if not same or least < _LEAST_SKEW or (found > 0.0) == (before[0] > 0.0) or abs(found) < _LEAST_SKEW:
        return []
    told = (
        f"{name}: its long tail is on the other side of its median; (mean - median) / standard deviation is {found:.2f}, "
        f"and was {min(before):.2f} to {max(before):.2f} in {len(past)} batches before: the sign turned around?"
    )
    return [Violation("shift", name, Level.ERROR, told, found, before[0])]


def _skew(shape: NumberProfile) -> float:
    return (shape.mean - shape.compared_quantiles[2]) / shape.deviation if shape.deviation > 0.0 else 0.0


def _zeros(name: str, now: NumberProfile, past: Sequence[NumberProfile]) -> Iterator[Violation]:
    share = now.zeros / now.count
    before = max(shape.zeros / shape.count for shape in past)
    gone = min(shape.missing / shape.rows for shape in past)
    replaced = now.missing == 0 and gone * now.rows >= 10 and share > 2 * before + 0.02
    if replaced or (share > before + 0.15 and share > 3 * before):
        words = (
            f"{name}: {share:.1%} of its values are 0, at most {before:.1%} in {len(past)} batches before, while "
            f"{now.missing:,} of {now.rows:,} rows have no value: zeros in place of missing values?"
        )
        yield Violation("zeros", name, Level.ERROR, words, share, before)


def _moved(
    name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile], known: Reference
) -> list[Violation]:
    found = now.compared_quantiles
    distance = known.distance(found)
    bound = max(0.5, 1.3 * known.farthest)
    if distance < bound or _climbs(past):
        return []
    conversion = _explained(unit, found, distance, known)
    low, high = known.quantiles[2], found[2]
    told = f"{name}: median {low:,.4g} -> {high:,.4g}" + ("" if unit == "1" else f" {unit}")
    if low > 0.0 < high:
        told += f", ratio {high / low:.3g}"
    if conversion is None:
        told += (
            f"; the middle half lay in {known.quantiles[1]:,.4g} to {known.quantiles[3]:,.4g} and lies in "
            f"{found[1]:,.4g} to {found[3]:,.4g}"
        )
        gross = distance > max(_GROSS, 5.0 * known.farthest) or _gap(now, past) > now.high - now.low
        bound = max(_GROSS, _UNEXPLAINED * known.farthest)
        if not gross and distance < bound:
            return []
    else:
        told += f": {conversion.words}?"
        gross = distance > 1.6 * known.farthest or _gap(now, past) > 0.0
    words = f"{told} ({distance:.2g} spreads from the usual, at most {known.farthest:.2g} in {len(past)} batches before)"
    return [Violation("shift", name, Level.ERROR if gross else Level.WARNING, words, distance, bound)]


def _gap(now: NumberProfile, past: Sequence[NumberProfile]) -> float:
    """How far all values lie outside of where any value of the past lay; not positive when some lie inside."""
    return max(min(shape.low for shape in past) - now.high, now.low - max(shape.high for shape in past))


def _explained(unit: str, found: Sequence[float], distance: float, known: Reference) -> Conversion | None:
    """The conversion that takes the batch back to where its column's ordinary batches lie, if one does so well that
    chance is no explanation."""
    best, nearest = None, min(0.25 * distance, max(2.0 * known.usual, 0.1))
    for conversion in (*CONVERSIONS.get(unit, ()), *_ANYTHING):
        back = sorted(conversion.back(value) for value in found)
        left = known.distance(back)
        if left < nearest and _as_wide(back, known):
            best, nearest = conversion, left
    return best


def _as_wide(back: Sequence[float], known: Reference) -> bool:
    return known.width <= 0.0 or 0.5 < (back[3] - back[1]) / known.width < 2.0


def _climbs(past: Sequence[NumberProfile]) -> bool:
    """Whether the column rises or falls from batch to batch, as ids and meters do: then the newest is always far."""
    steps = [after.mean - before.mean for before, after in pairwise(past)]
    rising, falling = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
    return bool(steps) and max(rising, falling) >= 0.9 * len(steps)
