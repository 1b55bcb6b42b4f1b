"""Drift of a numeric column against its own history: shift, unit, sign, rounding, constants, zeros for missing.

A batch is summarised by five quantiles. Its distance from the history is the mean distance of the quantiles from the
history's, in units of the history's spread; the past batches show how large that is without an error. A difference that
few rows make by chance, or that is below the resolution of the profiles, is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from holdfast.contract.profile.column_profile import MOST_DECIMALS, QUANTILES, NumberProfile, add
from holdfast.formatting import percent
from holdfast.monitor.chance import FEWEST_BATCHES, is_absence_chance
from holdfast.records import Level, Violation

_GROSS: Final = 1.0
"""A shift of less than one spread is no error without an explanation, however constant the column was before."""

_NOTABLE: Final = 0.15
"""A shift of less than this many spreads is not even a warning: it changes too little."""

_UNEXPLAINED: Final = 2.0
"""A shift without an explanation is a warning from this many times the farthest past one, without the farthest of all.

On the real days of a year, storms and seasons reach 1.3 times as far a few times in each month, and twice as far a
few times in the year.
"""

_LEAST_SKEW: Final = 0.1
"""A distribution whose mean is nearer to its median than this, in standard deviations, has no long tail on one side."""

_SKEW_ERROR: Final = 0.76
"""The standard error of that distance for one normal value; for n values it is this divided by the root of n."""

_FAR: Final = 3.5
"""A quantile is beyond chance from this many standard errors of its share of the rows."""

_FAR_MEAN: Final = 6.0
"""A mean is beyond chance from this many standard errors, for a column whose bins are too wide for its quantiles."""

_COARSE: Final = 1e-3
"""Rounding to less than this share of the standard deviation is a warning: it changes no value by anything that counts."""

_CHANGED: Final = 0.2
"""The share of other values from which a column that had one value only is reported: a warning, as rain after dry days."""


@dataclass(frozen=True, slots=True)
class Misreading:
    """A way in which numbers are misread: as `factor` times the value, plus `offset`."""

    explanation: str
    factor: float
    offset: float = 0.0

    def back(self, value: float) -> float:
        """Return `value` as it was before the misreading."""
        return (value - self.offset) / self.factor


_ANY_UNIT: Final = (
    Misreading("the sign turned around", -1.0),
    Misreading("1,000 times as large", 1000.0),
    Misreading("a 1,000th", 0.001),
    Misreading("100 times as large, as percent in place of shares", 100.0),
    Misreading("a 100th, as shares in place of percent", 0.01),
)

_DURATIONS: Final = (
    Misreading("60 times as large, as seconds in place of minutes", 60.0),
    Misreading("a 60th, as hours in place of minutes", 1 / 60.0),
)

_READ_AS: Final = (
    ("mi", "km", "miles", "kilometres", 1.609344, 0.0),
    ("mph", "km/h", "miles an hour", "kilometres an hour", 1.609344, 0.0),
    ("km/h", "m/s", "kilometres an hour", "metres a second", 1 / 3.6, 0.0),
    ("mph", "m/s", "miles an hour", "metres a second", 0.44704, 0.0),
    ("degF", "degC", "Fahrenheit", "Celsius", 1 / 1.8, -32.0 / 1.8),
    ("degC", "K", "Celsius", "kelvin", 1.0, 273.15),
    ("ft", "m", "feet", "metres", 0.3048, 0.0),
    ("in", "mm", "inches", "millimetres", 25.4, 0.0),
    ("in", "cm", "inches", "centimetres", 2.54, 0.0),
    ("lb", "kg", "pounds", "kilograms", 0.45359237, 0.0),
)
"""Two units with their names, and the factor and offset from the first to the second."""


def _misreadings() -> dict[str, tuple[Misreading, ...]]:
    found: dict[str, tuple[Misreading, ...]] = dict.fromkeys(("s", "min", "h"), _DURATIONS)
    for one, other, name, other_name, factor, offset in _READ_AS:
        there = Misreading(f"{name} read as {other_name}", factor, offset)
        back = Misreading(f"{other_name} read as {name}", 1 / factor, -offset / factor)
        found[one] = (*found.get(one, ()), there)
        found[other] = (*found.get(other, ()), back)
    return found


MISREADINGS: Final = _misreadings()
"""Possible misreadings of a column in each unit; a wrong sign and powers of ten are tried for all.

