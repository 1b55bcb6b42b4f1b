"""Push and roll back serving config and runtime by plans that leave the traffic as it is."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Final

from holdfast.control.rollout import drill_traffic
from holdfast.errors import NotFoundError
from holdfast.records import TrafficPlan
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import serving_configs
from holdfast.store.rollout import traffic_plans


class Part(StrEnum):
    """What a push may consist of."""

    MODEL = "model"
    SERVING_CONFIG = "serving-config"
    RUNTIME = "runtime"


PUSHED: Final = {Part.SERVING_CONFIG: "serving_config.pushed", Part.RUNTIME: "runtime.pushed"}
ROLLED_BACK: Final = {Part.SERVING_CONFIG: "serving_config.rolled_back", Part.RUNTIME: "runtime.rolled_back"}
"""The kinds of the events of each part, whose subject is the model."""


def newest(connection: Transaction, model: str, now_us: int) -> TrafficPlan:
    """Return the plan in force, after a live drill has been ended. Raises `NotFoundError` HF410 before the model's first."""
    drill_traffic.settle(connection, model, now_us)
    found = traffic_plans.newest(connection, model)
    if found is None:
        raise NotFoundError(
            "HF410",
            f"no version of {model!r} serves yet, so that there is nothing to push to",
            state="nothing was written",
            next_command="holdfast rollout start",
        )
    return found


def is_rolled_back(connection: Transaction, model: str, part: Part) -> bool:
    """Return True if the last operation on `part` was its rollback."""
    pushed = events.newest(connection, subject=model, kind=PUSHED[part], limit=1)
    rolled_back = events.newest(connection, subject=model, kind=ROLLED_BACK[part], limit=1)
    return bool(rolled_back) and (not pushed or rolled_back[0].event_id > pushed[0].event_id)


def push_serving_config(
    store: Store, model: str, limits: ConnectionLimits, *, actor: str, reason: str, now_us: int
) -> int:
    """Let the servers of `model` run with `limits`; return the number of the plan. The serving versions stay.

    Limits that are in force are not pushed again. Raises `NotFoundError` HF410 before the model's first plan.
    """
    with store.ledger.write() as connection:
        before = newest(connection, model, now_us)
        if serving_config_in_force(connection, model) == limits:
            return before.plan_id
        config = serving_configs.register(connection, limits, now_us=now_us)
        explanation = f"servers run with {config} {limits.to_json()}: {reason}"
        kind = PUSHED[Part.SERVING_CONFIG]
        events.append(
            connection, at_us=now_us, kind=kind, subject=model, actor=actor, explanation=explanation
        )
        return traffic_plans.append(connection, replace(before, serving_config=config), now_us=now_us)


def serving_config_in_force(connection: Transaction, model: str) -> ConnectionLimits:
    """Return the limits that the plans of `model` name, else the defaults."""
    periods = serving_configs.in_force(connection, model)
    return serving_configs.get(connection, periods[0][1]) if periods else ConnectionLimits()
