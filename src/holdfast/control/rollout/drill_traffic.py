"""The plans of a drill of rollback: they are told, and whoever has to write another first ends what a live drill has moved.

While a live drill goes on, who is the champion in the newest plan is not who will be. What copies that plan, or asks who the
champion is, would keep all users where the drill has put them for a moment.
"""

from __future__ import annotations

from holdfast.records import TrafficPlan
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import drills, traffic_plans


def append(connection: Transaction, plan: TrafficPlan, drill: int, what: str, now_us: int) -> int:
    """Add `plan` as one of drill number `drill`, in the caller's transaction; its number."""
    number = traffic_plans.append(connection, plan, now_us=now_us)
    events.append(
        connection,
        at_us=now_us,
        kind="drill.plan",
        subject=f"drill/{drill}",
        explanation=f"plan {number}, champion {plan.champion}: the drill of rollback {what}",
    )
    return number


def settle(connection: Transaction, model: str, now_us: int) -> int | None:
    """End what a live drill of `model` has moved, in the caller's transaction, which goes on from there; the number of the
    plan, None when no drill has moved anybody. The drill finds a newer plan than its own, and puts nothing back.
    """
    newest = traffic_plans.newest_committed(connection, model)
    found = None if newest is None else drills.moving(connection, model, newest.plan.plan_id)
    if found is None:
        return None
    drill, before = found
    return append(connection, before, drill, "gives way", now_us)
