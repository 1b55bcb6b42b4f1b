"""What callers ask the champion, against what it learnt from: slices that no training row had, and how often the label
will turn out true (R50, R51, R53).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from holdfast.monitor.slice_charts import uncovered
from holdfast.stats.interval import Interval, wilson
from holdfast.stats.label_shift import FEWEST_KNOWN, FEWEST_SCORES, prior_by_em, prior_interval, prior_shift

FEWEST_ROWS: Final = 20
"""A slice that fewer answers had is not told: it may be a caller who tries something out."""

LEAST_SHARE: Final = 0.01
LEAST_SHIFT: Final = 0.05
"""A share of positive labels that is estimated nearer than this to the training rows' has not shifted."""

MOST_VALUES: Final = 100  # none that is left out has more than a hundredth of the rows
_LONGEST_VALUE: Final = 255
_MISSING: Final = "(missing)"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AskedSlice:
    """One value of a slice of the contract among `rows` answers, a `share` of them; `trained` rows of it taught."""

    column: str
    value: str
    rows: int
    share: float
    trained: int
    covered: bool


@dataclass(frozen=True, slots=True)
class LabelShare:
    """How often the label is true: among the rows that taught, estimated for the newest answers, and seen among those of
    them whose labels came.

    `estimate` is at 95 % for the number of answers alone. `check` is a second estimate from the confusion of the
    classifier, None where there is none. `calibrated_on` older answers with labels corrected the scores; with 0 they were
    taken as they are, and no shift is claimed. `words` say all this and what is assumed.
    """

    trained: float
    estimate: Interval
    check: float | None
    calibrated_on: int
    seen: Interval | None
    seen_rows: int
    shifted: bool
    words: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The newest `answers` of `version`, given from `first_us` to `last_us`, as they were compared at `computed_at_us`."""

    version: str
    answers: int
    first_us: int
    last_us: int
    computed_at_us: int
    slices: tuple[AskedSlice, ...]
    label: LabelShare | None

    @property
    def uncovered(self) -> tuple[AskedSlice, ...]:
        """The slices that callers ask about and no training row had, the commonest first."""
        found = [each for each in self.slices if not each.covered]
        return tuple(sorted(found, key=lambda each: (-each.share, each.column, each.value)))


def compare_slices(asked: pl.DataFrame, trained: Mapping[str, Mapping[str, int]]) -> tuple[AskedSlice, ...]:
    """The commonest values of the columns of `asked`, which are texts, beside the rows of `trained` that had them.

    Columns that `trained` does not count are left out.

    >>> found = compare_slices(pl.DataFrame({"site": ["a"] * 30 + ["b"] * 70}), {"site": {"a": 9}})
    >>> [(each.value, each.share, each.covered) for each in found]
    [('b', 0.7, False), ('a', 0.3, True)]
    """
    found: list[AskedSlice] = []
    for column in asked.columns:
        if column in trained:
            taught, live = trained[column], _counts(asked[column])
            lacking = uncovered(dict(taught), live, least_share=LEAST_SHARE)
            commonest = sorted(live.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_VALUES]
            found += [
                AskedSlice(
                    column,
                    value,
                    rows,
                    rows / asked.height,
                    taught.get(value, 0),
                    value not in lacking or rows < FEWEST_ROWS,
                )
                for value, rows in commonest
            ]
    return tuple(found)


def _counts(values: pl.Series) -> dict[str, int]:
    shown = values.fill_null(_MISSING).str.slice(0, _LONGEST_VALUE).rename("value")
    return dict(shown.value_counts(name="rows").iter_rows())


def label_share(
    scores: Numbers,
    trained: float | None,
    known: tuple[Numbers, Numbers],
    seen: Sequence[float] | Numbers,
) -> LabelShare | None:
    """How often the label will be true for rows with `scores`; None with too few of them, or nothing to compare with.

    Parameters
    ----------
    scores
        The champion's probabilities of the newest answers.
    trained
        The share of positive labels among the rows that it learnt from, if it is known.
    known
        Probabilities and labels (0 to 1) of answers that are not among the newest.
    seen
        The labels of the newest answers, as far as they came.
    """
    known_scores, known_labels = known[0], known[1] >= 0.5
    if len(scores) < FEWEST_SCORES:
        return None
    positives = int(known_labels.sum())
    fits = len(known_scores) >= FEWEST_KNOWN and FEWEST_ROWS <= positives <= len(known_scores) - FEWEST_ROWS
    if fits:
        found = prior_shift(scores, known_scores, known_labels)
        share, low, high, check = found.share, found.low, found.high, found.check
        trained = found.trained if trained is None else trained
    elif trained is not None and 0.0 < trained < 1.0:
        share, check = prior_by_em(scores, trained), None
        low, high = prior_interval(scores, trained, share)
    else:
        return None
    estimate = Interval(share, low, high)
    labels = np.asarray(seen, dtype=np.float64)
    came = wilson(float((labels >= 0.5).sum()), len(labels)) if len(labels) else None
    calibrated_on = len(known_scores) if fits else 0
    # Scores that no label corrected may be wrong by more than any shift.
    shifted = fits and abs(share - trained) >= LEAST_SHIFT and not low <= trained <= high
    words = _words(trained, estimate, check, calibrated_on, came, len(labels))
    return LabelShare(trained, estimate, check, calibrated_on, came, len(labels), shifted, words)


def _words(
    trained: float,
    estimate: Interval,
    check: float | None,
    calibrated_on: int,
    seen: Interval | None,
    seen_rows: int,
) -> str:
    told = [
        f"the label is true for {trained:.1%} of the training rows and by estimate for {_range(estimate)} of the newest"
    ]
    if seen is not None:
        told.append(f"seen so far: {_range(seen)} of {seen_rows:,} with a label")
    if check is not None:
        agrees = "agrees" if abs(check - estimate.estimate) <= LEAST_SHIFT else "disagrees"
        told.append(f"a second method {agrees} with {check:.1%}")
    told.append(
        f"scores corrected by {calibrated_on:,} older answers with labels"
        if calibrated_on
        else "no labels to correct the scores by: they are taken as they are"
    )
    told.append(
        "assumed: only the share of the classes moved, not what their rows look like; the range is for the number of "
        "answers alone"
    )
    return "; ".join(told)


def _range(share: Interval) -> str:
    return f"{share.estimate:.1%} ({share.low:.1%} to {share.high:.1%})"
