"""Label prior shift: both estimates find the share that is true (statistics.md 3.3)."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.errors import InputError
from holdfast.stats.divergence import jensen_shannon, population_stability
from holdfast.stats.label_shift import (
    prior_by_confusion,
    prior_by_em,
    prior_interval,
    prior_shift,
)


def drawn(share: float, rows: int, seed: int, warp: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a classifier that was trained at one half: of two normal classes, with the log odds times `warp`."""
    draw = np.random.default_rng(seed)
    labels = draw.random(rows) < share
    odds = 2.0 * (draw.standard_normal(rows) + np.where(labels, 1.0, -1.0))
    return 1 / (1 + np.exp(-warp * odds)), labels


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("warp", [1.0, 2.5])
def test_the_true_share_is_found_also_from_an_overconfident_classifier(share: float, warp: float):
    """Within 0.015, for scores as they should be and for some that are 2.5 times too sure."""
    known_scores, known_labels = drawn(0.5, 20_000, 1, warp)
    scores, labels = drawn(share, 20_000, 2, warp)
    found = prior_shift(scores, known_scores, known_labels)
    assert found.share == pytest.approx(labels.mean(), abs=0.015)
    assert found.check == pytest.approx(labels.mean(), abs=0.02)
    raw = float(scores.mean())
    assert share == 0.5 or abs(found.share - labels.mean()) < abs(raw - labels.mean())


def test_a_classifier_that_reports_nothing_has_no_check():
    draw = np.random.default_rng(4)
    known, labels = draw.random(1_000), draw.random(1_000) < 0.3
    assert prior_by_confusion(draw.random(100), known, labels, 0.5) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: prior_by_em(np.array([]), 0.5),
        lambda: prior_by_em(np.array([0.5]), 0.0),
        lambda: prior_shift(np.full(60, 0.5), np.full(100, 0.5), np.zeros(100, bool)),
        lambda: prior_shift(np.full(60, 0.5), np.full(300, 0.5), np.zeros(300, bool)),
    ],
)
def test_too_little_to_report_anything_is_refused(wrong):
    with pytest.raises(InputError, match="HF401"):
        wrong()


def test_a_score_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="not a probability"):
        prior_by_em(np.array([1.5]), 0.5)


def test_divergences_grow_with_the_distance_and_stay_finite():
    assert population_stability([10, 0], [0, 10]) < 10
    assert population_stability([100, 100], [110, 90]) < population_stability([100, 100], [180, 20])
    assert jensen_shannon([0, 0], [0, 0]) == 0.0
    assert jensen_shannon([50, 50], [50, 50]) == 0.0


def test_the_interval_holds_the_true_share_about_as_often_as_it_claims():
    held = 0
    for seed in range(200):
        scores, _ = drawn(0.3, 300, seed)
        share = prior_by_em(scores, 0.5)
        low, high = prior_interval(scores, 0.5, share)
        assert low <= share <= high
        held += low <= 0.3 <= high
    assert 180 <= held <= 199


def test_the_interval_ends_where_shares_end():
    """Rows that all look alike bound neither the least share, or not the greatest."""
    low, high = prior_interval(np.full(50, 0.999), 0.5, prior_by_em(np.full(50, 0.999), 0.5))
    assert high > 0.999
    assert low > 0.8
