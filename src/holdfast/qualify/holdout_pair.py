"""Predictions of two versions on the held-out days, and the checks that gates share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.qualify.gate_config import Gates
from holdfast.qualify.result import GateResult, gate_result
from holdfast.records import Verdict
from holdfast.stats import paired_auc_difference

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class HoldoutPair:
    """Two versions' probabilities for the same labelled rows, each of shape (N,)."""

    candidate: Scores
    other: Scores
    labels: Labels

    def explain_too_few(self, gates: Gates) -> str:
        """Return why the rows are too few; empty if they are enough."""
        positives = int(self.labels.sum())
        negatives = len(self.labels) - positives
        if len(self.labels) < gates.labelled_rows:
            return f"{len(self.labels)} labelled held-out rows are fewer than {gates.labelled_rows}"
        if min(positives, negatives) < gates.of_each_class:
            needed = gates.of_each_class
            return f"{positives} positive and {negatives} negative held-out rows; {needed} of each are needed"
        return ""

    def explain_invalid(self) -> str:
        """Return why the candidate's predictions are no probabilities; empty if they are."""
        wrong = int((~((self.candidate >= 0.0) & (self.candidate <= 1.0))).sum())
        return f"{wrong} of {len(self.candidate)} predictions are not between 0 and 1" if wrong else ""


class Messages(NamedTuple):
    """The text of each verdict of a gate."""

    passed: str
    failed: str
    inconclusive: str


def reject_pair(gate: str, pair: HoldoutPair | None, gates: Gates) -> GateResult | None:
    """Return the result of a gate whose pair cannot be evaluated; None if it can."""
    if pair is None:
        explanation = "not evaluated: the held-out rows were not predicted by both versions"
        return gate_result(gate, Verdict.INCONCLUSIVE, explanation)
    if reason := pair.explain_invalid():
        return gate_result(gate, Verdict.FAIL, reason)
    if reason := pair.explain_too_few(gates):
        return gate_result(gate, Verdict.INCONCLUSIVE, reason)
    return None


def compare_auc(
    gate: str, pair: HoldoutPair | None, gates: Gates, *, bound: float, messages: Messages
) -> GateResult:
    """Pass if the candidate's AUC minus the other's is surely above `bound`; fail if it surely is not.

    Parameters
    ----------
    gate
        The gate's name.
    pair
        The predictions of both on the newest labelled days; None if one version gave none.
    gates
        The declared limits and the confidence.
    bound
        The AUC difference to exceed, from -1 to 1.
    messages
        The text of each verdict.

    The interval is that of DeLong et al. (1988, doi 10.2307/2531595).
    """
    if rejected := reject_pair(gate, pair, gates):
        return rejected
    assert pair is not None
    difference = paired_auc_difference(pair.candidate, pair.other, pair.labels, gates.confidence)
    if difference.low > bound:
        verdict, message = Verdict.PASS, messages.passed
    elif difference.high <= bound:
        verdict, message = Verdict.FAIL, messages.failed
    else:
        verdict, message = Verdict.INCONCLUSIVE, messages.inconclusive
    return gate_result(
        gate,
        verdict,
        f"{message}: AUC difference {difference} on {len(pair.labels)} rows, needed above {bound:g}",
        observed=difference.estimate,
        low=difference.low,
        high=difference.high,
        bound=bound,
    )
