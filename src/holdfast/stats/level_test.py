"""An always-valid test that the mean loss of one group is at most a fixed level, for when there is no other group.

Losses lie in [0, 1]: 0 or 1 for a good or bad unit, 1 - score for a scored one. A bet against "the mean loss is at
most `level`" stakes the fraction λ of its wealth on each loss and multiplies the wealth by
1 - λ + λ loss / level, which is never below 1 - λ > 0 and has mean at most 1 while the claim is true. The
e-value is the mean wealth over a grid of λ.

The level itself comes from another group's losses, through `upper_level`: by convexity, whatever law on [0, 1]
they have, betting on them as if they were 0 or 1 is fair, so the bound holds at all times at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BETS: Final = 32
"""The number of simultaneous stakes."""

STAKES: Final[Floats] = np.geomspace(0.0005, 0.9, BETS)
"""The fractions of the wealth that are staked, each with an equal part of it."""

_BISECTIONS: Final = 60


def upper_level(total: float, units: int, alpha: float) -> float:
    """Return an upper bound on the mean loss of a group of `units` with the total loss `total`.

    Guarantee: P(the bound is ever below the true mean) <= `alpha`, whenever and however often one looks, for
    losses in [0, 1] that each have this mean given the past. 1.0 without a unit.

    Source: the mixture of the Bernoulli likelihoods over the uniform law, and Ville's inequality, as in H.
    Robbins, Ann. Math. Stat. 41 (1970), doi 10.1214/aoms/1177696786.

    >>> round(upper_level(10, 1000, 0.01), 4), upper_level(0, 0, 0.01)
    (0.0303, 1.0)
    """
    if not (0.0 <= total <= units and 0.0 < alpha < 1.0):
        raise ValueError(f"{units} units lose 0 to {units} together, not {total}; alpha is {alpha}")
    rest = units - total
    mixture = math.lgamma(total + 1.0) + math.lgamma(rest + 1.0) - math.lgamma(units + 2.0)

    def excluded(level: float) -> bool:
        likelihood = (total * math.log(level) if total else 0.0) + (
            rest * math.log1p(-level) if rest else 0.0
        )
        return mixture - likelihood >= -math.log(alpha)

    low, high = (total / units if units else 1.0), 1.0
    if rest <= 0.0:
        return 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if middle >= 1.0 or excluded(middle) else (middle, high)
    return high


def log_mean(log_wealth: Sequence[float]) -> float:
    """Return the natural logarithm of the mean wealth of several bets: their joint current e-value.

    >>> log_mean([0.0, 0.0])
    0.0
    """
    wealth = np.array(log_wealth)
    top = float(wealth.max())
    return top + math.log(float(np.exp(wealth - top).mean()))


@dataclass(frozen=True, slots=True)
class LevelTest:
    """An e-process against "the mean loss is at most `level`".

    Parameters
    ----------
    level
        The mean loss that is tolerated, above 0 and at most 1. A level of 1 tolerates everything.

    Guarantee: while the null holds, P(`log_e` ever reaches log(1/α)) <= α, whenever and however often one
    looks. Exact in finite samples.

    Assumptions: weaker than a comparison's. Given the past, each loss has a mean of at most `level`: a surge
    that would have hit the other group as well is held against this one.

    Source: I. Waudby-Smith, A. Ramdas, J. R. Stat. Soc. B 86 (2024), doi 10.1093/jrsssb/qkad009 (testing by
    betting on bounded means).

    >>> test = LevelTest.begin(0.02).fold_counts(units=20, bad=20)
    >>> round(test.log_e, 1)
    72.7
    """

    level: float
    log_wealth: tuple[float, ...]

    @classmethod
    def begin(cls, level: float) -> LevelTest:
        """Return a test with no evidence. Raises `ValueError` unless 0 < `level` <= 1."""
        if not 0.0 < level <= 1.0:
            raise ValueError(f"the tolerated mean loss is {level}; it is above 0 and at most 1")
        return cls(level, (0.0,) * BETS)

    @property
    def log_e(self) -> float:
        """Return the natural logarithm of the current e-value."""
        return log_mean(self.log_wealth)

    def fold_counts(self, *, units: int, bad: int) -> LevelTest:
        """Return the test after `units` more, `bad` of them bad. Raises `ValueError` unless 0 <= bad <= units."""
        return self._after(count_gains(self.level, units, bad))

    def fold_losses(self, losses: Sequence[float]) -> LevelTest:
        """Return the test after more losses. Raises `ValueError` for one outside [0, 1]."""
        return self._after(loss_gains(self.level, losses))

    def merge(self, other: LevelTest) -> LevelTest:
        """Return the evidence of both tests, as of two servers with different units; the order does not matter.

        Raises `ValueError` when they tolerate different levels.
        """
        if self.level != other.level:
            raise ValueError(f"tests with levels {self.level} and {other.level} do not add up")
        return self._after(np.array(other.log_wealth))

    def _after(self, gains: Floats) -> LevelTest:
        return LevelTest(self.level, tuple((np.array(self.log_wealth) + gains).tolist()))


def count_gains(level: float, units: int, bad: int) -> Floats:
    """Return the log gain of each stake's wealth from `units`, `bad` of them bad, shape (BETS,).

    Raises `ValueError` unless 0 <= bad <= units.
    """
    if not 0 <= bad <= units:
        raise ValueError(f"a window has 0 <= bad <= units, not {bad} of {units}")
    gains: Floats = bad * np.log1p(STAKES * (1.0 / level - 1.0)) + (units - bad) * np.log1p(-STAKES)
    return gains


def loss_gains(level: float, losses: Sequence[float]) -> Floats:
    """Return the log gain of each stake's wealth from `losses`, shape (BETS,).

    Raises `ValueError` for one outside [0, 1].
    """
    found = np.asarray(losses, dtype=np.float64)
    if found.size and not (found.min() >= 0.0 and found.max() <= 1.0):
        raise ValueError("losses lie between 0 and 1")
    gains: Floats = np.log1p(np.multiply.outer(found / level - 1.0, STAKES)).sum(axis=0)
    return gains
