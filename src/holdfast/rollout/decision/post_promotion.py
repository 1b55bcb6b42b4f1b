"""Decide about a promotion during its bake time: roll back on harm, else end the bake time good or censored.

The rate of requests is compared with that before the switch, because requests that are lost on their way leave no trace in
predictions. A rate has many causes, so a change is reported and never rolled back; the bake time then ends censored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.formatting import counted, hours, set_hours
from holdfast.records import DAY_US, HOUR_US, MINUTE_US, Verdict
from holdfast.rollout.decision.decide import judged
from holdfast.rollout.decision.decisions import RollBack, Wait
from holdfast.rollout.evidence.records import MetricState, RateEvidence
from holdfast.rollout.evidence.verdict import Verdicts
from holdfast.rollout.model.metric import RATE
from holdfast.rollout.model.policy import Canary
from holdfast.rollout.model.pushes import PushOutcome
from holdfast.stats import RateTest


@dataclass(frozen=True, slots=True)
class EndBake:
    """The bake time is over; `outcome` is the push's label."""

    outcome: PushOutcome
    reason: str
    verdicts: Verdicts


BakeDecision: TypeAlias = RollBack | EndBake | Wait


def decide_bake(
    evidence: Sequence[MetricState], policy: Canary, *, promoted_us: int, until_us: int, now_us: int
) -> BakeDecision:
    """Return the decision about a promotion that bakes until `until_us`.

    Parameters
    ----------
    evidence
        One state per metric, as of `begin_bake`; also the rate's, if it is judged, and those of the shadow, whose labels may be
        as late.
    policy
        The policy of the rollout.
    promoted_us, until_us, now_us
        When it was promoted, when its bake time ends, and the current time; microseconds since 1970 UTC.

    Guarantee: the result is good only if each metric has as many units in the bake time as a step must have, the rate of
    requests has not changed, and neither has the mean score for a reason outside the version. A version within its levels is
    rolled back with probability of about `alpha` at most, in addition to that of the canary. Condition: the levels are the
    champion's of the canary. A surge that would have lifted the champion's errors over them too counts as the version's harm,
    and so does a change of the world that takes more than `bake_quality_margin` of every version's mean score.

    >>> decide_bake([], Canary(), promoted_us=0, until_us=5, now_us=5).outcome
    <PushOutcome.CENSORED: 'censored'>
    """
    verdicts, harm = judged(evidence, policy)
    after = f"{hours(now_us - promoted_us)} after its promotion"
    if harm:
        return RollBack(Verdict.FAIL, f"{harm}; {after}", verdicts)
    if now_us < until_us:
        return Wait(f"baking, no harm {after}; until {hours(until_us - now_us)} from now", verdicts)
    wanting = [verdict.wanting for verdict in verdicts if verdict.wanting]
    if wanting or not any(verdict.units for verdict in verdicts):
        seen = ", ".join(wanting) or "no prediction at all"
        return EndBake(PushOutcome.CENSORED, f"the bake time ended inconclusive: {seen}", verdicts)
    shown = ", ".join(
        f"{verdict.metric} {counted(verdict.units, 'unit')}" for verdict in verdicts if verdict.units
    )
    return EndBake(
        PushOutcome.GOOD, f"no harm in a bake time of {set_hours(policy.bake_us)} ({shown})", verdicts
    )


def begin_rate(policy: Canary, switched_us: int) -> MetricState | None:
    """Return empty evidence about the rate of requests since `switched_us`; None if the policy judges no rate."""
    if policy.rate_margin is None:
        return None
    minute_start_us = switched_us + -switched_us % MINUTE_US
    evidence = RateEvidence(
        RateTest.begin(policy.rate_margin), switched_us=minute_start_us, folded_us=minute_start_us
    )
    return MetricState(RATE, -math.log(policy.alpha), evidence)


@dataclass(frozen=True, slots=True)
class ComparedPeriods:
    """A period after the switch and the one before it that it is compared with, each `us` long."""

    after_us: int
    before_us: int
    us: int


def next_periods(state: MetricState, *, history_us: int, known_at_us: int) -> ComparedPeriods | None:
    """Return the periods to count and fold next; None if there are none.

    Parameters
    ----------
    state
        The evidence about the rate.
    history_us
        When the model got its first request, microseconds since 1970 UTC.
    known_at_us
        Until when all requests are known, microseconds since 1970 UTC.

    The first day after the switch is compared with the day before it, the second with the one before that, and so on: hours of
    the day match, and no period is used twice. For a model that is younger than a day, the first hour is compared with the hour
    before the switch, mirrored.

    >>> state = begin_rate(Canary(), 10 * DAY_US)
    >>> next_periods(state, history_us=0, known_at_us=10 * DAY_US + HOUR_US)
    ComparedPeriods(after_us=864000000000, before_us=777600000000, us=3600000000)
    """
    evidence = _rate_of(state)
    switched_us, after_us = evidence.switched_us, evidence.folded_us
    day = (after_us - switched_us) // DAY_US
    us = min(HOUR_US, known_at_us - after_us, switched_us + (day + 1) * DAY_US - after_us)
    before_us = after_us - (2 * day + 1) * DAY_US
    if switched_us - history_us < DAY_US:
        us = min(us, switched_us + HOUR_US - after_us)
        before_us = switched_us - (after_us - switched_us) - us
    us -= us % MINUTE_US
    return ComparedPeriods(after_us, before_us, us) if us > 0 and before_us >= history_us else None


def fold_rate(state: MetricState, periods: ComparedPeriods, *, after: int, before: int) -> MetricState:
    """Return the evidence with the requests counted in `periods`: `after` the switch, and `before` it."""
    evidence, seconds = _rate_of(state), periods.us / 1e6
    test = evidence.test.fold(after=after, after_seconds=seconds, before=before, before_seconds=seconds)
    folded_us = periods.after_us + periods.us
    folded = RateEvidence(test, evidence.switched_us, folded_us)
    return state.advance(folded, (after, 0.0, before, 0.0), test.log_e, state.step_units + after)


def format_rate(state: MetricState) -> str:
    """Return the rate of requests after the switch relative to that before it, with its numbers."""
    before = f"{state.champion_units} in the same time before"
    return (
        f"the rate of requests is {_rate_of(state).test.interval()} times that before the switch "
        f"({counted(state.challenger_units, 'request')} after, {before}; ln e-value {state.log_e:.1f} of {state.log_bound:.1f})"
    )


def _rate_of(state: MetricState) -> RateEvidence:
    assert isinstance(state.evidence, RateEvidence)
    return state.evidence
