"""Compare the power of two policies with the measured traffic of a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np

from holdfast.records import DAY_US, MINUTE_US
from holdfast.rollout import Canary
from holdfast.rollout.expected_duration import span
from holdfast.rollout.model.policy import DURATIONS
from holdfast.rollout.power import MeasuredTraffic, PowerRow, power_of
from holdfast.store import Store
from holdfast.store.telemetry import outcomes, request_counts

LOOKBACK_US: Final = 7 * DAY_US
"""How far back the traffic is measured, microseconds."""

_COUNTED: Final = ("ok", "champion_failed", "unavailable")
"""Results of requests that a version got; a rejected request is no failure of a version."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field of a policy that differs, as JSON."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class PowerChange:
    """One harm at one step, under each policy; None where a policy has no such step or does not judge such harm."""

    metric: str
    effect: str
    share_percent: float
    before: PowerRow | None
    after: PowerRow | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two policies compared.

    `traffic` is None, and `power` empty, if the model has too little traffic. `alpha_*`, the bounds on needless
    rollbacks by all stages together, hold without traffic.
    """

    traffic: MeasuredTraffic | None
    changes: tuple[Change, ...]
    alpha_before: float
    alpha_after: float
    power: tuple[PowerChange, ...]


def measured(
    store: Store, model: str, *, label_delay: timedelta = timedelta(0), now_us: int
) -> MeasuredTraffic | None:
    """Return the traffic of `model` over its last week, or since its first request; None without a whole minute of it.

    A request counts as a unit, because only servers know repeated units: where sessions send many requests, harm is detected
    later than this estimates. The share of labelled requests is that of the week that ended `label_delay` ago, the newest
    whose labels are due.
    """
    # Requests are counted by minute: labels of the same minutes are compared with them.
    due_us = -(-(now_us - label_delay // timedelta(microseconds=1)) // MINUTE_US) * MINUTE_US
    since_us = due_us - LOOKBACK_US
    with store.ledger.read() as connection:
        rows = [
            row
            for row in request_counts.since(connection, model, now_us - LOOKBACK_US)
            if row.result in _COUNTED
        ]
        due = request_counts.requests_between(connection, model, since_us, due_us, results=_COUNTED)
        found = outcomes.of_model(connection, model, since_us=since_us, until_us=due_us)
    requests = sum(row.requests for row in rows)
    if not requests:
        return None
    first_us = min(row.minute_start_us for row in rows)
    minutes = max(1.0, (now_us - first_us) / MINUTE_US)
    failed = sum(row.requests for row in rows if row.result != "ok")
    scores = 1.0 - (found.label - found.probability) ** 2
    spread = float(scores.std()) if scores.size else 0.0
    return MeasuredTraffic(
        units_per_minute=requests / minutes,
        labelled_per_minute=requests / minutes * scores.size / due if due else 0.0,
        error_rate=failed / requests,
        mean_score=float(np.clip(scores.mean(), 0.01, 0.99)) if scores.size else 0.8,
        score_spread=max(spread, 0.01) if scores.size else 0.2,
        labels_due=due > 0,
        requests=requests,
        minutes=minutes,
    )


def compare(
    before: Canary, after: Canary, traffic: MeasuredTraffic | None, *, first_step_only: bool = False
) -> Comparison:
    """Return the error rates of both policies with `traffic`: false alarms, and what each detects how soon.

    Evaluated at the first step and at the last one that has a champion. Takes seconds: the tests are simulated.
    """
    power: list[PowerChange] = []
    if traffic is not None:
        new = _power(after, traffic, first_step_only=first_step_only)
        old = new if before == after else _power(before, traffic, first_step_only=first_step_only)
        for key in dict.fromkeys([*new, *old]):
            power.append(PowerChange(*key, old.get(key), new.get(key)))
    return Comparison(traffic, changes(before, after), before.false_alarm, after.false_alarm, tuple(power))


def changes(before: Canary, after: Canary) -> tuple[Change, ...]:
    """Return what differs between two policies, field by field.

    >>> changes(Canary(), Canary(alpha=0.05))
    (Change(field='alpha', before='0.01', after='0.05'),)
    """
    old, new = settings_of(before), settings_of(after)
    return tuple(Change(name, old[name], new[name]) for name in new if old[name] != new[name])


def settings_of(policy: Canary) -> dict[str, str]:
    """Return each setting of a policy as the ledger stores it; durations are in seconds.

    >>> settings_of(Canary())["timeout"]
    '259200.0'
    """
    return {name: json.dumps(value) for name, value in json.loads(policy.to_json()).items()}


def in_words(name: str, stored: str) -> str:
    """Return a setting of `settings_of` as a person writes it: durations with their unit, and no JSON.

    >>> in_words("timeout", "86400.0"), in_words("steps", "[1.0, 100.0]"), in_words("latency_slack", "0.001")
    ('1 day', '1, 100', '1 ms')
    >>> in_words("shadow", "null"), in_words("newer_version", '"queue"'), in_words("bake", "0.0")
    ('none', 'queue', '0')
    """
    value = json.loads(stored)
    match value:
        case None:
            return "none"
        case list():
            return (
                ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value) or "none"
            )
        case dict():
            return ", ".join(f"{key} {in_words(key, json.dumps(each))}" for key, each in value.items())
        case int() | float() if name in DURATIONS and value > 0:
            return (
                f"{value * 1e3:g} ms" if value < 1 else f"{value:g} s" if value < 60 else span(value / 86_400)
            )
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _power(
    policy: Canary, traffic: MeasuredTraffic, *, first_step_only: bool
) -> dict[tuple[str, str, float], PowerRow]:
    compared = [step for step, share in enumerate(policy.steps) if share < 100.0]
    steps = compared[:1] if first_step_only else sorted({compared[0], compared[-1]})
    rows = [row for step in steps for row in power_of(policy, traffic, step=step)]
    return {(row.metric, row.effect, row.share_percent): row for row in rows}
