"""The betting test: its mean under the null by enumeration, its false alarms and its power by simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.stats import BettingTest
from holdfast.stats.betting import WAITING_LIMIT

BOUND = -math.log(0.01)


def e_now(test: BettingTest) -> float:
    return float(np.exp(np.array(test.log_wealth)).mean())


@pytest.mark.parametrize(
    ("sizes", "folds"), [((2, 2), 1), ((1, 3), 1), ((3, 1), 1), ((1, 1), 3), ((2, 1), 2)]
)
def test_the_e_value_has_mean_one_when_the_arms_are_alike(sizes: tuple[int, int], folds: int) -> None:
    """All outcomes of scores that are 0.1 or 0.9 with chances 0.3 and 0.7 in both arms, however grouped."""
    points = ((0.1, 0.3), (0.9, 0.7))
    width = sum(sizes) * folds
    mean = 0.0
    for drawn in product(points, repeat=width):
        chance = math.prod(p for _, p in drawn)
        scores = [s for s, _ in drawn]
        test = BettingTest.begin()
        for fold in range(folds):
            part = scores[fold * sum(sizes) : (fold + 1) * sum(sizes)]
            test = test.fold(part[: sizes[0]], part[sizes[0] :])
        mean += chance * e_now(test)
    assert mean == pytest.approx(1.0, abs=1e-12)


def minutes_to_alarm(
    ours: float, theirs: float, *, runs: int, margin: float = 0.0, seed: int = 7
) -> list[int]:
    """Minute of the first alarm, 12 against 108 labelled answers a minute, right or wrong, for an hour."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(runs):
        test = BettingTest.begin(margin)
        for minute in range(60):
            right = rng.random(12) < ours, rng.random(108) < theirs
            test = test.fold(right[0].astype(float).tolist(), right[1].astype(float).tolist())
            if test.log_e >= BOUND:
                found.append(minute + 1)
                break
    return found


def test_equal_quality_is_not_accused() -> None:
    """R126: 400 runs of an hour; at most 4 are expected, more than 12 would have a chance below 0.0005."""
    assert len(minutes_to_alarm(0.8, 0.8, runs=400)) <= 12


def test_a_tolerated_loss_is_not_accused() -> None:
    assert len(minutes_to_alarm(0.79, 0.80, runs=100, margin=0.01)) <= 5


def test_a_loss_of_a_tenth_is_found_when_answers_are_just_right_or_wrong() -> None:
    """Right or wrong is the noisiest score that there is: standard deviation 0.4."""
    alarms = minutes_to_alarm(0.70, 0.80, runs=60)
    assert len(alarms) >= 57
    assert np.median(alarms) <= 25


def test_a_loss_of_a_tenth_is_found_in_minutes_when_scores_are_graded() -> None:
    """Scores with standard deviation 0.2, as of probabilities, by the default margin of a canary."""
    rng = np.random.default_rng(8)
    minutes = []
    for _ in range(40):
        test, minute = BettingTest.begin(0.005), 0
        while test.log_e < BOUND and minute < 60:
            minute += 1
            test = test.fold(rng.beta(2.8, 1.2, 12).tolist(), rng.beta(2.4, 0.6, 108).tolist())
        minutes.append(minute)
    assert max(minutes) < 60
    assert np.median(minutes) <= 10


@given(st.lists(st.floats(0, 1), max_size=12), st.lists(st.floats(0, 1), max_size=12))
@settings(max_examples=80)
def test_one_arm_waits_for_the_other_and_nothing_is_used_twice(
    ours: list[float], theirs: list[float]
) -> None:
    apart = BettingTest.begin().fold([], theirs).fold(ours, [])
    together = BettingTest.begin().fold(ours, theirs)
    assert apart.log_wealth == pytest.approx(together.log_wealth, abs=1e-12)
    assert BettingTest.from_state(apart.state()) == apart
    if ours and theirs:
        assert not apart.waiting_challenger
        assert not apart.waiting_champion


def test_what_waits_is_bounded() -> None:
    test = BettingTest.begin().fold([], [0.5] * 10_000)
    assert len(test.waiting_champion) == WAITING_LIMIT
    assert test.log_e == 0.0


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_score_outside_its_bounds_is_refused(score: float) -> None:
    with pytest.raises(InputError, match="HF101"):
        BettingTest.begin().fold([score], [0.5])


def test_refusals() -> None:
    with pytest.raises(InputError, match="HF101"):
        BettingTest.begin(margin=1.0)
    with pytest.raises(InputError, match="HF101"):
        BettingTest.from_state({"kind": "other", "log_wealth": []})
