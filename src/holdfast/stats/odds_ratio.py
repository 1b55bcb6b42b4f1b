"""A likelihood of an odds ratio, kept as a vector, from which a test and an interval are read.

Each window gives a count x whose law, once what is no evidence about the arms is conditioned away, is an exponential
family in the odds ratio ψ: P(x; ψ) = h(x) ψ^x / Z(ψ). What is kept is

    L(ψ) = Σ over windows of  x ln ψ - ln Z(ψ)        (with Z(1) = 1)

at some odds ratios ψ = margin · ρ. Likelihoods are multiplied, so the vectors of several servers add up, in any order.

* Harm: for ρ > 1, exp(L(margin · ρ) - L(margin)) is the wealth of a bet on "ψ is margin · ρ" against "ψ is
  margin". Its mean is 1 at ψ = margin, and at most 1 for every smaller ψ (the ratio grows with x, and x is
  stochastically smaller), also when ψ changes from window to window. A weighted mean over ρ is the e-value, so that no
  single effect has to be guessed.
* Interval: for each ψ, the mean over all ρ of exp(L(margin · ρ) - L(ψ)) is an e-value against "the odds ratio is ψ"; the
  interval holds the ψ for which it is below 1/α. L is concave in ln ψ, so between the points that are kept it lies below
  the lines through their neighbours: the interval that is read is never too narrow.

Sources: J. ter Schure, M. F. Pérez-Ortiz, A. Ly, P. Grünwald, New Engl. J. Stat. Data Sci. (2024), doi
10.51387/24-NEJSDS65 (the log-rank form); R. Turner, P. Grünwald, Stat. Probab. Lett. 198 (2023), arXiv 2302.11401
(stratified counts, intervals).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from holdfast.stats.interval import Interval

Floats = NDArray[np.float64]

_BETS: Final[dict[int, float]] = {
    1: 0.01, 2: 0.01, 3: 0.01, 4: 0.01, 6: 0.01, 8: 0.02, 12: 0.20, 16: 0.10, 20: 0.04,
    24: 0.10, 28: 0.34, 32: 0.08, 36: 0.02, 40: 0.02, 44: 0.01, 48: 0.01, 52: 0.01,
}  # fmt: skip
"""The stake on each odds ratio above the margin, the ratio in twelfths of a doubling (12 is 2, 28 is 5.04).

