"""How the demonstration words what it shows: lines that fit a terminal, the steps of a back-out, a version's AUC."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from holdfast.qualify import GateResult
from holdfast.tables.backout import (
    BackoutPlan,
    CancelRollout,
    FailOver,
    KeepLastResort,
    ListFeedback,
    ListPredictions,
    RecomputeOnline,
    RemoveRows,
    ReplaceFallbacks,
    Retrain,
    Step,
    SuspectLoad,
    TaintSnapshots,
    TaintVersions,
    explain,
)

WIDTH: Final = 100
"""Columns of the terminal that long lines are broken for."""

NAMES: Final[Mapping[type[Step], str]] = {
    RemoveRows: "rows",
    RecomputeOnline: "online values",
    SuspectLoad: "references",
    TaintSnapshots: "snapshots",
    TaintVersions: "versions",
    CancelRollout: "traffic",
    FailOver: "traffic",
    KeepLastResort: "traffic",
    ReplaceFallbacks: "traffic",
    ListPredictions: "answers",
    ListFeedback: "labels",
    Retrain: "train again",
}
"""What each step of a back-out is about."""


def wrapped(head: str, words: str) -> list[str]:
    """`head` and `words` in lines of at most `WIDTH` columns, broken between words; what follows goes on under itself.

    >>> wrapped("  pass  ", "all 7 gates")
    ['  pass  all 7 gates']
    """
    first, *others = textwrap.wrap(words, WIDTH - len(head)) or [""]
    return [head + first, *(" " * len(head) + line for line in others)]


def steps_of(plan: BackoutPlan) -> list[tuple[int, str, str]]:
    """The steps of a back-out, numbered and each with its subject, in the words that `holdfast backout` has for them."""
    lines = ((NAMES[type(step)], words) for step in plan.steps for words in explain([step]))
    return [(number, *line) for number, line in enumerate(lines, start=1)]


def held_out_auc(gates: Sequence[GateResult]) -> tuple[float | None, float | None]:
    """The version's AUC on the held-out days, and its heuristic's."""
    observed = {result.gate: result.observed for result in gates}
    own, ahead = observed.get("objective"), observed.get("baseline")
    return own, None if own is None or ahead is None else own - ahead


def listed(reasons: Mapping[str, int]) -> str:
    """Each reason with its count."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items())) or "none"
