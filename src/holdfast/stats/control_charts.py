"""Control charts: detect that a series has left its level, with a known rate of false alarms.

Each chart is an immutable state that takes one standardised value at a time (mean 0 and standard deviation 1 while
nothing is wrong) and serialises to plain numbers. What a design promises is its in-control run length, the mean number of
values until a false alarm; it is computed, not quoted. Nothing here is an always-valid test: a chart may alarm falsely,
once in its run length on average, so it makes a ticket and never an automatic action.

Sources: W. A. Shewhart, Economic Control of Quality of Manufactured Product (1931); S. W. Roberts, Technometrics 1 (1959)
for EWMA; E. S. Page, Biometrika 41 (1954) for CUSUM; D. Brook and D. A. Evans, Biometrika 59 (1972) for run lengths by a
Markov chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError

_NORMAL: Final = NormalDist()
_STATES: Final = 201


@dataclass(frozen=True, slots=True)
class Shewhart:
    """Alarms on a single value beyond `limit` standard deviations: sees large shifts at once and small ones late.

    >>> round(Shewhart(3.0).run_length(), 1)
    370.4
    """

    limit: float = 3.0
    value: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        _check_positive("Shewhart", limit=self.limit)

    @property
    def alarm(self) -> bool:
        """Return True if the newest value is beyond the limit."""
        return abs(self.value) > self.limit

    def add(self, value: float) -> Self:
        """Return the chart after one more standardised value."""
        return replace(self, value=value, count=self.count + 1)

    def run_length(self, shift: float = 0.0) -> float:
        """Return the mean number of values until an alarm, if the true mean is `shift` standard deviations off."""
        inside = _NORMAL.cdf(self.limit - shift) - _NORMAL.cdf(-self.limit - shift)
        return 1.0 / (1.0 - inside)


@dataclass(frozen=True, slots=True)
class Ewma:
    """Alarms when the exponentially weighted mean of the values leaves `limit` of its own standard deviations.

    It detects small shifts early. `weight` (0 to 1, 1 is Shewhart's chart) is that of the newest value. The limits are
    the asymptotic ones from the start, so they are wide for the first few values.

    >>> round(Ewma(0.1, 2.814).run_length()), round(Ewma(0.2, 2.86).run_length())
    (499, 371)
    """

    weight: float = 0.1
    limit: float = 2.814
    value: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        _check_positive("Ewma", limit=self.limit, weight=self.weight)
        if self.weight > 1.0:
            raise ValueError(f"Ewma: the weight {self.weight} is above 1")

    @property
    def bound(self) -> float:
        """Return the maximum distance of the weighted mean from 0."""
        return self.limit * math.sqrt(self.weight / (2.0 - self.weight))

    @property
    def alarm(self) -> bool:
        """Return True if the weighted mean is outside its limits."""
        return abs(self.value) > self.bound

    def add(self, value: float) -> Self:
        """Return the chart after one more standardised value."""
        return replace(
            self, value=self.weight * value + (1.0 - self.weight) * self.value, count=self.count + 1
        )

    def run_length(self, shift: float = 0.0) -> float:
        """Return the mean number of values until an alarm, if the true mean is `shift` standard deviations off."""
        return _ewma_run_length(self.weight, self.limit, shift)


@dataclass(frozen=True, slots=True)
class Cusum:
    """Alarms when the cumulated excess of the values over `slack`, on either side of 0, exceeds `limit`.

    It is the quickest chart for a lasting shift of twice the slack.

    >>> round(Cusum(0.5, 5.0).run_length()), round(Cusum(0.5, 4.0).run_length())
    (465, 168)
    """

    slack: float = 0.5
    limit: float = 5.0
    above: float = 0.0
    below: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        _check_positive("Cusum", limit=self.limit, slack=self.slack)

    @property
    def alarm(self) -> bool:
        """Return True if either sum exceeds the limit."""
        return max(self.above, self.below) > self.limit

    def add(self, value: float) -> Self:
        """Return the chart after one more standardised value."""
        return replace(
            self,
            above=max(0.0, self.above + value - self.slack),
            below=max(0.0, self.below - value - self.slack),
            count=self.count + 1,
        )

    def run_length(self, shift: float = 0.0) -> float:
        """Return the mean number of values until an alarm, if the true mean is `shift` standard deviations off.

        Of two one-sided charts with reset at 0 (C. H. Kemp, J. R. Stat. Soc. B 23, 1961): the rates add.
        """
        up, down = (_cusum_run_length(self.slack, self.limit, side) for side in (shift, -shift))
        return 1.0 / (1.0 / up + 1.0 / down)


Chart = Shewhart | Ewma | Cusum


def widen_limit(limit: float, baseline: int) -> float:
    """Return `limit` for a chart whose mean and deviation were estimated from `baseline` values (at least 8).

    The prediction interval of one more value, t with baseline - 1 degrees of freedom times sqrt(1 + 1 / baseline), has
    the tail that `limit` has of the normal law. A bad baseline can still make the run length shorter than designed.

    Source: W. A. Shewhart's limits after D. C. Montgomery's Phase I, as a prediction interval (G. J. Hahn, J. Am. Stat.
    Assoc. 64, 1969).

    >>> round(widen_limit(3.0, 30), 2), round(widen_limit(3.0, 1000), 2)
    (3.33, 3.01)
    """
    from scipy import special  # here, because a server reads declarations too and needs no tail of t

    if baseline < 8:
        raise InputError("HF401", f"a chart's baseline has at least 8 values, not {baseline}")
    tail = 1.0 - _NORMAL.cdf(limit)
    return float(-special.stdtrit(baseline - 1, tail)) * math.sqrt(1.0 + 1.0 / baseline)


def _check_positive(kind: str, **facts: float) -> None:
    wrong = [f"{name} is {value}" for name, value in facts.items() if not 0.0 < value < float("inf")]
    if wrong:
        raise ValueError(f"{kind}: {', '.join(wrong)}; it must be above 0 and finite")


@lru_cache(maxsize=64)
def _ewma_run_length(weight: float, limit: float, shift: float) -> float:
    bound = limit * math.sqrt(weight / (2.0 - weight))
    if weight == 1.0:
        return Shewhart(limit).run_length(shift)
    edges = np.linspace(-bound, bound, _STATES + 1)
    centres = (edges[:-1] + edges[1:]) / 2.0
    # From the middle of state i the next mean lies below edge j when the value is at most so much.
    edge_values = (edges[None, :] - (1.0 - weight) * centres[:, None]) / weight - shift
    return _mean_steps(np.diff(_cdf(edge_values), axis=1), _STATES // 2)


@lru_cache(maxsize=64)
def _cusum_run_length(slack: float, limit: float, shift: float) -> float:
    width = 2.0 * limit / (2.0 * _STATES - 1.0)
    centres = np.arange(_STATES) * width
    upper = centres[None, :] + width / 2.0 - centres[:, None] + slack - shift
    below = _cdf(upper)
    moves = np.diff(below, axis=1, prepend=0.0)  # state 0 takes everything that falls below
    return _mean_steps(moves, 0)


def _mean_steps(moves: NDArray[np.float64], start: int) -> float:
    """Return the mean number of steps until a chain with transient part `moves` is absorbed, from state `start`."""
    size = len(moves)
    return float(np.linalg.solve(np.eye(size) - moves, np.ones(size))[start])


def _cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy import special

    below: NDArray[np.float64] = special.ndtr(values)
    return below
