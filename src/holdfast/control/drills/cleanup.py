"""Clean up drills that were killed: restore the traffic plan, and record how they ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from holdfast.control.drills.live import put_back
from holdfast.records import TrafficPlan, Verdict
from holdfast.rollout.model.drills import DrillKind, DrillResult
from holdfast.store import Store
from holdfast.store.rollout import drills

LIMIT_US: Final[Mapping[DrillKind, int]] = {
    kind: 60_000_000 if kind in (DrillKind.ROLLBACK, DrillKind.STALE_LEADER) else 1_800_000_000
    for kind in DrillKind
}
"""A drill that has not ended after so many microseconds was killed."""


def clean_up(store: Store, model: str, *, now_us: int) -> list[int]:
    """End the drills of `model` that were killed, restore the traffic plan that one left, and return their numbers.

    A plan that was replaced since is left as it is.
    """
    ended = []
    with store.ledger.read() as connection:
        unfinished = drills.unfinished(connection, model)
    for each in unfinished:
        if abs(now_us - each.started_at_us) < LIMIT_US[each.kind]:
            continue
        explanation = "it was killed before its end"
        noted: dict[str, Any] = dict(each.evidence)
        if "returns" in noted:
            before = TrafficPlan(**noted["returns"])
            back = put_back(store, model, each.drill_id, before, noted["plan"], now_us=now_us)
            explanation += "" if back is None else f"; plan {back} restores the plan before it"
        found = DrillResult(Verdict.ERROR, explanation, None, each.evidence)
        with store.ledger.write() as connection:
            drills.end(connection, each.drill_id, found, now_us=now_us, expires_at_us=now_us)
        ended.append(each.drill_id)
    return ended
