"""The gate `check_objective`: compare the candidate with its declared objective on held-out days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from holdfast.errors import InputError
from holdfast.qualify.gate_config import Gates
from holdfast.qualify.holdout_pair import HoldoutPair, reject_pair
from holdfast.qualify.result import GateResult
from holdfast.records import Verdict
from holdfast.stats import auc_interval, mean_interval

GATE: Final = "objective"

Metric = Literal["auc", "brier"]


@dataclass(frozen=True, slots=True)
class Objective:
    """The quality that the model must reach, before and in production.

    Parameters
    ----------
    metric
        "auc", higher is better, or "brier", lower is better; both in [0, 1].
    at_least, at_most
        The bound: `at_least` for "auc", `at_most` for "brier".

    Raises `InputError` HF107 if the bound is of the wrong side or out of range.
    """

    metric: Metric
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            raise InputError(
                "HF107", f"the objective's metric is {self.metric!r}: use {' or '.join(get_args(Metric))}"
            )
        side, right, wrong = (
            ("at_least", self.at_least, self.at_most)
            if self.metric == "auc"
            else ("at_most", self.at_most, self.at_least)
        )
        if right is None or wrong is not None or not 0.0 <= right <= 1.0:
            raise InputError(
                "HF107", f"the objective for {self.metric} needs {side}, in [0, 1], and nothing else"
            )

    @property
    def bound(self) -> float:
        """Return the bound of either side."""
        return self.at_least if self.at_least is not None else (self.at_most or 0.0)


def check_objective(pair: HoldoutPair | None, declared: Objective, gates: Gates) -> GateResult:
    """Fail if the candidate surely misses its objective on the newest labelled days.

    Parameters
    ----------
    pair
        The candidate's predictions (the other's are not used); None if there are none.
    declared
        The objective that the model declares.
    gates
        The declared limits and the confidence.

    An estimate that reaches the bound passes. One that does not, but whose interval does, is inconclusive, which does
    not qualify. The interval of AUC is DeLong's (1988, doi 10.2307/2531595), that of the Brier score the normal one
    of a mean.
    """
    if rejected := reject_pair(GATE, pair, gates):
        return rejected
    assert pair is not None
    bound = declared.bound
    if declared.metric == "auc":
        own = auc_interval(pair.candidate, pair.labels, gates.confidence)
        is_reached, is_possible, side = own.estimate >= bound, own.high >= bound, "at least"
    else:
        own = mean_interval((pair.candidate - pair.labels) ** 2, gates.confidence)
        is_reached, is_possible, side = own.estimate <= bound, own.low <= bound, "at most"
    if is_reached:
        verdict, message = Verdict.PASS, "reaches the objective"
    elif is_possible:
        verdict, message = Verdict.INCONCLUSIVE, "does not surely reach the objective"
    else:
        verdict, message = Verdict.FAIL, "misses the objective"
    return GateResult(
        GATE,
        verdict,
        f"{message}: {declared.metric} {own} on {len(pair.labels)} rows, needed {side} {bound:g}",
        observed=own.estimate,
        low=own.low,
        high=own.high,
        bound=bound,
    )
