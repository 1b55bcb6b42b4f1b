"""Rows of `drills`: what was exercised, when, and until when that is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from holdfast.records import TrafficPlan, Verdict, canonical_json
from holdfast.rollout.model.drills import Drill, DrillKind
from holdfast.store.db import events, schema
from holdfast.store.db.store import Store

_DRILLS: Final = schema.drills
_ELSEWHERE: Final = ""
"""A model that nobody has."""
_NEWEST: Final = 20
"""How many drills of one kind and verdict are looked at."""
_UNFINISHED: Final = "it began, and nobody has said how it ended"


def begin(store: Store, kind: DrillKind, model: str, *, actor: str, now_us: int) -> int:
    """Write down that a drill begins; its number. Should nobody end it, the row says so."""
    values = {
        "kind": kind,
        "model": model,
        "verdict": Verdict.ERROR,
        "evidence_json": "{}",
        "explanation": _UNFINISHED,
        "actor": actor,
        "started_at_us": now_us,
        "ended_at_us": now_us,
        "expires_at_us": now_us,
    }
    with store.ledger.write() as connection:
        key = connection.execute(insert(_DRILLS).values(values)).inserted_primary_key
        assert key is not None, "the database numbers the rows"
        return int(key[0])


def note(connection: Connection, drill: int, evidence: Mapping[str, object]) -> None:
    """Write down, in the caller's transaction, what the drill has done: whoever finds it unfinished can undo that."""
    connection.execute(
        update(_DRILLS).where(_DRILLS.c.drill_id == drill).values(evidence_json=canonical_json(evidence))
    )


def end(
    store: Store,
    drill: int,
    *,
    verdict: Verdict,
    measured_duration_us: int | None,
    evidence: Mapping[str, object],
    explanation: str,
    now_us: int,
    expires_at_us: int,
) -> None:
    """Write down how drill number `drill` ended, with its event."""
    with store.ledger.write() as connection:
        connection.execute(
            update(_DRILLS)
            .where(_DRILLS.c.drill_id == drill)
            .values(
                verdict=verdict,
                measured_duration_us=measured_duration_us,
                evidence_json=canonical_json(evidence),
                explanation=explanation,
                ended_at_us=now_us,
                expires_at_us=expires_at_us,
            )
        )
        row = connection.execute(select(_DRILLS).where(_DRILLS.c.drill_id == drill)).one()
        events.append(
            connection,
            at_us=now_us,
            kind="drill.ended",
            subject=f"drill/{drill}",
            actor=row.actor,
            explanation=f"{row.kind}: {verdict}: {explanation}",
        )


def of_model(store: Store, model: str) -> tuple[Drill, ...]:
    """The newest drills of `model`, the newest first: so many of each kind and verdict that no kind which is tried every hour
    hides another, and none that could not be judged hides what was shown.
    """
    with store.ledger.read() as connection:
        return of_model_in(connection, model)


def of_model_in(connection: Connection, model: str) -> tuple[Drill, ...]:
    """The same, as the caller's transaction sees it."""
    place = func.row_number().over(
        partition_by=(_DRILLS.c.kind, _DRILLS.c.verdict), order_by=_DRILLS.c.drill_id.desc()
    )
    placed = select(_DRILLS, place.label("place")).where(_DRILLS.c.model == model).subquery()
    query = select(placed).where(placed.c.place <= _NEWEST).order_by(placed.c.drill_id.desc())
    return tuple(_drill(row) for row in connection.execute(query))


def unfinished(store: Store, model: str) -> tuple[Drill, ...]:
    """The drills of `model` of which nobody has said how they ended, the oldest first."""
    query = (
        select(_DRILLS)
        .where(_DRILLS.c.model == model, _DRILLS.c.explanation == _UNFINISHED)
        .order_by(_DRILLS.c.drill_id)
    )
    with store.ledger.read() as connection:
        return tuple(_drill(row) for row in connection.execute(query))


def moving_in(connection: Connection, model: str, plan: int) -> tuple[int, TrafficPlan] | None:
    """The live drill of `model` that has not ended and whose plan is number `plan`, and what it will put back; None when
    there is none.
    """
    query = select(_DRILLS.c.drill_id, _DRILLS.c.evidence_json).where(
        _DRILLS.c.model == model, _DRILLS.c.explanation == _UNFINISHED
    )
    for row in connection.execute(query):
        noted = json.loads(row.evidence_json)
        if noted.get("live", False) and noted.get("plan") == plan:
            return int(row.drill_id), TrafficPlan(**noted["returns"])
    return None


def moves_users_in(connection: Connection, model: str, plan: int) -> bool:
    """Whether plan number `plan` of `model` is that of a live drill which has not ended: who is the champion now is not
    who will be.
    """
    return moving_in(connection, model, plan) is not None


def forget_servers(store: Store) -> None:
    """Let a copy of the store know no server of its models: those of the original are none of its business."""
    with store.ledger.write() as connection:
        connection.execute(delete(schema.probes))
        connection.execute(update(schema.servers).values(model=_ELSEWHERE))


def _drill(row: Row[Any]) -> Drill:
    return Drill(
        drill_id=row.drill_id,
        kind=DrillKind(row.kind),
        model=row.model,
        verdict=Verdict(row.verdict),
        measured_duration_us=row.measured_duration_us,
        evidence=json.loads(row.evidence_json),
        explanation=row.explanation,
        actor=row.actor,
        started_at_us=row.started_at_us,
        ended_at_us=row.ended_at_us,
        expires_at_us=row.expires_at_us,
    )
