"""What follows a promotion: its watch. Harm is taken back by itself; a watch ends good, or censored when nobody can tell.

Beside the answers, the rate of requests is compared with that before the switch. A switch that loses requests on their way
shows in no request's answer. Yet a rate has many causes, so nothing is taken back for it: it is told, and the watch ends
censored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from holdfast.formatting import hours, set_hours
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
class EndWatch:
    """The watch is over, and this is the push's label."""

    outcome: PushOutcome
    reason: str
    verdicts: Verdicts


WatchDecision: TypeAlias = RollBack | EndWatch | Wait


def decide_watch(
    evidence: Sequence[MetricState], policy: Canary, *, promoted_us: int, until_us: int, now_us: int
) -> WatchDecision:
    """What follows for a promotion that is watched until `until_us`, by the clock reading `now_us`.

    Parameters
    ----------
    evidence
        One state per metric, as of `begin_watch`; the rate's too, where it is judged, and those of the shadow,
        whose labels may come as late.

    Guarantee: never good without as many units of each metric in the watch as a step must show, and never good when the
    rate of requests has changed, or the mean score for a reason that may be the world's. A version within its levels is
    taken back with probability of about `alpha` at most, beside that of the canary. Condition: the levels are the champion's
    of the canary; a surge that would have lifted its errors over them too is taken for the version's harm, and so is a
    world that takes more than `bake_quality_margin` of every version's mean score.

    >>> decide_watch([], Canary(), promoted_us=0, until_us=5, now_us=5).outcome
    <PushOutcome.CENSORED: 'censored'>
    """
    verdicts, harm = judged(evidence, policy)
    after = f"{hours(now_us - promoted_us)} after its promotion"
    if harm:
        return RollBack(Verdict.FAIL, f"{harm}; {after}", verdicts)
    if now_us < until_us:
        return Wait(f"watched, no harm {after}; until {hours(until_us - now_us)} from now", verdicts)
    wanting = [verdict.wanting for verdict in verdicts if verdict.wanting]
    if wanting or not any(verdict.units for verdict in verdicts):
        seen = ", ".join(wanting) or "no answer at all"
        return EndWatch(PushOutcome.CENSORED, f"the watch ended inconclusive: {seen}", verdicts)
    shown = ", ".join(f"{verdict.metric} {verdict.units} units" for verdict in verdicts if verdict.units)
    return EndWatch(
        PushOutcome.GOOD, f"no harm in a watch of {set_hours(policy.bake_us)} ({shown})", verdicts
    )


def begin_rate(policy: Canary, switched_us: int) -> MetricState | None:
    """No evidence yet about the rate of requests since the switch at `switched_us`; None when the policy judges none."""
    if policy.rate_margin is None:
        return None
    minute_start_us = switched_us + -switched_us % MINUTE_US
    evidence = RateEvidence(
        RateTest.begin(policy.rate_margin), switched_us=minute_start_us, folded_us=minute_start_us
    )
    return MetricState(RATE, -math.log(policy.alpha), evidence)


@dataclass(frozen=True, slots=True)
class Stretches:
    """A stretch after the switch and the one before it that it is compared with, each `us` long."""

    after_us: int
    before_us: int
    us: int


def next_stretches(state: MetricState, *, history_us: int, known_at_us: int) -> Stretches | None:
    """What is to be counted and folded next; None when nothing is.

    Parameters
    ----------
    history_us
        When the model was first asked, microseconds since 1970 UTC.
    known_at_us
        Until when all requests are known.

    The first day after the switch is compared with the day before it, the second with the one before that, and so on, so
    that the hours of a day meet their likes and no stretch is used twice. A model that is younger than a day has its
    first hour compared with the hour before the switch, mirrored.

    >>> state = begin_rate(Canary(), 10 * DAY_US)
    >>> next_stretches(state, history_us=0, known_at_us=10 * DAY_US + HOUR_US)
    Stretches(after_us=864000000000, before_us=777600000000, us=3600000000)
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
    return Stretches(after_us, before_us, us) if us > 0 and before_us >= history_us else None


def fold_rate(state: MetricState, stretches: Stretches, *, after: int, before: int) -> MetricState:
    """The evidence after `stretches` were counted: so many requests after the switch, and before it."""
    evidence, seconds = _rate_of(state), stretches.us / 1e6
    test = evidence.test.fold(after=after, after_seconds=seconds, before=before, before_seconds=seconds)
    folded_us = stretches.after_us + stretches.us
    return replace(
        state,
        challenger_units=state.challenger_units + after,
        champion_units=state.champion_units + before,
        log_e=max(state.log_e, test.log_e),
        step_units=state.step_units + after,
        evidence=RateEvidence(test, evidence.switched_us, folded_us),
    )


def rate_in_words(state: MetricState) -> str:
    """What the rate of requests is after the switch, against that before it, with its numbers."""
    before = f"{state.champion_units} in as long before"
    return (
        f"the rate of requests is {_rate_of(state).test.interval()} times that before the switch "
        f"({state.challenger_units} requests after, {before}; ln e-value {state.log_e:.1f} of {state.log_bound:.1f})"
    )


def _rate_of(state: MetricState) -> RateEvidence:
    assert isinstance(state.evidence, RateEvidence)
    return state.evidence
