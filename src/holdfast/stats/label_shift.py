"""Label shift: estimate the share of positive labels among unlabelled rows from a classifier's scores.

Assumes that only the share of the classes moved, and the distribution within each class did not. If the meaning of the
label changed (concept drift), both estimates are wrong, and nothing here detects it; two methods that disagree are a sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError

_ROUNDS: Final = 2_000
_SETTLED: Final = 1e-9
_EDGE: Final = 1e-9

_HALF_DEVIANCE: Final = 1.9207
"""Half the 95 % quantile of the chi-squared distribution with one degree of freedom."""

FEWEST_KNOWN: Final = 200
"""The minimum number of labelled rows for `prior_shift`."""

FEWEST_SCORES: Final = 50
"""The minimum number of unlabelled rows for `prior_shift`."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PriorShift:
    """The estimated share of positive labels, by expectation maximisation.

    `check` is a second estimate from the classifier's confusion (None if it cannot separate the classes). `trained`
    is the share for which the scores were made. `low` and `high` are the 95 % interval of `share` for the number of
    rows alone.
    """

    trained: float
    share: float
    check: float | None
    rows: int
    low: float = 0.0
    high: float = 1.0


def prior_by_em(scores: Scores, trained: float) -> float:
    """Return the share of positives among rows with calibrated `scores` (probabilities under the share `trained`).

    Each round takes the posteriors under the newest share and makes their mean the next share; the likelihood rises with
    each (M. Saerens, P. Latinne, C. Decaestecker, Neural Computation 14, 2002, doi 10.1162/089976602753284446).

    >>> prior_by_em(np.array([0.9, 0.9, 0.1, 0.1]), 0.5)
    0.5
    """
    _check(scores, trained)
    odds = _likelihood_ratios(scores, trained)
    share = trained
    for _ in range(_ROUNDS):
        weighted = odds * share
        after = float(np.mean(weighted / (weighted + 1.0 - share)))
        if abs(after - share) < _SETTLED:
            return after
        share = min(1.0 - _EDGE, max(_EDGE, after))
    return share


def prior_interval(scores: Scores, trained: float, share: float) -> tuple[float, float]:
    """Return the 95 % likelihood-ratio interval around `share`, the most likely one, for rows with calibrated `scores`.

    It is about the number of rows. What a wrong calibration or a changed meaning of the label adds is not in it.
    Source: S. S. Wilks, Ann. Math. Stat. 9 (1938), doi 10.1214/aoms/1177732360.

    >>> low, high = prior_interval(np.array([0.9, 0.1] * 100), 0.5, 0.5)
    >>> round(low, 2), round(high, 2)
    (0.41, 0.59)
    """
    _check(scores, trained)
    odds = _likelihood_ratios(scores, trained)

    def likelihood(at: float) -> float:
        return float(np.log1p(at * (odds - 1.0)).sum())

    least = likelihood(min(1.0 - _EDGE, max(_EDGE, share))) - _HALF_DEVIANCE

    def end(outside: float) -> float:
        if likelihood(outside) >= least:
            return outside
        inside = share
        for _ in range(40):
            middle = (inside + outside) / 2.0
            inside, outside = (middle, outside) if likelihood(middle) >= least else (inside, middle)
        return inside

    return end(_EDGE), end(1.0 - _EDGE)


def _likelihood_ratios(scores: Scores, trained: float) -> Scores:
    return _odds(scores) * (1.0 - trained) / trained


def prior_by_confusion(
    scores: Scores, known_scores: Scores, known_labels: NDArray[np.bool_], threshold: float
) -> float | None:
    """Return the share of positives by black-box shift estimation, None if hit and false alarm rate are too similar.

    It solves for the share of `scores` above `threshold` with the rates on labelled rows.

    Parameters
    ----------
    scores
        Scores of the unlabelled rows, shape (N,).
    known_scores, known_labels
        Scores and labels of the labelled rows, shape (M,).
    threshold
        The score above which a row counts as positive.

    Source: Z. Lipton, Y.-X. Wang, A. Smola, ICML 2018 (arXiv 1802.03916).
    """
    if not 0 < int(known_labels.sum()) < len(known_labels):
        raise InputError("HF401", "the known rows have one class only")
    hits = float(np.mean(known_scores[known_labels] > threshold))
    alarms = float(np.mean(known_scores[~known_labels] > threshold))
    if abs(hits - alarms) < 0.05:
        return None
    return min(1.0, max(0.0, (float(np.mean(scores > threshold)) - alarms) / (hits - alarms)))


def prior_shift(scores: Scores, known_scores: Scores, known_labels: NDArray[np.bool_]) -> PriorShift:
    """Return both estimates for rows with `scores`, from labelled rows of the same classifier.

    The scores are calibrated on the known rows first (Platt's line on the log odds), because the estimate of an
    uncalibrated classifier is biased (A. Alexandari, A. Kundaje, A. Shrikumar, ICML 2020, arXiv 1901.06852).
    Raises `InputError` HF401 for fewer than 200 known rows or 50 others, or with one class only.
    """
    if len(known_scores) < FEWEST_KNOWN or len(scores) < FEWEST_SCORES:
        raise InputError(
            "HF401",
            f"{len(known_scores)} rows with labels and {len(scores)} without are too few: "
            f"{FEWEST_KNOWN} and {FEWEST_SCORES} are needed",
        )
    trained = float(known_labels.mean())
    slope, intercept = _platt(known_scores, known_labels)
    calibrated = _sigmoid(slope * np.log(_odds(scores)) + intercept)
    # Where as many known rows lie above as are positive, both rates are far from 0 and 1.
    threshold = float(np.quantile(known_scores, 1.0 - trained))
    check = prior_by_confusion(scores, known_scores, known_labels, threshold)
    share = prior_by_em(calibrated, trained)
    low, high = prior_interval(calibrated, trained, share)
    return PriorShift(trained, share, check, len(scores), low, high)


def _check(scores: Scores, trained: float) -> None:
    if not 0.0 < trained < 1.0 or len(scores) == 0:
        raise InputError(
            "HF401", f"{len(scores)} scores of a classifier trained on a share of {trained}: no estimate"
        )
    if not bool(((scores >= 0.0) & (scores <= 1.0)).all()):
        raise ValueError("a score is not a probability")


def _platt(scores: Scores, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and intercept of the line on the log odds that fits the labels best, by Newton's method."""
    if not 0 < int(labels.sum()) < len(labels):
        raise InputError("HF401", "the known rows have one class only")
    odds = np.log(_odds(scores))
    spread = float(odds.std()) or 1.0
    # In units of its own spread and from a flat line on, where Newton's steps do not overshoot.
    design = np.column_stack([odds / spread, np.ones(len(scores))])
    found = np.zeros(2)
    for _ in range(50):
        fitted = _sigmoid(design @ found)
        weight = np.maximum(fitted * (1.0 - fitted), 1e-12)
        hessian = design.T @ (design * weight[:, None]) + 1e-9 * np.eye(2)
        step = np.clip(np.linalg.solve(hessian, design.T @ (labels - fitted)), -2.0, 2.0)
        found = found + step
        if float(np.abs(step).max()) < 1e-9:
            break
    return float(found[0]) / spread, float(found[1])


def _odds(scores: Scores) -> Scores:
    inside = np.clip(scores, _EDGE, 1.0 - _EDGE)
    odds: Scores = inside / (1.0 - inside)
    return odds


def _sigmoid(values: Scores) -> Scores:
    found: Scores = 1.0 / (1.0 + np.exp(-np.clip(values, -500.0, 500.0)))
    return found
