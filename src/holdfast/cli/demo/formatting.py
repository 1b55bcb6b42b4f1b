"""Format what the demonstration shows: wrapped lines, the steps of a back-out, a version's AUC."""

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
    WithdrawPublished,
    explain,
)

WIDTH: Final = 100
"""The width that long lines are wrapped to, in characters."""

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
    WithdrawPublished: "exported tables",
    ListPredictions: "predictions",
    ListFeedback: "labels",
    Retrain: "train again",
}
"""The subject of each step of a back-out."""


def wrapped(head: str, text: str) -> list[str]:
    """Return `head` and `text` in lines of at most `WIDTH` characters, indented under the head.

    >>> wrapped("  pass  ", "all 7 gates")
    ['  pass  all 7 gates']
    """
    first, *others = textwrap.wrap(text, WIDTH - len(head)) or [""]
    return [head + first, *(" " * len(head) + line for line in others)]


def steps_of(plan: BackoutPlan) -> list[tuple[int, str, str]]:
    """Return the steps of a back-out, numbered, with subject and the text that `holdfast backout` shows."""
    lines = ((NAMES[type(step)], text) for step in plan.steps for text in explain([step]))
    return [(number, *line) for number, line in enumerate(lines, start=1)]


def held_out_auc(gates: Sequence[GateResult]) -> tuple[float | None, float | None]:
    """Return the AUC of the version on the held-out days, and that of its heuristic."""
    observed = {result.gate: result.observed for result in gates}
    own, margin = observed.get("objective"), observed.get("baseline")
    return own, None if own is None or margin is None else own - margin


def listed(reasons: Mapping[str, int]) -> str:
    """Return each reason with its count."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items())) or "none"
