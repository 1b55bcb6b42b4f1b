"""Rows of `drills`: what was exercised, when, and until when the result is valid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select, update

from holdfast.records import TrafficPlan, Verdict, canonical_json
from holdfast.rollout.model.drills import Drill, DrillKind, DrillResult
from holdfast.store.db import events, rows, schema

_DRILLS: Final = schema.drills
NOT_COPIED: Final = (
    schema.members,
    schema.server_conflicts,
    schema.servers,
    schema.probes,
    schema.log_positions,
    schema.prediction_files,
    schema.shadow_files,
    schema.labels,
    schema.outcomes,
    schema.withdrawn_outcomes,
    schema.key_labels,
    schema.request_counts,
    schema.traffic_comparisons,
    schema.queued_rollouts,
    schema.webhooks,
    schema.webhook_responses,
)
"""Tables that a copy of the store for a drill leaves out: servers, what they logged and what was read of it, webhooks, and the
queue of rollouts.

A read position without its log would hide what the drill's server logs, and a webhook would have to consent.
"""
_NEWEST: Final = 20
"""How many drills of one kind and verdict are read."""
_UNFINISHED: Final = "it began, and has not ended"


def begin(connection: Connection, kind: DrillKind, model: str, *, actor: str, now_us: int) -> int:
    """Record that a drill begins, and return its number. The row is unfinished until `end`."""
    values = {
        "kind": kind,
        "model": model,
        "verdict": Verdict.ERROR,
        "evidence_json": "{}",
        "explanation": _UNFINISHED,
        "actor": actor,
    }
    times = dict.fromkeys(("started_at_us", "ended_at_us", "expires_at_us"), now_us)
    return rows.add(connection, _DRILLS, values | times)


def note(connection: Connection, drill: int, evidence: Mapping[str, object]) -> None:
    """Record what the drill has done, so that the cleanup of an unfinished drill can undo it."""
    connection.execute(
        update(_DRILLS).where(_DRILLS.c.drill_id == drill).values(evidence_json=canonical_json(evidence))
    )


def end(connection: Connection, drill: int, found: DrillResult, *, now_us: int, expires_at_us: int) -> Drill:
    """Record how drill number `drill` ended, with its event; return it."""
    connection.execute(
        update(_DRILLS)
        .where(_DRILLS.c.drill_id == drill)
        .values(
            verdict=found.verdict,
            measured_duration_us=found.measured_duration_us,
            evidence_json=canonical_json(found.evidence),
            explanation=found.explanation,
            ended_at_us=now_us,
            expires_at_us=expires_at_us,
        )
    )
    (ended,) = _drills(connection, select(_DRILLS).where(_DRILLS.c.drill_id == drill))
    events.append(
        connection,
        at_us=now_us,
        kind="drill.ended",
        subject=f"drill/{drill}",
        actor=ended.actor,
        explanation=f"{ended.kind}: {found.verdict}: {found.explanation}",
    )
    return ended


def of_model(connection: Connection, model: str) -> tuple[Drill, ...]:
    """Return the newest drills of `model`, the newest first.

    So many of each kind and verdict that a kind which is tried every hour hides no other, and an error no verdict.
    """
    place = func.row_number().over(
        partition_by=(_DRILLS.c.kind, _DRILLS.c.verdict), order_by=_DRILLS.c.drill_id.desc()
    )
    placed = select(_DRILLS, place.label("place")).where(_DRILLS.c.model == model).subquery()
    query = select(placed).where(placed.c.place <= _NEWEST).order_by(placed.c.drill_id.desc())
    return _drills(connection, query)


def unfinished(connection: Connection, model: str) -> tuple[Drill, ...]:
    """Return the unfinished drills of `model`, the oldest first."""
    begun = select(_DRILLS).where(_DRILLS.c.model == model, _DRILLS.c.explanation == _UNFINISHED)
    return _drills(connection, begun.order_by(_DRILLS.c.drill_id))


def moving(connection: Connection, model: str, plan: int) -> tuple[int, TrafficPlan] | None:
    """Return the unfinished live drill whose plan is number `plan`, and the plan that it will restore; None if none is."""
    for drill in unfinished(connection, model):
        noted: Mapping[str, Any] = drill.evidence
        if noted.get("live", False) and noted.get("plan") == plan:
            return drill.drill_id, TrafficPlan(**noted["returns"])
    return None


def moves_users(connection: Connection, model: str, plan: int) -> bool:
    """Return True if plan number `plan` is that of an unfinished live drill, whose champion serves only briefly."""
    return moving(connection, model, plan) is not None


def _drills(connection: Connection, query: Select[Any]) -> tuple[Drill, ...]:
    return tuple(
        rows.record({**row, "evidence": json.loads(row["evidence_json"])}, Drill)
        for row in connection.execute(query).mappings()
    )
