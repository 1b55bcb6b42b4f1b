"""How the evidence of each metric grew: a few points over the whole rollout, kept within its state for the page's chart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from holdfast.records import canonical_json
from holdfast.rollout.model.metric import MetricState

POINTS: Final = 240
"""How many points are kept at most; a longer rollout has them further apart."""

_KEY: Final = "history"
_SECOND_US: Final = 1_000_000


def remembered(state: MetricState, now_us: int) -> MetricState:
    """`state` with a point for `now_us` (microseconds since 1970 UTC).

    Points lie at least a second and a `POINTS`th of the rollout apart; the newest one moves along until it is as far from the
    one before. The first and the newest are always there.
    """
    memory = json.loads(state.state)
    points: list[list[float]] = memory.get(_KEY, [])
    newest = [now_us // _SECOND_US, round(state.log_e, 3)]
    apart = max(1.0, (newest[0] - points[0][0]) / POINTS) if points else 1.0
    if len(points) >= 2 and newest[0] - points[-2][0] < apart:
        points = points[:-1]
    points = [*points, newest]
    if len(points) > POINTS:
        points = [*points[:-1:2], points[-1]]
    return replace(state, state=canonical_json(memory | {_KEY: points}))


def points_of(state: MetricState) -> tuple[tuple[int, float], ...]:
    """When (microseconds since 1970 UTC) the evidence was how strong (natural logarithm of the e-value), oldest first."""
    found = json.loads(state.state).get(_KEY, [])
    return tuple((int(seconds) * _SECOND_US, float(log_e)) for seconds, log_e in found)
