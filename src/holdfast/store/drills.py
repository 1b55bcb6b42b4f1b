"""Rows of `drills`: what was exercised, when, and until when that is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from holdfast.records import TrafficPlan, Verdict, canonical_json
from holdfast.rollout.drills import Drill, DrillKind
from holdfast.store import Store, events, schema

_DRILLS: Final = schema.drills
_ELSEWHERE: Final = ""
"""A model that nobody has."""
_UNFINISHED: Final = "it began, and nobody has said how it ended"


def last_passed_us(connection: Connection, model: str, kind: str) -> int | None:
    """When a drill of this kind of `model` last passed, microseconds since 1970 UTC; None when none has, or when a later one
    failed.
    """
    query = (
        select(_DRILLS.c.verdict, _DRILLS.c.ended_us)
        .where(
            _DRILLS.c.model == model,
            _DRILLS.c.kind == kind,
            _DRILLS.c.verdict.in_((Verdict.PASS, Verdict.FAIL)),
        )
        .order_by(_DRILLS.c.drill.desc())
        .limit(1)
    )
    last = connection.execute(query).one_or_none()
    return int(last.ended_us) if last is not None and last.verdict == Verdict.PASS else None


def begin(store: Store, kind: DrillKind, model: str, *, actor: str, now_us: int) -> int:
    """Write down that a drill begins; its number. Should nobody end it, the row says so."""
    values = {
        "kind": kind,
        "model": model,
        "verdict": Verdict.ERROR,
        "evidence": "{}",
        "explanation": _UNFINISHED,
        "actor": actor,
        "started_us": now_us,
        "ended_us": now_us,
        "expires_us": now_us,
    }
    with store.ledger.write() as connection:
        key = connection.execute(insert(_DRILLS).values(values)).inserted_primary_key
        assert key is not None, "the database numbers the rows"
        return int(key[0])


def note(connection: Connection, drill: int, evidence: Mapping[str, object]) -> None:
    """Write down, in the caller's transaction, what the drill has done: whoever finds it unfinished can undo that."""
    connection.execute(
        update(_DRILLS).where(_DRILLS.c.drill == drill).values(evidence=canonical_json(evidence))
    )


def end(
    store: Store,
    drill: int,
    *,
    verdict: Verdict,
    took_us: int | None,
    evidence: Mapping[str, object],
    explanation: str,
    now_us: int,
    expires_us: int,
) -> None:
    """Write down how drill number `drill` ended, with its event."""
    with store.ledger.write() as connection:
        connection.execute(
            update(_DRILLS)
            .where(_DRILLS.c.drill == drill)
            .values(
                verdict=verdict,
                took_us=took_us,
                evidence=canonical_json(evidence),
                explanation=explanation,
                ended_us=now_us,
                expires_us=expires_us,
            )
        )
        row = connection.execute(select(_DRILLS).where(_DRILLS.c.drill == drill)).one()
        events.append(
            connection,
            at_us=now_us,
            kind="drill.ended",
            subject=f"drill/{drill}",
            actor=row.actor,
            explanation=f"{row.kind}: {verdict}: {explanation}",
        )


def of_model(store: Store, model: str, *, limit: int = 200) -> tuple[Drill, ...]:
    """The newest drills of `model`, the newest first."""
    query = select(_DRILLS).where(_DRILLS.c.model == model).order_by(_DRILLS.c.drill.desc()).limit(limit)
    with store.ledger.read() as connection:
        return tuple(_drill(row) for row in connection.execute(query))


def unfinished(store: Store, model: str) -> tuple[Drill, ...]:
    """The drills of `model` of which nobody has said how they ended, the oldest first."""
    query = (
        select(_DRILLS)
        .where(_DRILLS.c.model == model, _DRILLS.c.explanation == _UNFINISHED)
        .order_by(_DRILLS.c.drill)
    )
    with store.ledger.read() as connection:
        return tuple(_drill(row) for row in connection.execute(query))


def moving_in(connection: Connection, model: str, plan: int) -> tuple[int, TrafficPlan] | None:
    """The live drill of `model` that has not ended and whose plan is number `plan`, and what it will put back; None when
    there is none.
    """
    query = select(_DRILLS.c.drill, _DRILLS.c.evidence).where(
        _DRILLS.c.model == model, _DRILLS.c.explanation == _UNFINISHED
    )
    for row in connection.execute(query):
        noted = json.loads(row.evidence)
        if noted.get("live", False) and noted.get("plan") == plan:
            return int(row.drill), TrafficPlan(**noted["returns"])
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
        drill=row.drill,
        kind=DrillKind(row.kind),
        model=row.model,
        verdict=Verdict(row.verdict),
        took_us=row.took_us,
        evidence=json.loads(row.evidence),
        explanation=row.explanation,
        actor=row.actor,
        started_us=row.started_us,
        ended_us=row.ended_us,
        expires_us=row.expires_us,
    )
