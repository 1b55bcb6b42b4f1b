"""The section "Rollout" of the page: the running or baking rollout, its decisions, and the readiness of drills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.control.reports.explain import RolloutEvent, explain
from holdfast.control.rollout.metric_summary import evidence_text, in_order
from holdfast.control.rollout.progress import MetricProgress, RolloutProgress, progress
from holdfast.control.rollout.pushes import Totals, listed, totals
from holdfast.records import HOUR_US, MINUTE_US, Arm
from holdfast.rollout import State
from holdfast.rollout.evidence.records import points_of
from holdfast.rollout.model import metric as metrics
from holdfast.rollout.model.drills import DrillKind, Standing, ready
from holdfast.store import Store
from holdfast.store.rollout import drills, evidence
from holdfast.store.rollout import webhooks as hooks
from holdfast.store.rollout.webhooks import HookResponseRow
from holdfast.store.telemetry import request_counts
from holdfast.web import formatting as web_formatting

SHOWN_EVENTS: Final = 12

_NAMES: Final[Mapping[str, str]] = {
    metrics.ERRORS: "Errors",
    metrics.LATENCY: "Slower than the bound (processor time)",
    metrics.QUALITY: "Quality score",
    metrics.RATE: "Request rate",
    metrics.SHADOW_DISAGREEMENT: "Different decisions",
    metrics.SHADOW_SCORE: "Score shift",
    metrics.SHADOW_ERRORS: "Errors on copies",
    metrics.SHADOW_LATENCY: "Slower on copies (processor time)",
    metrics.SHADOW_QUALITY: "Quality on copies",
}
_PATH: Final = (State.PENDING, State.SHADOWING, State.CANARY, State.VERIFYING, State.PROMOTED)
_ROLLBACK_PATH: Final = (State.PENDING, State.CANARY, State.ROLLING_BACK, State.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Curve:
    """The evidence of one metric over time: (microseconds since 1970 UTC, fraction of its bound)."""

    metric: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class RolloutSection:
    """The contents of the section.

    `realised_ppm` is the challenger's share of `realised_requests`: those from `realised_since_us` on, microseconds since 1970
    UTC. That is the first whole minute of the step, at most an hour ago; earlier ones may be requests of the step before.
    """

    progress: RolloutProgress | None
    realised_ppm: int | None
    realised_requests: int
    realised_since_us: int
    curves: tuple[Curve, ...]
    chapters: tuple[RolloutEvent, ...]
    hooks: tuple[HookResponseRow, ...]
    drills: tuple[Standing, ...]
    pushes: Totals


def read(store: Store, model: str, *, now_us: int) -> RolloutSection:
    """Read the section of `model` at `now_us`, microseconds since 1970 UTC."""
    with store.ledger.read() as connection:
        now = progress(connection, model, now_us)
        known = drills.of_model(connection, model)
        waiting = hooks.open_questions(connection, model)
    standing = tuple(ready(known, kind, now_us) for kind in DrillKind)
    # A first version was compared with nothing: counted as censored it reads as a push that failed to be judged.
    pushed = totals(tuple(each for each in listed(store, model) if each.champion is not None))
    if now is None:
        return RolloutSection(None, None, 0, 0, (), (), (), standing, pushed)
    since_us = _realised_since(now, now_us)
    ppm, requests = _realised(store, model, since_us)
    return RolloutSection(
        progress=now,
        realised_ppm=ppm,
        realised_requests=requests,
        realised_since_us=since_us,
        curves=_curves(store, now),
        chapters=explain(store, now.rollout_id, now_us=now_us).events[-SHOWN_EVENTS:][::-1],
        hooks=waiting,
        drills=standing,
        pushes=pushed,
    )


def states_of(now: RolloutProgress) -> tuple[tuple[str, str], ...]:
    """Return the states on this rollout's path, each with "done", "now" or "ahead".

    A paused canary is at the canary. A version that is rolled back has another path.
    """
    here = State.CANARY if now.state is State.PAUSED else now.state
    path: tuple[State, ...] = _ROLLBACK_PATH if here in _ROLLBACK_PATH[2:] else _PATH
    if not now.shadow_ppm and here is not State.SHADOWING:
        path = tuple(each for each in path if each is not State.SHADOWING)
    if now.champion is None:
        path = tuple(each for each in path if each is not State.CANARY)
    at = path.index(here) if here in path else 0
    places = ("done" if number < at else "now" if number == at else "ahead" for number in range(len(path)))
    return tuple((each.replace("_", " "), place) for each, place in zip(path, places, strict=True))


def metric_name(metric: str) -> str:
    """Return the name of a metric on the page; a slice follows it.

    >>> metric_name("errors"), metric_name("errors[carrier=AA]")
    ('Errors', 'Errors, carrier=AA')
    """
    name, _, of_slice = metric.partition("[")
    known = _NAMES.get(name, name)
    return f"{known}, {of_slice.removesuffix(']')}" if of_slice else known


def interval_text(metric: MetricProgress) -> str:
    """Return the difference of challenger and champion with its interval; empty if unknown."""
    if metric.estimate is None or metric.low is None or (metric.high is None and metric.low <= 0.0):
        return ""
    ends = f"at least {metric.low:.2g}" if metric.high is None else f"{metric.low:.2g} to {metric.high:.2g}"
    of = "" if metric.difference == "odds ratio" else "difference of "
    return f"{of}{metric.difference} {metric.estimate:.2g} ({ends})"


def evidence_of(metric: Mapping[str, Any]) -> str:
    """Return the evidence of a decided metric against its bound, in words."""
    return evidence_text(metric["metric"], metric["log_e"], metric["log_bound"])


def mean_text(metric: MetricProgress, side: str) -> str:
    """Return the mean of a metric on one side, as text."""
    mean = metric.challenger_mean if side == "challenger" else metric.champion_mean
    if mean is None:
        return "–"
    scored = metric.metric.startswith((metrics.QUALITY, metrics.SHADOW_QUALITY, metrics.SHADOW_SCORE))
    return web_formatting.number(mean) if scored else web_formatting.percent(mean, 2)


def _realised_since(now: RolloutProgress, now_us: int) -> int:
    """Return the first minute that is counted: usage is by the minute, and that of the switch has requests of both steps."""
    since_us = max(now.step_started_at_us, now_us - HOUR_US)
    return since_us - since_us % MINUTE_US + MINUTE_US


def _realised(store: Store, model: str, since_us: int) -> tuple[int | None, int]:
    with store.ledger.read() as connection:
        rows = request_counts.since(connection, model, since_us)
    challenger, champion = (
        sum(row.requests for row in rows if row.arm == arm) for arm in (Arm.CHALLENGER, Arm.CHAMPION)
    )
    requests = challenger + champion
    return (round(1e6 * challenger / requests) if requests else None), requests


def _curves(store: Store, now: RolloutProgress) -> tuple[Curve, ...]:
    with store.ledger.read() as connection:
        states = in_order(evidence.of_rollout(connection, now.rollout_id))
    copies = now.state is State.SHADOWING
    return tuple(
        Curve(
            metric_name(state.metric),
            tuple((at_us, min(1.0, max(0.0, log_e) / state.log_bound)) for at_us, log_e in points_of(state)),
        )
        for state in states
        # A change of the rate of requests is no harm, and has no place on an axis of harm.
        if state.is_shadow is copies and state.log_bound > 0.0 and state.metric != metrics.RATE
    )
