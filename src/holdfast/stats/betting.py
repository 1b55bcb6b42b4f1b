"""An always-valid test that the challenger's scores are not worse than the champion's.

Scores lie in [0, 1], higher is better. Each difference D = (mean of some challenger scores) - (mean of some
champion scores) lies in [-1, 1]; in shadow both versions scored the same request, and D is one pair's. A bet
against "the mean difference is at least -margin" stakes the fraction λ of its wealth and multiplies the wealth by
1 - λ (D + margin) / (1 + margin), which is never below 1 - λ > 0 and has mean at most 1 while the claim is true.
The e-value is the weighted mean wealth over a grid of λ.

The state is the number of differences at each point of a grid over [-1, 1]. The wealth of every stake against every
claim follows from it, so the test and the interval share one state, and the states of several servers add up. A
difference between two points is counted in parts on both, which preserves its value; the logarithm is concave, so
this never overstates a wealth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.stats.interval import Interval
from holdfast.stats.odds_ratio import log_sum_exp

Floats = NDArray[np.float64]

STAKES: Final[Floats] = np.geomspace(0.02, 0.95, 32)
"""The fractions of the wealth that are staked at every difference."""

LOG_PARTS: Final[Floats] = np.log(STAKES / STAKES.sum())
"""The part of the wealth played with each stake.

