"""Push and roll back serving config and runtime by plans that leave the traffic as it is."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from holdfast.control.rollout import drill_traffic
from holdfast.errors import NotFoundError
from holdfast.records import TrafficPlan
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
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