Most lies on twofold and fivefold harm, which are to be found soonest; the rest is spread from 6 % to twentyfold, so that
every harm is found in the end, though what is worse by a few percent only after very many units.
"""

_TWELFTHS: Final = tuple(sorted(_BETS))
LOG_RATIOS: Final[Floats] = (
    np.array([*(-each for each in reversed(_TWELFTHS)), 0, *_TWELFTHS]) * math.log(2.0) / 12.0
)
"""Natural logarithms of the odds ratios, in units of the margin, at which the likelihood is kept: 1/20 to 20."""

LOG_STAKES: Final[Floats] = np.log([_BETS[each] for each in _TWELFTHS])
_MARGIN_AT: Final = len(_TWELFTHS)
BET_RATIOS: Final[Floats] = LOG_RATIOS[_MARGIN_AT:]
"""The ratios from the margin on: 1 to 20."""


@dataclass(frozen=True, slots=True)
class OddsTest:
    """The evidence about an odds ratio; each subclass defines a window and its assumptions.

    `margin` is the tolerated odds ratio, at least 1; `log_likelihood` is L at `margin` times each of the kept ratios.
    """

    margin: float
    log_likelihood: tuple[float, ...]

    @classmethod
    def begin(cls, margin: float = 1.0) -> Self:
        """Return a test with no evidence. Raises `ValueError` unless `margin` is finite and at least 1."""
        if not (math.isfinite(margin) and margin >= 1.0):
            raise ValueError(f"the tolerated odds ratio is {margin}; it is a finite number of at least 1")
        return cls(margin, (0.0,) * LOG_RATIOS.size)

    @property
    def log_e(self) -> float:
        """Return the natural logarithm of the current e-value against "the odds ratio is at most `margin`"."""
        return float(log_e_values(np.array(self.log_likelihood)))

    def interval(self, alpha: float = 0.05) -> Interval:
        """Return the odds ratio with an always-valid interval; from 0 to infinity without evidence.

        Guarantee: if the odds ratio is the same in every window, P(any interval ever read misses it) <= `alpha`. Raises
        `ValueError` unless 0 < `alpha` < 1.
        """
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha lies between 0 and 1, and it is {alpha}")
        kept = np.array(self.log_likelihood)
        at = LOG_RATIOS + math.log(self.margin)
        needed = _log_mean_exp(kept) + math.log(alpha)
        low, high = _bounds_above(at, kept, needed)
        estimate = min(max(_estimate_peak(at, kept), low), high)
        return Interval(math.exp(estimate), math.exp(low), math.exp(high))

    def merge(self, other: Self) -> Self:
        """Return the evidence of both tests, as of two servers with different units; the order does not matter.

        Raises `ValueError` when they tolerate different odds ratios.
        """
        if self.margin != other.margin:
            raise ValueError(f"tests with margins {self.margin} and {other.margin} do not add up")
        return self._after(np.array(other.log_likelihood))

    @property
    def _log_odds(self) -> Floats:
        odds: Floats = LOG_RATIOS + math.log(self.margin)
        return odds

    def _after(self, gain: Floats) -> Self:
        kept = np.array(self.log_likelihood) + gain
        return replace(self, log_likelihood=tuple(kept.tolist()))


def log_e_values(log_likelihood: Floats) -> Floats:
    """Return the e-values of likelihoods of shape (..., number of kept ratios), as natural logarithms of shape (...)."""
    return log_e_values_of_bets(log_likelihood[..., _MARGIN_AT:])


def log_e_values_of_bets(log_likelihood: Floats) -> Floats:
    """Return the same of likelihoods at `BET_RATIOS` alone: what an e-value needs, and an interval does not."""
    return log_sum_exp(log_likelihood[..., 1:] - log_likelihood[..., :1] + LOG_STAKES)


def binomial_gain(x: int, n: int, odds: float, log_odds: Floats) -> Floats:
    """Return x ln ψ - ln Z(ψ) for x of `n` of the first kind, each with odds ψ · `odds`, at ln ψ = `log_odds`.

    Parameters
    ----------
    x, n
        Count of the first kind, and of both kinds together.
    odds
        The odds of the first kind at ψ = 1, above 0.
    log_odds
        Shape (K,).
    """
    gain: Floats = x * log_odds - n * (np.log1p(odds * np.exp(log_odds)) - math.log1p(odds))
    return gain


def _bounds_above(at: Floats, kept: Floats, needed: float) -> tuple[float, float]:
    """Return the ends of the range outside which a concave function with these values is surely below `needed`.

    On each gap between two points the function lies below both lines that continue the neighbouring gaps. Outside all
    points it lies below the line of the outermost gap.
    """
    slopes = np.diff(kept) / np.diff(at)
    ends: list[tuple[float, float]] = [(x, x) for x, y in zip(at, kept, strict=True) if y > needed]
    for gap in range(slopes.size):
        low, high = float(at[gap]), float(at[gap + 1])
        if gap > 0:
            low, high = _clip_to_line(low, high, low, float(kept[gap]), float(slopes[gap - 1]), needed)
        if gap + 1 < slopes.size:
            low, high = _clip_to_line(
                low, high, float(at[gap + 1]), float(kept[gap + 1]), float(slopes[gap + 1]), needed
            )
        if low < high:
            ends.append((low, high))
    ends.append(
        _clip_to_line(-math.inf, float(at[0]), float(at[0]), float(kept[0]), float(slopes[0]), needed)
    )
    ends.append(
        _clip_to_line(float(at[-1]), math.inf, float(at[-1]), float(kept[-1]), float(slopes[-1]), needed)
    )
    found = [each for each in ends if each[0] <= each[1]]
    return min(low for low, _ in found), max(high for _, high in found)


def _clip_to_line(
    low: float, high: float, x: float, y: float, slope: float, needed: float
) -> tuple[float, float]:
    """Return the part of `low` to `high` on which the line through (x, y) is at least `needed`."""
    if slope == 0.0:
        return (low, high) if y >= needed else (math.inf, -math.inf)
    crossing = x + (needed - y) / slope
    return (max(low, crossing), high) if slope > 0.0 else (low, min(high, crossing))


def _estimate_peak(at: Floats, kept: Floats) -> float:
    """Return the maximum of the parabola through the highest value and its neighbours."""
    best = int(np.clip(kept.argmax(), 1, kept.size - 2))
    if kept[best] == kept[_MARGIN_AT] == kept[best - 1]:
        return 0.0  # nothing is known
    second, first, _ = np.polyfit(at[best - 1 : best + 2], kept[best - 1 : best + 2], 2)
    return (
        float(np.clip(-first / (2.0 * second), at[best - 1], at[best + 1]))
        if second < 0.0
        else float(at[best])
    )


def log_sum_exp(terms: Floats) -> Floats:
    """Return the logarithm of the sum of exponentials along the last axis, without overflow."""
    top = terms.max(axis=-1, keepdims=True)
    total: Floats = np.log(np.exp(terms - top).sum(axis=-1)) + top[..., 0]
    return total


def _log_mean_exp(terms: Floats) -> float:
    return float(log_sum_exp(terms)) - math.log(terms.size)
