"""A detector of rising loss, with a known mean time between false alarms.

After a long good period a test of one hypothesis has lost its wealth and reacts late. A detector does not: it is the
sum of the wealth of bets, one of which begins in each window. With e_t the factor by which one window multiplies the
wealth of a bet, of mean at most 1 without an error, M_t = (1 + M_(t-1)) e_t, and M_t - t falls on average. So the
first window with M_t >= A comes after at least A windows on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.stats.level_test import STAKES, Floats, count_gains, log_mean, loss_gains


@dataclass(frozen=True, slots=True)
class Detector:
    """Detects that the mean loss of one group, in [0, 1], exceeds a fixed level.

    Parameters
    ----------
    level
        The mean loss that is tolerated, above 0 and at most 1.
    run_length
        How many windows pass on average until a false alarm, at least; above 1. With windows of a minute, 43,200 is a month.

    Guarantee: while the mean loss, given the past, is at most `level`, the mean number of windows until the first alarm
    is at least `run_length`, for every law on [0, 1] and windows of any size. This is a rate of false alarms, not a chance:
    in a watch of w windows the chance of one is at most w / `run_length` (M_t - t falls on average until it stops, too).

    Assumption: the level is right. A surge that would have hit any version is held against this one.

    Source: J. Shin, A. Ramdas, A. Rinaldo, New Engl. J. Stat. Data Sci. (2024), nejsds.nestat.org/journal/NEJSDS/article/59
    (e-detectors of Shiryaev and Roberts' kind).

    >>> watch = Detector.begin(level=0.02, run_length=10_000)
    >>> for _ in range(1000):
    ...     watch = watch.fold_counts(units=50, bad=1)
    >>> watch.alarm, watch.fold_counts(units=50, bad=15).alarm
    (False, True)
    """

    level: float
    run_length: float
    log_sums: tuple[float, ...]  # for each stake, the natural logarithm of 1 + M
    windows: int = 0

    @classmethod
    def begin(cls, level: float, run_length: float) -> Detector:
        """Return a detector before its first window. Raises `ValueError` for a level or run length out of range."""
        if not (0.0 < level <= 1.0 and 1.0 < run_length < math.inf):
            raise ValueError(
                f"a level of {level} (above 0, at most 1) and a run length of {run_length} (above 1)"
            )
        return cls(level, run_length, (0.0,) * STAKES.size)

    @property
    def log_m(self) -> float:
        """Return the natural logarithm of the detector's current value; minus infinity before the first window."""
        grown = log_mean(self.log_sums)
        return grown + math.log(-math.expm1(-grown)) if grown > 0.0 else -math.inf

    @property
    def alarm(self) -> bool:
        """Return True if the current value has reached the run length. Begin a new detector after a handled alarm."""
        return self.log_m >= math.log(self.run_length)

    def fold_counts(self, *, units: int, bad: int) -> Detector:
        """Return the detector after one window of `units`, `bad` of them bad.

        Raises `ValueError` unless 0 <= bad <= units.
        """
        return self.fold_gains(count_gains(self.level, units, bad))

    def fold_losses(self, losses: Sequence[float]) -> Detector:
        """Return the detector after one window of losses. Raises `ValueError` for one outside [0, 1]."""
        return self.fold_gains(loss_gains(self.level, losses))

    def fold_gains(self, gains: Floats) -> Detector:
        """Return the detector after one window with the log gains of each stake, shape (BETS,), of `loss_gains`.

        The gains of the parts of a window add up.
        """
        sums = np.logaddexp(0.0, np.array(self.log_sums) + gains)
        return replace(self, log_sums=tuple(sums.tolist()), windows=self.windows + 1)
