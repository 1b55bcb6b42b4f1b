"""The predicted power is the power that the tests have."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.stats import BettingTest, HypergeometricTest
from holdfast.stats.power import Detection, Simulation, bad_units, score_loss

BOUND = 4.85


def test_the_targets_of_a_canary_with_120_units_a_minute() -> None:
    """R126, R127: twice the errors at 1 % in at most 15 minutes, five times 0.1 % in at most 13 with power 0.99."""
    plan, units = (
        Simulation(1.0, BOUND, windows=60, seed=1),
        {"challenger_units": 120, "champion_units": 1080},
    )
    twice = bad_units(plan, base_rate=0.01, risk_ratio=2.0, **units)
    fivefold = bad_units(plan, base_rate=0.001, risk_ratio=5.0, **units)
    assert twice.median is not None
    assert twice.median <= 15
    assert fivefold.median is not None
    assert fivefold.median <= 13
    assert fivefold.share_within(60) >= 0.99


def test_what_is_predicted_is_what_the_tests_do() -> None:
    """60 runs of each test itself, against the many that are simulated at once."""
    rng = np.random.default_rng(3)
    found, scored = [], []
    for _ in range(60):
        test, scores, least, worst = HypergeometricTest.begin(1.1), BettingTest.begin(0.005), 0.0, 0.0
        for _ in range(8):
            bad, champion_bad = int(rng.binomial(120, 0.03)), int(rng.binomial(1080, 0.01))
            test = test.fold(
                challenger_units=120, challenger_bad=bad, champion_units=1080, champion_bad=champion_bad
            )
            scores = scores.fold(rng.beta(2.8, 1.2, 12).tolist(), rng.beta(2.4, 0.6, 108).tolist())
            least, worst = max(least, test.log_e), max(worst, scores.log_e)
        found.append(least >= BOUND)
        scored.append(worst >= BOUND)
    bad_ones = bad_units(
        Simulation(1.1, BOUND, windows=8, seed=1),
        challenger_units=120, champion_units=1080, base_rate=0.01, risk_ratio=3.0,
    )  # fmt: skip
    lost = score_loss(
        Simulation(0.005, BOUND, windows=8, seed=1, runs=500),
        challenger_scores=12, champion_scores=108, mean=0.8, spread=0.2, loss=0.1,
    )  # fmt: skip
    assert abs(np.mean(found) - bad_ones.share_within(8)) < 0.2
    assert abs(np.mean(scored) - lost.share_within(8)) < 0.2
    assert 0.1 < lost.share_within(8) < 0.9


def test_the_same_seed_reports_the_same_and_fractions_of_units_count() -> None:
    plan, rates = Simulation(1.0, BOUND, windows=40, seed=5, runs=400), {"base_rate": 0.05, "risk_ratio": 4.0}
    one = bad_units(plan, challenger_units=2.5, champion_units=22.5, **rates)
    assert one == bad_units(plan, challenger_units=2.5, champion_units=22.5, **rates)
    low, high = (bad_units(plan, challenger_units=n, champion_units=9 * n, **rates) for n in (2, 3))
    assert low.share_within(40) <= one.share_within(40) <= high.share_within(40)


def test_no_traffic_finds_nothing() -> None:
    plan = Simulation(1.0, BOUND, windows=5, seed=1, runs=10)
    nothing = bad_units(plan, challenger_units=0, champion_units=900, base_rate=0.01, risk_ratio=9.0)
    assert (nothing.median, nothing.share_within(5)) == (None, 0.0)
    unlabelled = score_loss(plan, challenger_scores=0, champion_scores=50, mean=0.8, spread=0.2, loss=0.1)
    assert unlabelled.median is None


def test_the_median_counts_the_runs_that_found_nothing() -> None:
    assert Detection(10, (3, 0, 0)).median is None
    assert Detection(10, (3, 5, 0)).median == 5
    assert Detection(10, (3, 5, 0, 7)).share_within(5) == 0.5


@pytest.mark.parametrize(
    ("rate", "mean", "windows"), [(1.5, 0.8, 5), (-0.1, 0.8, 5), (float("nan"), 0.8, 5), (0.1, 0.8, 0)]
)
def test_what_cannot_be_meant_is_refused(rate: float, mean: float, windows: int) -> None:
    with pytest.raises(ValueError, match=r"nothing to simulate|no scores have"):
        bad_units(
            Simulation(1.0, 1.0, windows, seed=1, runs=2),
            challenger_units=1, champion_units=1, base_rate=rate, risk_ratio=1.0,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"no scores have|nothing to simulate"):
        score_loss(
            Simulation(0.0, 1.0, windows=1, seed=1, runs=2),
            challenger_scores=1, champion_scores=1, mean=mean, spread=0.1, loss=0.9,
        )  # fmt: skip
