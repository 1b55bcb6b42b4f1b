"""Comparison of live traffic with training data: unseen slices, and the share of positive labels (R50, R51, R53)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from holdfast.monitor.slice_charts import unseen_slices
from holdfast.monitor.traffic_record import LEAST_SHIFT, LabelShare, TrafficSlice
from holdfast.records import SLICE_CHARACTERS, shortened
from holdfast.stats.interval import Interval, wilson
from holdfast.stats.label_shift import FEWEST_KNOWN, FEWEST_SCORES, prior_by_em, prior_interval, prior_shift

FEWEST_ROWS: Final = 20
"""The minimum number of predictions of a slice to report it; fewer may be a caller's experiment."""

LEAST_SHARE: Final = 0.01

LEAST_LABELLED: Final = 0.5
"""The share of the newest predictions that have labels from which on the labels replace the estimate."""

MOST_VALUES: Final = 100  # none that is left out has more than a hundredth of the rows
_MISSING: Final = "(missing)"

Numbers = NDArray[np.float64]


def compare_slices(
    requested: pl.DataFrame, trained: Mapping[str, Mapping[str, int]]
) -> tuple[TrafficSlice, ...]:
    """Return the most frequent values of the text columns of `requested`, with the number of training rows of each.

    Columns that `trained` does not count are omitted.

    >>> found = compare_slices(pl.DataFrame({"site": ["a"] * 30 + ["b"] * 70}), {"site": {"a": 9}})
    >>> [(each.value, each.share, each.covered) for each in found]
    [('b', 0.7, False), ('a', 0.3, True)]
    """
    found: list[TrafficSlice] = []
    for column in requested.columns:
        if column in trained:
            trained_rows, live = trained[column], _counts(requested[column])
            lacking = unseen_slices(dict(trained_rows), live, least_share=LEAST_SHARE)
            commonest = sorted(live.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_VALUES]
            found += [
                TrafficSlice(
                    column,
                    value,
                    rows,
                    rows / requested.height,
                    trained_rows.get(value, 0),
                    value not in lacking or rows < FEWEST_ROWS,
                )
                for value, rows in commonest
            ]
    return tuple(found)


def find_unseen_words(
    requested: pl.DataFrame, words: Mapping[str, Collection[str]]
) -> tuple[TrafficSlice, ...]:
    """Return the words of `requested` that a version has no code for, if they are as frequent as a slice must be (R25).

    `words` are those that it has a code for, by column. Columns that it does not name are omitted.

    >>> found = find_unseen_words(pl.DataFrame({"town": ["oslo"] * 70 + ["bergen"] * 30}), {"town": ["oslo"]})
    >>> [(each.column, each.value, each.share) for each in found]
    [('town', 'bergen', 0.3)]
    """
    found: list[TrafficSlice] = []
    for column in requested.columns:
        if column not in words:
            continue
        live = _counts(requested[column])
        known = {shortened(word, SLICE_CHARACTERS): 1 for word in words[column]} | {_MISSING: 1, "": 1}
        for value in sorted(unseen_slices(known, live, least_share=LEAST_SHARE)):
            if live[value] >= FEWEST_ROWS:
                share = live[value] / requested.height
                found.append(TrafficSlice(column, value, live[value], share, 0, covered=False, is_word=True))
    return tuple(found)


def _counts(values: pl.Series) -> dict[str, int]:
    shown = values.fill_null(_MISSING).rename("value").value_counts(name="rows")
    return {shortened(value, SLICE_CHARACTERS): rows for value, rows in shown.iter_rows()}


def estimate_label_share(
    scores: Numbers,
    trained: float | None,
    known: tuple[Numbers, Numbers],
    seen: Sequence[float] | Numbers,
) -> LabelShare | None:
    """Estimate the share of positive labels for rows with `scores`; None if there are too few rows.

    Also None if there is no other share to compare it with.

    Parameters
    ----------
    scores
        The champion's probabilities of the newest predictions.
    trained
        The share of positive labels among its training rows, if known.
    known
        Probabilities and labels (0 to 1) of older predictions.
    seen
        The known labels of the newest predictions.
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
    by_labels = len(labels) >= max(FEWEST_KNOWN, LEAST_LABELLED * len(scores))
    is_contradicted = came is not None and len(labels) >= FEWEST_ROWS and _are_disjoint(came, estimate)
    # Scores that no label corrected may be wrong by more than any shift.
    judged = came if by_labels else estimate if fits and not is_contradicted else None
    return LabelShare(
        trained,
        estimate,
        check,
        calibrated_on,
        came,
        len(labels),
        judged is not None and _is_shift(judged, trained),
        "; ".join(
            [
                f"the label is true for {trained:.1%} of the training rows",
                *_of_labels(came, len(labels), len(scores), by_labels),
                *_of_estimate(estimate, check, calibrated_on, by_labels, is_contradicted),
            ]
        ),
        by_labels,
    )


def _are_disjoint(one: Interval, other: Interval) -> bool:
    return one.low > other.high or one.high < other.low


def _is_shift(found: Interval, trained: float) -> bool:
    return abs(found.estimate - trained) >= LEAST_SHIFT and not found.low <= trained <= found.high


def _of_labels(seen: Interval | None, labelled: int, predictions: int, by_labels: bool) -> list[str]:
    """Return what real labels show, and whether they decide."""
    if seen is None:
        return [f"none of the newest {predictions:,} predictions has a label yet"]
    of = f"{labelled:,} of the newest {predictions:,} predictions with a real label"
    decides = "they decide" if by_labels else f"they decide once {LEAST_LABELLED:.0%} have one"
    return [f"for {_range(seen)} of the {of}: {decides}"]


def _of_estimate(
    estimate: Interval, check: float | None, calibrated_on: int, by_labels: bool, is_contradicted: bool
) -> list[str]:
    """Return what the scores estimate, what that rests on, and whether it counts."""
    parts = [f"by estimate from the scores for {_range(estimate)}"]
    if is_contradicted:
        parts[0] += ", which the real labels contradict: the estimate does not count"
    elif by_labels:
        parts[0] += ", which does not count"
    elif not calibrated_on:
        parts[0] += ", which alone shows no shift: no older prediction has a label to correct the scores by"
    if calibrated_on and not is_contradicted and not by_labels:
        if check is not None:
            agrees = "agrees" if abs(check - estimate.estimate) <= LEAST_SHIFT else "disagrees"
            parts.append(f"a second method {agrees} with {check:.1%}")
        parts.append(f"scores corrected by {calibrated_on:,} older predictions with labels")
        parts.append(
            "assumed: only the share of the classes moved, not what their rows look like; the range is for the number of "
            "predictions alone"
        )
    return parts


def _range(share: Interval) -> str:
    return f"{share.estimate:.1%} ({share.low:.1%} to {share.high:.1%})"
