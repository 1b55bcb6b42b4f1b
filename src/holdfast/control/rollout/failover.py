"""What becomes of a model's traffic when versions of it are tainted: who answers instead, and how that is brought about.

Decided by the ledger as it stands, so that the same question before a back-out, in it, and after a process that died in
the middle of it has the answer that is right then.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, fields

from holdfast.control.rollout import drill_traffic, reconcile
from holdfast.control.rollout.traffic import Traffic, newest_heuristic, refuge, withdraw
from holdfast.records import TrafficPlan
from holdfast.rollout import Event, State
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.tables.backout import CancelRollout, FailOver, KeepLastResort, ReplaceFallbacks, TrafficStep


def retreat(connection: Transaction, store: Store, model: str, tainted: Collection[str]) -> list[TrafficStep]:
    """The steps that take the traffic of `model` from the versions in `tainted`, in order; none when none has any."""
    steps: list[TrafficStep] = []
    committed = traffic_plans.newest_in(connection, model)
    row = rollouts.under_way_in(connection, model)
    plan = None if committed is None else committed.plan
    if row is not None and row.state in (State.PENDING, State.SHADOWING) and _is_spoilt(store, row, tainted):
        steps.append(CancelRollout(model, row.rollout_id, row.challenger))
        row = None
    if plan is None:
        return steps
    moved = _moved(store, plan, row, tainted, connection)
    if moved is not None:
        return [*steps, moved]
    standing_by = tuple(
        dict.fromkeys(each for each in (plan.previous, plan.fallback) if each is not None and each in tainted)
    )
    if standing_by:
        return [*steps, ReplaceFallbacks(model, standing_by, _fallback(store, plan, tainted))]
    return steps


def carry_out(
    connection: Transaction,
    store: Store,
    model: str,
    *,
    reason: str,
    actor: str,
    now_us: int,
    also: Collection[str] = (),
) -> list[TrafficStep]:
    """Do what `retreat` says of the versions that the ledger holds for tainted, and `also` of others that must not answer,
    in the caller's transaction; what was done.

    Doing it again finds nothing to do, and says nothing twice.
    """
    tainted = taints.versions_of(connection, model).union(also)
    if retreat(connection, store, model, tainted):
        drill_traffic.settle(connection, model, now_us)
    steps = retreat(connection, store, model, tainted)
    for step in steps:
        match step:
            case CancelRollout():
                row = rollouts.under_way_in(connection, model)
                assert row is not None, "it was there in this transaction"
                reconcile.commit(connection, store, row, Event.ROLL_BACK, row.step, reason, actor, now_us)
            case FailOver():
                _return(connection, store, step, tainted, reason, actor, now_us)
            case KeepLastResort():
                _hold(connection, step, reason, actor, now_us)
            case ReplaceFallbacks():
                _replace(connection, store, model, tainted, now_us)
    return steps


def _is_spoilt(store: Store, row: RolloutRow, tainted: Collection[str]) -> bool:
    """Whether a rollout without traffic is not worth its beginning; against a champion that stays for want of a clean
    one it is."""
    if row.challenger in tainted:
        return True
    if row.champion is None or row.champion not in tainted:
        return False
    return refuge(store, row.model, tainted, fallback=None, but=(row.challenger,)) is not None


def _moved(
    store: Store,
    plan: TrafficPlan,
    row: RolloutRow | None,
    tainted: Collection[str],
    connection: Transaction,
) -> FailOver | KeepLastResort | None:
    """Who answers instead of a tainted version that has traffic now; None when none has any."""
    challenger = None if row is None or row.state is State.ROLLING_BACK else row.challenger
    if row is not None and challenger is not None and challenger in tainted:
        clean = row.champion is not None and row.champion not in tainted
        to = row.champion if clean else _refuge(store, plan, tainted, challenger)
        to = to or row.champion  # the champion has kept its part of the traffic, and goes on
        return (
            KeepLastResort(plan.model, challenger)
            if to is None
            else FailOver(plan.model, challenger, to, row.rollout_id)
        )
    if plan.champion not in tainted:
        return None
    if row is not None and row.state is State.VERIFYING:
        return None  # the challenger, which is clean, has everything
    to = _refuge(store, plan, tainted, challenger)
    if to is not None:
        promotion = row or rollouts.promotion_in(connection, plan.model, plan.champion)
        return FailOver(plan.model, plan.champion, to, None if promotion is None else promotion.rollout_id)
    return None if challenger is not None else KeepLastResort(plan.model, plan.champion)


def _refuge(store: Store, plan: TrafficPlan, tainted: Collection[str], challenger: str | None) -> str | None:
    but = () if challenger is None else (challenger,)
    return refuge(store, plan.model, tainted, fallback=plan.fallback, but=but)


def _fallback(store: Store, plan: TrafficPlan, tainted: Collection[str]) -> str | None:
    if plan.fallback is not None and plan.fallback not in tainted:
        return plan.fallback
    return newest_heuristic(store, plan.model, tainted)


def _return(
    connection: Transaction,
    store: Store,
    step: FailOver,
    tainted: Collection[str],
    reason: str,
    actor: str,
    now_us: int,
) -> None:
    """Through the rollout's own transition where there is one to make, else by a plan alone."""
    committed = traffic_plans.newest_in(connection, step.model)
    assert committed is not None, "a version has traffic, so there is a plan"
    plan = committed.plan
    row = rollouts.under_way_in(connection, step.model)
    row = row or rollouts.promotion_in(connection, step.model, plan.champion)
    words = f"{reason}; traffic returns from {step.version} to {step.to}"
    if row is not None and row.state is not State.ROLLING_BACK:
        reconcile.commit(connection, store, row, Event.ROLL_BACK, row.step, words, actor, now_us)
        now = traffic_plans.newest_in(connection, step.model)
        if now is not None and now.plan.champion == step.to:
            return
    promotion = rollouts.promotion_in(connection, step.model, step.version)
    if promotion is not None:
        withdraw(connection, promotion, reason=reason, actor=actor, now_us=now_us)
    traffic = Traffic(step.to, fallback=_fallback(store, plan, tainted))
    traffic_plans.append(
        connection,
        model=step.model,
        rollout_id=None if row is None else row.rollout_id,
        now_us=now_us,
        **asdict(traffic),
    )
    events.append(
        connection,
        at_us=now_us,
        kind="traffic.returned",
        subject=step.model,
        actor=actor,
        explanation=words,
    )


def _hold(connection: Transaction, step: KeepLastResort, reason: str, actor: str, now_us: int) -> None:
    words = f"{step.version} goes on although it is tainted: no clean version can answer; {reason}"
    told = events.newest(connection, subject=step.model, kind="traffic.held", limit=1)
    if not told or told[0].explanation != words:
        events.append(
            connection, at_us=now_us, kind="traffic.held", subject=step.model, actor=actor, explanation=words
        )


def _replace(
    connection: Transaction, store: Store, model: str, tainted: Collection[str], now_us: int
) -> None:
    committed = traffic_plans.newest_in(connection, model)
    assert committed is not None, "a version stands by, so there is a plan"
    plan = committed.plan
    traffic = {field.name: getattr(plan, field.name) for field in fields(Traffic)} | {
        "previous": None if plan.previous in tainted else plan.previous,
        "fallback": _fallback(store, plan, tainted),
    }
    traffic |= {"serving_config": None, "runtime": None}  # told by the plan that pushed them
    traffic_plans.append(connection, model=model, rollout_id=plan.rollout_id, now_us=now_us, **traffic)
