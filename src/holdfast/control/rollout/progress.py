"""Progress of a rollout: its share, each metric relative to its bound, and when it may decide."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from holdfast.control.rollout import reconcile
from holdfast.control.rollout.metric_summary import MetricSummary, in_order, summarise
from holdfast.monitor.usage import CALLERS_FAULT
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout import Canary, MetricState, State, judge
from holdfast.rollout.decision.forecast import (
    Arrivals,
    Forecast,
    describe_next,
    few_units,
    forecast,
    is_stalled,
    waits_for_requests,
)
from holdfast.rollout.evidence.evidence import interval_of
from holdfast.rollout.evidence.verdict import judge_all
from holdfast.rollout.model.metric import ERRORS
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import evidence, evidence_windows, rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.telemetry import request_counts


@dataclass(frozen=True, slots=True)
class MetricProgress(MetricSummary):
    """One metric in this step, in which `units` of `needed` were seen.

    `difference` ("odds ratio", "mean score", "mean probability") has the interval from `low` to `high` around `estimate`, None
    if unknown.
    """

    units: int
    needed: int
    difference: str
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """The rollout that is under way, else the promotion in its bake time.

    `share_ppm` is what the challenger has now, `steps_ppm` what it has at each step, parts per million. `enough_us`
    and `harm_us` estimate when the step has enough evidence and when harm would be shown, microseconds from now;
    `decision_us` is the first of them; None if unknown. `bake_until_us` is None outside the bake time. `waits_for` is what the
    next decision waits for, in words; empty in the bake time. `next` is what comes next and when, in one sentence.
    A rollout is stalled if it ends inconclusive as it goes on.
    """

    rollout_id: int
    challenger: str
    champion: str | None
    state: State
    step: int
    steps_ppm: tuple[int, ...]
    share_ppm: int
    shadow_ppm: int
    paused: bool
    started_at_us: int
    step_started_at_us: int
    bake_until_us: int | None
    reason: str
    metrics: tuple[MetricProgress, ...]
    enough_us: int | None
    harm_us: int | None
    decision_us: int | None
    waits_for: str = ""
    next: str = ""
    is_stalled: bool = False


def progress(connection: Transaction, model: str, now_us: int) -> RolloutProgress | None:
    """Return the progress of the rollout of `model` at `now_us`, or of its promotion in its bake time; None without either."""
    row = rollouts.under_way(connection, model)
    baking = rollouts.baking(connection, model)
    if row is None and baking is not None:
        row = rollouts.get(connection, baking.rollout_id)
    if row is None:
        return None
    begun_us = rollouts.first_reached_us(connection, row.rollout_id, (State.SHADOWING, State.CANARY))
    plan = traffic_plans.newest(connection, model)
    policy = Canary.from_json(row.policy_json)
    states = _of_this_stage(in_order(evidence.of_rollout(connection, row.rollout_id)), row)
    verdicts = judge_all(states, policy)
    step_us = now_us - row.step_started_at_us
    guess, few, silent_us = Forecast(None, None), "", None
    if row.state in (State.SHADOWING, State.CANARY, State.PAUSED) and begun_us is not None:
        evidence_us = now_us - begun_us
        guess = forecast(verdicts, policy, step_us=step_us, evidence_us=evidence_us)
        arrivals = _arrivals(connection, row, states, begun_us, now_us)
        if waits_for_requests(verdicts, policy, arrivals, step_us=step_us, evidence_us=evidence_us):
            guess, silent_us = Forecast(None, None), arrivals.silent_us
        few = few_units(verdicts, arrivals) if row.state is not State.SHADOWING else ""
    bake_until_us = baking.bake_until_us if baking is not None and row.state is State.PROMOTED else None
    waits_for = reconcile.waits_for(connection, row, now_us) if row.running else ""
    timeout_us = _timeout_us(row, policy, step_us)
    following = describe_next(
        guess,
        waits_for=waits_for,
        timeout_us=timeout_us,
        step_us=step_us,
        paused=row.state is State.PAUSED,
        bake_us=None if bake_until_us is None else bake_until_us - now_us,
        silent_us=silent_us,
    )
    is_starved = bool(few) and guess.decision_us is None and row.state is not State.PAUSED
    return RolloutProgress(
        rollout_id=row.rollout_id,
        challenger=row.challenger,
        champion=row.champion,
        state=row.state,
        step=row.step,
        steps_ppm=policy.shares_ppm,
        share_ppm=0 if plan is None or plan.challenger != row.challenger else plan.share_ppm,
        shadow_ppm=0 if plan is None or plan.shadow != row.challenger else plan.shadow_ppm,
        paused=row.state is State.PAUSED,
        started_at_us=row.started_at_us,
        step_started_at_us=row.step_started_at_us,
        bake_until_us=bake_until_us,
        reason=row.reason,
        metrics=tuple(_metric(state, policy) for state in states),
        enough_us=guess.enough_us,
        harm_us=guess.harm_us,
        decision_us=guess.decision_us,
        waits_for=waits_for,
        is_stalled=is_starved or is_stalled(guess, timeout_us=timeout_us, step_us=step_us),
        next=f"{following}; {few}" if few else following,
    )


def _arrivals(
    connection: Transaction, row: RolloutRow, states: list[MetricState], begun_us: int, now_us: int
) -> Arrivals:
    """Return the requests of both arms, and how many units they can be: each closed window counts its own."""
    # The minute in which the rollout began contains requests before it.
    counts = request_counts.since(connection, row.model, begun_us - begun_us % MINUTE_US + MINUTE_US)
    requests = sum(
        each.requests
        for each in counts
        if each.arm in (Arm.CHALLENGER, Arm.CHAMPION) and each.result not in CALLERS_FAULT
    )
    closed = next((each for each in states if each.metric == ERRORS), None)
    units = sum(each.units for each in evidence_windows.of_rollout(connection, row.rollout_id))
    if closed is not None:
        units += closed.challenger_units + closed.champion_units
    last_us = request_counts.last_minute_us(connection, row.model)
    silent_us = now_us - max(begun_us, 0 if last_us is None else last_us + MINUTE_US)
    return Arrivals(requests, units, max(0, silent_us))


def _timeout_us(row: RolloutRow, policy: Canary, step_us: int) -> int | None:
    """Return how long the stage of `row` may still wait; None if it has no end."""
    if row.champion is None or row.state in (State.PAUSED, State.ROLLING_BACK, State.PROMOTED):
        return None
    least_us = policy.convergence_timeout_us if row.state is State.VERIFYING else policy.timeout_us
    return max(0, least_us - step_us)


def _of_this_stage(states: list[MetricState], row: RolloutRow) -> list[MetricState]:
    """Return the states of copies during the shadow, later those of traffic."""
    copies = row.state is State.SHADOWING
    return [state for state in states if state.is_shadow is copies]


def _metric(state: MetricState, policy: Canary) -> MetricProgress:
    verdict = judge(state, policy)
    difference, interval = interval_of(state)
    return MetricProgress(
        **asdict(summarise(state, policy)),
        units=verdict.units,
        needed=verdict.needed,
        difference=difference,
        estimate=None if interval is None else interval.estimate,
        low=None if interval is None else interval.low,
        # An infinite end carries no information, and JSON cannot represent it.
        high=None if interval is None or interval.high == float("inf") else interval.high,
    )
