"""Does the challenger fail more often than the champion? An exact test that may be looked at all the time.

In a window of any length the challenger had `n1` units, `x` of them bad, and the champion `n0`, `y` of them
bad. Given the sizes and the total K = x + y, and when both arms are equally likely to fail, x is
hypergeometric *whatever the base rate is*: a surge that hits both arms, a rate that changes with the hour and
a share that is not the configured one cancel out. When the odds ratio is ψ, x has Fisher's noncentral law,
P(x) ∝ C(n1, x) C(n0, K - x) ψ^x, and a bet on "ψ is margin · ω" against "ψ is margin" multiplies its wealth
by

    ω^x · E0[margin^X] / E0[(margin · ω)^X],      X hypergeometric(n1 + n0, n1, K).

Its mean is 1 at ψ = margin, and at most 1 for every smaller ψ (the ratio grows with x, and x is
stochastically smaller). The e-value is the mean wealth over a grid of ω, so no single effect has to be
guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError

Floats = NDArray[np.float64]

BETS: Final = 32
"""How many alternatives are bet on; each more costs the sum over it and gains little."""

SMALLEST_BET: Final = 1.05
LARGEST_BET: Final = 20.0

_LOG_BETS: Final[Floats] = np.linspace(math.log(SMALLEST_BET), math.log(LARGEST_BET), BETS)


@dataclass(frozen=True, slots=True)
class HypergeometricTest:
    """An e-process against "the odds of a bad unit are at most `margin` times the champion's".

    Parameters
    ----------
    margin
        The odds ratio that is tolerated, at least 1. 1.0 means "not worse at all".

    Guarantee: while the null holds, P(`log_e` ever reaches log(1/α)) <= α, whenever and however often one
    looks and whenever one stops (Ville's inequality). Exact in finite samples, for any base rate and any
    realised share.

    Assumptions: units are randomised to the arms, counted once per window, and exchangeable between the arms
    within a window. Count what was randomised: requests of one session are one unit. Within a window the odds
    ratio is one number; across windows it may change.

    Sources: J. ter Schure, M. F. Pérez-Ortiz, A. Ly, P. Grünwald, New Engl. J. Stat. Data Sci. (2024), doi
    10.51387/24-NEJSDS65 (the log-rank form, of which this is the tied, windowed one); R. Turner, P. Grünwald,
    Stat. Probab. Lett. 198 (2023), arXiv 2302.11401 (stratified counts).

    >>> test = HypergeometricTest.begin()
    >>> for _ in range(10):
    ...     test = test.fold(challenger_units=100, challenger_bad=6, champion_units=900, champion_bad=9)
    >>> round(test.log_e, 2), test.log_e >= -math.log(0.01)
    (45.8, True)
    >>> HypergeometricTest.from_state(test.state()) == test
    True
    """

    margin: float
    log_wealth: tuple[float, ...]
    log_e: float  # natural logarithm of the largest e-value reached so far

    @classmethod
    def begin(cls, margin: float = 1.0) -> HypergeometricTest:
        """A test with no evidence. `InputError` HF101 unless `margin` is finite and at least 1."""
        if not (math.isfinite(margin) and margin >= 1.0):
            raise InputError(
                "HF101", f"the tolerated odds ratio is {margin}; it is a finite number of at least 1"
            )
        return cls(margin, (0.0,) * BETS, 0.0)

    def fold(
        self, *, challenger_units: int, challenger_bad: int, champion_units: int, champion_bad: int
    ) -> HypergeometricTest:
        """The test after one more window. A window in which one arm had no unit changes nothing.

        Raises `InputError` HF101 unless 0 <= bad <= units in both arms.
        """
        if not (0 <= challenger_bad <= challenger_units and 0 <= champion_bad <= champion_units):
            raise InputError(
                "HF101",
                f"a window has 0 <= bad <= units, not {challenger_bad} of {challenger_units} "
                f"and {champion_bad} of {champion_units}",
            )
        gain = log_factors(challenger_units, challenger_bad, champion_units, champion_bad, self.margin)
        wealth = np.array(self.log_wealth) + gain
        return replace(self, log_wealth=tuple(wealth.tolist()), log_e=max(self.log_e, _log_mean_exp(wealth)))

    def state(self) -> dict[str, Any]:
        """Everything that the test knows, as plain JSON values."""
        return {
            "kind": "hypergeometric-1",
            "margin": self.margin,
            "log_wealth": list(self.log_wealth),
            "log_e": self.log_e,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> HypergeometricTest:
        """The test that `state()` described; `InputError` HF101 when it is of another kind."""
        if state.get("kind") != "hypergeometric-1" or len(state["log_wealth"]) != BETS:
            raise InputError(
                "HF101", f"this is not the state of a hypergeometric test: {state.get('kind')!r}"
            )
        return cls(float(state["margin"]), tuple(map(float, state["log_wealth"])), float(state["log_e"]))


def log_factors(n1: int, x: int, n0: int, y: int, margin: float) -> Floats:
    """By what each bet's wealth is multiplied by one window: natural logarithms, shape (BETS,).

    >>> log_factors(10, 0, 90, 0, 1.0).any()
    np.False_
    """
    bad = x + y
    if n1 == 0 or n0 == 0 or bad in (0, n1 + n0):
        return np.zeros(BETS)
    values, log_law = _log_hypergeometric(n1, n0, bad)
    log_margin = math.log(margin)
    at_margin = _log_sum_exp(log_law + log_margin * values)
    at_bet = _log_sum_exp(log_law + np.multiply.outer(_LOG_BETS + log_margin, values))
    factors: Floats = _LOG_BETS * x + at_margin - at_bet
    return factors


def _log_hypergeometric(n1: int, n0: int, bad: int) -> tuple[Floats, Floats]:
    """The support of x and its unnormalised log-probabilities, from the ratios of neighbouring terms."""
    lowest, highest = max(0, bad - n0), min(n1, bad)
    values = np.arange(lowest, highest + 1, dtype=np.float64)
    before = values[:-1]
    steps = np.log((n1 - before) * (bad - before)) - np.log((before + 1.0) * (n0 - bad + before + 1.0))
    return values, np.concatenate([[0.0], np.cumsum(steps)])


def _log_sum_exp(terms: Floats) -> Floats:
    top = terms.max(axis=-1, keepdims=True)
    total: Floats = np.log(np.exp(terms - top).sum(axis=-1)) + top[..., 0]
    return total


def _log_mean_exp(terms: Floats) -> float:
    return float(_log_sum_exp(terms)) - math.log(terms.size)
