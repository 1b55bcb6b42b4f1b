"""Summarise each metric of a rollout: figures of both arms, the evidence relative to its bound, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from holdfast.records import Verdict
from holdfast.rollout import Canary, MetricState, judge
from holdfast.rollout.decision.post_promotion import format_rate
from holdfast.rollout.evidence import slices
from holdfast.rollout.evidence.records import RateEvidence, SliceEvidence
from holdfast.rollout.evidence.verdict import MetricVerdict
from holdfast.rollout.model.metric import ERRORS, LATENCY, QUALITY, RATE


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """One metric. A mean is None without units; `reached` is the evidence of harm as a share of its bound, 0 to 1.

    `evidence` is the evidence against its bound, in words.
    """

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
    evidence: str

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
        reached=min(1.0, max(0.0, state.log_e / state.log_bound))
        if state.log_bound > 0 and state.metric != RATE
        else 0.0,
        verdict=judged.verdict,
        explanation=_explain_rate(state)
        if isinstance(state.evidence, RateEvidence)
        else _explained(judged) + _nearest(state),
        evidence=evidence_text(state.metric, state.log_e, state.log_bound),
    )


def evidence_text(metric: str, log_e: float, log_bound: float) -> str:
    """Return the evidence of a metric against its bound.

    At the bound the verdict is reached and more adds nothing. A change of the rate of requests is no harm.

    >>> evidence_text("errors", 1.25, 4.61), evidence_text("errors", 8785.8, 4.61)
    ('ln e-value 1.2 of 4.6', 'reached its bound, ln e-value 4.6')
    >>> evidence_text("rate", 8785.8, 4.61), evidence_text("rate", -3.0, 4.61)
    ('changed; no harm', 'no change shown')
    """
    if metric == RATE:
        return "changed; no harm" if log_e >= log_bound else "no change shown"
    if log_e >= log_bound:
        return f"reached its bound, ln e-value {log_bound:.1f}"
    return f"ln e-value {log_e:.1f} of {log_bound:.1f}"


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
    match judged.verdict:
        case Verdict.FAIL:
            return "Harm is shown: the evidence reached its bound."
        case Verdict.PASS:
            return f"No harm shown by at least {judged.units:,} units of this step."
        case Verdict.INCONCLUSIVE | Verdict.ERROR:
            return f"Too little of this step seen: {judged.wanting or 'one side has no unit'}."


def _explain_rate(state: MetricState) -> str:
    """Return what became of the rate of requests: a change has many causes, so it censors the push and harms nothing."""
    if not state.is_harmful:
        return "The rate of requests is not shown to differ from that before the switch."
    text = format_rate(state).partition(" (")[0]
    return f"{text[0].upper()}{text[1:]}: nothing is rolled back for it, and the push ends censored."


def _mean(total: float, units: int) -> float | None:
    return total / units if units else None
