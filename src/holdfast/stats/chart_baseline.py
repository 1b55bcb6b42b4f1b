"""The baseline of a chart: level and spread, estimated from batches without errors.

Shares of batches vary more than their rows explain, and each batch resembles the one before. A chart that ignores either
has many times its nominal rate of false alarms. Here the measured extra variation widens the spread (P. B. Laney, Quality
Engineering 14, 2002). The part that the batch before predicts is subtracted (residuals of an autoregression of order
one: L. C. Alwan and H. V. Roberts, J. Bus. Econ. Stat. 6, 1988).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from holdfast.errors import InputError

FEWEST: Final = 12
"""The minimum number of batches of a baseline."""

_STRONGEST: Final = 0.95


@dataclass(frozen=True, slots=True)
class ProportionBaseline:
    """The usual share of something among the rows of a batch.

    `share` is the level; `over` is by how much batches vary more than independent rows would (Laney's sigma_z, at least
    1); `carry` (0 to 0.95) is how much of a deviation the next batch repeats; `count` batches were used.
    """

    share: float
    over: float
    carry: float
    count: int

    def deviation(self, rows: int) -> float:
        """Return the standard deviation of the share in a batch of `rows` rows."""
        return self.over * _binomial(self.share, rows)

    def residual_deviation(self, rows: int) -> float:
        """Return the standard deviation of the part of the share that the batch before does not predict.

        >>> round(ProportionBaseline(0.5, 1.0, 0.6, 20).residual_deviation(100), 6)
        0.04
        """
        return self.deviation(rows) * math.sqrt(1.0 - self.carry**2)

    def standardise(self, count: int, rows: int, before: float | None) -> tuple[float, float]:
        """Return the residual and the plain distance of `count` of `rows` from the level, in deviations.

        The residual has mean 0 and deviation 1 in control. The plain distance is `before` of the next batch. Without
        a batch before (None) both are equal.

        >>> ProportionBaseline(0.5, 1.0, 0.0, 20).standardise(75, 100, None)
        (5.0, 5.0)
        """
        plain = (count / rows - self.share) / self.deviation(rows)
        if before is None or self.carry == 0.0:
            return plain, plain
        return (plain - self.carry * before) / math.sqrt(1.0 - self.carry**2), plain


def proportion_baseline(counts: Sequence[int], rows: Sequence[int]) -> ProportionBaseline:
    """Return the baseline of `counts` of `rows` in each of at least `FEWEST` batches, in order.

    sigma_z is half a normal moving range: the mean of |z_i - z_(i-1)| / 1.128 sees the variation between neighbours only,
    and with batches that resemble each other misses some, so the plain deviation is taken when it is larger.

    Raises `InputError` HF401 for fewer batches, or a share that is always 0 or always 1.

    >>> even = proportion_baseline([50, 51, 49, 50] * 5, [100] * 20)
    >>> even.share, even.over, even.count
    (0.5, 1.0, 20)
    """
    if len(counts) < FEWEST or len(counts) != len(rows) or min(rows) < 1:
        raise InputError("HF401", f"a baseline needs {FEWEST} batches with rows, not {len(counts)}")
    share = sum(counts) / sum(rows)
    if not 0.0 < share < 1.0:
        raise InputError("HF401", f"a share that is always {share:.0f} has no chart")
    scores = [(count / n - share) / _binomial(share, n) for count, n in zip(counts, rows, strict=True)]
    ranges = [abs(after - before) for before, after in pairwise(scores)]
    mean = sum(scores) / len(scores)
    plain = math.sqrt(sum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
    over = max(1.0, sum(ranges) / len(ranges) / 1.128, plain)
    return ProportionBaseline(share, over, _carry(scores, mean), len(counts))


def _carry(scores: Sequence[float], mean: float) -> float:
    """Return the correlation of each score with the next, 0 if it is not significant for so few batches."""
    spread = sum((score - mean) ** 2 for score in scores)
    if spread == 0.0:
        return 0.0
    covariance = sum((before - mean) * (after - mean) for before, after in pairwise(scores))
    found = covariance / spread
    # The estimate lies low by about (1 + 4 phi) / n (Marriott and Pope, Biometrika 41, 1954).
    found += (1.0 + 4.0 * found) / len(scores)
    return min(_STRONGEST, found) if found > 1.0 / math.sqrt(len(scores)) else 0.0


def _binomial(share: float, rows: int) -> float:
    return math.sqrt(share * (1.0 - share) / rows)
