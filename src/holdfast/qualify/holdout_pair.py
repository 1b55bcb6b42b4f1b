"""Predictions of two versions on the held-out days, and what every gate that takes them checks first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.qualify.gate_config import Gates
from holdfast.qualify.result import GateResult
from holdfast.records import Verdict

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


def reject_pair(gate: str, pair: HoldoutPair | None, gates: Gates) -> GateResult | None:
    """Return the result of a gate whose pair cannot be evaluated; None if it can."""
    if pair is None:
        explanation = "not evaluated: the held-out rows were not predicted by both versions"
        return GateResult(gate, Verdict.INCONCLUSIVE, explanation)
    if reason := pair.explain_invalid():
        return GateResult(gate, Verdict.FAIL, reason)
    if reason := pair.explain_too_few(gates):
        return GateResult(gate, Verdict.INCONCLUSIVE, reason)
    return None
