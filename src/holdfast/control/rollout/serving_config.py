"""Push the serving config of a model by a plan; servers apply it without a restart."""

from __future__ import annotations

from dataclasses import replace

from holdfast.control.rollout import plan_parts
from holdfast.control.rollout.plan_parts import PUSHED, Part
from holdfast.errors import RefusedError
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import serving_configs
from holdfast.store.rollout import traffic_plans


def push(store: Store, model: str, limits: ConnectionLimits, *, actor: str, reason: str, now_us: int) -> int:
    """Let the servers of `model` run with `limits`; return the number of the plan. The serving versions stay.

    Raises `NotFoundError` HF410 before the model's first plan, `RefusedError` HF403 when `limits` are in force.
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
        config = serving_configs.register(connection, limits, now_us=now_us)
        explanation = f"servers run with {config} {limits.to_json()}: {reason}"
        kind = PUSHED[Part.SERVING_CONFIG]
        events.append(
            connection, at_us=now_us, kind=kind, subject=model, actor=actor, explanation=explanation
        )
        return traffic_plans.append(connection, replace(newest, serving_config=config), now_us=now_us)


def current(connection: Transaction, model: str) -> ConnectionLimits:
    """Return the limits that the plans of `model` name, else the defaults."""
    periods = serving_configs.in_force(connection, model)
    return serving_configs.get(connection, periods[0][1]) if periods else ConnectionLimits()
