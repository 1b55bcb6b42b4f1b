"""Quality of predictions by version and day, as labels arrive late (R143, R164)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.records import DAY_US
from holdfast.stats import Interval, auc_interval, mean_interval

CONFIDENCE: Final = 0.95
LEAST_OF_A_CLASS: Final = 5
"""The minimum number of rows of a class for an AUC: DeLong's interval rests on the normal approximation."""

_SMALLEST_PROBABILITY: Final = (
    1e-7  # single precision does not distinguish a probability nearer to 0 or 1 from it
)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Predictions with their labels, as columns of one length N.

    `version` is text; `event_time_us` is microseconds since 1970, UTC; `probability` and `label` are 0 to 1.
    """

    version: NDArray[np.str_]
    event_time_us: NDArray[np.int64]
    probability: NDArray[np.float64]
    label: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.event_time_us.size)

    def where(self, chosen: NDArray[np.bool_]) -> Outcomes:
        """Return the rows that `chosen` (N,) marks."""
        return Outcomes(
            self.version[chosen], self.event_time_us[chosen], self.probability[chosen], self.label[chosen]
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
    """The quality of one version on one UTC day of its events. A day that is `filling` may still change."""

    version: str
    day_us: int
    filling: bool
    quality: Quality


@dataclass(frozen=True, slots=True)
class QualityVersion:
    """The quality of one version over all its labelled predictions, and their share of its predictions."""

    version: str
    predictions: int
    coverage: float | None
    quality: Quality


def compute_quality(outcomes: Outcomes) -> Quality:
    """Return the quality of a set of labelled predictions.

    A label between 0 and 1 (a rater's) counts as positive from one half on where a metric needs two classes.

    >>> p, y = np.array([0.1, 0.4, 0.6, 0.9]), np.array([0.0, 0, 1, 1])
    >>> some = Outcomes(np.array(["v1"] * 4), np.arange(4), p, y)
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


def quality_by_day(outcomes: Outcomes) -> tuple[QualityDay, ...]:
    """Return the quality by version and UTC day of the event, in order of day, then version.

    The newest day with a label is marked as filling, because more labels of it will arrive.
    """
    if len(outcomes) == 0:
        return ()
    day = outcomes.event_time_us // DAY_US
    newest = int(day.max())
    cells = sorted({(int(d), str(v)) for d, v in zip(day, outcomes.version, strict=True)})
    return tuple(
        QualityDay(
            version,
            d * DAY_US,
            d == newest,
            compute_quality(outcomes.where((day == d) & (outcomes.version == version))),
        )
        for d, version in cells
    )


def quality_by_version(outcomes: Outcomes, predictions: dict[str, int]) -> tuple[QualityVersion, ...]:
    """Return the quality by version over all labels; `predictions` is the number of predictions by version."""
    versions = sorted({*predictions, *(str(version) for version in np.unique(outcomes.version))})
    found = []
    for version in versions:
        quality, many = (
            compute_quality(outcomes.where(outcomes.version == version)),
            predictions.get(version, 0),
        )
        coverage = min(1.0, quality.rows / many) if many else None
        found.append(QualityVersion(version, many, coverage, quality))
    return tuple(found)
