"""Records of a comparison of live traffic with training data, which `traffic_comparison.py` makes.

A server exposes the last one, and so needs no Polars for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from holdfast.stats.interval import Interval

LEAST_SHIFT: Final = 0.05
"""The minimum difference of the share of positive labels that counts as a shift."""


@dataclass(frozen=True, slots=True)
class TrafficSlice:
    """One value of a slice of the contract: `rows` predictions, their `share`, and `trained` training rows.

    With `is_word`, the column is no slice, and the version has no code for the value.
    """

    column: str
    value: str
    rows: int
    share: float
    trained: int
    covered: bool
    is_word: bool = False


@dataclass(frozen=True, slots=True)
class LabelShare:
    """The share of positive labels in training rows, in the newest predictions (estimated), and in their known labels.

    `estimate` is at 95 % for the number of predictions alone. `check` is a second estimate from the classifier's
    confusion, None if there is none. `calibrated_on` older labelled predictions corrected the scores; with 0 they
    were used as they are, and no shift is claimed. With `by_labels`, enough of these predictions have labels: they decide
    whether the share has shifted, and the estimate does not. An estimate that fewer labels contradict claims no shift.
    `explanation` describes all this and the assumptions.
    """

    trained: float
    estimate: Interval
    check: float | None
    calibrated_on: int
    seen: Interval | None
    seen_rows: int
    shifted: bool
    explanation: str
    by_labels: bool = False

    @property
    def refutes_shift(self) -> bool:
        """Return True if real labels show a share close to that of the training rows."""
        return (
            self.by_labels
            and not self.shifted
            and self.seen is not None
            and abs(self.seen.estimate - self.trained) < LEAST_SHIFT / 2
        )


@dataclass(frozen=True, slots=True)
class TrafficComparison:
    """The newest `predictions` of `version`, made from `first_us` to `last_us`, compared at `computed_at_us`."""

    version: str
    predictions: int
    first_us: int
    last_us: int
    computed_at_us: int
    slices: tuple[TrafficSlice, ...]
    label: LabelShare | None

    @property
    def uncovered(self) -> tuple[TrafficSlice, ...]:
        """Return the slices that callers request and no training row had, the most frequent first."""
        found = [each for each in self.slices if not each.covered]
        return tuple(sorted(found, key=lambda each: (-each.share, each.column, each.value)))
