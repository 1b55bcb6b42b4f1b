"""Questions whose answers a person knows: any version must answer them about right (R83)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InputError
from holdfast.qualify.load_report import Trial
from holdfast.qualify.result import GateResult, judged
from holdfast.records import Verdict

GATE: Final = "golden"


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """One row and the probability that it must get.

    Parameters
    ----------
    name
        What the query is about, in words; failures are reported by it.
    row
        A request's row by column name. Aggregates may be given beside the contract's columns; one that is
        not given is unknown.
    between
        Lowest and highest right answer, within [0, 1].
    value, tolerance
        Instead of `between`: the right answer and how far off it may be.
    owner
        Who vouches for the answer and is asked when it is doubted.
    """

    name: str
    row: Mapping[str, object]
    between: tuple[float, float] | None = None
    value: float | None = None
    tolerance: float | None = None
    owner: str = ""

    def __post_init__(self) -> None:
        by_value = self.value is not None and self.tolerance is not None
        if (self.between is not None) == by_value or (self.value is None) != (self.tolerance is None):
            raise InputError(
                "HF107", f"golden query {self.name!r}: give either between=, or value= and tolerance="
            )
        low, high = self.bounds
        if not all(math.isfinite(end) for end in (low, high)) or low > high or high < 0.0 or low > 1.0:
            raise InputError(
                "HF107", f"golden query {self.name!r}: no probability lies between {low} and {high}"
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest right answer."""
        if self.between is not None:
            return self.between
        assert self.value is not None
        assert self.tolerance is not None
        return self.value - self.tolerance, self.value + self.tolerance


def golden(trial: Trial, queries: Sequence[GoldenQuery]) -> GateResult:
    """Pass when every golden query was answered within its bounds; observed is the number of wrong
    answers."""
    if not trial.loaded:
        return judged(GATE, Verdict.INCONCLUSIVE, "not judged, because the file did not answer")
    if len(trial.golden) != len(queries):
        return judged(
            GATE, Verdict.ERROR, f"{len(trial.golden)} answers came to {len(queries)} golden queries"
        )
    wrong = [
        f"{query.name!r} got {answer:.4f}, right is {query.bounds[0]:.4f} to {query.bounds[1]:.4f}"
        for query, answer in zip(queries, trial.golden, strict=True)
        if not query.bounds[0] <= answer <= query.bounds[1]
    ]
    return judged(
        GATE,
        Verdict.FAIL if wrong else Verdict.PASS,
        "; ".join(wrong) or f"all {len(queries)} golden queries are answered within their bounds",
        observed=float(len(wrong)),
        bound=0.0,
    )
