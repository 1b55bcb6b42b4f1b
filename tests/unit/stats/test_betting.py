"""The betting test: its mean under the null by enumeration, its false alarms and its power by simulation."""

from __future__ import annotations

import math
from itertools import product

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats import BettingTest
from holdfast.stats.betting import LOG_PARTS, STAKES, WAITING_LIMIT, log_e_paths
from tests.support.profile import examples

BOUND = -math.log(0.01)


@pytest.mark.parametrize(
    ("sizes", "folds"), [((2, 2), 1), ((1, 3), 1), ((3, 1), 1), ((1, 1), 3), ((2, 1), 2)]
)
def test_the_e_value_has_mean_one_when_the_arms_are_alike(sizes: tuple[int, int], folds: int) -> None:
    """All outcomes of scores that are 1/8 or 7/8 with chances 0.3 and 0.7 in both arms, however grouped."""
    points = ((0.125, 0.3), (0.875, 0.7))
    width = sum(sizes) * folds
    mean = 0.0
    for drawn in product(points, repeat=width):
        chance = math.prod(p for _, p in drawn)
        scores = [s for s, _ in drawn]
        test = BettingTest.begin()
        for fold in range(folds):
            part = scores[fold * sum(sizes) : (fold + 1) * sum(sizes)]
            test = test.fold(part[: sizes[0]], part[sizes[0] :])
        mean += chance * math.exp(test.log_e)
    assert mean == pytest.approx(1.0, abs=1e-12)


def minutes_to_alarm(
    ours: float, theirs: float, *, runs: int, margin: float = 0.0, seed: int = 7
) -> list[int]:
    """Minute of the first alarm, 12 against 108 labelled answers a minute, right or wrong, for an hour."""
    rng = np.random.default_rng(seed)
    right = rng.random((runs, 60, 12)) < ours, rng.random((runs, 60, 108)) < theirs
    alarms = log_e_paths(right[0].astype(float), right[1].astype(float), margin) >= BOUND
    return (alarms.argmax(axis=1) + 1)[alarms.any(axis=1)].tolist()


def test_equal_quality_is_not_accused() -> None:
    """R126: 400 runs of an hour; at most 4 are expected, more than 12 would have a chance below 0.0005."""
    assert len(minutes_to_alarm(0.8, 0.8, runs=400)) <= 12


def test_a_tolerated_loss_is_not_accused() -> None:
    assert len(minutes_to_alarm(0.79, 0.80, runs=100, margin=0.01)) <= 5


def test_a_loss_of_a_tenth_is_found_when_responses_are_just_right_or_wrong() -> None:
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
@examples(50)
def test_one_arm_waits_for_the_other_and_nothing_is_used_twice(
    ours: list[float], theirs: list[float]
) -> None:
    apart = BettingTest.begin().fold([], theirs).fold(ours, [])
    together = BettingTest.begin().fold(ours, theirs)
    assert apart.counts == pytest.approx(together.counts, abs=1e-12)
    assert msgspec.convert(msgspec.to_builtins(apart), BettingTest) == apart
    if ours and theirs:
        assert not apart.waiting_challenger
        assert not apart.waiting_champion


def test_many_runs_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(10)
    ours, theirs = rng.random((3, 5, 7)), rng.random((3, 5, 30))
    paths = log_e_paths(ours, theirs, 0.01)
    for run in range(3):
        test = BettingTest.begin(0.01)
        for window in range(5):
            test = test.fold(ours[run, window].tolist(), theirs[run, window].tolist())
            assert test.log_e == pytest.approx(paths[run, window], abs=1e-9)


def test_what_waits_is_bounded() -> None:
    test = BettingTest.begin().fold([], [0.5] * 10_000)
    assert len(test.waiting_champion) == WAITING_LIMIT
    assert test.log_e == 0.0


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_score_outside_its_bounds_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="lie between 0 and 1"):
        BettingTest.begin().fold([score], [0.5])


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"the tolerated loss of mean score is 1\.0"):
        BettingTest.begin(margin=1.0)
    with pytest.raises(ValueError, match="between -1 and 1"):
        BettingTest.begin().fold_differences([-1.5])
    with pytest.raises(ValueError, match="alpha lies between 0 and 1"):
        BettingTest.begin().interval(0.0)
    with pytest.raises(ValueError, match=r"margins 0\.0 and 0\.1 do not add up"):
        BettingTest.begin(0.0).merge(BettingTest.begin(0.1))


DIFFERENCES = st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 2)), max_size=30)


@given(DIFFERENCES)
@examples(50)
def test_servers_add_up_in_any_order(found: list[tuple[float, int]]) -> None:
    """Any split of the pairs over three servers, merged in any order, is the one test of all pairs."""
    whole = BettingTest.begin(0.01).fold_differences([each for each, _ in found])
    one, two, three = (
        BettingTest.begin(0.01).fold_differences([each for each, at in found if at == server])
        for server in range(3)
    )
    for merged in (one.merge(two).merge(three), three.merge(one.merge(two))):
        assert merged.counts == pytest.approx(whole.counts, abs=1e-9)
        assert merged.log_e == pytest.approx(whole.log_e, abs=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.sampled_from([0.0, 0.01, 0.3]))
@examples(50)
def test_counting_on_points_never_overstates_a_wealth(differences: list[float], margin: float) -> None:
    """And understates it by little: less than 0.0001 in the logarithm for each difference."""
    kept = BettingTest.begin(margin).fold_differences(differences).log_e
    gains = np.log1p(-np.multiply.outer((np.array(differences) + margin) / (1.0 + margin), STAKES)).sum(
        axis=0
    )
    exact = float(np.logaddexp.reduce(gains + LOG_PARTS))
    # A difference near 1 leaves a stake of 0.9 a tenth of its wealth: there the logarithm bends most.
    assert exact - 0.013 * len(differences) <= kept <= exact + 1e-9


@pytest.mark.simulated
def test_the_interval_of_the_mean_difference_holds_at_every_look() -> None:
    """R133: pairs of shadow with a mean difference of -0.03; 60 runs, alpha 0.1: at most 6 misses are expected."""
    rng = np.random.default_rng(12)
    missed = 0
    for _ in range(60):
        test, ever = BettingTest.begin(), False
        for _ in range(8):
            test = test.fold_differences(np.clip(rng.normal(-0.03, 0.15, 120), -1.0, 1.0))
            seen = test.interval(0.1)
            ever |= not seen.low <= -0.03 <= seen.high
        missed += ever
    assert missed <= 6
    assert seen.high - seen.low < 0.1


def test_the_interval_knows_nothing_without_scores() -> None:
    nothing = BettingTest.begin().interval()
    assert (nothing.estimate, nothing.low, nothing.high) == (0.0, pytest.approx(-1.0), pytest.approx(1.0))
