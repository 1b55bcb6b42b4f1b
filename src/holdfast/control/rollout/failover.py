"""Move a model's traffic away from tainted versions.

Computed from the current ledger on every call, so the result is right before, during and after an interrupted back-out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from holdfast.control.evaluation import eligibility
from holdfast.control.rollout import drill_traffic, reconcile
from holdfast.control.rollout.reconcile import Transition
from holdfast.records import TrafficPlan
from holdfast.rollout import Event, State
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts, traffic_plans, withdrawals
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.tables.backout import CancelRollout, FailOver, KeepLastResort, ReplaceFallbacks, TrafficStep


@dataclass(frozen=True, slots=True)
class Cause:
    """Why traffic moves, the actor, and when."""

    reason: str
    actor: str
    now_us: int


def plan_failover(
    connection: Transaction, store: Store, model: str, tainted: Collection[str]
) -> list[TrafficStep]:
    """Return the steps that move the traffic of `model` away from `tainted`, in order; none when no such version has any."""
    steps: list[TrafficStep] = []
    plan = traffic_plans.newest(connection, model)
    row = rollouts.under_way(connection, model)
    waiting = row is not None and row.state in (State.PENDING, State.SHADOWING)
    if row is not None and waiting and _is_pointless(connection, store, row, tainted):
        steps.append(CancelRollout(model, row.rollout_id, row.challenger))
        row = None
    if plan is None:
        return steps
    moved = _move(connection, store, plan, row, tainted)
    if moved is not None:
        return [*steps, moved]
    behind = dict.fromkeys((plan.previous, plan.fallback))
    replaced = tuple(each for each in behind if each is not None and each in tainted)
    if replaced:
        fallback = eligibility.heuristic(connection, model, plan.fallback, tainted)
        steps.append(ReplaceFallbacks(model, replaced, fallback))
    return steps


def fail_over(
    connection: Transaction, store: Store, model: str, cause: Cause, *, also: Collection[str] = ()
) -> list[TrafficStep]:
    """Carry out the steps of `plan_failover` in the caller's transaction, and return them.

    A second call finds nothing to do and appends no event.

    Parameters
    ----------
    also
        Versions that must not serve, in addition to those that the ledger holds for tainted.
    """
    tainted = taints.versions_of(connection, model).union(also)
    if plan_failover(connection, store, model, tainted):
        drill_traffic.settle(connection, model, cause.now_us)
    # Ending a live drill restores the plan before it, so the steps are computed again.
    steps = plan_failover(connection, store, model, tainted)
    for step in steps:
        match step:
            case CancelRollout():
                row = rollouts.under_way(connection, model)
                assert row is not None, "it was there in this transaction"
                end = Transition(Event.ROLLBACK, cause.reason, cause.actor)
                reconcile.commit(connection, store, row, end, now_us=cause.now_us)
            case FailOver():
                _fail_over(connection, store, step, tainted, cause)
            case KeepLastResort():
                _keep_last_resort(connection, step, cause)
            case ReplaceFallbacks():
                _replace_fallbacks(connection, step, tainted, cause.now_us)
    return steps


def _is_pointless(connection: Transaction, store: Store, row: RolloutRow, tainted: Collection[str]) -> bool:
    """Return True if a rollout without traffic must not begin.

    Against a tainted champion it goes on if no clean version can replace that champion.
    """
    if row.challenger in tainted:
        return True
    if row.champion is None or row.champion not in tainted:
        return False
    choice = eligibility.fallback(
        connection, store, row.model, None, warm=None, tainted=tainted, unfit=(row.challenger,)
    )
    return choice.version is not None


def _move(
    connection: Transaction,
    store: Store,
    plan: TrafficPlan,
    row: RolloutRow | None,
    tainted: Collection[str],
) -> FailOver | KeepLastResort | None:
    """Return the step that moves traffic from a tainted version; None when none has any."""
    running = None if row is None or row.state is State.ROLLING_BACK else row
    unfit = () if running is None else (running.challenger,)

    def fallback_of(preferred: str | None) -> str | None:
        return eligibility.fallback(
            connection, store, plan.model, preferred, warm=plan.fallback, tainted=tainted, unfit=unfit
        ).version

    if running is not None and running.challenger in tainted:
        # The champion has kept its part of the traffic, so it is also the last resort.
        to = fallback_of(running.champion)
        if to is None:
            return KeepLastResort(plan.model, running.challenger)
        return FailOver(plan.model, running.challenger, to, running.rollout_id)
    if plan.champion not in tainted:
        return None
    if row is not None and row.state is State.VERIFYING:
        return None  # the challenger, which is clean, has all traffic
    to = fallback_of(None)
    if to is not None:
        ended = row or rollouts.promotion(connection, plan.model, plan.champion)
        return FailOver(plan.model, plan.champion, to, None if ended is None else ended.rollout_id)
    return None if running is not None else KeepLastResort(plan.model, plan.champion)


def _fail_over(
    connection: Transaction, store: Store, step: FailOver, tainted: Collection[str], cause: Cause
) -> None:
    """Roll back the rollout that gave the version its traffic; where none can, write a plan alone."""
    plan = traffic_plans.newest(connection, step.model)
    assert plan is not None, "a version has traffic, so there is a plan"
    row = rollouts.under_way(connection, step.model)
    row = row or rollouts.promotion(connection, step.model, plan.champion)
    reason = f"{cause.reason}; traffic returns from {step.version} to {step.to}"
    if row is not None and row.state is not State.ROLLING_BACK:
        transition = Transition(Event.ROLLBACK, reason, cause.actor)
        reconcile.commit(connection, store, row, transition, now_us=cause.now_us)
        now = traffic_plans.newest(connection, step.model)
        if now is not None and now.champion == step.to:
            return
    withdrawals.withdraw(
        connection, step.model, step.version, reason=cause.reason, actor=cause.actor, now_us=cause.now_us
    )
    moved = TrafficPlan(
        step.model,
        0,
        step.to,
        fallback=eligibility.heuristic(connection, step.model, plan.fallback, tainted),
        rollout_id=None if row is None else row.rollout_id,
    )
    traffic_plans.append(connection, moved, now_us=cause.now_us)
    events.append(
        connection,
        at_us=cause.now_us,
        kind="traffic.returned",
        subject=step.model,
        actor=cause.actor,
        explanation=reason,
    )


def _keep_last_resort(connection: Transaction, step: KeepLastResort, cause: Cause) -> None:
    why = f"{step.version} serves on although it is tainted: no clean version can; {cause.reason}"
    newest = events.newest(connection, subject=step.model, kind="traffic.last_resort", limit=1)
    if not newest or newest[0].explanation != events.as_written(why):
        events.append(
            connection,
            at_us=cause.now_us,
            kind="traffic.last_resort",
            subject=step.model,
            actor=cause.actor,
            explanation=why,
        )


def _replace_fallbacks(
    connection: Transaction, step: ReplaceFallbacks, tainted: Collection[str], now_us: int
) -> None:
    plan = traffic_plans.newest(connection, step.model)
    assert plan is not None, "it names a fallback, so there is a plan"
    barred = {*tainted, *eligibility.barred_versions(connection, step.model)}
    previous = None if plan.previous in barred else plan.previous
    # Serving config and runtime stay: a plan that names none changes neither.
    after = replace(plan, previous=previous, fallback=step.fallback, serving_config=None, runtime=None)
    traffic_plans.append(connection, after, now_us=now_us)
