"""The AUC and its intervals against the definition, pair by pair, and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.stats import auc_interval, paired_auc_difference
from holdfast.stats.auc import auc
from tests.support.profile import examples

ROWS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: {True, False} == {label for _, label in rows}
)


def by_pairs(scores: list[float], labels: list[bool]) -> float:
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = [s for s, label in zip(scores, labels, strict=True) if not label]
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


@given(ROWS)
@examples(100)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, labels = [float(s) for s, _ in rows], [label for _, label in rows]
    # To the last bit: half points add up exactly, so the division alone rounds.
    assert auc(scores, labels) == by_pairs(scores, labels)
    interval = auc_interval(scores, labels)
    assert interval.estimate == by_pairs(scores, labels)
    assert 0.0 <= interval.low <= interval.estimate + 1e-12
    assert interval.estimate <= interval.high + 1e-12 <= 1.0 + 2e-12


def brute_variance(a: np.ndarray, b: np.ndarray, labels: np.ndarray) -> float:
    """DeLong's variance of the difference straight from the paper's structural components."""

    def kernel(s: np.ndarray) -> np.ndarray:
        p, n = s[labels][:, None], s[~labels][None, :]
        return (p > n) + 0.5 * (p == n)

    ka, kb = kernel(a), kernel(b)
    v10, v01 = np.stack([ka.mean(1), kb.mean(1)]), np.stack([ka.mean(0), kb.mean(0)])
    s = np.cov(v10) / ka.shape[0] + np.cov(v01) / ka.shape[1]
    return float(s[0, 0] + s[1, 1] - 2 * s[0, 1])


def test_the_paired_variance_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(5)
    labels = rng.random(90) < 0.3
    a = np.round(rng.normal(size=90) + labels, 1)
    b = np.round(a + rng.normal(size=90), 1)
    found = paired_auc_difference(a, b, labels, 0.95)
    half = 1.959963984540054 * np.sqrt(brute_variance(a, b, labels))
    assert found.low == pytest.approx(found.estimate - half, abs=1e-12)
    assert found.high == pytest.approx(found.estimate + half, abs=1e-12)


def test_both_intervals_cover_at_their_confidence() -> None:
    """400 draws: coverage of 95 % within 3.5 standard errors (0.91 to 0.985)."""
    rng = np.random.default_rng(11)
    truth = 0.760250  # Phi(1 / sqrt 2): positives are shifted by one standard deviation
    covered = covered_difference = 0
    for _ in range(400):
        labels = rng.random(300) < 0.35
        shared = rng.normal(size=300) + labels
        covered += (i := auc_interval(shared, labels)).low <= truth <= i.high
        a, b = shared + rng.normal(size=300), shared + rng.normal(size=300)
        covered_difference += (d := paired_auc_difference(a, b, labels)).low <= 0.0 <= d.high
    assert 0.91 <= covered / 400 <= 0.985
    assert 0.91 <= covered_difference / 400 <= 0.985


def test_equal_scores_differ_by_exactly_nothing() -> None:
    scores, labels = [0.3, 0.1, 0.9, 0.4], [0, 0, 1, 1]
    difference = paired_auc_difference(scores, scores, labels)
    assert (difference.low, difference.estimate, difference.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([0.1, 0.2], [1, 1], "HF401"),
        ([], [], "HF401"),
        ([0.1, float("nan")], [0, 1], "not a finite number"),
        ([0.1, 0.2], [0, 2], "neither 0 nor 1"),
        ([0.1, 0.2], [0, 1, 1], "two vectors of one length"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores: list[float], labels: list[int], reason: str) -> None:
    with pytest.raises((InputError, ValueError), match=reason):
        auc(scores, labels)
