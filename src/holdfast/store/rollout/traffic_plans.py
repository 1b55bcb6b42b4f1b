"""Rows of `traffic_plans`: append-only; servers follow the newest row of their model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, func, or_, select

from holdfast.records import TrafficPlan
from holdfast.store.db import rows, schema

_PLANS: Final = schema.traffic_plans
_ROLLOUTS: Final = schema.rollouts
_WITH_PUSHED: Final = select(_PLANS, _ROLLOUTS.c.challenger.label("pushes")).outerjoin(
    _ROLLOUTS, _ROLLOUTS.c.rollout_id == _PLANS.c.rollout_id
)


@dataclass(frozen=True, slots=True)
class CommittedPlan:
    """A plan and when it was committed, microseconds since 1970 UTC."""

    plan: TrafficPlan
    committed_at_us: int


def newest(connection: Connection, model: str) -> TrafficPlan | None:
    """Return the plan that the servers of `model` must follow; None before its first rollout."""
    found = newest_committed(connection, model)
    return None if found is None else found.plan


def newest_committed(connection: Connection, model: str) -> CommittedPlan | None:
    """Return the newest plan of `model` with its timestamp; None before its first rollout."""
    return _newest(connection, _PLANS.c.model == model)


def first_committed_at_us(connection: Connection, model: str) -> int | None:
    """Return when the first plan of `model` was committed, microseconds since 1970 UTC; None before it."""
    query = (
        select(_PLANS.c.committed_at_us).where(_PLANS.c.model == model).order_by(_PLANS.c.plan_id).limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


def before_rollout(connection: Connection, model: str, rollout: int) -> CommittedPlan | None:
    """Return the newest plan of `model` that is not of rollout number `rollout`."""
    other = or_(_PLANS.c.rollout_id.is_(None), _PLANS.c.rollout_id != rollout)
    return _newest(connection, _PLANS.c.model == model, other)


def of_rollout(connection: Connection, rollout: int) -> tuple[CommittedPlan, ...]:
    """Return every plan of rollout number `rollout`, the oldest first."""
    query = _WITH_PUSHED.where(_PLANS.c.rollout_id == rollout).order_by(_PLANS.c.plan_id)
    return tuple(_committed(row) for row in connection.execute(query).mappings())


def changes(connection: Connection, model: str, since_us: int) -> list[int]:
    """Return when plans of `model` were committed after `since_us`, rising, microseconds since 1970 UTC."""
    query = select(_PLANS.c.committed_at_us).where(
        _PLANS.c.model == model, _PLANS.c.committed_at_us > since_us
    )
    return sorted(connection.scalars(query))


def in_force(
    connection: Connection, model: str, part: Literal["serving_config", "runtime"]
) -> tuple[tuple[int, str], ...]:
    """Return the two newest values of `part` in plans of `model`, newest first, each with the first plan of its last period.

    Empty if no plan names one. A plan without a value leaves the present one in force.
    """
    named = _PLANS.c[part]
    of_model = (_PLANS.c.model == model, named.is_not(None))
    before: tuple[int, str] | None = None
    periods: list[tuple[int, str]] = []
    for _ in range(2):
        # A period begins where another value ends, so its first plan is searched backwards from its last.
        older = () if before is None else (_PLANS.c.plan_id < before[0],)
        last = connection.execute(
            select(_PLANS.c.plan_id, named)
            .where(*of_model, *older)
            .order_by(_PLANS.c.plan_id.desc())
            .limit(1)
        ).one_or_none()
        if last is None:
            break
        other = (
            select(func.max(_PLANS.c.plan_id)).where(*of_model, *older, named != last[1]).scalar_subquery()
        )
        first = select(func.min(_PLANS.c.plan_id)).where(
            *of_model, *older, named == last[1], _PLANS.c.plan_id > func.coalesce(other, 0)
        )
        before = (connection.execute(first).scalar_one(), last[1])
        periods.append(before)
    return tuple(periods)


def append(connection: Connection, plan: TrafficPlan, *, now_us: int) -> int:
    """Add `plan` and return its number, whatever number it has: from the commit on, servers follow it."""
    values = asdict(plan) | {"committed_at_us": now_us}
    del values["plan_id"], values["pushes"]
    return rows.add(connection, _PLANS, values)


def _newest(connection: Connection, *which: ColumnElement[bool]) -> CommittedPlan | None:
    query = _WITH_PUSHED.where(*which).order_by(_PLANS.c.plan_id.desc()).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _committed(row)


def _committed(row: RowMapping) -> CommittedPlan:
    return CommittedPlan(rows.record(row, TrafficPlan), row["committed_at_us"])
