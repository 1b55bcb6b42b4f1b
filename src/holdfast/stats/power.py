"""The power of a planned test: how soon it would find a harm of a given size, by simulating the test itself.

A test has a bound on false alarms; what it would miss depends on the traffic. The same plan and seed give the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.stats import betting, hypergeometric

RUNS: Final = 2000
"""The number of simulated runs: a share of one half is then known within 0.022."""

_CELLS: Final = 120_000
"""How many windows of all runs together are in memory at once; each takes about a kilobyte."""


@dataclass(frozen=True, slots=True)
class Detection:
    """The window in which harm was found in each of many runs; 0 in a run in which it was not."""

    windows: int
    found_in: tuple[int, ...]

    def share_within(self, windows: float) -> float:
        """Return the share of runs in which it was found within the first `windows`."""
        return sum(0 < each <= windows for each in self.found_in) / len(self.found_in)

    @property
    def median(self) -> int | None:
        """Return the window by which half of the runs had found it; None if fewer did."""
        ordered = sorted(each or self.windows + 1 for each in self.found_in)
        middle = ordered[(len(ordered) - 1) // 2]
        return middle if middle <= self.windows else None


@dataclass(frozen=True, slots=True)
class Simulation:
    """A planned test, and the runs in which it is simulated.

    Parameters
    ----------
    margin
        The tolerated odds ratio, or loss of mean score.
    log_bound
        The natural logarithm of the e-value at which harm is shown.
    windows, seed, runs
        How many windows are looked at, one after the other, in how many runs. Raises `ValueError` for less than one.
    """

    margin: float
    log_bound: float
    windows: int
    seed: int
    runs: int = RUNS

    def __post_init__(self) -> None:
        if self.windows < 1 or self.runs < 1:
            raise ValueError(f"nothing to simulate: {self.windows} windows, {self.runs} runs")


def bad_units(
    plan: Simulation,
    *,
    challenger_units: float,
    champion_units: float,
    base_rate: float,
    risk_ratio: float,
) -> Detection:
    """Simulate how soon `HypergeometricTest` finds a challenger that is bad `risk_ratio` times as often.

    Parameters
    ----------
    plan
        The test and its runs.
    challenger_units, champion_units
        Mean number of units of each arm in one window, at least 0. Windows have the next lower or higher whole number.
    base_rate, risk_ratio
        The champion's share of bad units, from 0 to 1, and by what the challenger's is larger (it is 1 at most).

    Raises `ValueError` for a rate that is no share.

    >>> plan = Simulation(margin=1.0, log_bound=4.6, windows=60, seed=1)
    >>> found = bad_units(plan, challenger_units=120, champion_units=1080, base_rate=0.01, risk_ratio=5.0)
    >>> found.median, found.share_within(10)
    (2, 1.0)
    """
    _check_share(base_rate)
    rng = np.random.Generator(np.random.PCG64(plan.seed))
    found: list[int] = []
    while len(found) < plan.runs:
        # Some runs at a time: the paths of all of them would take gigabytes.
        shape = (min(plan.runs - len(found), max(1, _CELLS // plan.windows)), plan.windows)
        ours, theirs = (_draw_units(rng, each, shape) for each in (challenger_units, champion_units))
        our_bad = rng.binomial(ours, min(1.0, base_rate * risk_ratio))
        their_bad = rng.binomial(theirs, base_rate)
        paths = hypergeometric.log_e_paths(ours, our_bad, theirs, their_bad, plan.margin)
        found += first_crossing(paths, plan.log_bound).found_in
    return Detection(plan.windows, tuple(found))


def score_loss(
    plan: Simulation, *, challenger_scores: int, champion_scores: int, mean: float, spread: float, loss: float
) -> Detection:
    """Simulate how soon `BettingTest` finds that the challenger's mean score is `loss` below the champion's.

    Scores are drawn from beta laws.

    Parameters
    ----------
    plan
        The test and its runs.
    challenger_scores, champion_scores
        Number of scores of each arm in one window, at least 0.
    mean, spread
        The champion's mean score, between 0 and 1, and standard deviation; the challenger's is the same as far as its
        own mean permits.
    loss
        By how much the challenger's mean is below the champion's.

    Raises `ValueError` for means and spreads that no law on [0, 1] has.

    >>> plan = Simulation(margin=0.005, log_bound=4.6, windows=60, seed=1, runs=500)
    >>> found = score_loss(plan, challenger_scores=12, champion_scores=108, mean=0.8, spread=0.2, loss=0.1)
    >>> 5 <= found.median <= 12, found.share_within(60)
    (True, 1.0)
    """
    _check_share(mean)
    pairs = min(challenger_scores, champion_scores)
    if pairs == 0:
        return Detection(plan.windows, (0,) * plan.runs)
    rng = np.random.Generator(np.random.PCG64(plan.seed))
    shape = (plan.runs, plan.windows, pairs)
    ours = _draw_means(rng, mean - loss, spread, max(1, challenger_scores // pairs), shape)
    theirs = _draw_means(rng, mean, spread, max(1, champion_scores // pairs), shape)
    return first_crossing(betting.log_e_paths(ours, theirs, plan.margin), plan.log_bound)


def first_crossing(log_e: NDArray[np.float64], log_bound: float) -> Detection:
    """Return when each run, a row of `log_e` after each window, first reached `log_bound`."""
    crossed = log_e >= log_bound
    found_in = np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, 0)
    return Detection(log_e.shape[1], tuple(found_in.tolist()))


def _draw_units(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> NDArray[np.int64]:
    return (
        np.full(shape, mean, np.int64) if mean == int(mean) else (mean + rng.random(shape)).astype(np.int64)
    )


def _draw_means(
    rng: np.random.Generator, mean: float, spread: float, many: int, shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Draw means of `many` scores each. The mean of n beta-distributed scores is nearly beta with 1/n of the variance."""
    most = mean * (1.0 - mean)
    if not (0.0 < mean < 1.0 and spread > 0.0):
        raise ValueError(f"no scores have the mean {mean} and the standard deviation {spread}")
    variance = min(spread**2, 0.95 * most) / many
    size = most / variance - 1.0
    drawn: NDArray[np.float64] = rng.beta(mean * size, (1.0 - mean) * size, shape)
    return drawn


def _check_share(share: float) -> None:
    if not (0.0 <= share <= 1.0):  # NaN is not
        raise ValueError(f"nothing to simulate: a share of {share}")
