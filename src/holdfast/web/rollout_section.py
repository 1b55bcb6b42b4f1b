"""The part of the page about delivery: the rollout that is under way or watched, why, and whether a roll-back is ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from holdfast import formatting
from holdfast.control.reports.explain import Chapter, explain
from holdfast.control.reports.progress import MetricProgress, RolloutProgress, progress
from holdfast.control.rollout.metric_summary import in_order
from holdfast.control.rollout.pushes import Totals, listed, totals
from holdfast.records import HOUR_US, MINUTE_US, Arm
from holdfast.rollout import State
from holdfast.rollout.evidence.history import points_of
from holdfast.rollout.model import metric as metrics
from holdfast.rollout.model.drills import DrillKind, Standing, ready
from holdfast.store import Store
from holdfast.store.rollout import drills, evidence
from holdfast.store.rollout import webhooks as hooks
from holdfast.store.rollout.webhooks import HookAnswer
from holdfast.store.telemetry import usage
from holdfast.web import formatting as words

SHOWN_CHAPTERS: Final = 12

_SECOND_US: Final = 1_000_000
_NAMES: Final[Mapping[str, str]] = {
    metrics.ERRORS: "Errors",
    metrics.LATENCY: "Slower than the bound",
    metrics.QUALITY: "Quality score",
    metrics.RATE: "Rate of requests",
    metrics.SHADOW_DISAGREEMENT: "Decided otherwise",
    metrics.SHADOW_SCORE: "Shift of the score",
    metrics.SHADOW_ERRORS: "Errors on copies",
    metrics.SHADOW_LATENCY: "Slower on copies",
    metrics.SHADOW_QUALITY: "Quality on copies",
}
_WAY: Final = (State.PENDING, State.SHADOWING, State.CANARY, State.VERIFYING, State.PROMOTED)
_WAY_BACK: Final = (State.PENDING, State.CANARY, State.ROLLING_BACK, State.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Curve:
    """How strong the evidence of one metric was over time, as a part of its bound: (microseconds since 1970, 0 to 1)."""

    metric: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the page shows of delivery. `realised_ppm` is the challenger's part of `realised_requests`, those of the last
    hour that came since the step began."""

    progress: RolloutProgress | None
    realised_ppm: int | None
    realised_requests: int
    curves: tuple[Curve, ...]
    chapters: tuple[Chapter, ...]
    hooks: tuple[HookAnswer, ...]
    drills: tuple[Standing, ...]
    pushes: Totals

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return asdict(self)


def read(store: Store, model: str, *, now_us: int) -> Delivery:
    """Everything of `model` that this part of the page shows, at `now_us`."""
    now = progress(store, model, now_us)
    known = drills.of_model(store, model)
    standing = tuple(ready(known, kind, now_us) for kind in DrillKind)
    pushed = totals(listed(store, model))
    if now is None:
        return Delivery(None, None, 0, (), (), (), standing, pushed)
    story = explain(store, now.rollout_id)
    with store.ledger.read() as connection:
        waiting = hooks.open_questions(connection, model)
    ppm, requests = _realised(store, model, now, now_us)
    return Delivery(
        progress=now,
        realised_ppm=ppm,
        realised_requests=requests,
        curves=_curves(store, now),
        chapters=story.chapters[-SHOWN_CHAPTERS:][::-1],
        hooks=waiting,
        drills=standing,
        pushes=pushed,
    )


def states_of(now: RolloutProgress) -> tuple[tuple[str, str], ...]:
    """The states of the machine on this rollout's way, each with "done", "now" or "ahead".

    A paused canary stands at the canary. Who is taken back goes another way from there.
    """
    here = State.CANARY if now.state is State.PAUSED else now.state
    way: tuple[State, ...] = _WAY_BACK if here in _WAY_BACK[2:] else _WAY
    if not now.shadow_ppm and here is not State.SHADOWING:
        way = tuple(each for each in way if each is not State.SHADOWING)
    if now.champion is None:
        way = tuple(each for each in way if each is not State.CANARY)
    at = way.index(here) if here in way else 0
    places = ("done" if number < at else "now" if number == at else "ahead" for number in range(len(way)))
    return tuple((each.replace("_", " "), place) for each, place in zip(way, places, strict=True))


def metric_name(metric: str) -> str:
    """What people call a metric; a slice is named behind it.

    >>> metric_name("errors"), metric_name("errors[carrier=AA]")
    ('Errors', 'Errors, carrier=AA')
    """
    name, _, of_slice = metric.partition("[")
    known = _NAMES.get(name, name)
    return f"{known}, {of_slice.removesuffix(']')}" if of_slice else known


def interval_words(metric: MetricProgress) -> str:
    """How the challenger differs from the champion, with its interval; empty where nothing is known."""
    if metric.estimate is None or metric.low is None or (metric.high is None and metric.low <= 0.0):
        return ""
    ends = f"at least {metric.low:.2g}" if metric.high is None else f"{metric.low:.2g} to {metric.high:.2g}"
    of = "" if metric.difference == "odds ratio" else "difference of "
    return f"{of}{metric.difference} {metric.estimate:.2g} ({ends})"


def mean_words(metric: MetricProgress, side: str) -> str:
    """One side's figure of a metric, as a person reads it."""
    mean = metric.challenger_mean if side == "challenger" else metric.champion_mean
    if mean is None:
        return "–"
    scored = metric.metric.startswith((metrics.QUALITY, metrics.SHADOW_QUALITY, metrics.SHADOW_SCORE))
    return words.number(mean) if scored else words.percent(mean, 2)


def when_words(now: RolloutProgress) -> str:
    """When this step may be decided, as a guess in words."""
    if now.paused:
        return "paused by a person: evidence is counted, and nothing advances"
    if now.decision_us is None:
        return "nothing tells yet when it will be decided"
    if now.decision_us < _SECOND_US:
        return "it is decided now"
    return f"decision in about {formatting.span(now.decision_us / 1e6)}"


def _realised(store: Store, model: str, now: RolloutProgress, now_us: int) -> tuple[int | None, int]:
    since_us = max(now.step_started_at_us, now_us - HOUR_US)
    counted = {Arm.CHALLENGER: 0, Arm.CHAMPION: 0}
    # Usage is counted by the minute: the one in which the step began belongs to the step before as well.
    for row in usage.since(store, model, since_us - since_us % MINUTE_US + MINUTE_US):
        if row.arm in counted:
            counted[Arm(row.arm)] += row.requests
    requests = sum(counted.values())
    return (round(1e6 * counted[Arm.CHALLENGER] / requests) if requests else None), requests


def _curves(store: Store, now: RolloutProgress) -> tuple[Curve, ...]:
    states = in_order(evidence.of_rollout(store, now.rollout_id))
    copies = now.state is State.SHADOWING
    return tuple(
        Curve(
            metric_name(state.metric),
            tuple((at_us, max(0.0, log_e) / state.log_bound) for at_us, log_e in points_of(state)),
        )
        for state in states
        if metrics.is_shadow(state.metric) is copies and state.log_bound > 0.0
    )
