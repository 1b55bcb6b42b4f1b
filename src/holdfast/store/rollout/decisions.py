"""Rows of `decisions`: the evidence that a decision about a rollout was based on. Its reason is in the event."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from holdfast.records import canonical_json
from holdfast.rollout.evidence.verdict import Verdicts
from holdfast.store.db import schema

_DECISIONS: Final = schema.decisions


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision. `evidence` is the verdict on each metric with its numbers at that time."""

    event_id: int
    kind: str
    evidence: tuple[dict[str, Any], ...]


def put(connection: Connection, *, event: int, rollout: int, kind: str, verdicts: Verdicts) -> None:
    """Store the verdicts behind the decision of event number `event`, in the caller's transaction."""
    evidence = canonical_json(verdicts)
    connection.execute(
        insert(_DECISIONS).values(event_id=event, rollout_id=rollout, kind=kind, evidence_json=evidence)
    )


def of_rollout(connection: Connection, rollout: int) -> dict[int, Decided]:
    """Return the decisions of a rollout by the number of their event."""
    query = select(_DECISIONS).where(_DECISIONS.c.rollout_id == rollout)
    return {
        row.event_id: Decided(row.event_id, row.kind, tuple(json.loads(row.evidence_json)))
        for row in connection.execute(query)
    }
