"""Judge the metrics of a rollout, with the numbers that each verdict rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.records import Verdict
from holdfast.rollout.evidence import shadow, slices
from holdfast.rollout.evidence.records import MetricState, SliceEvidence
from holdfast.rollout.model.metric import QUALITY, RATE, SHADOW_QUALITY
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
    """Return the verdict of one metric, of traffic at the current step or of copies.

    Too few units of either arm are inconclusive, never a pass. So is a guard of slices without a unit by one of its columns.
    A change of the rate of requests makes the bake time inconclusive, and is never harm. Raises `InputError` HF410 for a
    metric of a shadow that the policy does not have.
    """
    needed, wanting = _wanting(state, policy)
    is_rate = state.metric == RATE
    if (state.is_harmful and not is_rate) or (state.is_shadow and shadow.has_hung(state)):
        verdict = Verdict.FAIL
    elif wanting or not state.champion_units or not (state.challenger_units or is_rate):
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS
    units = state.challenger_units if state.is_shadow or is_rate else state.step_units
    return MetricVerdict(state.metric, verdict, units, needed, state.log_e, state.log_bound, wanting)


def judge_all(states: Sequence[MetricState], policy: Canary) -> Verdicts:
    """Return the verdict of each metric, in the order of `states`."""
    return tuple(judge(state, policy) for state in states)


def harm_of(states: Sequence[MetricState], policy: Canary) -> str:
    """Return which metrics show harm, of traffic or of copies, with their numbers; empty if none does."""
    harmful = [state for state in states if judge(state, policy).verdict is Verdict.FAIL]
    seen = [_describe_harm(state) for state in harmful if not state.is_shadow]
    copies = [shadow.describe(state) for state in harmful if state.is_shadow]
    if copies:
        seen.append(f"harm in shadow: {'; '.join(copies)}")
    return "; ".join(seen)


def _wanting(state: MetricState, policy: Canary) -> tuple[int, str]:
    """Return how many units `state` needs, and what is still missing."""
    if state.metric == RATE:
        return 0, "the rate of requests has changed" if state.is_harmful else ""
    if state.is_shadow:
        # Labels may come later, so nothing waits for them.
        needed = 0 if state.metric == SHADOW_QUALITY else shadow.shadow_of(policy).units
        units = state.challenger_units
        return needed, f"{units} of {needed} units in shadow for {state.metric}" if units < needed else ""
    needed = policy.labels_per_step if state.metric == QUALITY else policy.units_per_step
    wanting = ""
    if state.step_units < needed:
        wanting = f"{state.step_units} of {needed} units for {state.metric}"
    elif state.champion_units < needed:
        wanting = f"{state.champion_units} of {needed} units of the champion for {state.metric}"
    if isinstance(state.evidence, SliceEvidence):
        # A rare slice may never come, so a step waits for columns and not for slices.
        unseen = slices.unseen_columns(state.evidence, policy.slices)
        wanting = f"no unit in any slice by {' or '.join(unseen)}" if unseen else wanting
    if state.has_warned:
        wanting = "the mean score is below what the champion showed, as in a world that got harder"
    return needed, wanting


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
