"""Drills that were killed in the middle: what they left is put back, and their rows say what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from holdfast.control.drills.live import put_back
from holdfast.records import TrafficPlan, Verdict
from holdfast.rollout.model.drills import Drill, DrillKind
from holdfast.store import Store
from holdfast.store.rollout import drills

LIMIT_US: Final[Mapping[DrillKind, int]] = {
    kind: 60_000_000 if kind in (DrillKind.ROLLBACK, DrillKind.STALE_LEADER) else 1_800_000_000
    for kind in DrillKind
}
"""A drill that has not ended after so many microseconds was killed."""


def clean_up(store: Store, model: str, *, now_us: int) -> list[int]:
    """End the drills of `model` that were killed, and put back the traffic plan that one left; their numbers.

    A plan that somebody has replaced since is left as it is.
    """
    ended = []
    with store.ledger.read() as connection:
        unfinished = drills.unfinished(connection, model)
    for each in unfinished:
        if abs(now_us - each.started_at_us) < LIMIT_US[each.kind]:
            continue
        words = "it was killed in the middle"
        if "returns" in each.evidence:
            back = _put_back(store, each, now_us)
            words += "" if back is None else f"; plan {back} does again what was done before it"
        with store.ledger.write() as connection:
            drills.end(
                connection,
                each.drill_id,
                verdict=Verdict.ERROR,
                measured_duration_us=None,
                evidence=each.evidence,
                explanation=words,
                now_us=now_us,
                expires_at_us=now_us,
            )
        ended.append(each.drill_id)
    return ended


def _put_back(store: Store, drill: Drill, now_us: int) -> int | None:
    noted: dict[str, Any] = dict(drill.evidence)
    before, number = TrafficPlan(**noted["returns"]), int(noted["plan"])
    return put_back(store, drill.model, drill.drill_id, before, number, now_us=now_us)
