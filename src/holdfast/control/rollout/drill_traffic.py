"""Write the plans of a rollback drill, with events, and end a live drill before another plan is written.

During a live drill the champion of the newest plan is temporary. Code that copies that plan, or reads its champion, would
make the drill's traffic permanent.
"""

from __future__ import annotations

from holdfast.records import TrafficPlan
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import drills, traffic_plans


def append(connection: Transaction, plan: TrafficPlan, drill: int, what: str, now_us: int) -> int:
    """Add `plan` as one of drill number `drill`, in the caller's transaction; return its number."""
    number = traffic_plans.append(connection, plan, now_us=now_us)
    events.append(
        connection,
        at_us=now_us,
        kind="drill.plan",
        subject=f"drill/{drill}",
        explanation=f"plan {number}, champion {plan.champion}: the rollback drill {what}",
    )
    return number


def settle(connection: Transaction, model: str, now_us: int) -> int | None:
    """End what a live drill of `model` has moved, in the caller's transaction.

    Return the number of the plan, None without a drill. The drill then finds a newer plan than its own, and restores nothing.
    """
    newest = traffic_plans.newest(connection, model)
    found = None if newest is None else drills.moving(connection, model, newest.plan_id)
    if found is None:
        return None
    drill, before = found
    return append(connection, before, drill, "ends early", now_us)
