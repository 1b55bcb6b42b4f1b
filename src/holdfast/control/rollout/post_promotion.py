"""Carry the bake time of a promotion, although its rollout rests: harm is rolled back automatically."""

from __future__ import annotations

from holdfast.control.rollout import drill_traffic, failover, reconcile
from holdfast.control.rollout import pushes as ledger
from holdfast.control.rollout.failover import Cause
from holdfast.control.rollout.reconcile import Transition
from holdfast.rollout import Canary, Event, MetricState, PushOutcome, State
from holdfast.rollout.decision.decisions import RollBack, Wait
from holdfast.rollout.decision.post_promotion import (
    BakeDecision,
    ComparedPeriods,
    EndBake,
    decide_bake,
    fold_rate,
    format_rate,
    next_periods,
)
from holdfast.rollout.model.metric import RATE
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import drills, evidence, rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.telemetry import request_counts
from holdfast.tables.backout import FailOver

_LAG_US = 120_000_000
"""How old a minute is, microseconds, before all its requests count as collected."""


def carry(store: Store, model: str, lease: Lease, *, now_us: int) -> BakeDecision | None:
    """Do what follows for the promotion of `model` in its bake time; return the decision, None when there is nothing to do.

    A newer rollout that is under way ends with it: two cannot both move the traffic, and a version that is rolled back is no
    champion to compare with. Raises `ConflictError` HF304 when `lease` has gone to another loop, or another process
    moved the rollout; then nothing was written.
    """
    with store.ledger.read() as connection:
        found = _baking(connection, model)
        if found is None:
            return None
        idle = isinstance(_decide(connection, *found, now_us), Wait)
        if idle and not (_due_rate(connection, found[0], now_us) or _is_replaced(connection, found[0])):
            return None
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        found = _baking(connection, model)
        if found is None:
            return None
        row, _ = found
        _compare_rate(connection, row, now_us)
        decision = _decide(connection, *found, now_us)
        if _is_replaced(connection, row) and isinstance(decision, RollBack):
            reason = f"harm was shown after its promotion, and it was replaced without a rollout: {decision.reason}"
            decision = EndBake(PushOutcome.ESCAPED, reason, decision.verdicts)
        elif _is_replaced(connection, row):
            decision = EndBake(PushOutcome.CENSORED, f"{row.challenger} was replaced without a rollout", ())
        if isinstance(decision, Wait):
            return None
        if not isinstance(decision, RollBack):
            ledger.end_bake(connection, row, decision.outcome, decision.reason, now_us=now_us)
            return decision
        drill_traffic.settle(connection, model, now_us)
        newer = rollouts.under_way(connection, model)
        if newer is None:
            _roll_back(connection, store, row, decision.reason, decision.reason, now_us)
        elif not _roll_back_both(connection, store, row, newer, decision, now_us):
            return None
    return decision


def _roll_back(
    connection: Transaction, store: Store, row: RolloutRow, reason: str, harm: str, now_us: int
) -> None:
    transition = Transition(Event.ROLLBACK, reason, events.SYSTEM, harm=harm)
    reconcile.commit(connection, store, row, transition, now_us=now_us)


def _roll_back_both(
    connection: Transaction,
    store: Store,
    row: RolloutRow,
    newer: RolloutRow,
    decision: RollBack,
    now_us: int,
) -> bool:
    """End the rollout against a harmful champion, and give the champion's traffic to its fallback version in the same plan.

    Return True if anything was done. A newer version that has all traffic waits for its probe: the champion has no caller.
    Without a fallback version the newer rollout ends first.
    """
    if newer.state is State.VERIFYING:
        return False
    why = f"its champion, {row.challenger}, is rolled back: {decision.reason}"
    cause = Cause(why, events.SYSTEM, now_us)
    steps = failover.fail_over(connection, store, row.model, cause, also=(row.challenger,))
    if any(isinstance(step, FailOver) for step in steps):
        harm = f"harm was shown after its promotion: {decision.reason}"
        ledger.end_bake(connection, row, PushOutcome.ESCAPED, harm, now_us=now_us)
        return True
    if steps or newer.state is State.ROLLING_BACK:
        return bool(steps)
    _roll_back(connection, store, newer, why, "", now_us)
    return True


def _baking(connection: Transaction, model: str) -> tuple[RolloutRow, int] | None:
    """Return the promotion in its bake time, and when that ends."""
    push = rollouts.baking(connection, model)
    if push is None or push.bake_until_us is None:
        return None
    return rollouts.get(connection, push.rollout_id), push.bake_until_us


def _decide(connection: Transaction, row: RolloutRow, until_us: int, now_us: int) -> BakeDecision:
    copies = evidence.shadow_of_rollout(connection, row.rollout_id)
    return decide_bake(
        (*copies, *evidence.canary_of_rollout(connection, row.rollout_id)),
        Canary.from_json(row.policy_json),
        promoted_us=row.changed_at_us,
        until_us=until_us,
        now_us=now_us,
    )


def _is_replaced(connection: Transaction, row: RolloutRow) -> bool:
    """Return True if another version got its traffic without a rollback of its rollout, as for tainted rows."""
    plan = traffic_plans.newest(connection, row.model)
    if plan is None or plan.champion == row.challenger:
        return plan is None
    moved = drills.moving(connection, row.model, plan.plan_id)
    return moved is None or moved[1].champion != row.challenger  # a live drill restores it soon


def _due_rate(
    connection: Transaction, row: RolloutRow, now_us: int
) -> tuple[MetricState, ComparedPeriods] | None:
    """Return the evidence about the rate, and the periods to compare next; None if there is nothing to compare."""
    states = evidence.canary_of_rollout(connection, row.rollout_id)
    state = next((each for each in states if each.metric == RATE), None)
    history_us = request_counts.first_minute_us(connection, row.model)
    if state is None or history_us is None:
        return None
    due = next_periods(state, history_us=history_us, known_at_us=now_us - _LAG_US)
    return None if due is None else (state, due)


def _compare_rate(connection: Transaction, row: RolloutRow, now_us: int) -> None:
    """Fold the requests after the switch against those before it, and report once when the rate differs."""
    found = _due_rate(connection, row, now_us)
    if found is None:
        return
    state, due = found
    changed = state.is_harmful
    state = fold_rate(
        state,
        due,
        after=request_counts.requests_between(connection, row.model, due.after_us, due.after_us + due.us),
        before=request_counts.requests_between(connection, row.model, due.before_us, due.before_us + due.us),
    )
    evidence.put(connection, row.rollout_id, [state], now_us=now_us)
    if state.is_harmful and not changed:
        events.append(
            connection,
            at_us=now_us,
            kind="rollout.rate_changed",
            subject=row.subject,
            explanation=f"after the promotion of {row.challenger} {format_rate(state)}; nothing is rolled back for it",
        )
