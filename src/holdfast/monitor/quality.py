"""Quality of predictions by version and over time, as labels arrive late (R143, R164).

Days are those of the predictions by the servers' clocks, so that no clock of a caller moves a window or a chart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.records import DAY_US
from holdfast.stats import Interval, auc_interval, mean_interval

CONFIDENCE: Final = 0.95
LEAST_OF_A_CLASS: Final = 5
"""The minimum number of rows of a class for an AUC: DeLong's interval rests on the normal approximation."""

DISTANT_US: Final = DAY_US
"""An event further from its arrival than this is distant: its caller's clock is wrong, or old requests are sent again."""
PERIOD_DAYS: Final = (1, 7, 28)
"""The lengths of a point of the chart, shortest first."""

_MONDAY: Final = 3
"""1970-01-01 was a Thursday: so many days after a Monday."""
_SMALLEST_PROBABILITY: Final = (
    1e-7  # single precision does not distinguish a probability nearer to 0 or 1 from it
)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Predictions with their labels, as columns of one length N.

    `version` is text; `probability` and `label` are 0 to 1. `predicted_at_us` is the time of the prediction by the
    server's clock, `event_time_us` that of the event by its caller's; both are microseconds since 1970, UTC.
    """

    version: NDArray[np.str_]
    predicted_at_us: NDArray[np.int64]
    event_time_us: NDArray[np.int64]
    probability: NDArray[np.float64]
    label: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.predicted_at_us.size)

    def where(self, chosen: NDArray[np.bool_]) -> Outcomes:
        """Return the rows that `chosen` (N,) marks."""
        return Outcomes(
            self.version[chosen],
            self.predicted_at_us[chosen],
            self.event_time_us[chosen],
            self.probability[chosen],
            self.label[chosen],
        )


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of `rows` labelled predictions. Intervals are at 95 %; None if there are too few rows.

    `auc`: chance that a positive scores above a negative. `brier`: mean squared difference of probability and label.
    `log_loss`: mean negative log-likelihood, natural logarithm. `bias`: mean probability minus share of positives.
    """

    rows: int
    positives: int
    auc: Interval | None
    brier: Interval | None
    log_loss: float | None
    bias: float | None


@dataclass(frozen=True, slots=True)
class QualityDay:
    """The quality of one version over `days` UTC days from `day_us` on. A point that is `filling` may still change."""

    version: str
    day_us: int
    days: int
    filling: bool
    quality: Quality


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of a `population` of predicted rows have a label.

    Both counts are of the same rows: those predicted since `since_us`. `share` is between 0 and 1, None without a row.
    """

    population: str
    since_us: int
    predictions: int
    labelled: int
    share: float | None


@dataclass(frozen=True, slots=True)
class DistantEvents:
    """The labelled predictions whose event is more than `DISTANT_US` from its arrival; every other figure has them too."""

    labelled: int
    quality: Quality


def compute_quality(outcomes: Outcomes) -> Quality:
    """Return the quality of a set of labelled predictions.

    A label between 0 and 1 (a rater's) counts as positive from one half on where a metric needs two classes.

    >>> p, y = np.array([0.1, 0.4, 0.6, 0.9]), np.array([0.0, 0, 1, 1])
    >>> some = Outcomes(np.array(["v1"] * 4), np.arange(4), np.arange(4), p, y)
    >>> compute_quality(some).auc is None, round(compute_quality(some).brier.estimate, 3)
    (True, 0.085)
    """
    rows = len(outcomes)
    positive = outcomes.label >= 0.5
    positives = int(positive.sum())
    if rows < 2:
        return Quality(rows, positives, None, None, None, None)
    p, y = outcomes.probability, outcomes.label
    ranked = min(positives, rows - positives) >= LEAST_OF_A_CLASS
    clipped = np.clip(p, _SMALLEST_PROBABILITY, 1.0 - _SMALLEST_PROBABILITY)
    return Quality(
        rows=rows,
        positives=positives,
        auc=auc_interval(p, positive, CONFIDENCE) if ranked else None,
        brier=mean_interval((p - y) ** 2, CONFIDENCE),
        log_loss=float(-(y * np.log(clipped) + (1.0 - y) * np.log1p(-clipped)).mean()),
        bias=float(p.mean() - y.mean()),
    )


def quality_over_time(outcomes: Outcomes) -> tuple[QualityDay, ...]:
    """Return the quality by version and day; by week, or four weeks, where half of the days have too few labels for an AUC."""
    found: tuple[QualityDay, ...] = ()
    for days in PERIOD_DAYS:
        found = quality_by_period(outcomes, days)
        if 2 * sum(each.quality.auc is not None for each in found) >= len(found):
            break
    return found


def quality_by_period(outcomes: Outcomes, days: int) -> tuple[QualityDay, ...]:
    """Return the quality by version and period of `days` UTC days of predictions, in order of time, then version.

    Periods of several days begin on a Monday. The newest is marked as filling, because more labels of it will arrive.
    """
    if len(outcomes) == 0:
        return ()
    shift = _MONDAY if days > 1 else 0
    period = (outcomes.predicted_at_us // DAY_US + shift) // days
    newest = int(period.max())
    cells = sorted({(int(p), str(v)) for p, v in zip(period, outcomes.version, strict=True)})
    return tuple(
        QualityDay(
            version,
            (number * days - shift) * DAY_US,
            days,
            number == newest,
            compute_quality(outcomes.where((period == number) & (outcomes.version == version))),
        )
        for number, version in cells
    )


def quality_by_version(outcomes: Outcomes) -> dict[str, Quality]:
    """Return the quality of each version over all its labels."""
    versions = sorted({str(version) for version in np.unique(outcomes.version)})
    return {version: compute_quality(outcomes.where(outcomes.version == version)) for version in versions}


def coverage(labelled: int, predictions: int, *, since_us: int) -> Coverage:
    """Return the coverage of the rows that all versions predicted since `since_us`, the begin of a UTC day.

    >>> found = coverage(30, 120, since_us=1_790_812_800_000_000)
    >>> found.share, found.population
    (0.25, 'rows predicted by all versions since 2026-10-01 (UTC)')
    """
    day = datetime.fromtimestamp(since_us / 1e6, UTC).date()
    return Coverage(
        population=f"rows predicted by all versions since {day} (UTC)",
        since_us=since_us,
        predictions=predictions,
        labelled=labelled,
        share=share_labelled(labelled, predictions),
    )


def share_labelled(labelled: int, predictions: int) -> float | None:
    """Return the share of `predictions` that is labelled, 0 to 1; None without a prediction."""
    return min(1.0, labelled / predictions) if predictions else None


def distant_events(outcomes: Outcomes) -> DistantEvents:
    """Return the outcomes whose event is far from its arrival, by their number and quality."""
    apart = outcomes.where(np.abs(outcomes.event_time_us - outcomes.predicted_at_us) > DISTANT_US)
    return DistantEvents(len(apart), compute_quality(apart))
