"""An estimate with its uncertainty, and the intervals for a share and for a mean of bounded scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the ends of its confidence interval; `low <= estimate <= high`."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the numbers with four digits.

        >>> str(Interval(0.71234, 0.7, 0.72345))
        '0.7123 [0.7000, 0.7235]'
        """
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}]"


def two_sided_z(confidence: float) -> float:
    """Return the standard normal quantile of a two-sided interval at `confidence` (between 0 and 1).

    >>> round(two_sided_z(0.95), 4)
    1.96
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2.0)


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Return the share `successes / trials` with its score interval.

    Parameters
    ----------
    successes
        From 0 to `trials`.
    trials
        At least 0. Without a trial nothing is known: the interval is 0 to 1 around 0.5.
    confidence
        Between 0 and 1.

    Guarantee: coverage is close to `confidence` on average, also for shares near 0 or 1 and for few trials,
    where estimate ± z·s collapses. Good for one look at independent trials; it is not a sequential test.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), doi 10.1080/01621459.1927.10502953.

    >>> print(wilson(0, 100))
    0.0000 [0.0000, 0.0370]
    >>> print(wilson(81, 263))
    0.3080 [0.2553, 0.3662]
    """
    if not 0.0 <= successes <= trials:
        raise ValueError(f"a share has 0 <= successes <= trials, not {successes} of {trials}")
    z = two_sided_z(confidence)
    if trials == 0:
        return Interval(0.5, 0.0, 1.0)
    share = successes / trials
    spread = z * z / trials
    centre = (share + spread / 2.0) / (1.0 + spread)
    half = math.sqrt(spread * (share * (1.0 - share) + spread / 4.0)) / (1.0 + spread)
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def mean_interval(values: Sequence[float] | NDArray[np.floating], confidence: float = 0.95) -> Interval:
    """Return the mean of at least two finite values with its normal-theory interval.

    Guarantee: asymptotic, for independent values of finite variance; one look, not a sequential test.
    Raises `InputError` HF401 for fewer than two values.

    >>> print(mean_interval([0.2, 0.4, 0.6, 0.8]))
    0.5000 [0.2470, 0.7530]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise InputError("HF401", f"a mean with an interval needs 2 values, and there are {array.size}")
    half = two_sided_z(confidence) * float(array.std(ddof=1)) / math.sqrt(array.size)
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half)
