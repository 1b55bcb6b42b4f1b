"""The watch after a promotion: its mean time to a false alarm, and how soon it reports."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats import Detector, LevelTest
from holdfast.stats.level_test import STAKES, count_gains
from tests.support.profile import examples


def windows_to_alarm(
    rng: np.random.Generator, runs: int, run_length: float, rate: float, level: float
) -> np.ndarray:
    """Of runs that end at the latest after 20 run lengths; vectorised, by the same factors as the class."""
    sums, alarm = np.zeros((runs, STAKES.size)), np.zeros(runs)
    gains = np.array([count_gains(level, 50, bad) for bad in range(51)])
    for window in range(1, int(20 * run_length) + 1):
        sums = np.logaddexp(0.0, sums + gains[rng.binomial(50, rate, runs)])
        over = np.exp(sums).mean(axis=1) - 1.0 >= run_length
        alarm[over & (alarm == 0)] = window
        if alarm.all():
            break
    return np.where(alarm == 0, 20 * run_length, alarm)


def test_the_mean_time_to_a_false_alarm_is_at_least_the_run_length() -> None:
    """R125: 400 runs at the level itself, where alarms come soonest, with a run length of 100 windows."""
    found = windows_to_alarm(np.random.default_rng(1), 400, 100.0, 0.02, 0.02)
    assert found.mean() - 3.0 * found.std() / math.sqrt(400) >= 100.0 or found.mean() >= 130.0


def test_a_rise_after_days_of_peace_is_reported_as_soon_as_on_the_first() -> None:
    """This is what a test of one hypothesis cannot do: it has first to win back what it lost."""
    rng = np.random.default_rng(2)
    observe, test = Detector.begin(0.03, 43_200.0), LevelTest.begin(0.03)
    for _ in range(3000):
        bad = int(rng.binomial(50, 0.02))
        observe, test = observe.fold_counts(units=50, bad=bad), test.fold_counts(units=50, bad=bad)
    assert not observe.alarm
    windows = 0
    while not observe.alarm:
        windows += 1
        bad = int(rng.binomial(50, 0.10))
        observe, test = observe.fold_counts(units=50, bad=bad), test.fold_counts(units=50, bad=bad)
    assert windows <= 12
    assert test.log_e < math.log(43_200.0)


@given(st.lists(st.lists(st.floats(0, 1), max_size=6), max_size=8))
@examples(50)
def test_the_value_is_what_the_recursion_gives(windows: list[list[float]]) -> None:
    observe, sums = Detector.begin(0.2, 50.0), np.zeros(STAKES.size)
    for losses in windows:
        observe = observe.fold_losses(losses)
        factor = np.prod([1.0 - STAKES + STAKES * loss / 0.2 for loss in losses], axis=0) if losses else 1.0
        sums = (1.0 + sums) * factor
    assert math.exp(observe.log_m) == pytest.approx(float(sums.mean()), rel=1e-9)
    assert msgspec.convert(msgspec.to_builtins(observe), Detector) == observe
    assert observe.windows == len(windows)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Detector.begin(0.0, 100.0),
        lambda: Detector.begin(0.5, 1.0),
        lambda: Detector.begin(0.5, 10.0).fold_counts(units=1, bad=2),
        lambda: Detector.begin(0.5, 10.0).fold_losses([1.5]),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"level|0 <= bad <= units|losses lie"):
        wrong()
