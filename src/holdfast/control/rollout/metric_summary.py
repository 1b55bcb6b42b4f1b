"""Summarise each metric of a rollout: figures of both arms, the evidence relative to its bound, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from holdfast.records import Verdict
from holdfast.rollout import Canary, MetricState, judge
from holdfast.rollout.evidence import slices
from holdfast.rollout.evidence.records import SliceEvidence
from holdfast.rollout.evidence.verdict import MetricVerdict
from holdfast.rollout.model.metric import ERRORS, LATENCY, QUALITY, RATE


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """One metric. A mean is None without units; `reached` is the evidence of harm as a share of its bound, 0 to 1."""

    metric: str
    challenger_units: int
    challenger_mean: float | None
    champion_units: int
    champion_mean: float | None
    log_e: float
    log_bound: float
    reached: float
    verdict: Verdict
    explanation: str

    def arms(self) -> dict[str, Any]:
        """Return the figures of both arms by name."""
        names = ("challenger_units", "challenger_mean", "champion_units", "champion_mean")
        return {name: getattr(self, name) for name in names}


def summarise(state: MetricState, policy: Canary) -> MetricSummary:
    """Return the summary of `state`, judged by `policy`."""
    judged = judge(state, policy)
    return MetricSummary(
        metric=state.metric,
        challenger_units=state.challenger_units,
        challenger_mean=_mean(state.challenger_total, state.challenger_units),
        champion_units=state.champion_units,
        champion_mean=_mean(state.champion_total, state.champion_units),
        log_e=state.log_e,
        log_bound=state.log_bound,
        reached=min(1.0, max(0.0, state.log_e / state.log_bound)) if state.log_bound > 0 else 0.0,
        verdict=judged.verdict,
        explanation=_explained(judged) + _nearest(state),
    )


def in_order(states: Iterable[MetricState]) -> list[MetricState]:
    """Return the metrics in the order in which they are displayed."""
    order = {ERRORS: 0, LATENCY: 1, QUALITY: 2}
    return sorted(states, key=lambda state: (order.get(state.metric, 9), state.metric))


def _nearest(state: MetricState) -> str:
    """Return the slice that is nearest to its bound, if `state` is of slices and has one."""
    if not isinstance(state.evidence, SliceEvidence):
        return ""
    ranked = slices.rank_slices(state.evidence, state.log_bound)
    return f" Nearest to its bound: {ranked[0]}." if ranked else ""


def _explained(judged: MetricVerdict) -> str:
    """Return a verdict as one sentence."""
    if judged.metric == RATE:
        text = judged.wanting or "the rate of requests is not shown to differ from that before the switch"
        return f"{text[0].upper()}{text[1:]}."
    match judged.verdict:
        case Verdict.FAIL:
            return "Harm is shown: the evidence reached its bound."
        case Verdict.PASS:
            return f"No harm shown by at least {judged.units:,} units of this step."
        case Verdict.INCONCLUSIVE | Verdict.ERROR:
            return f"Too little of this step seen: {judged.wanting or 'one side has no unit'}."


def _mean(total: float, units: int) -> float | None:
    return total / units if units else None
