"""The area under the ROC curve, with its uncertainty.

Ties count one half. The uncertainty is DeLong's, computed from midranks in O(n log n).

Sources: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837-845,
doi 10.2307/2531595; X. Sun, W. Xu, IEEE Signal Process. Lett. 21 (2014) 1389-1393,
doi 10.1109/LSP.2014.2337313 (the midrank form).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.errors import InputError
from holdfast.stats.interval import Interval, two_sided_z, wilson

Floats = NDArray[np.float64]


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the probability that a random positive scores higher than a random negative, ties counted one half.

    Parameters
    ----------
    scores
        Shape (N,), finite; only their order matters.
    labels
        Shape (N,), 0 / 1 or false / true, at least one of each.

    Raises `InputError` HF401 when a class is absent, `ValueError` when shapes differ or a score is not finite.

    >>> auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    return _estimate(*_check_scores(scores, labels))


def auc_interval(scores: ArrayLike, labels: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the AUC with its DeLong interval, limited to 0 and 1.

    Guarantee: asymptotic in the smaller class, for independent rows; one look, not a sequential test. When
    DeLong's variance is zero (as under perfect separation) it is of no use, and the interval is instead the
    score interval of a share on as many trials as the smaller class has rows: the variance of an AUC of value
    A is at most A(1 - A) / min(positives, negatives); Z. W. Birnbaum, O. M. Klose, Ann. Math. Stat. 28, 1957.

    >>> print(auc_interval([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]))
    0.7500 [0.0570, 1.0000]
    >>> print(auc_interval([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]))
    1.0000 [0.3424, 1.0000]
    """
    values, positive = _check_scores(scores, labels)
    over_positives, over_negatives = _placements(values, positive)
    estimate = _estimate(values, positive)
    variance = _variance(over_positives) + _variance(over_negatives)
    if variance <= 0.0:
        smaller = min(over_positives.size, over_negatives.size)
        return wilson(estimate * smaller, smaller, confidence)
    half = two_sided_z(confidence) * math.sqrt(variance)
    return Interval(estimate, max(0.0, estimate - half), min(1.0, estimate + half))


def paired_auc_difference(
    a: ArrayLike, b: ArrayLike, labels: ArrayLike, confidence: float = 0.95
) -> Interval:
    """Return the AUC of scores `a` minus the AUC of scores `b` on the same rows, with DeLong's paired interval.

    Positive means that `a` ranks better. The rows' shared difficulty cancels, so this is far sharper than the
    difference of two separate intervals. Guarantee: asymptotic in the smaller class, for independent rows;
    one look.

    Parameters
    ----------
    a, b
        Scores of either version, shape (N,), finite.
    labels
        Shape (N,), 0 / 1 or false / true, at least one of each.
    confidence
        Of the two-sided interval, between 0 and 1.

    >>> labels = [0, 0, 0, 1, 1, 1]
    >>> print(paired_auc_difference([1, 2, 4, 3, 5, 6], [1, 4, 6, 2, 3, 5], labels))
    0.4444 [-0.0425, 0.9314]
    """
    first, positive = _check_scores(a, labels)
    second, _ = _check_scores(b, labels)
    a_positives, a_negatives = _placements(first, positive)
    b_positives, b_negatives = _placements(second, positive)
    estimate = float(a_positives.mean() - b_positives.mean())
    # Placements are paired row by row, so the variance of their difference holds the covariance already.
    variance = _variance(a_positives - b_positives) + _variance(a_negatives - b_negatives)
    half = two_sided_z(confidence) * math.sqrt(max(0.0, variance))
    return Interval(estimate, max(-1.0, estimate - half), min(1.0, estimate + half))


def _estimate(values: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the AUC, rounded once: sums of midranks are exact, those of placements are not."""
    positives = int(positive.sum())
    rank_sum = float(_midranks(values)[positive].sum())
    return (rank_sum - positives * (positives + 1) / 2.0) / (positives * (values.size - positives))


def _placements(values: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return for each positive the share of negatives below it, and for each negative that of positives above it."""
    ranks = _midranks(values)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    over_positives = (ranks[positive] - _midranks(values[positive])) / negatives
    over_negatives = 1.0 - (ranks[~positive] - _midranks(values[~positive])) / positives
    return over_positives, over_negatives


def _variance(placements: Floats) -> float:
    if placements.size < 2:
        return 0.0
    return float(placements.var(ddof=1)) / placements.size


def _midranks(values: Floats) -> Floats:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts, dtype=np.float64)
    middle: Floats = last - (counts - 1) / 2.0
    ranks: Floats = middle[group]
    return ranks


def _check_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    values: Floats = np.asarray(scores, dtype=np.float64)
    truth: NDArray[Any] = np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(f"scores {values.shape} and labels {truth.shape} must be two vectors of one length")
    if not np.isfinite(values).all():
        raise ValueError("a score is not a finite number, so the scores have no order")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("a label is neither 0 nor 1")
    positive = truth.astype(np.bool_)
    positives = int(positive.sum())
    if positives in (0, values.size):
        raise InputError(
            "HF401",
            f"ranking needs positives and negatives, and {positives} of {values.size} rows are positive",
        )
    return values, positive
