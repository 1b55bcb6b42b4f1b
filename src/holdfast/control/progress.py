"""How far the rollout of a model is: its share, each metric against its bound, and when it may decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.records import Verdict
from holdfast.rollout import Canary, MetricState, MetricVerdict, State, judge, shadow
from holdfast.rollout.evidence import interval_of
from holdfast.rollout.forecast import Forecast, forecast
from holdfast.rollout.metric import ERRORS, LATENCY, QUALITY, RATE
from holdfast.store import Store, evidence, plans, pushes, rollouts
from holdfast.store.rollouts import RolloutRow


@dataclass(frozen=True, slots=True)
class MetricProgress:
    """One metric. `units` of `needed` were seen in this step; `reached` is how much of its bound the evidence of harm
    has, 0 to 1. `difference` in words ("odds ratio", "mean score", "mean probability") has the interval from `low` to
    `high` around `estimate`, None where nothing is known."""

    metric: str
    verdict: Verdict
    units: int
    needed: int
    challenger_units: int
    challenger_mean: float | None
    champion_units: int
    champion_mean: float | None
    log_e: float
    log_bound: float
    reached: float
    difference: str
    estimate: float | None
    low: float | None
    high: float | None
    explanation: str


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """The rollout that is under way, or else the promotion that is watched.

    `share_ppm` is what the challenger has now, `steps_ppm` what it has at each step, parts per million. `enough_us` and
    `harm_us` are guesses of when the step has seen enough and when harm would be shown, microseconds from now;
    `decision_us` is the first of them; None where nothing tells. `watch_until_us` is None unless it is watched.
    """

    rollout: int
    challenger: str
    champion: str | None
    state: State
    step: int
    steps_ppm: tuple[int, ...]
    share_ppm: int
    shadow_ppm: int
    paused: bool
    started_us: int
    step_started_us: int
    watch_until_us: int | None
    reason: str
    metrics: tuple[MetricProgress, ...]
    enough_us: int | None
    harm_us: int | None
    decision_us: int | None


def progress(store: Store, model: str, now_us: int) -> RolloutProgress | None:
    """How far the rollout of `model` is at `now_us`; None when none is under way and no promotion is watched."""
    with store.ledger.read() as connection:
        row = rollouts.under_way_in(connection, model)
        watched = pushes.watched_in(connection, model)
        if row is None and watched is not None:
            row = rollouts.get_in(connection, watched.rollout)
        if row is None:
            return None
        committed = plans.newest_in(connection, model)
        begun_us = rollouts.first_reached_us(connection, row.rollout, (State.SHADOWING, State.CANARY))
    plan = None if committed is None else committed.plan
    policy = Canary.from_json(row.policy)
    states = _of_this_stage(in_order(evidence.of_rollout(store, row.rollout)), row)
    verdicts = judged_all(states, policy)
    step_us = now_us - row.step_started_us
    guess = Forecast(None, None)
    if row.state in (State.SHADOWING, State.CANARY, State.PAUSED) and begun_us is not None:
        guess = forecast(verdicts, policy, step_us=step_us, evidence_us=now_us - begun_us)
    return RolloutProgress(
        rollout=row.rollout,
        challenger=row.challenger,
        champion=row.champion,
        state=row.state,
        step=row.step,
        steps_ppm=policy.shares_ppm,
        share_ppm=0 if plan is None or plan.challenger != row.challenger else plan.share_ppm,
        shadow_ppm=0 if plan is None or plan.shadow != row.challenger else plan.shadow_ppm,
        paused=row.state is State.PAUSED,
        started_us=row.started_us,
        step_started_us=row.step_started_us,
        watch_until_us=watched.watch_until_us
        if watched is not None and row.state is State.PROMOTED
        else None,
        reason=row.reason,
        metrics=tuple(_metric(*each) for each in zip(states, verdicts, strict=True)),
        enough_us=guess.enough_us,
        harm_us=guess.harm_us,
        decision_us=guess.decision_us,
    )


def judged_all(states: Sequence[MetricState], policy: Canary) -> tuple[MetricVerdict, ...]:
    """The verdict of each metric, of shadow and canary, in the order of `states`."""
    copies = shadow.judge(states, policy) if policy.shadow is not None else ()
    of_copies = {verdict.metric: verdict for verdict in copies}
    return tuple(of_copies.get(state.metric) or judge(state, policy) for state in states)


def in_order(states: Iterable[MetricState]) -> list[MetricState]:
    """The metrics as people read them."""
    order = {ERRORS: 0, LATENCY: 1, QUALITY: 2}
    return sorted(states, key=lambda state: (order.get(state.metric, 9), state.metric))


def explained(judged: MetricVerdict) -> str:
    """A verdict in one sentence."""
    if judged.metric == RATE:
        told = judged.wanting or "the rate of requests is not shown to differ from that before the switch"
        return f"{told[0].upper()}{told[1:]}."
    match judged.verdict:
        case Verdict.FAIL:
            return "Harm is shown: the evidence reached its bound."
        case Verdict.PASS:
            return f"No harm shown by at least {judged.units:,} units of this step."
        case Verdict.INCONCLUSIVE | Verdict.ERROR:
            return f"Too little of this step seen: {judged.wanting or 'one side has no unit'}."


def mean_of(total: float, units: int) -> float | None:
    """The mean of `units` that are `total` together; None without any."""
    return total / units if units else None


def reached(state: MetricState) -> float:
    """How much of its bound the evidence of harm has, 0 to 1."""
    return min(1.0, max(0.0, state.log_e / state.log_bound)) if state.log_bound > 0 else 0.0


def _of_this_stage(states: list[MetricState], row: RolloutRow) -> list[MetricState]:
    """While copies are answered, what they show; later, what traffic shows."""
    copies = row.state is State.SHADOWING
    return [state for state in states if shadow.is_shadow(state.metric) is copies]


def _metric(state: MetricState, verdict: MetricVerdict) -> MetricProgress:
    difference, interval = interval_of(state)
    return MetricProgress(
        metric=state.metric,
        verdict=verdict.verdict,
        units=verdict.units,
        needed=verdict.needed,
        challenger_units=state.challenger_units,
        challenger_mean=mean_of(state.challenger_total, state.challenger_units),
        champion_units=state.champion_units,
        champion_mean=mean_of(state.champion_total, state.champion_units),
        log_e=state.log_e,
        log_bound=state.log_bound,
        reached=reached(state),
        difference=difference,
        estimate=None if interval is None else interval.estimate,
        low=None if interval is None else interval.low,
        # An end at infinity says nothing, and JSON has no word for it.
        high=None if interval is None or interval.high == float("inf") else interval.high,
        explanation=explained(verdict),
    )
