"""Rows of `traffic_plans`: append-only; the newest row of a model is what its servers must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Row, func, insert, or_, select

from holdfast.records import TrafficPlan
from holdfast.store.db import schema
from holdfast.store.db.store import Store

_PLANS: Final = schema.traffic_plans


@dataclass(frozen=True, slots=True)
class CommittedPlan:
    """A plan and when it was committed, microseconds since 1970 UTC."""

    plan: TrafficPlan
    committed_at_us: int


def newest(store: Store, model: str) -> TrafficPlan | None:
    """The plan that the servers of `model` must follow; None before its first rollout."""
    found = newest_committed(store, model)
    return None if found is None else found.plan


def newest_committed(store: Store, model: str) -> CommittedPlan | None:
    """The newest plan of `model` with its time; None before its first rollout."""
    with store.ledger.read() as connection:
        return newest_in(connection, model)


def newest_in(connection: Connection, model: str) -> CommittedPlan | None:
    """The same, as the caller's transaction sees it."""
    return _newest(connection, model)


def before_rollout_in(connection: Connection, model: str, rollout: int) -> CommittedPlan | None:
    """The newest plan of `model` that is not of rollout number `rollout`: what servers did before it."""
    return _newest(connection, model, or_(_PLANS.c.rollout_id.is_(None), _PLANS.c.rollout_id != rollout))


def of_rollout_in(connection: Connection, rollout: int) -> tuple[CommittedPlan, ...]:
    """Every plan that rollout number `rollout` made, oldest first."""
    query = select(_PLANS).where(_PLANS.c.rollout_id == rollout).order_by(_PLANS.c.plan_id)
    return tuple(CommittedPlan(_plan(row), row.committed_at_us) for row in connection.execute(query))


def changes_in(connection: Connection, model: str, since_us: int) -> list[int]:
    """When plans of `model` were committed after `since_us`, rising, microseconds since 1970 UTC."""
    query = select(_PLANS.c.committed_at_us).where(
        _PLANS.c.model == model, _PLANS.c.committed_at_us > since_us
    )
    return sorted(connection.scalars(query))


def in_force(
    connection: Connection, model: str, part: Literal["serving_config", "runtime"]
) -> tuple[tuple[int, str], ...]:
    """What the plans of `model` asked for last as `part`, and what before that, each with the first plan of its last spell;
    the newest first, empty when none ever did. A plan that names none leaves what is.
    """
    named = _PLANS.c[part]
    of_model = (_PLANS.c.model == model, named.is_not(None))
    before: tuple[int, str] | None = None
    spells: list[tuple[int, str]] = []
    for _ in range(
        2
    ):  # a spell begins where another one ends: looked for from its end, in either direction, row by row
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
        spells.append(before)
    return tuple(spells)


def append(
    connection: Connection,
    *,
    model: str,
    champion: str,
    challenger: str | None = None,
    share_ppm: int = 0,
    previous: str | None = None,
    fallback: str | None = None,
    rollout_id: int | None = None,
    shadow: str | None = None,
    shadow_ppm: int = 0,
    serving_config: str | None = None,
    runtime: str | None = None,
    now_us: int,
) -> int:
    """Add a plan to the caller's transaction and return its number: from its commit on, servers follow it."""
    result = connection.execute(
        insert(_PLANS).values(
            model=model,
            champion=champion,
            challenger=challenger,
            share_ppm=share_ppm,
            previous=previous,
            fallback=fallback,
            rollout_id=rollout_id,
            shadow=shadow,
            shadow_ppm=shadow_ppm,
            serving_config=serving_config,
            runtime=runtime,
            committed_at_us=now_us,
        )
    )
    key = result.inserted_primary_key
    assert key is not None, "the database numbers the rows"
    return int(key[0])


def _newest(connection: Connection, model: str, *which: ColumnElement[bool]) -> CommittedPlan | None:
    query = select(_PLANS).where(_PLANS.c.model == model, *which).order_by(_PLANS.c.plan_id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else CommittedPlan(_plan(row), row.committed_at_us)


def _plan(row: Row[Any]) -> TrafficPlan:
    return TrafficPlan(
        model=row.model,
        plan_id=row.plan_id,
        champion=row.champion,
        challenger=row.challenger,
        share_ppm=row.share_ppm,
        previous=row.previous,
        fallback=row.fallback,
        rollout_id=row.rollout_id,
        shadow=row.shadow,
        shadow_ppm=row.shadow_ppm,
        serving_config=row.serving_config,
        runtime=row.runtime,
    )
