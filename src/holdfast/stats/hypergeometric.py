"""An exact always-valid test that the challenger fails no more often than the champion.

In a window of any length the challenger had `n1` units, `x` of them bad, and the champion `n0`, `y` of them
bad. Given the sizes and the total K = x + y, and when both arms are equally likely to fail, x is
hypergeometric *whatever the base rate is*: a surge that hits both arms, a rate that changes with the hour and
a share that is not the configured one cancel out. When the odds ratio is ψ, x has Fisher's noncentral law,
P(x) ∝ C(n1, x) C(n0, K - x) ψ^x, so that Z(ψ) = E0[ψ^X] with X hypergeometric(n1 + n0, n1, K); what follows
from that is in `holdfast.stats.odds_ratio`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from holdfast.stats.odds_ratio import BET_RATIOS, Floats, OddsTest, log_e_values_of_bets, log_sum_exp

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HypergeometricTest(OddsTest):
    """An e-process against "the odds of a bad unit are at most `margin` times the champion's".

    Parameters
    ----------
    margin
        The odds ratio that is tolerated, at least 1. 1.0 means "not worse at all".

    Guarantee: while the null holds, P(`log_e` ever reaches log(1/α)) <= α, whenever and however often one
    looks and whenever one stops (Ville's inequality). Exact in finite samples, for any base rate and any
    realised share. `interval` covers at every look.

    Assumptions: units are randomised to the arms, counted once per window, and exchangeable between the arms
    within a window. Count what was randomised: requests of one session are one unit. Within a window the odds
    ratio is one number; across windows it may change (for `interval` it is one number throughout).

    >>> test = HypergeometricTest.begin()
    >>> for _ in range(10):
    ...     test = test.fold(challenger_units=100, challenger_bad=6, champion_units=900, champion_bad=9)
    >>> round(test.log_e, 1)  # harm is shown at 4.6 when one run in a hundred may err
    46.3
    >>> print(test.interval())
    6.2873 [3.4056, 11.5326]
    """

    def fold(
        self, *, challenger_units: int, challenger_bad: int, champion_units: int, champion_bad: int
    ) -> Self:
        """Return the test after one more window. A window without a unit in one arm has no effect.

        Parameters
        ----------
        challenger_units, challenger_bad
            Units of the challenger in the window, and how many of them were bad.
        champion_units, champion_bad
            The same of the champion.

        Raises `ValueError` unless 0 <= bad <= units in both arms.
        """
        if not (0 <= challenger_bad <= challenger_units and 0 <= champion_bad <= champion_units):
            raise ValueError(
                f"a window has 0 <= bad <= units, not {challenger_bad} of {challenger_units} "
                f"and {champion_bad} of {champion_units}",
            )
        return self._after(
            log_factors(challenger_units, challenger_bad, champion_units, champion_bad, self._log_odds)
        )


def log_factors(n1: int, x: int, n0: int, y: int, log_odds: Floats) -> Floats:
    """Return the contribution of one window to L at each ln ψ of `log_odds`.

    Parameters
    ----------
    n1, n0
        Units of the challenger and of the champion in the window.
    x, y
        Bad units of either.
    log_odds
        Shape (K,).

    >>> log_factors(10, 0, 90, 0, np.array([0.1, 0.2])).any()
    np.False_
    """
    bad = x + y
    if n1 == 0 or n0 == 0 or bad in (0, n1 + n0):
        return np.zeros(log_odds.size)
    factors: Floats = log_odds * x - log_mean_powers(n1, n0, bad, log_odds)
    return factors


def log_mean_powers(n1: int, n0: int, bad: int, log_odds: Floats) -> Floats:
    """Return ln E0[ψ^X] for X hypergeometric(n1 + n0, n1, bad), at each ln ψ of `log_odds`.

    Parameters
    ----------
    n1, n0
        Units of the challenger and of the champion in the window.
    bad
        Bad units of both together.
    log_odds
        Shape (K,).
    """
    values, log_law = _log_hypergeometric(n1, n0, bad)
    powers: Floats = log_sum_exp(log_law + np.multiply.outer(log_odds, values)) - log_sum_exp(log_law)
    return powers


def log_e_paths(
    challenger_units: Counts,
    challenger_bad: Counts,
    champion_units: Counts,
    champion_bad: Counts,
    margin: float,
) -> Floats:
    """Return `log_e` after each window of many runs at once, equal to folding them one by one.

    The result has shape (runs, windows).

    Parameters
    ----------
    challenger_units, champion_units
        Units by window, shape (runs, windows).
    challenger_bad, champion_bad
        Bad units among them, shape (runs, windows).
    margin
        The tolerated odds ratio, at least 1.

    >>> one = np.array([[100, 100]])
    >>> log_e_paths(one, one // 20, 9 * one, one // 10, 1.0).round(3).tolist()
    [[2.715, 5.622]]
    """
    log_odds = BET_RATIOS + np.log(margin)
    bad = challenger_bad + champion_bad
    units = challenger_units + champion_units
    # A window without information is kept as one without units.
    informative = (challenger_units > 0) & (champion_units > 0) & (bad > 0) & (bad < units)
    names = (challenger_units * (champion_units.max() + 1) + champion_units) * (bad.max() + 1) + bad
    _, first, kind = np.unique(np.where(informative, names, -1), return_index=True, return_inverse=True)
    sizes = np.stack([challenger_units, champion_units, np.where(informative, bad, 0)], axis=-1).reshape(
        -1, 3
    )[first]
    powers = np.stack([_powers(int(n1), int(n0), int(total), log_odds) for n1, n0, total in sizes])
    gains = np.where(informative, challenger_bad, 0).reshape(-1, 1) * log_odds - powers[kind.reshape(-1)]
    return log_e_values_of_bets(np.cumsum(gains.reshape(*bad.shape, -1), axis=1))


def _powers(n1: int, n0: int, bad: int, log_odds: Floats) -> Floats:
    return log_mean_powers(n1, n0, bad, log_odds) if bad else np.zeros(log_odds.size)


def _log_hypergeometric(n1: int, n0: int, bad: int) -> tuple[Floats, Floats]:
    """Return the support of x and its unnormalised log-probabilities, from the ratios of neighbouring terms."""
    lowest, highest = max(0, bad - n0), min(n1, bad)
    values = np.arange(lowest, highest + 1, dtype=np.float64)
    before = values[:-1]
    steps = np.log((n1 - before) * (bad - before)) - np.log((before + 1.0) * (n0 - bad + before + 1.0))
    return values, np.concatenate([[0.0], np.cumsum(steps)])
