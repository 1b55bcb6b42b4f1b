"""Are the challenger's scores worse than the champion's? A test for bounded scores, valid at every look.

Scores lie in [0, 1], higher is better. Each difference D = (mean of some challenger scores) - (mean of some
champion scores) lies in [-1, 1]. A gambler who holds "the mean difference is at least -margin" to be false
stakes the fraction λ of her wealth and multiplies it by 1 - λ (D + margin) / (1 + margin), which is never
below 1 - λ > 0 and has mean at most 1 while the claim is true. The e-value is the mean wealth over a grid of
λ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import InputError

Floats = NDArray[np.float64]

BETS: Final = 32
"""How many stakes are played at once."""

_STAKES: Final[Floats] = np.geomspace(0.02, 0.9, BETS)

WAITING_LIMIT: Final = 256
"""How many scores of one arm wait for the other. Older ones are dropped: they compare another time of day."""


@dataclass(frozen=True, slots=True)
class BettingTest:
    """An e-process against "the challenger's mean score is at least the champion's less `margin`".

    Parameters
    ----------
    margin
        The loss of mean score that is tolerated, from 0 to less than 1.

    Guarantee: while the null holds, P(`log_e` ever reaches log(1/α)) <= α, whenever and however often one
    looks. Exact in finite samples; no distribution is assumed, only the bounds.

    Assumptions: units are randomised to the arms; whether and when a label comes does not depend on the arm,
    given the unit; given the past, scores that are compared with one another have the same mean when the arms
    do. Scores are compared in the order in which they come, so that a common drift cancels. How they are
    grouped depends on counts only, never on a score.

    Sources: I. Waudby-Smith, A. Ramdas, J. R. Stat. Soc. B 86 (2024), doi 10.1093/jrsssb/qkad009 (testing by
    betting on bounded means).

    >>> test = BettingTest.begin(margin=0.01)
    >>> for _ in range(60):
    ...     test = test.fold([0.5, 0.7], [0.9, 0.8, 0.8, 1.0])
    >>> round(test.log_e, 2)  # natural logarithm; harm is shown at 4.6 when one run in a hundred may err
    21.87
    >>> BettingTest.from_state(test.state()) == test
    True
    """

    margin: float
    log_wealth: tuple[float, ...]
    log_e: float  # natural logarithm of the largest e-value reached so far
    waiting_challenger: tuple[float, ...] = ()
    waiting_champion: tuple[float, ...] = ()

    @classmethod
    def begin(cls, margin: float = 0.0) -> BettingTest:
        """A test with no evidence. `InputError` HF101 unless 0 <= `margin` < 1."""
        if not 0.0 <= margin < 1.0:
            raise InputError(
                "HF101", f"the tolerated loss of mean score is {margin}; it is at least 0 and below 1"
            )
        return cls(margin, (0.0,) * BETS, 0.0)

    def fold(self, challenger: Sequence[float], champion: Sequence[float]) -> BettingTest:
        """The test after more scores of either arm, each list in the order of time.

        As many differences are formed as the smaller arm has scores; the larger arm's scores are averaged in
        equal runs. Scores of one arm wait while the other has none. Raises `InputError` HF101 for a score
        outside [0, 1].
        """
        ours = (*self.waiting_challenger, *_checked(challenger))
        theirs = (*self.waiting_champion, *_checked(champion))
        if not ours or not theirs:
            return BettingTest(
                self.margin, self.log_wealth, self.log_e, ours[-WAITING_LIMIT:], theirs[-WAITING_LIMIT:]
            )
        pairs = min(len(ours), len(theirs))
        differences = _run_means(ours, pairs) - _run_means(theirs, pairs)
        wealth = np.array(self.log_wealth)
        gains = np.log1p(np.multiply.outer(-(differences + self.margin) / (1.0 + self.margin), _STAKES))
        path = wealth + np.cumsum(gains, axis=0)
        return BettingTest(
            self.margin, tuple(path[-1].tolist()), max(self.log_e, float(_log_mean_exp(path).max()))
        )

    def state(self) -> dict[str, Any]:
        """Everything that the test knows, as plain JSON values."""
        return {
            "kind": "betting-1",
            "margin": self.margin,
            "log_wealth": list(self.log_wealth),
            "log_e": self.log_e,
            "waiting_challenger": list(self.waiting_challenger),
            "waiting_champion": list(self.waiting_champion),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> BettingTest:
        """The test that `state()` described; `InputError` HF101 when it is of another kind."""
        if state.get("kind") != "betting-1" or len(state["log_wealth"]) != BETS:
            raise InputError("HF101", f"this is not the state of a betting test: {state.get('kind')!r}")
        return cls(
            float(state["margin"]),
            tuple(map(float, state["log_wealth"])),
            float(state["log_e"]),
            tuple(map(float, state["waiting_challenger"])),
            tuple(map(float, state["waiting_champion"])),
        )


def _checked(scores: Sequence[float]) -> list[float]:
    # The comparison is written so that NaN fails it.
    for score in scores:
        if not 0.0 <= score <= 1.0:
            raise InputError("HF101", f"a quality score is {score}; scores lie between 0 and 1")
    return [float(score) for score in scores]


def _run_means(scores: Sequence[float], runs: int) -> Floats:
    """Means of `runs` successive runs of nearly equal length, shape (runs,)."""
    starts = np.arange(runs) * len(scores) // runs
    lengths = np.diff(np.append(starts, len(scores)))
    means: Floats = np.add.reduceat(np.asarray(scores, dtype=np.float64), starts) / lengths
    return means


def _log_mean_exp(terms: Floats) -> Floats:
    top = terms.max(axis=-1, keepdims=True)
    mean: Floats = np.log(np.exp(terms - top).mean(axis=-1)) + top[..., 0]
    return mean