More with the large ones: the best stake is the mean loss over the variance, which is large if there is harm to find
soon.
"""

_PER_UNIT: Final = 32
POINTS: Final[Floats] = np.linspace(-1.0, 1.0, 2 * _PER_UNIT + 1)
"""The points on which differences are counted."""

WAITING_LIMIT: Final = 256
"""The maximum number of scores of one arm that wait for the other. Older ones are dropped: they are of another time of
day.
"""

_BISECTIONS: Final = 30


@dataclass(frozen=True, slots=True)
class BettingTest:
    """An e-process against "the challenger's mean score is at least the champion's less `margin`".

    Parameters
    ----------
    margin
        The loss of mean score that is tolerated, from 0 to less than 1.

    Guarantee: while the null holds, P(`log_e` ever reaches log(1/α)) <= α, whenever and however often one
    looks. Exact in finite samples; no distribution is assumed, only the bounds.

    Assumptions: units are randomised to the arms, or each unit has a score of both; whether and when a label comes
    does not depend on the arm, given the unit; given the past, scores that are compared with one another have the same
    mean when the arms do. Scores are compared in the order in which they come, so that a common drift cancels. How
    they are grouped depends on counts only, never on a score.

    Sources: I. Waudby-Smith, A. Ramdas, J. R. Stat. Soc. B 86 (2024), doi 10.1093/jrsssb/qkad009 (testing by
    betting on bounded means, and the intervals of hedged capital).

    >>> test = BettingTest.begin(margin=0.01)
    >>> for _ in range(60):
    ...     test = test.fold([0.5, 0.7], [0.9, 0.8, 0.8, 1.0])
    >>> round(test.log_e, 1)  # natural logarithm; harm is shown at 4.6 when one run in a hundred may err
    24.4
    >>> print(test.interval())
    -0.2750 [-0.3096, -0.2180]
    """

    margin: float
    counts: tuple[float, ...]  # of differences, at each of POINTS
    waiting_challenger: tuple[float, ...] = ()
    waiting_champion: tuple[float, ...] = ()

    @classmethod
    def begin(cls, margin: float = 0.0) -> BettingTest:
        """Return a test with no evidence. Raises `ValueError` unless 0 <= `margin` < 1."""
        if not 0.0 <= margin < 1.0:
            raise ValueError(f"the tolerated loss of mean score is {margin}; it is at least 0 and below 1")
        return cls(margin, (0.0,) * POINTS.size)

    @property
    def log_e(self) -> float:
        """Return the natural logarithm of the current e-value."""
        return float(log_e_values(np.array(self.counts), self.margin))

    def fold(self, challenger: Sequence[float], champion: Sequence[float]) -> BettingTest:
        """Return the test after more scores of either arm, each list in the order of time.

        The number of differences is that of the smaller arm's scores; the larger arm's scores are averaged in equal
        runs. Scores of one arm wait while the other has none. Raises `ValueError` for a score outside [0, 1].
        """
        ours = (*self.waiting_challenger, *_check_scores(challenger))
        theirs = (*self.waiting_champion, *_check_scores(champion))
        if not ours or not theirs:
            return replace(
                self, waiting_challenger=ours[-WAITING_LIMIT:], waiting_champion=theirs[-WAITING_LIMIT:]
            )
        pairs = min(len(ours), len(theirs))
        differences = run_means(np.array(ours), pairs) - run_means(np.array(theirs), pairs)
        return replace(self._after(differences), waiting_challenger=(), waiting_champion=())

    def fold_differences(self, differences: Sequence[float]) -> BettingTest:
        """Return the test after more pairs, as of shadow: the challenger's score minus the champion's of the same unit.

        Raises `ValueError` for a difference outside [-1, 1].

        >>> BettingTest.begin().fold_differences([-0.25] * 40).log_e > 4.6
        True
        """
        found = np.asarray(differences, dtype=np.float64)
        if found.size and not (found.min() >= -1.0 and found.max() <= 1.0):
            raise ValueError("differences of scores lie between -1 and 1")
        return self._after(found)

    def interval(self, alpha: float = 0.05) -> Interval:
        """Return the mean difference with an always-valid interval; -1 to 1 without evidence.

        Guarantee: if every difference has the same mean given the past, P(any interval ever read misses it) <=
        `alpha`. Raises `ValueError` unless 0 < `alpha` < 1.
        """
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha lies between 0 and 1, and it is {alpha}")
        counts, needed = np.array(self.counts), math.log(2.0 / alpha)
        total = float(counts.sum())
        estimate = float(counts @ POINTS) / total if total else 0.0
        # The wealth against "at most m" falls with m, the one against "at least m" rises with it.
        low = _last_holding(lambda m: _log_wealth_against(counts, m) >= needed, -1.0, estimate)
        high = -_last_holding(lambda m: _log_wealth_against(counts[::-1], m) >= needed, -1.0, -estimate)
        return Interval(estimate, low, high)

    def merge(self, other: BettingTest) -> BettingTest:
        """Return the evidence of both tests, as of two servers with different units.

        Only scores that wait depend on the order. Raises `ValueError` if the margins differ.
        """
        if self.margin != other.margin:
            raise ValueError(f"tests with margins {self.margin} and {other.margin} do not add up")
        counts = (np.array(self.counts) + np.array(other.counts)).tolist()
        both = BettingTest(self.margin, tuple(counts))
        return both.fold(
            (*self.waiting_challenger, *other.waiting_challenger),
            (*self.waiting_champion, *other.waiting_champion),
        )

    def _after(self, differences: Floats) -> BettingTest:
        return replace(self, counts=tuple((np.array(self.counts) + counts_of(differences)).tolist()))


def log_e_values(counts: Floats, margin: float) -> Floats:
    """Return the e-values of counts of shape (..., number of points), as natural logarithms of shape (...)."""
    gains = np.log1p(-np.multiply.outer((POINTS + margin) / (1.0 + margin), STAKES))
    return log_sum_exp(counts @ gains + LOG_PARTS)


def log_e_paths(challenger: Floats, champion: Floats, margin: float) -> Floats:
    """Return `log_e` after each window of many runs at once, equal to folding them one by one.

    Scores have shape (runs, windows, scores of the arm in a window); the result has shape (runs, windows).
    """
    pairs = min(challenger.shape[-1], champion.shape[-1])
    counts = counts_of(run_means(challenger, pairs) - run_means(champion, pairs))
    return log_e_values(np.cumsum(counts, axis=1), margin)


def counts_of(differences: Floats) -> Floats:
    """Return the counts of `differences` of shape (..., pairs) on each point: shape (..., number of points).

    >>> found = counts_of(np.array([-1.0, 1 / 64]))
    >>> found[0], found[32:34]
    (np.float64(1.0), array([0.5, 0.5]))
    """
    place = (np.clip(differences, -1.0, 1.0) + 1.0) * _PER_UNIT
    below = np.minimum(place.astype(np.int64), POINTS.size - 2)
    part = place - below
    size = math.prod(below.shape[:-1]) * POINTS.size
    rows = np.arange(0, size, POINTS.size).reshape(*below.shape[:-1], 1)
    flat = (rows + below).reshape(-1)
    counts = np.bincount(flat, (1.0 - part).reshape(-1), size) + np.bincount(flat + 1, part.reshape(-1), size)
    counted: Floats = counts.reshape(*below.shape[:-1], POINTS.size).astype(np.float64)
    return counted


def run_means(scores: Floats, runs: int) -> Floats:
    """Return means of `runs` successive runs of nearly equal length along the last axis: shape (..., runs)."""
    width = scores.shape[-1]
    starts = np.arange(runs) * width // runs
    lengths = np.diff(np.append(starts, width))
    means: Floats = np.add.reduceat(scores, starts, axis=-1) / lengths
    return means


def _log_wealth_against(counts: Floats, mean: float) -> float:
    """Return the natural logarithm of the wealth against "the mean difference is at most `mean`", above -1."""
    gains = np.log1p(np.multiply.outer((POINTS - mean) / (1.0 + mean), STAKES))
    return float(log_sum_exp(counts @ gains + LOG_PARTS))


def _last_holding(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the last value from `low` to `high` for which `holds`, which fails from some value on."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if middle > -1.0 and holds(middle) else (low, middle)
    return low


def _check_scores(scores: Sequence[float]) -> list[float]:
    # The comparison is written so that NaN fails it.
    for score in scores:
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"a quality score is {score}; scores lie between 0 and 1")
    return [float(score) for score in scores]
