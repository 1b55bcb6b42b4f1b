"""Rows of rollout_evidence: what is known about a rollout, by metric."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from holdfast.rollout import RESTING, MetricState
from holdfast.store import Store
from holdfast.store.schema import rollout_evidence, rollouts

_COLUMNS = tuple(rollout_evidence.c[name] for name in MetricState.__slots__)


def begin(connection: Connection, rollout: int, states: Sequence[MetricState], *, now_us: int) -> None:
    """The first rows of `rollout`, in the caller's transaction."""
    for state in states:
        values = {name: getattr(state, name) for name in MetricState.__slots__}
        connection.execute(insert(rollout_evidence).values(rollout=rollout, updated_us=now_us, **values))


def of_rollout(store: Store, rollout: int) -> tuple[MetricState, ...]:
    """The state of every metric of `rollout`, in order of its name; empty before its canary began."""
    with store.ledger.read() as connection:
        return of_rollout_in(connection, rollout)


def of_rollout_in(connection: Connection, rollout: int) -> tuple[MetricState, ...]:
    """The same, as the caller's transaction sees it."""
    query = select(*_COLUMNS).where(rollout_evidence.c.rollout == rollout).order_by(rollout_evidence.c.metric)
    return tuple(MetricState(**row) for row in connection.execute(query).mappings())


def of_running(connection: Connection, rollout: int) -> tuple[MetricState, ...]:
    """The state of every metric of `rollout`, locked for a change; empty when it is not running any more."""
    query = (
        select(*_COLUMNS)
        .join(rollouts, rollouts.c.rollout == rollout_evidence.c.rollout)
        .where(rollouts.c.rollout == rollout, rollouts.c.state.not_in(sorted(RESTING)))
        .order_by(rollout_evidence.c.metric)
        .with_for_update()
    )
    return tuple(MetricState(**row) for row in connection.execute(query).mappings())


def put(connection: Connection, rollout: int, states: Sequence[MetricState], *, now_us: int) -> None:
    """Replace the states of `rollout` that changed, in the caller's transaction."""
    for state in states:
        values = {name: getattr(state, name) for name in MetricState.__slots__ if name != "metric"}
        connection.execute(
            update(rollout_evidence)
            .where(rollout_evidence.c.rollout == rollout, rollout_evidence.c.metric == state.metric)
            .values(**values, updated_us=now_us)
        )
