"""The parts of a push besides the model, pushed and taken back by plans that leave who answers as it is."""

from __future__ import annotations

from dataclasses import asdict, fields

from holdfast.control.rollout import drill_traffic
from holdfast.control.rollout.traffic import Traffic
from holdfast.errors import NotFoundError
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import traffic_plans
from holdfast.store.rollout.traffic_plans import CommittedPlan


def newest(connection: Transaction, model: str, now_us: int) -> CommittedPlan:
    """The plan that is in force, once what a live drill has moved is ended; `NotFoundError` HF303 before the model's first."""
    drill_traffic.settle(connection, model, now_us)
    found = traffic_plans.newest_in(connection, model)
    if found is None:
        raise NotFoundError(
            "HF303",
            f"no version of {model!r} serves yet, so that there is nothing to push to",
            state="nothing was written",
            next_command="holdfast rollout start",
        )
    return found


def kept_traffic(before: CommittedPlan) -> Traffic:
    """What `before` says, for a plan that changes a part of it."""
    return Traffic(**{field.name: getattr(before.plan, field.name) for field in fields(Traffic)})


def append(connection: Transaction, before: CommittedPlan, traffic: Traffic, now_us: int) -> int:
    """The number of a plan that says `traffic`, and belongs to the rollout of `before`."""
    return traffic_plans.append(
        connection, model=before.plan.model, rollout=before.plan.rollout, now_us=now_us, **asdict(traffic)
    )


def is_taken_back(connection: Transaction, model: str, pushed: str, taken_back: str) -> bool:
    """Whether the last that was done to a part was its roll-back, by the kinds of the events of both."""
    last = events.newest(connection, subject=model, kind=pushed, limit=1)
    taken = events.newest(connection, subject=model, kind=taken_back, limit=1)
    return bool(taken) and (not last or taken[0].event > last[0].event)
