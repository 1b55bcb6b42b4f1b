"""Drift of a timestamp column against its own history: another time zone, another granularity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from statistics import median
from typing import Final
from zoneinfo import ZoneInfo

from holdfast.contract.profile.column_profile import TimestampProfile
from holdfast.records import EPOCH, Level, Violation

_MOVES: Final = tuple(hours for hours in range(-11, 13) if hours)


def check_timestamps(
    name: str, zone: str, now: TimestampProfile, past: Sequence[TimestampProfile]
) -> Iterator[Violation]:
    """Yield the violations of the timestamps in the column `name` of a batch.

    Parameters
    ----------
    name
        The name of the column.
    zone
        Its time zone.
    now
        The profile of the column in the batch.
    past
        Those of earlier batches.
    """
    hours = _shift_of_pattern(now, past) or _shift_of_ends(zone, now, past)
    if hours:
        later = f"{abs(hours)} hour{'s' if abs(hours) > 1 else ''} {'later' if hours > 0 else 'earlier'}"
        message = (
            f"{name}: everything happens {later} of the day than in {len(past)} batches before, and fits when it is "
            f"moved back: another time zone read as {zone}?"
        )
        yield Violation("zone", name, Level.ERROR, message, float(hours), 0.0)
    yield from _check_granularity(name, now, past)


def _shift_of_pattern(now: TimestampProfile, past: Sequence[TimestampProfile]) -> int:
    """Return by how many whole hours the pattern of the day has shifted; 0 if it has not, or if it is unclear."""
    each = [_shares(shape.hours) for shape in past]
    usual = [sum(column) / len(each) for column in zip(*each, strict=True)]
    found = _shares(now.hours)
    # The day that was farthest but one, so that a single storm does not hide a moved clock for four weeks.
    farthest = sorted(_difference(shares, usual) for shares in each)[-2]
    stays = _difference(found, usual)
    if stays <= max(0.1, 1.5 * farthest):
        return 0
    best = min(_MOVES, key=lambda hours: (_difference(_moved_back(found, hours), usual), abs(hours)))
    left = _difference(_moved_back(found, best), usual)
    return best if left <= max(1.2 * farthest, 0.05) and left < 0.5 * stays else 0


def _shift_of_ends(zone: str, now: TimestampProfile, past: Sequence[TimestampProfile]) -> int:
    """Return by how many whole hours both the first and the last timestamp of the batch have shifted.

    It applies if both were always at the same hour, as for a batch per day of a continuous feed, which has no other
    pattern.
    """
    clock = ZoneInfo(zone)
    firsts = Counter(_hour(shape.low_us, clock) for shape in past)
    lasts = Counter(_hour(shape.high_us, clock) for shape in past)
    (first, many), (last, as_many) = firsts.most_common(1)[0], lasts.most_common(1)[0]
    if min(many, as_many) < 0.9 * len(past):
        return 0
    moved = _round(_hour(now.low_us, clock) - first)
    return moved if moved == _round(_hour(now.high_us, clock) - last) else 0


def _round(hours: int) -> int:
    """Return `hours` on the clock's face, -11 to 12."""
    return (hours + 11) % 24 - 11


def _hour(at_us: int, clock: ZoneInfo) -> int:
    return (EPOCH + timedelta(microseconds=at_us)).astimezone(clock).hour


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(1, sum(counts))
    return [count / total for count in counts]


def _moved_back(shares: Sequence[float], hours: int) -> list[float]:
    return [shares[(hour + hours) % 24] for hour in range(24)]


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2


def _check_granularity(
    name: str, now: TimestampProfile, past: Sequence[TimestampProfile]
) -> Iterator[Violation]:
    """Check a feed that reports at fixed intervals for a change of the interval. Irregular events have none."""
    spacings = {shape.spacing_seconds for shape in past}
    found, usual = now.spacing_seconds, spacings.pop()
    if spacings or usual is None or found is None or max(found / usual, usual / found) < 3.0:
        return
    if not all(_is_regular(shape) for shape in (now, *past)):
        return
    means = [mean for shape in past if (mean := shape.mean_spacing_seconds) is not None]
    message = (
        f"{name}: the usual interval of its timestamps is {_in_words(found, now.mean_spacing_seconds)}, and "
        f"{_in_words(usual, median(means) if means else None)} in each of {len(past)} batches before: another granularity"
    )
    yield Violation("grain", name, Level.ERROR, message, found, usual)


def _in_words(end: float, mean: float | None) -> str:
    """Return an interval by its class, which ends at `end`, and the mean within it, in seconds; None if it is elsewhere."""
    return f"at most {end:g} s" if mean is None else f"about {mean:.3g} s"


def _is_regular(shape: TimestampProfile) -> bool:
    return max(shape.spacings) >= 0.8 * sum(shape.spacings)
