"""The held-out days as two versions answered them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from holdfast.qualify.gate_config import Gates
from holdfast.stats import Interval, paired_auc_difference

UNANSWERED: Final = "not judged, because the held-out rows were not answered by both versions"

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions' probabilities for the same labelled rows, each of shape (N,)."""

    candidate: Scores
    other: Scores
    labels: Labels

    def too_few(self, gates: Gates) -> str:
        """Why the rows are too few to judge by; empty when they are enough."""
        positives = int(self.labels.sum())
        negatives = len(self.labels) - positives
        if len(self.labels) < gates.labelled_rows:
            return f"{len(self.labels)} labelled held-out rows are fewer than {gates.labelled_rows}"
        if min(positives, negatives) < gates.of_each_class:
            needed = gates.of_each_class
            return f"{positives} positive and {negatives} negative held-out rows; {needed} of each are needed"
        return ""

    def unusable(self) -> str:
        """Why the candidate's answers are no probabilities; empty when they are."""
        wrong = int((~((self.candidate >= 0.0) & (self.candidate <= 1.0))).sum())
        return f"{wrong} of {len(self.candidate)} answers are not between 0 and 1" if wrong else ""

    def difference(self, gates: Gates) -> Interval:
        """AUC of the candidate minus AUC of the other, with the interval of DeLong et al. (1988)."""
        return paired_auc_difference(self.candidate, self.other, self.labels, gates.confidence)
