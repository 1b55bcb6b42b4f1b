"""Two tests on pairs of counts, both from the likelihood of `holdfast.stats.odds_ratio`.

`DiscordantTest`: two versions predicted the same requests (in shadow), and only requests on which exactly one of them
was bad are informative. `RateTest`: does a version get as many queries as the one before it? A switch that loses
requests shows in no response.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from holdfast.stats.interval import Interval
from holdfast.stats.level_test import log_mean
from holdfast.stats.odds_ratio import OddsTest, binomial_gain


@dataclass(frozen=True, slots=True)
class DiscordantTest(OddsTest):
    """An e-process against "where two versions differ, the challenger is bad at most `margin` times as often".

    Given that exactly one of the two was bad, it was the challenger with odds ψ. Requests on which both were good, or
    both bad, are no evidence. This is McNemar's test in a form that may be read at any time.

    Guarantee: P(`log_e` ever reaches log(1/α)) <= α while the claim holds; exact. Assumption: the odds of each request,
    given the past, are at most `margin`. Count each unit once.

    Source: Q. McNemar, Psychometrika 12 (1947), doi 10.1007/BF02295996; and `holdfast.stats.odds_ratio`.

    >>> test = DiscordantTest.begin().fold(challenger_only=14, champion_only=2)
    >>> round(test.log_e, 1)
    4.6
    """

    def fold(self, *, challenger_only: int, champion_only: int) -> Self:
        """Return the test after more pairs, by the version that alone was bad.

        Raises `ValueError` for a number below 0.
        """
        _check_counts(challenger_only, champion_only)
        pairs = challenger_only + champion_only
        return self._after(binomial_gain(challenger_only, pairs, 1.0, self._log_odds))


@dataclass(frozen=True, slots=True)
class _OneSidedRateTest(OddsTest):
    """One direction of `RateTest`: more queries after than before."""

    def fold(self, after: int, before: int, odds: float) -> Self:
        return self._after(binomial_gain(after, after + before, odds, self._log_odds))


@dataclass(frozen=True, slots=True)
class RateTest:
    """An e-process against "the rate of queries after a switch is the rate before, within a factor `margin` either way".

    Each fold compares a stretch after the switch with one before it, best of the same hour of a day, so that the course
    of the day cancels. Given both counts together, the one after is binomial, whatever the rate is; `more` and `fewer` bet
    on either direction, and the e-value is the mean of both.

    Guarantee: P(`log_e` ever reaches log(1/α)) <= α while the rates are within `margin`, for queries that come
    independently of one another (a Poisson process whose rate may change). Queries that come in bursts vary more than that:
    count their units, and let `margin` cover what days differ by.

    Source: J. Przyborowski, H. Wilenski, Biometrika 31 (1940), doi 10.1093/biomet/31.3-4.313 (the conditional test);
    and `holdfast.stats.odds_ratio`.

    >>> test = RateTest.begin(margin=1.5)
    >>> test = test.fold(after=40, after_seconds=60, before=1000, before_seconds=600)
    >>> round(test.log_e, 1), str(test.interval())
    (3.3, '0.3974 [0.2124, 0.6920]')
    """

    more: _OneSidedRateTest
    fewer: _OneSidedRateTest

    @classmethod
    def begin(cls, margin: float = 1.5) -> RateTest:
        """Return a test with no evidence. Raises `ValueError` unless `margin` is finite and at least 1."""
        return cls(_OneSidedRateTest.begin(margin), _OneSidedRateTest.begin(margin))

    @property
    def log_e(self) -> float:
        """Return the natural logarithm of the current e-value."""
        return log_mean([self.more.log_e, self.fewer.log_e])

    def fold(self, *, after: int, after_seconds: float, before: int, before_seconds: float) -> RateTest:
        """Return the test after one more pair of periods, each used once.

        Parameters
        ----------
        after, before
            Queries after and before the switch, at least 0.
        after_seconds, before_seconds
            The length of each period, above 0.

        Raises `ValueError` for a count or length out of range.
        """
        _check_counts(after, before)
        if not (0.0 < after_seconds < math.inf and 0.0 < before_seconds < math.inf):
            raise ValueError(f"stretches of {after_seconds} s and {before_seconds} s have no rates")
        return replace(
            self,
            more=self.more.fold(after, before, after_seconds / before_seconds),
            fewer=self.fewer.fold(before, after, before_seconds / after_seconds),
        )

    def interval(self, alpha: float = 0.05) -> Interval:
        """Return the rate after as a multiple of the rate before, with an interval as in `OddsTest.interval`."""
        return self.more.interval(alpha)

    def merge(self, other: RateTest) -> RateTest:
        """Return the evidence of both tests; the order does not matter. Raises `ValueError` if their margins differ."""
        return RateTest(self.more.merge(other.more), self.fewer.merge(other.fewer))


def _check_counts(*counts: int) -> None:
    if not bool((np.array(counts) >= 0).all()):
        raise ValueError(f"counts are at least 0, not {counts}")