The reversed values must look like the column's ordinary batches.
"""


@dataclass(frozen=True, slots=True)
class Reference:
    """The history of a column: its usual quantiles, its spread, and the distances of its batches."""

    quantiles: tuple[float, ...]
    spread: float
    width: float
    usual: float
    farthest: float
    farthest_but_one: float
    """The farthest distance of the other batches: what is usual although one batch jumped and was accepted."""

    def distance(self, quantiles: Sequence[float]) -> float:
        """Return the mean distance of `quantiles` from the usual ones, in units of the spread."""
        pairs = zip(quantiles, self.quantiles, strict=True)
        return sum(abs(found - usual) for found, usual in pairs) / len(self.quantiles) / self.spread


def make_reference(past: Sequence[NumberProfile]) -> Reference | None:
    """Return the reference of a column from `past` batches; None if it never varied."""
    each = [shape.compared_quantiles for shape in past]
    usual = tuple(median(values) for values in zip(*each, strict=True))
    deviation = median(shape.deviation for shape in past)
    width = usual[3] - usual[1]
    spread = max(width / 1.35, 0.25 * deviation)
    if spread <= 0.0:
        return None
    bare = Reference(usual, spread, width, 0.0, 0.0, 0.0)
    distances = sorted(bare.distance(quantiles) for quantiles in each)
    return Reference(usual, spread, width, median(distances), distances[-1], distances[-2:][0])


def check_numbers(
    name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile]
) -> Iterator[Violation]:
    """Yield the violations of the column `name` of a batch, the clearest first; at most one about its distribution.

    Parameters
    ----------
    name
        The name of the column.
    unit
        Its unit, empty if it has none.
    now
        The profile of the column in the batch.
    past
        Those of earlier batches, the newest last.
    """
    yield from _check_zeros(name, now, past)
    known = make_reference(past)
    if known is None:
        yield from _check_other_value(name, unit, now, past)
        return
    moved = _check_shift(name, unit, now, past, known)
    plain = [found for found in moved if found.level is Level.ERROR] or _check_fractions(
        name, unit, now, past
    )
    plain = plain or _check_sign(name, now, past)
    yield from _check_constant(name, now, past) or plain or _check_rounded(name, now, past) or moved


def _check_constant(name: str, now: NumberProfile, past: Sequence[NumberProfile]) -> list[Violation]:
    usual = median(shape.deviation for shape in past)
    if now.low != now.high or min(shape.deviation for shape in past) < 0.1 * usual:
        return []
    others = [shape.count * _other_share(shape, now.low) for shape in past]
    share = sum(others) / sum(shape.count for shape in past)
    if min(others) <= 0.0 or is_absence_chance(share, now.count):
        return []
    message = (
        f"{name}: all {now.count:,} values are {now.low:,.6g}; in {len(past)} batches before they spread by "
        f"{usual:,.4g} (standard deviation): a stuck sensor, or a default in place of values?"
    )
    return [Violation("constant", name, Level.ERROR, message, 0.0, usual)]


def _other_share(shape: NumberProfile, value: float) -> float:
    """Return the least share of values of `shape` that are not `value`: by the bins, or by the spread if they are wide."""
    width = shape.high - shape.low
    return max(1.0 - shape.share_at(value), (shape.deviation / width) ** 2 if width > 0.0 else 0.0)


def _check_other_value(
    name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile]
) -> Iterator[Violation]:
    """Check a column that had one value only."""
    usual = past[-1].low
    if any(shape.low != usual or shape.high != usual for shape in past):
        return
    share = 1.0 - now.share_at(usual) if now.low <= usual <= now.high else 1.0
    if share < _CHANGED:
        return
    message = (
        f"{name}: {percent(share)} of its values are not {usual:,.6g}{_suffix(unit)}, as all were in {len(past)} batches "
        f"before; they lie in {now.low:,.6g} to {now.high:,.6g}"
    )
    level = Level.ERROR if share == 1.0 else Level.WARNING
    yield Violation("shift", name, level, message, share, _CHANGED)


def _suffix(unit: str) -> str:
    return "" if unit == "1" else f" {unit}"


def _check_rounded(name: str, now: NumberProfile, past: Sequence[NumberProfile]) -> list[Violation]:
    for fact, words in (("whole", "whole numbers"), ("tens", "multiples of ten")):
        share = getattr(now, fact) / now.count
        before = max(getattr(shape, fact) / shape.count for shape in past)
        if share > 0.99 and before < 0.6:
            message = (
                f"{name}: {percent(share)} of its values are {words}, at most {percent(before)} in {len(past)} batches before: "
                f"rounded on the way?"
            )
            return [Violation("rounded", name, Level.ERROR, message, share, before)]
    for decimals in range(1, MOST_DECIMALS + 1):
        shares = _shares_within(decimals, now, past)
        if shares is not None and shares[0] > 0.99 and max(shares[1]) < 0.6:
            found, most = shares[0], max(shares[1])
            message = (
                f"{name}: {percent(found)} of its values have at most {decimals} decimals, at most {percent(most)} in "
                f"{len(past)} batches before: converted or rounded on the way?"
            )
            coarse = 10.0**-decimals >= _COARSE * median(shape.deviation for shape in past)
            return [
                Violation("rounded", name, Level.ERROR if coarse else Level.WARNING, message, found, most)
            ]
    return []


def _shares_within(
    decimals: int, now: NumberProfile, past: Sequence[NumberProfile]
) -> tuple[float, list[float]] | None:
    """Return the share of values with at most so many decimals, now and in each batch of the past; None if unknown."""
    found = now.share_within(decimals)
    before = [share for shape in past if (share := shape.share_within(decimals)) is not None]
    return None if found is None or len(before) < FEWEST_BATCHES else (found, before)


def _check_fractions(
    name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile]
) -> list[Violation]:
    """Check a column that had whole numbers only, or few decimals: it may have been divided or converted."""
    share = now.whole / now.count
    before = min(shape.whole / shape.count for shape in past)
    if before >= 0.99 and share <= 0.6:
        message = (
            f"{name}: {percent(share)} of its values are whole numbers, at least {percent(before)} in {len(past)} batches "
            f"before: no more in {unit}, but in a larger unit, or averaged?"
        )
        return [Violation("shift", name, Level.ERROR, message, share, before)]
    for decimals in range(1, MOST_DECIMALS + 1):
        shares = _shares_within(decimals, now, past)
        if shares is not None and min(shares[1]) >= 0.99 and shares[0] <= 0.6:
            share, before = shares[0], min(shares[1])
            message = (
                f"{name}: {percent(1.0 - share)} of its values have more than {decimals} decimals, at most "
                f"{percent(1.0 - before)} in {len(past)} batches "
                f"before: no more in {unit}, but converted from another unit, or averaged?"
            )
            return [Violation("shift", name, Level.ERROR, message, share, before)]
    return []


def _check_sign(name: str, now: NumberProfile, past: Sequence[NumberProfile]) -> list[Violation]:
    """Check for a long tail on the other side: the sign may be inverted although the middle is near 0."""
    before, found = [_skew(shape) for shape in past], _skew(now)
    least = min(abs(skew) for skew in before)
    same = len({skew > 0.0 for skew in before}) == 1
    chance = max(_LEAST_SKEW, _FAR * _SKEW_ERROR / math.sqrt(now.count))
    if not same or least < _LEAST_SKEW or (found > 0.0) == (before[0] > 0.0) or abs(found) < chance:
        return []
    message = (
        f"{name}: its long tail is on the other side of its median; (mean - median) / standard deviation is {found:.2f}, "
        f"and was {min(before):.2f} to {max(before):.2f} in {len(past)} batches before: the sign turned around?"
    )
    return [Violation("shift", name, Level.ERROR, message, found, before[0])]


def _skew(shape: NumberProfile) -> float:
    return (shape.mean - shape.compared_quantiles[2]) / shape.deviation if shape.deviation > 0.0 else 0.0


def _check_zeros(name: str, now: NumberProfile, past: Sequence[NumberProfile]) -> Iterator[Violation]:
    share = now.zeros / now.count
    before = max(shape.zeros / shape.count for shape in past)
    gone = min(shape.missing / shape.rows for shape in past)
    replaced = now.missing == 0 and gone * now.rows >= 10 and share > 2 * before + 0.02
    if replaced or (share > before + 0.15 and share > 3 * before):
        message = (
            f"{name}: {percent(share, 1)} of its values are 0, at most {percent(before, 1)} in {len(past)} batches before, "
            f"while {now.missing:,} of {now.rows:,} rows have no value: zeros in place of missing values?"
        )
        yield Violation("zeros", name, Level.ERROR, message, share, before)


def _check_shift(
    name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile], known: Reference
) -> list[Violation]:
    if _is_monotonic(past):
        return []
    found = now.compared_quantiles
    distance = known.distance(found)
    bound = max(0.5, 1.3 * known.farthest)
    if distance >= bound and is_beyond_chance(now, past):
        conversion = _find_misreading(unit, found, distance, known)
        if conversion is not None:
            gross = distance > 1.6 * known.farthest or _gap(now, past) > 0.0
        else:
            gross = distance > max(_GROSS, 5.0 * known.farthest) or _gap(now, past) > now.high - now.low
            bound = max(_GROSS, _UNEXPLAINED * known.farthest)
        if gross or conversion is not None:
            level = Level.ERROR if gross else Level.WARNING
            message = _describe_shift(
                name, unit, found, known, len(past), conversion, is_whole=_are_whole(now, past)
            )
            return [Violation("shift", name, level, message, distance, bound)]
    return (
        _check_unexplained(name, unit, now, past, known.farthest_but_one)
        or _check_unexplained(name, unit, now, past[-FEWEST_BATCHES:])
        or _check_unseen(name, unit, now, past)
    )


def _check_unexplained(
    name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile], farthest: float | None = None
) -> list[Violation]:
    """Check for a shift that may be real: beyond chance, and twice as far as any of the `past`, or as `farthest`."""
    known = make_reference(past)
    if known is None or not is_beyond_chance(now, past):
        return []
    distance = known.distance(now.compared_quantiles)
    bound = max(_NOTABLE, _UNEXPLAINED * (known.farthest if farthest is None else farthest))
    if distance < bound:
        return []
    message = _describe_shift(
        name, unit, now.compared_quantiles, known, len(past), is_whole=_are_whole(now, past)
    )
    return [Violation("shift", name, Level.WARNING, message, distance, bound)]


def _describe_shift(
    name: str,
    unit: str,
    found: Sequence[float],
    known: Reference,
    batches: int,
    conversion: Misreading | None = None,
    *,
    is_whole: bool,
) -> str:
    low, high, distance = known.quantiles[2], found[2], known.distance(found)
    ratio = f", ratio {high / low:.3g}" if low > 0.0 < high else ""
    before = [_shown(value, is_whole=is_whole) for value in known.quantiles]
    now = [_shown(value, is_whole=is_whole) for value in found]
    explanation = (
        f"; the middle half lay in {before[1]} to {before[3]} and lies in {now[1]} to {now[3]}"
        if conversion is None
        else f": {conversion.explanation}?"
    )
    others = f", {known.farthest_but_one:.2g} but for one" if distance < _UNEXPLAINED * known.farthest else ""
    return (
        f"{name}: median about {before[2]} -> {now[2]}{_suffix(unit)}{ratio}{explanation} "
        f"({distance:.2g} spreads from the usual, at most {known.farthest:.2g} in {batches} batches before{others})"
    )


def _are_whole(now: NumberProfile, past: Sequence[NumberProfile]) -> bool:
    return all(shape.whole == shape.count for shape in (now, *past))


def _shown(value: float, *, is_whole: bool) -> str:
    """Return a quantile, which is an estimate within a bin, as a value that the column can have."""
    return f"{value:,.0f}" if is_whole and abs(value) < 1e6 else f"{value:,.4g}"


def _check_unseen(name: str, unit: str, now: NumberProfile, past: Sequence[NumberProfile]) -> list[Violation]:
    """Check for a quantile below the lowest or above the highest value of every earlier batch."""
    whole = add(past)
    share = QUANTILES[0]
    if is_absence_chance(share, whole.count):
        return []
    low, *_, high = now.compared_quantiles
    if whole.low - low > whole.resolution(whole.low):
        found, word, most, end = low, "lowest", whole.low, "at most"
    elif high - whole.high > whole.resolution(whole.high):
        found, word, most, end = high, "highest", whole.high, "at least"
    else:
        return []
    shown = _shown(found, is_whole=_are_whole(now, past))
    message = (
        f"{name}: {percent(share)} of its values are {end} about {shown}{_suffix(unit)}, and the {word} of "
        f"{whole.count:,} values in {len(past)} batches before was {most:,.4g}"
    )
    return [Violation("shift", name, Level.WARNING, message, found, most)]


def is_beyond_chance(now: NumberProfile, past: Sequence[NumberProfile]) -> bool:
    """Return True if a quantile of `now` is farther than so few rows of the `past`, and its resolution, let it be.

    A quantile of n rows lies between two quantiles of their law whose distance shrinks with the root of n, whatever the
    law is. If the bins are too wide for that, the mean decides.
    """
    whole = add(past)
    errors = [_FAR * math.sqrt(share * (1.0 - share) / now.count) for share in QUANTILES]
    lows = [share - error for share, error in zip(QUANTILES, errors, strict=True)]
    highs = [share + error for share, error in zip(QUANTILES, errors, strict=True)]
    bounds = zip(
        now.compared_quantiles,
        zip(lows, whole.quantiles([max(0.0, low) for low in lows]), strict=True),
        zip(highs, whole.quantiles([min(1.0, high) for high in highs]), strict=True),
        strict=True,
    )
    for found, (low_share, low), (high_share, high) in bounds:
        # Fewer rows than it takes to see the end of the past show nothing there.
        if low_share > 0.0 and low - found > whole.resolution(low):
            return True
        if high_share < 1.0 and found - high > whole.resolution(high):
            return True
    return _is_mean_beyond_chance(now, past, whole)


def _is_mean_beyond_chance(now: NumberProfile, past: Sequence[NumberProfile], whole: NumberProfile) -> bool:
    deviation = max(now.deviation, *(shape.deviation for shape in past))
    if whole.scale is None or whole.resolution(whole.mean) <= deviation:
        return False
    farthest = max(abs(shape.mean - whole.mean) for shape in past)
    # By the deviation of the batch itself too: then one far value alone is never beyond chance.
    return abs(now.mean - whole.mean) > 1.5 * farthest + _FAR_MEAN * deviation / math.sqrt(now.count)


def _gap(now: NumberProfile, past: Sequence[NumberProfile]) -> float:
    """Return how far all values are outside the range of the past; not positive if some are inside."""
    return max(min(shape.low for shape in past) - now.high, now.low - max(shape.high for shape in past))


def _find_misreading(
    unit: str, found: Sequence[float], distance: float, known: Reference
) -> Misreading | None:
    """Return the misreading whose reversal brings the batch back to ordinary values, if chance cannot explain it."""
    best, nearest = None, min(0.25 * distance, max(2.0 * known.usual, 0.1))
    for conversion in (*MISREADINGS.get(unit, ()), *_ANY_UNIT):
        back = sorted(conversion.back(value) for value in found)
        left = known.distance(back)
        if left < nearest and _has_similar_width(back, known):
            best, nearest = conversion, left
    return best


def _has_similar_width(back: Sequence[float], known: Reference) -> bool:
    return known.width <= 0.0 or 0.5 < (back[3] - back[1]) / known.width < 2.0


def _is_monotonic(past: Sequence[NumberProfile]) -> bool:
    """Return True if the column rises or falls from batch to batch, as ids and meters do: then the newest is always far."""
    steps = [after.mean - before.mean for before, after in pairwise(past)]
    rising, falling = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
    return bool(steps) and max(rising, falling) >= 0.9 * len(steps)
