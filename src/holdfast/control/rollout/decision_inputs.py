"""Inputs of a rollout's decision: prerequisites, initial evidence, and what each decision changes in the evidence."""

from __future__ import annotations

from typing import Final, assert_never

from holdfast.monitor.latency import merge, quantile_seconds
from holdfast.records import DAY_US, EVERYTHING_PPM
from holdfast.rollout import (
    Advance,
    BeginShadow,
    Canary,
    Complete,
    Confirm,
    Decision,
    MetricState,
    Readiness,
    RollBack,
    Start,
    State,
    Wait,
    begin,
    begin_step,
    freeze_levels,
)
from holdfast.rollout.decision.post_promotion import begin_rate
from holdfast.rollout.evidence import shadow
from holdfast.rollout.evidence.evidence import begin_bake
from holdfast.rollout.model.drills import DrillKind, ready
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import gate_results
from holdfast.store.rollout import drills, evidence, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.telemetry import usage

LATENCY_LOOKBACK_US: Final = 7 * DAY_US
"""How far back the champion's latency is looked at when the bound is frozen, microseconds."""

BEFORE_TRAFFIC: Final = frozenset({State.PENDING, State.SHADOWING})


def readiness(connection: Transaction, row: RolloutRow, now_us: int) -> Readiness:
    """Return the prerequisites that the policy of a pending rollout may require, at `now_us`."""
    policy = Canary.from_json(row.policy_json)
    if row.state is not State.PENDING or not (policy.replay_requests or policy.max_drill_age_us):
        return Readiness()
    replay = gate_results.newest_replay(connection, row.challenger)
    drilled = drills.of_model(connection, row.model)
    return Readiness(
        replay=None if replay is None else replay.verdict,
        replayed=0 if replay is None or replay.observed is None else int(replay.observed),
        drill=ready(drilled, DrillKind.ROLLBACK, now_us, within_us=policy.max_drill_age_us),
        can_drill=_can_drill(connection, row.model),
    )


def _can_drill(connection: Transaction, model: str) -> bool:
    """Return True if there is a clean version besides the champion that a drill could return to."""
    newest = traffic_plans.newest_committed(connection, model)
    others = () if newest is None else (newest.plan.previous, newest.plan.fallback)
    tainted = taints.versions_of(connection, model)
    return any(each is not None and each not in tainted for each in others)


def first_evidence(store: Store, row: RolloutRow, now_us: int) -> tuple[MetricState, ...]:
    """Return the states that the canary would begin with; empty while it cannot begin, and after it has begun."""
    if row.state not in BEFORE_TRAFFIC:
        return ()
    policy = Canary.from_json(row.policy_json)
    bound = _champions_quantile_seconds(store, row, policy, now_us)
    return () if policy.latency_quantile is not None and bound is None else begin(policy, bound)


def of_decision(
    connection: Transaction, row: RolloutRow, first: tuple[MetricState, ...]
) -> tuple[MetricState, ...]:
    """Return the evidence for the decision about `row`. Labels of its shadow may still arrive when it has traffic."""
    others = first if row.state in BEFORE_TRAFFIC else evidence.canary_of_rollout(connection, row.rollout_id)
    return (*evidence.shadow_of_rollout(connection, row.rollout_id), *others)


def prepare(
    connection: Transaction, row: RolloutRow, decision: Decision, first: tuple[MetricState, ...], now_us: int
) -> None:
    """Update the evidence for a decision: start it, start a step, end the comparison, or start the bake time."""
    policy = Canary.from_json(row.policy_json)
    match decision:
        case Start():
            evidence.begin(connection, row.rollout_id, first, now_us=now_us)
        case BeginShadow():
            bounds_us = [state.latency_bound_us for state in first if state.latency_bound_us is not None]
            bound = bounds_us[0] / 1e6 if bounds_us else None
            evidence.begin(connection, row.rollout_id, shadow.begin(policy, bound), now_us=now_us)
        case Advance() | Complete():
            states = evidence.canary_of_running(connection, row.rollout_id)
            alone = isinstance(decision, Complete) or decision.share_ppm == EVERYTHING_PPM
            if isinstance(decision, Advance):
                states = begin_step(states)
            if alone:
                states = freeze_levels(states, policy)
            evidence.put(connection, row.rollout_id, states, now_us=now_us)
        case Confirm() if row.state is State.VERIFYING and row.champion is not None and policy.bake_us:
            states = begin_bake(evidence.canary_of_running(connection, row.rollout_id), policy)
            evidence.put(connection, row.rollout_id, states, now_us=now_us)
            rate = begin_rate(policy, now_us)
            if rate is not None:
                evidence.begin(connection, row.rollout_id, [rate], now_us=now_us)
        case Confirm() | RollBack() | Wait():
            pass
        case _:
            assert_never(decision)


def _champions_quantile_seconds(store: Store, row: RolloutRow, policy: Canary, now_us: int) -> float | None:
    """Return the champion's own latency quantile before the canary; None while it has too few requests."""
    if policy.latency_quantile is None or row.champion is None:
        return None
    with store.ledger.read() as connection:
        found = merge(
            each.latency
            for each in usage.since(connection, row.model, now_us - LATENCY_LOOKBACK_US)
            if each.version == row.champion and each.result == "ok"
        )
    if sum(found.values()) < policy.latency_requests:
        return None
    return quantile_seconds(found, policy.latency_quantile)
