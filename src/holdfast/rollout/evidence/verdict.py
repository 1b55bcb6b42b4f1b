"""Judge one metric of a rollout, with the numbers that the verdict rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.records import Verdict
from holdfast.rollout.evidence import slices
from holdfast.rollout.evidence.records import MetricState, SliceEvidence
from holdfast.rollout.model.metric import QUALITY, RATE
from holdfast.rollout.model.policy import Canary


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """One metric's verdict with the numbers that it rests on; `wanting` names what is still missing, in words."""

    metric: str
    verdict: Verdict
    units: int
    needed: int
    log_e: float
    log_bound: float
    wanting: str


Verdicts: TypeAlias = tuple[MetricVerdict, ...]


def judge(state: MetricState, policy: Canary) -> MetricVerdict:
    """Return the verdict of one metric at the current step.

    Too few units of either arm are inconclusive, never a pass. So is a guard of slices without a unit by one of its columns.
    """
    needed = policy.labels_per_step if state.metric == QUALITY else policy.units_per_step
    if state.metric == RATE:
        return _judge_rate(state)
    units = state.step_units
    wanting = ""
    if units < needed:
        wanting = f"{units} of {needed} units for {state.metric}"
    elif state.champion_units < needed:
        wanting = f"{state.champion_units} of {needed} units of the champion for {state.metric}"
    if isinstance(state.evidence, SliceEvidence):
        # A rare slice may never come, so a step waits for columns and not for slices.
        unseen = slices.unseen_columns(state.evidence, policy.slices)
        wanting = f"no unit in any slice by {' or '.join(unseen)}" if unseen else wanting
    if state.has_warned:
        wanting = "the mean score is below what the champion showed, as in a world that got harder"
    if state.is_harmful:
        verdict = Verdict.FAIL
    elif wanting or 0 in (state.challenger_units, state.champion_units):
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS
    return MetricVerdict(state.metric, verdict, units, needed, state.log_e, state.log_bound, wanting)


def _judge_rate(state: MetricState) -> MetricVerdict:
    """Judge the rate of requests: a change makes the bake time inconclusive, and is never harm."""
    changed = "the rate of requests has changed" if state.is_harmful else ""
    verdict = Verdict.INCONCLUSIVE if changed or not state.champion_units else Verdict.PASS
    return MetricVerdict(
        state.metric, verdict, state.challenger_units, 0, state.log_e, state.log_bound, changed
    )


def harm_of(evidence: Sequence[MetricState], verdicts: Verdicts) -> str:
    """Return which metrics show harm, with their numbers; "" when none does. `verdicts`: those of `evidence`, in order."""
    return "; ".join(
        _describe_harm(state)
        for state, verdict in zip(evidence, verdicts, strict=True)
        if verdict.verdict is Verdict.FAIL
    )


def _describe_harm(state: MetricState) -> str:
    if isinstance(state.evidence, SliceEvidence):
        found = slices.rank_slices(state.evidence, state.log_bound)
        return "harm to " + "; ".join(str(each) for each in found if each.is_harmful)
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
