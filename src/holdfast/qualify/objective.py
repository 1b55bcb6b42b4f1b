"""The gate `check_objective`: compare the candidate with its declared objective on held-out days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.formatting import counted
from holdfast.qualify.gate_config import Gates
from holdfast.qualify.holdout_pair import HoldoutPair, reject_pair
from holdfast.qualify.result import GateResult
from holdfast.records import Verdict
from holdfast.stats import Interval, auc_interval, mean_interval

GATE: Final = "objective"

Metric = Literal["auc", "brier"]

_RESULTS: Final = {
    Verdict.PASS: "reaches the objective",
    Verdict.INCONCLUSIVE: "does not surely reach the objective",
    Verdict.FAIL: "misses the objective",
}


@dataclass(frozen=True, slots=True)
@checked()
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


@dataclass(frozen=True, slots=True)
class ObjectiveComparison:
    """Quality that was observed on `rows` labelled predictions, compared with an objective.

    The verdict is pass if the estimate reaches the bound, fail if the whole interval misses it, else inconclusive: an
    estimate that misses it may be there by chance.
    """

    metric: str
    bound: float
    observed: Interval
    rows: int
    verdict: Verdict

    def __str__(self) -> str:
        """Return the comparison in words.

        >>> str(compare_with_objective(Objective("auc", at_least=0.6), Interval(0.55, 0.5, 0.59), 400))
        'misses the objective: auc 0.5500 [0.5000, 0.5900] on 400 rows, needed at least 0.6'
        """
        needed = f"needed {self.side} {self.bound:g}"
        return f"{_RESULTS[self.verdict]}: {self.metric} {self.observed} on {counted(self.rows, 'row')}, {needed}"

    @property
    def side(self) -> str:
        """Return on which side of the bound the quality must be."""
        return "at least" if self.metric == "auc" else "at most"


def compare_with_objective(objective: Objective, observed: Interval, rows: int) -> ObjectiveComparison:
    """Compare quality with the objective: the one rule, of the gate and of production.

    Parameters
    ----------
    objective
        The declared objective.
    observed
        The metric of the objective with its interval.
    rows
        The number of labelled predictions that it was computed from.

    >>> compare_with_objective(Objective("brier", at_most=0.2), Interval(0.21, 0.19, 0.23), 900).verdict
    <Verdict.INCONCLUSIVE: 'inconclusive'>
    """
    bound = objective.bound
    if objective.metric == "auc":
        is_reached, is_possible = observed.estimate >= bound, observed.high >= bound
    else:
        is_reached, is_possible = observed.estimate <= bound, observed.low <= bound
    verdict = Verdict.PASS if is_reached else Verdict.INCONCLUSIVE if is_possible else Verdict.FAIL
    return ObjectiveComparison(objective.metric, bound, observed, rows, verdict)


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
    own = (
        auc_interval(pair.candidate, pair.labels, gates.confidence)
        if declared.metric == "auc"
        else mean_interval((pair.candidate - pair.labels) ** 2, gates.confidence)
    )
    found = compare_with_objective(declared, own, len(pair.labels))
    return GateResult(
        GATE, found.verdict, str(found), observed=own.estimate, low=own.low, high=own.high, bound=found.bound
    )
