"""One group against a frozen level: the bound holds, the alarm does not cry wolf, harm is found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.stats import LevelTest, upper_level


@pytest.mark.simulated
def test_the_bound_holds_at_every_look() -> None:
    """300 runs, a look after every 20 of 1,000 losses, alpha 0.05: at most 15 misses are expected."""
    rng = np.random.default_rng(3)
    for draw in (lambda: rng.random(1000) < 0.02, lambda: rng.beta(1.2, 2.8, 1000)):
        mean = float(np.mean([draw().mean() for _ in range(400)]))
        missed = 0
        for _ in range(300):
            totals = np.cumsum(draw())
            missed += any(upper_level(float(totals[n - 1]), n, 0.05) < mean for n in range(20, 1001, 20))
        assert missed <= 15


def test_the_bound_closes_in_and_knows_nothing_without_units() -> None:
    bounds = [upper_level(0.01 * n, n, 0.01) for n in (0, 100, 1000, 10_000, 100_000)]
    assert bounds[0] == 1.0
    assert bounds == sorted(bounds, reverse=True)
    assert 0.01 < bounds[-1] < 0.0125
    assert upper_level(5, 5, 0.01) == 1.0


@pytest.mark.simulated
def test_a_group_at_the_level_is_seldom_accused() -> None:
    """400 runs of 60 looks at alpha 0.05: at most 20 alarms are expected."""
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(400):
        test, worst = LevelTest.begin(0.03), 0.0
        for _ in range(60):
            test = test.fold_counts(units=50, bad=int(rng.binomial(50, 0.03)))
            worst = max(worst, test.log_e)
        alarms += worst >= -math.log(0.05)
    assert alarms <= 20


def test_counts_and_losses_of_zero_and_one_are_the_same_evidence() -> None:
    begun = LevelTest.begin(0.1)
    counted = begun.fold_counts(units=7, bad=2)
    assert counted.log_wealth == pytest.approx(begun.fold_losses([0, 1, 0, 0, 1, 0, 0]).log_wealth)
    assert LevelTest.begin(1.0).fold_counts(units=50, bad=50).log_e <= 0.0


def test_servers_add_up() -> None:
    one, two = LevelTest.begin(0.1).fold_counts(units=30, bad=4), LevelTest.begin(0.1).fold_losses([0.3, 0.9])
    assert one.merge(two).log_wealth == pytest.approx(two.merge(one).log_wealth)
    assert one.merge(two).log_wealth == pytest.approx(one.fold_losses([0.3, 0.9]).log_wealth)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LevelTest.begin(0.0),
        lambda: LevelTest.begin(math.nan),
        lambda: LevelTest.begin(0.5).fold_counts(units=1, bad=2),
        lambda: LevelTest.begin(0.5).fold_losses([math.nan]),
        lambda: upper_level(3, 2, 0.1),
        lambda: LevelTest.begin(0.5).merge(LevelTest.begin(0.4)),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"mean loss|0 <= bad <= units|losses lie|do not add up|lose 0 to"):
        wrong()
