"""What is said of one metric of a rollout, with the numbers that it rests on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.records import Verdict
from holdfast.rollout.evidence import slices
from holdfast.rollout.model.metric import QUALITY, RATE, SLICES, MetricState
from holdfast.rollout.model.policy import Canary


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """One metric's verdict with the numbers that it rests on; `wanting` says what is still too little."""

    metric: str
    verdict: Verdict
    units: int
    needed: int
    log_e: float
    log_bound: float
    wanting: str


Verdicts: TypeAlias = tuple[MetricVerdict, ...]


def judge(state: MetricState, policy: Canary) -> MetricVerdict:
    """The verdict of one metric at the current step. Too few units of either side are inconclusive, never a
    pass; nor is a guard of slices that has seen no unit by one of its columns."""
    needed = policy.labels_per_step if state.metric == QUALITY else policy.units_per_step
    if state.metric == RATE:
        return _judge_rate(state)
    units = state.challenger_units_this_step
    wanting = ""
    if units < needed:
        wanting = f"{units} of {needed} units for {state.metric}"
    elif state.champion_units < needed:
        wanting = f"{state.champion_units} of {needed} units of the champion for {state.metric}"
    if state.metric == SLICES:  # nobody waits for every slice: the rare ones may never come
        unseen = slices.unseen(json.loads(state.state), policy.slices)
        by = " or ".join(unseen)
        wanting = f"no unit in any slice by {by}" if unseen else wanting
    if state.told:
        wanting = "the mean score is below what the champion showed, as of a world that got harder"
    if state.harmful:
        verdict = Verdict.FAIL
    elif wanting or 0 in (state.challenger_units, state.champion_units):
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS
    return MetricVerdict(state.metric, verdict, units, needed, state.log_e, state.log_bound, wanting)


def _judge_rate(state: MetricState) -> MetricVerdict:
    """A rate that changed is told and makes a watch inconclusive; it is nobody's harm."""
    changed = "the rate of requests has changed" if state.harmful else ""
    verdict = Verdict.INCONCLUSIVE if changed or not state.champion_units else Verdict.PASS
    return MetricVerdict(
        state.metric, verdict, state.challenger_units, 0, state.log_e, state.log_bound, changed
    )


def harm_of(evidence: Sequence[MetricState], verdicts: Verdicts) -> str:
    """Which metrics show harm, with their numbers; empty when none does. `verdicts` are those of `evidence`, in order."""
    return "; ".join(
        _harm_in_words(state)
        for state, verdict in zip(evidence, verdicts, strict=True)
        if verdict.verdict is Verdict.FAIL
    )


def _harm_in_words(state: MetricState) -> str:
    if state.metric == SLICES:
        shown = slices.shown_by(json.loads(state.state), state.log_bound)
        return "harm to " + "; ".join(str(each) for each in shown if each.log_e >= each.log_bound)
    strength = f"ln e-value {state.log_e:.1f} >= {state.log_bound:.1f}"
    if state.metric == QUALITY:
        ours = state.challenger_total / max(1, state.challenger_units)
        theirs = state.champion_total / max(1, state.champion_units)
        return (
            f"harm to quality: mean score {ours:.4f} of {state.challenger_units} labelled units, "
            f"champion {theirs:.4f} of {state.champion_units} ({strength})"
        )
    return (
        f"harm to {state.metric}: {state.challenger_total:.0f} of {state.challenger_units} units bad, "
        f"champion {state.champion_total:.0f} of {state.champion_units} ({strength})"
    )
