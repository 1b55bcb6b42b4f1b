"""The gate `check_golden`: queries with known predictions, which every version must meet (R83)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.formatting import counted
from holdfast.qualify.load_test import LoadReport
from holdfast.qualify.result import GateResult
from holdfast.records import Verdict, sha256_hex

GATE: Final = "golden"


@dataclass(frozen=True, slots=True)
@checked()
class GoldenQuery:
    """One row and the probability that it must get.

    Parameters
    ----------
    name
        The subject of the query; failures are reported by it.
    row
        A request's row by column name. Aggregates may be given in addition to the contract's columns; others are unknown.
    between
        Lowest and highest correct prediction, within [0, 1].
    value, tolerance
        Instead of `between`: the correct prediction and the largest deviation.
    owner
        The person to ask about the prediction.
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
        """Return the lowest and highest correct prediction."""
        if self.between is not None:
            return self.between
        assert self.value is not None
        assert self.tolerance is not None
        return self.value - self.tolerance, self.value + self.tolerance


def set_id(queries: Sequence[GoldenQuery]) -> str:
    """Return the version of a set of golden queries: g- and 12 digits of the digest of its rows, bounds and owners.

    >>> one = GoldenQuery("far", {"km": 900.0}, between=(0.5, 1.0))
    >>> set_id([one]) == set_id([GoldenQuery("far", {"km": 900.0}, value=0.75, tolerance=0.25)]), set_id([one]) == set_id([])
    (True, False)
    """
    parts = [(each.name, sorted(each.row.items()), each.bounds, each.owner) for each in queries]
    return f"g-{sha256_hex(repr(parts))[:12]}"


def check_golden(report: LoadReport, queries: Sequence[GoldenQuery]) -> GateResult:
    """Pass if every golden query was predicted within its bounds; `observed` is the number of wrong predictions."""
    if not report.loaded:
        return GateResult(GATE, Verdict.INCONCLUSIVE, "not evaluated: the file gave no prediction")
    if len(report.golden) != len(queries):
        why = f"{counted(len(report.golden), 'prediction', 'was', 'were')} given for {len(queries)} golden queries"
        return GateResult(GATE, Verdict.ERROR, why)
    wrong = wrong_predictions(queries, report.golden)
    return GateResult(
        GATE,
        Verdict.FAIL if wrong else Verdict.PASS,
        f"of the set {set_id(queries)}: {'; '.join(wrong)}"
        if wrong
        else f"all {len(queries)} golden queries of the set {set_id(queries)} are within their bounds",
        observed=float(len(wrong)),
        bound=0.0,
    )


def wrong_predictions(queries: Sequence[GoldenQuery], predictions: Sequence[float]) -> list[str]:
    """Return each query whose prediction lies outside its bounds, in words; `predictions` are in the order of `queries`.

    >>> wrong_predictions([GoldenQuery("far", {}, between=(0.5, 1.0))], [0.25])
    ["'far' got 0.2500, correct is 0.5000 to 1.0000"]
    """
    return [
        f"{query.name!r} got {prediction:.4f}, correct is {query.bounds[0]:.4f} to {query.bounds[1]:.4f}"
        for query, prediction in zip(queries, predictions, strict=True)
        if not query.bounds[0] <= prediction <= query.bounds[1]
    ]
