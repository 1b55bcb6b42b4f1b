"""Rows of `rollout_evidence` and `decisions`: the evidence about a rollout by metric, and that of each decision.

The evidence of shadow and of canary is independent, so each has functions of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, insert, or_, select, true, update

from holdfast.records import canonical_json
from holdfast.rollout import RESTING, MetricState
from holdfast.rollout.evidence.records import evidence_from_json, points_from_json, to_json
from holdfast.rollout.evidence.verdict import Verdicts
from holdfast.rollout.model.metric import SHADOW_PREFIX
from holdfast.store.db.schema import decisions, pushes, rollout_evidence, rollouts
from holdfast.store.rollout.rollouts import BAKING

_PLAIN = tuple(name for name in MetricState.__slots__ if name not in ("evidence", "history"))

_OF_CANARY = rollout_evidence.c.metric.not_like(f"{SHADOW_PREFIX}%")
_GOES_ON = or_(
    rollouts.c.state.not_in(sorted(RESTING)),
    exists().where(pushes.c.rollout_id == rollouts.c.rollout_id, BAKING),
)
"""Evidence is added until a rollout rests; that of a promotion, until its bake time is over."""


def begin(connection: Connection, rollout: int, states: Sequence[MetricState], *, now_us: int) -> None:
    """Insert the first rows of `rollout`, in the caller's transaction."""
    of = {"rollout_id": rollout, "updated_at_us": now_us}
    for state in states:
        connection.execute(insert(rollout_evidence).values(of | values_of(state)))


def of_rollout(connection: Connection, rollout: int) -> tuple[MetricState, ...]:
    """Return the state of every metric of `rollout`, of shadow, canary and bake time, by name; empty before either began."""
    return _chosen(connection, rollout, true())


def canary_of_rollout(connection: Connection, rollout: int) -> tuple[MetricState, ...]:
    """Return the canary's metrics of `rollout`, as the caller's transaction sees them; empty before its canary began."""
    return _chosen(connection, rollout, _OF_CANARY)


def shadow_of_rollout(connection: Connection, rollout: int) -> tuple[MetricState, ...]:
    """Return the shadow's metrics of `rollout`, as the caller's transaction sees them; empty without a shadow."""
    return _chosen(connection, rollout, ~_OF_CANARY)


def canary_of_running(connection: Connection, rollout: int) -> tuple[MetricState, ...]:
    """Return the canary's metrics of `rollout`, locked for update; empty if it no longer runs."""
    return _chosen(connection, rollout, _OF_CANARY, running=True)


def shadow_of_running(connection: Connection, rollout: int) -> tuple[MetricState, ...]:
    """Return the shadow's metrics of `rollout`, locked for update; empty if it no longer runs."""
    return _chosen(connection, rollout, ~_OF_CANARY, running=True)


def _chosen(
    connection: Connection, rollout: int, which: ColumnElement[bool], *, running: bool = False
) -> tuple[MetricState, ...]:
    query = select(rollout_evidence).where(rollout_evidence.c.rollout_id == rollout, which)
    if running:
        same = rollouts.c.rollout_id == rollout_evidence.c.rollout_id
        query = query.join(rollouts, same).where(_GOES_ON).with_for_update()
    found = connection.execute(query.order_by(rollout_evidence.c.metric)).mappings()
    return tuple(
        MetricState(
            **{name: row[name] for name in _PLAIN},
            evidence=evidence_from_json(row["evidence_json"]),
            history=points_from_json(row["history_json"]),
        )
        for row in found
    )


def put(connection: Connection, rollout: int, states: Sequence[MetricState], *, now_us: int) -> None:
    """Replace the states of `rollout` that changed, in the caller's transaction."""
    for state in states:
        connection.execute(
            update(rollout_evidence)
            .where(rollout_evidence.c.rollout_id == rollout, rollout_evidence.c.metric == state.metric)
            .values(**values_of(state), updated_at_us=now_us)
        )


def values_of(state: MetricState) -> dict[str, object]:
    """Return `state` as values of the columns of `rollout_evidence`."""
    plain = {name: getattr(state, name) for name in _PLAIN}
    return {**plain, "evidence_json": to_json(state.evidence), "history_json": to_json(state.history)}


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision. `evidence` is the verdict on each metric with its numbers at that time."""

    event_id: int
    kind: str
    evidence: tuple[dict[str, Any], ...]


def put_decision(connection: Connection, *, event: int, rollout: int, kind: str, verdicts: Verdicts) -> None:
    """Store the verdicts behind the decision of event number `event`, in the caller's transaction."""
    evidence = canonical_json(verdicts)
    connection.execute(
        insert(decisions).values(event_id=event, rollout_id=rollout, kind=kind, evidence_json=evidence)
    )


def decisions_of(connection: Connection, rollout: int) -> dict[int, Decided]:
    """Return the decisions of a rollout by the number of their event."""
    query = select(decisions).where(decisions.c.rollout_id == rollout)
    return {
        row.event_id: Decided(row.event_id, row.kind, tuple(json.loads(row.evidence_json)))
        for row in connection.execute(query)
    }
