"""Tests on pairs of counts: exact means under the null, false alarms, power, and servers that add up."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.stats import DiscordantTest, RateTest
from tests.support.profile import examples

BOUND = -math.log(0.01)


@pytest.mark.parametrize("margin", [1.0, 1.5])
def test_the_e_value_of_discordant_pairs_has_mean_one_on_the_boundary(margin: float) -> None:
    for pairs in range(8):
        share = margin / (1.0 + margin)
        mean = sum(
            math.comb(pairs, bad)
            * share**bad
            * (1.0 - share) ** (pairs - bad)
            * math.exp(
                DiscordantTest.begin(margin).fold(challenger_only=bad, champion_only=pairs - bad).log_e
            )
            for bad in range(pairs + 1)
        )
        assert mean == pytest.approx(1.0, abs=1e-12)


def test_a_version_that_fails_where_the_other_does_not_is_found_in_shadow() -> None:
    """R133: of 200 requests a minute 2 % fail on the challenger and 1 % on the champion, independently."""
    rng = np.random.default_rng(1)
    minutes = []
    for _ in range(40):
        test, minute = DiscordantTest.begin(), 0
        while test.log_e < BOUND and minute < 60:
            minute += 1
            ours, theirs = rng.random(200) < 0.02, rng.random(200) < 0.01
            test = test.fold(
                challenger_only=int((ours & ~theirs).sum()), champion_only=int((theirs & ~ours).sum())
            )
        minutes.append(minute)
    assert np.median(minutes) <= 20
    assert sum(minute == 60 for minute in minutes) <= 2


def looked_at(rng: np.random.Generator, factor: float, margin: float) -> float:
    """The largest evidence within an hour at 100 queries a minute before, whose rate follows the time of day."""
    test, most = RateTest.begin(margin), 0.0
    for minute in range(60):
        rate = 100.0 * (1.0 + 0.5 * math.sin(minute / 10.0))
        after, before = int(rng.poisson(rate * factor / 2.0)), int(rng.poisson(rate * 7.0))
        test = test.fold(after=after, after_seconds=30.0, before=before, before_seconds=420.0)
        most = max(most, test.log_e)
    return most


@pytest.mark.simulated
def test_rates_within_the_margin_are_not_reported() -> None:
    """80 runs each at both edges of the margin and inside: more than 4 alarms have a chance below 0.002."""
    rng = np.random.default_rng(2)
    for factor in (1.25, 1.0, 0.8):
        assert sum(looked_at(rng, factor, 1.25) >= BOUND for _ in range(80)) <= 4


def test_half_of_the_queries_lost_or_twice_as_many_are_reported() -> None:
    rng = np.random.default_rng(3)
    assert all(looked_at(rng, factor, 1.25) >= BOUND for factor in (0.5, 2.0) for _ in range(20))
    silent = RateTest.begin(1.5).fold(after=0, after_seconds=60, before=600, before_seconds=600)
    assert silent.log_e >= BOUND
    assert silent.interval().low == 0.0
    assert silent.interval().high < 0.3


FOLDS = st.lists(
    st.tuples(st.integers(0, 80), st.floats(1, 600), st.integers(0, 80), st.floats(1, 600)), max_size=6
)


@given(FOLDS, FOLDS)
@examples(50)
def test_servers_add_up(
    first: list[tuple[int, float, int, float]], second: list[tuple[int, float, int, float]]
) -> None:
    def folded(of: list[tuple[int, float, int, float]]) -> RateTest:
        test = RateTest.begin()
        for after, after_seconds, before, before_seconds in of:
            test = test.fold(
                after=after, after_seconds=after_seconds, before=before, before_seconds=before_seconds
            )
        return test

    whole = folded(first + second)
    for merged in (folded(first).merge(folded(second)), folded(second).merge(folded(first))):
        assert merged.more.log_likelihood == pytest.approx(whole.more.log_likelihood, abs=1e-9)
        assert merged.log_e == pytest.approx(whole.log_e, abs=1e-9)
    assert msgspec.convert(msgspec.to_builtins(whole), RateTest) == whole


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DiscordantTest.begin(0.5),
        lambda: DiscordantTest.begin().fold(challenger_only=-1, champion_only=0),
        lambda: RateTest.begin().fold(after=1, after_seconds=0.0, before=1, before_seconds=1.0),
        lambda: RateTest.begin().fold(after=-1, after_seconds=1.0, before=1, before_seconds=1.0),
        lambda: RateTest.begin(1.5).merge(RateTest.begin(2.0)),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"odds ratio|counts are|stretches of|do not add up|alpha|margin"):
        wrong()
