"""A configuration of serving is pushed and taken back by a plan, as a version is; servers follow it without a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from holdfast.control.rollout import plan_parts
from holdfast.errors import RefusedError
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import serving_configs
from holdfast.store.rollout.traffic_plans import CommittedPlan

PUSHED: Final = "configuration.pushed"
ROLLED_BACK: Final = "configuration.rolled_back"
"""The kinds of the events, whose subject is the model."""


def push(store: Store, model: str, limits: ConnectionLimits, *, actor: str, reason: str, now_us: int) -> int:
    """Let the servers of `model` run with `limits`; the number of the plan. Who answers stays as it is.

    Raises `NotFoundError` HF303 before the model's first plan, `RefusedError` HF403 when `limits` are in force.
    """
    with store.ledger.write() as connection:
        newest = plan_parts.newest(connection, model, now_us)
        if current(connection, model) == limits:
            raise RefusedError(
                "HF403",
                f"{limits.id} is in force already",
                state="nothing was written",
                next_command="holdfast status",
            )
        return _append(connection, newest, limits, PUSHED, actor, reason, now_us)


def roll_back(
    store: Store, model: str, *, actor: str, reason: str, now_us: int, since_plan: int = 0
) -> int | None:
    """Return to the configuration before the one that was pushed last; the number of the plan, None when none was pushed by
    a plan after number `since_plan`. Before the first stands what servers have by default.

    Asking again writes nothing: what was taken back does not come back by it.
    """
    with store.ledger.write() as connection:
        spells = serving_configs.in_force(connection, model)
        if not spells or spells[0][0] <= since_plan:
            return None
        if plan_parts.is_taken_back(connection, model, PUSHED, ROLLED_BACK):
            return spells[0][0]
        before = serving_configs.get(connection, spells[1][1]) if len(spells) > 1 else ConnectionLimits()
        newest = plan_parts.newest(connection, model, now_us)
        return _append(connection, newest, before, ROLLED_BACK, actor, reason, now_us)


def current(connection: Transaction, model: str) -> ConnectionLimits:
    """The limits that the plans of `model` ask for."""
    spells = serving_configs.in_force(connection, model)
    return serving_configs.get(connection, spells[0][1]) if spells else ConnectionLimits()


def _append(
    connection: Transaction,
    newest: CommittedPlan,
    limits: ConnectionLimits,
    kind: str,
    actor: str,
    reason: str,
    now_us: int,
) -> int:
    configuration = serving_configs.register(connection, limits, now_us=now_us)
    events.append(
        connection,
        at_us=now_us,
        kind=kind,
        subject=newest.plan.model,
        actor=actor,
        explanation=f"servers run with {configuration} {limits.to_json()}: {reason}",
    )
    return plan_parts.append(
        connection, newest, replace(plan_parts.kept_traffic(newest), configuration=configuration), now_us
    )
