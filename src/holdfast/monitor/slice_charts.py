"""Control charts of slice shares over batches: find slices with an unusual share (R32, R33, R51, R53).

A share varies more from batch to batch than its rows explain, and correlates with the batch before. Both are
estimated from older batches (`stats.chart_baseline`), so that the chart's rate of false alarms is about its nominal
one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.contract.profile.profile import Profile
from holdfast.errors import InputError
from holdfast.stats.chart_baseline import FEWEST, ProportionBaseline, proportion_baseline
from holdfast.stats.control_charts import Ewma, widen_limit

BASELINE: Final = 28
"""The number of batches that estimate a chart's level, if there are as many before those on the chart."""

WEIGHT: Final = 0.1
LIMIT: Final = 2.814


@dataclass(frozen=True, slots=True)
class Point:
    """One batch on a chart: the share of the slice, its EWMA, and the limits of the EWMA, all as shares of the rows.

    Points of the baseline are not tested: their `low` and `high` are the level's. EWMA and limits are in the deviation
    of the largest tested batch, so that the EWMA is never farther from the level than the farthest share.
    """

    batch: str
    share: float
    smoothed: float
    low: float
    high: float
    baseline: bool
    alarm: bool


@dataclass(frozen=True, slots=True)
class SliceChart:
    """The share of one value of a column over batches.

    `run_length` is the mean number of batches until a false alarm by design; `explanation` describes the result.
    """

    column: str
    value: str
    level: float
    points: tuple[Point, ...]
    run_length: float
    explanation: str

    @property
    def alarm(self) -> bool:
        """Return True if the newest batch is outside the limits."""
        return bool(self.points) and self.points[-1].alarm


def make_charts(
    column: str, history: Sequence[tuple[str, Profile]], *, most: int = 12
) -> tuple[SliceChart, ...]:
    """Return a chart for each of the `most` frequent values of `column`.

    Parameters
    ----------
    history
        Batch ids with their profiles, the oldest first.

    Batches without rows or without the column are left out. Fewer than 13 batches with rows make no chart, and neither
    does a value whose share never varied.
    """
    counted = [(batch, found) for batch, profile in history if (found := profile.slices(column))]
    if len(counted) <= FEWEST:
        return ()
    totals = Counter[str]()
    for _, found in counted:
        totals.update(found)
    commonest = sorted(totals, key=lambda value: (-totals[value], value))[:most]
    drawn = (_chart(column, value, counted) for value in commonest)
    return tuple(chart for chart in drawn if chart is not None)


def unseen_slices(
    trained: dict[str, int], live: dict[str, int], *, least_share: float = 0.01
) -> dict[str, float]:
    """Return values with at least `least_share` of the live rows and no training row, with their live share (R51).

    >>> unseen_slices({"EWR": 10, "JFK": 9}, {"EWR": 50, "LGA": 49, "HPN": 1}, least_share=0.02)
    {'LGA': 0.49}
    """
    total = max(1, sum(live.values()))
    return {
        value: count / total
        for value, count in sorted(live.items())
        if count / total >= least_share and not trained.get(value)
    }


def _chart(column: str, value: str, counted: Sequence[tuple[str, dict[str, int]]]) -> SliceChart | None:
    counts = [found.get(value, 0) for _, found in counted]
    rows = [sum(found.values()) for _, found in counted]
    size = max(FEWEST, min(BASELINE, len(counted) - 1))
    try:
        level = proportion_baseline(counts[:size], rows[:size])
    except InputError:
        return None  # a share that never varied has no chart; `drift` finds new and missing values
    points = tuple(_points(level, [batch for batch, _ in counted], counts, rows))
    design = Ewma(WEIGHT, LIMIT).run_length()
    return SliceChart(
        column, value, level.share, points, design, _explain(column, value, level, points, design)
    )


def _points(
    level: ProportionBaseline, batches: Sequence[str], counts: Sequence[int], rows: Sequence[int]
) -> list[Point]:
    chart = Ewma(WEIGHT, widen_limit(LIMIT, level.count))
    # One scale for all: with a batch's own, a small batch would move the whole mean, past every share that was seen.
    scale = level.residual_deviation(max(rows[level.count - 1 :]))
    before: float | None = None
    drawn = []
    for place, (batch, count, total) in enumerate(zip(batches, counts, rows, strict=True)):
        residual, before = level.standardise(count, total, before)
        if place < level.count:
            drawn.append(Point(batch, count / total, level.share, level.share, level.share, True, False))
            continue
        chart = chart.add(residual)
        half = chart.bound * scale
        smoothed = min(1.0, max(0.0, level.share + chart.value * scale))
        low, high = max(0.0, level.share - half), min(1.0, level.share + half)
        drawn.append(Point(batch, count / total, smoothed, low, high, False, chart.alarm))
    return drawn


def _explain(
    column: str, value: str, level: ProportionBaseline, points: Sequence[Point], design: float
) -> str:
    newest, shown = points[-1], value or "(missing)"
    promise = (
        f"by design a false alarm every {design:.0f} batches; limits from {level.count} batches, which vary "
        f"{level.over:.1f} times as much as their rows explain"
    )
    if not newest.alarm:
        return f"{column}={shown}: {newest.share:.1%} of the newest batch, {level.share:.1%} as a rule; {promise}"
    first = next(
        point.batch for place, point in enumerate(points) if all(later.alarm for later in points[place:])
    )
    way = "more" if newest.smoothed > level.share else "fewer"
    return f"{column}={shown}: {way} than usual since batch {first}, {newest.smoothed:.1%} against {level.share:.1%}; {promise}"
