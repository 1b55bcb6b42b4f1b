"""Record how the evidence of each metric grew: a few points over the whole rollout, for the chart of the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from holdfast.rollout.evidence.records import MetricState, Points

POINTS: Final = 240
"""How many points are kept at most; a longer rollout has them further apart."""

_SECOND_US: Final = 1_000_000


def record_point(state: MetricState, now_us: int) -> MetricState:
    """Return `state` with a point for `now_us` (microseconds since 1970 UTC).

    Points lie at least a second and a `POINTS`th of the rollout apart; the newest one moves along until it is as far from
    the one before. The first and the newest are always kept.
    """
    points = state.history
    newest = (now_us // _SECOND_US, round(state.log_e, 3))
    apart = max(1.0, (newest[0] - points[0][0]) / POINTS) if points else 1.0
    if len(points) >= 2 and newest[0] - points[-2][0] < apart:
        points = points[:-1]
    points = (*points, newest)
    if len(points) > POINTS:
        points = (*points[:-1:2], points[-1])
    return replace(state, history=points)


def points_of(state: MetricState) -> Points:
    """Return the timestamps (microseconds since 1970 UTC) and the log e-values at them, oldest first."""
    return tuple((seconds * _SECOND_US, log_e) for seconds, log_e in state.history)
