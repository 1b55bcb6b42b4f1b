"""Power of a policy: which harm it detects, how soon, and how often it raises a false alarm, before any traffic is exposed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InputError
from holdfast.rollout.model.metric import ERRORS, LATENCY, QUALITY
from holdfast.rollout.model.policy import Canary
from holdfast.stats.power import RUNS, Detection, Simulation, bad_units, score_loss

_RATIOS: Final = {ERRORS: (2.0, 5.0), LATENCY: (2.0,)}
_LOSSES: Final = (0.02, 0.05, 0.10)
_LEAST_RATE: Final = 0.001  # of errors, where none was seen, because twice 0 is 0
_WINDOWS: Final = 60
_HOUR: Final = 60.0

# A window with more than this is simulated as several: what it costs grows with the square of what is in it.
_MOST_BAD: Final = 40.0
_MOST_PAIRS: Final = 60.0
_MOST_WINDOWS: Final = {ERRORS: 240, LATENCY: 240, QUALITY: 100}
_RUNS: Final = {ERRORS: RUNS, LATENCY: RUNS, QUALITY: RUNS // 4}


@dataclass(frozen=True, slots=True)
class MeasuredTraffic:
    """The traffic of a model, as far as the power of its canary depends on it.

    Parameters
    ----------
    units_per_minute, labelled_per_minute
        Units of randomisation of both arms together, and how many of them get a label; above 0, and at least 0.
    error_rate
        The share of units with an error, from 0 to 1.
    mean_score, score_spread
        Mean (between 0 and 1) and standard deviation (above 0) of the scores of labelled answers.
    labels_due
        False if no prediction is old enough to have its label: then `labelled_per_minute` is 0 and means nothing.
    requests, minutes
        What was counted: so many requests in so many minutes; 0 if nothing was.
    """

    units_per_minute: float
    labelled_per_minute: float = 0.0
    error_rate: float = 0.01
    mean_score: float = 0.8
    score_spread: float = 0.2
    labels_due: bool = True
    requests: int = 0
    minutes: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 < self.units_per_minute < math.inf and 0.0 <= self.labelled_per_minute < math.inf):
            raise InputError("HF107", f"units per minute must be above 0 and finite: {self.units_per_minute}")


@dataclass(frozen=True, slots=True)
class PowerRow:
    """One harm of one metric: how likely it is detected, and how soon.

    `false_alarm` bounds the probability that this metric rolls back a version which is within the margins, over the whole
    canary; replay, shadow and bake time, where the policy has them, each have as much again.
    `within_step` and `within_hour` are probabilities of detection before the step may end, and within an hour at its share;
    `median_minutes` is None if fewer than half are detected within `looked_minutes`, the simulated time. High traffic is
    simulated for a short time only: then the probabilities are lower bounds.
    """

    metric: str
    effect: str
    share_percent: float
    false_alarm: float
    step_minutes: float
    within_step: float
    within_hour: float
    median_minutes: float | None
    looked_minutes: float

    @property
    def soon(self) -> str:
        """Return how soon half are detected."""
        if self.median_minutes is None:
            return f"later than {_minutes(self.looked_minutes)}"
        return f"within {_minutes(self.median_minutes)}"

    def __str__(self) -> str:
        looked = (
            "" if self.looked_minutes >= _HOUR else f"; simulated for {_minutes(self.looked_minutes)} only"
        )
        return (
            f"{self.metric}, {self.effect}, at {self.share_percent:g} %: found by the end of the step "
            f"({self.step_minutes:.0f} minutes) in {self.within_step:.0%} of rollouts, within an hour in "
            f"{self.within_hour:.0%}, in half of them {self.soon}; false alarms in at most "
            f"{self.false_alarm:.2%}{looked}"
        )


def power_of(
    policy: Canary, traffic: MeasuredTraffic, *, step: int = 0, seed: int = 1
) -> tuple[PowerRow, ...]:
    """Compute what `policy` detects at its `step` (from 0 on) with this traffic, for a few harms of each metric.

    Parameters
    ----------
    policy, traffic
        The policy, and the measured or assumed traffic.
    step
        Index of the step, from 0.
    seed
        Seed of the simulation.

    Guarantee: the tests are the product's own, simulated; a share is known within about 0.02 (errors, latency) or 0.05
    (quality), with high traffic within twice that: it is simulated in more and shorter windows, fewer times, so that it takes
    seconds whatever the traffic. Slices have no rows, because each has its own traffic; their part of `alpha` is not
    the others'. Assumptions: units fail independently, at the champion's rate and at a multiple of it.
    Raises `InputError` HF107 for a step that the policy does not have, or at which no champion is left.

    >>> doubled, *others = power_of(Canary(steps=(10, 100)), MeasuredTraffic(1200, 120, error_rate=0.01))
    >>> doubled.effect, doubled.median_minutes, doubled.within_hour
    ('2 times as many (1% to 2%)', 14.0, 0.999)
    >>> [each.metric for each in others]
    ['errors', 'latency', 'quality', 'quality', 'quality']
    """
    if not 0 <= step < len(policy.steps) or policy.steps[step] >= 100.0:
        raise InputError("HF107", f"step {step} of the steps {policy.steps} has no champion to compare with")
    plan = _Plan.of(policy, traffic, step)
    return tuple(plan.rows(seed))


@dataclass(frozen=True, slots=True)
class _Windows:
    """Number, length in minutes and runs of the windows in which one harm is simulated."""

    count: int
    minutes: float
    runs: int

    @classmethod
    def of(cls, metric: str, horizon_minutes: float, most_minutes: float) -> _Windows:
        """Return `_WINDOWS` windows of whole minutes for the horizon; if that is too much, shorter ones for a part of it."""
        minutes, runs = math.ceil(horizon_minutes / _WINDOWS), _RUNS[metric]
        if minutes <= most_minutes:
            return cls(_WINDOWS, minutes, runs)
        count = max(_WINDOWS, min(_MOST_WINDOWS[metric], math.ceil(horizon_minutes / most_minutes)))
        return cls(count, most_minutes, runs * _WINDOWS // (count if metric != QUALITY else 2 * count))


@dataclass(frozen=True, slots=True)
class _Plan:
    """One step in windows of equal length: a minute, longer at low traffic, shorter at high traffic."""

    policy: Canary
    traffic: MeasuredTraffic
    share: float
    step_minutes: float

    @classmethod
    def of(cls, policy: Canary, traffic: MeasuredTraffic, step: int) -> _Plan:
        share = policy.steps[step] / 100.0
        smaller = min(share, 1.0 - share)
        waits = [
            policy.min_step_duration_us / 60e6,
            policy.units_per_step / (traffic.units_per_minute * smaller),
        ]
        if policy.labels_per_step and traffic.labelled_per_minute:
            waits.append(policy.labels_per_step / (traffic.labelled_per_minute * smaller))
        return cls(policy, traffic, share, math.ceil(max(waits)))

    def rows(self, seed: int) -> Iterator[PowerRow]:
        for metric in self.policy.metrics:
            if metric == QUALITY:
                for loss in _LOSSES:
                    if loss < self.traffic.mean_score:
                        yield self._score(loss, seed)
                continue
            if metric not in _RATIOS:
                continue  # the traffic of slices is not measured
            base = self._base(metric)
            for ratio in _RATIOS[metric]:
                if base * ratio < 1.0:
                    yield self._bad(metric, base, ratio, seed)

    def _base(self, metric: str) -> float:
        if metric == ERRORS:
            return max(_LEAST_RATE, self.traffic.error_rate)
        assert self.policy.latency_quantile is not None, "latency is judged"
        return 1.0 - self.policy.latency_quantile

    def _windows(self, metric: str, counted_per_minute: float, most: float) -> _Windows:
        most_minutes = most / counted_per_minute if counted_per_minute > 0.0 else math.inf
        return _Windows.of(metric, max(self.step_minutes, _HOUR), most_minutes)

    def _bad(self, metric: str, base: float, ratio: float, seed: int) -> PowerRow:
        each_minute = self.traffic.units_per_minute
        windows = self._windows(metric, each_minute * base, _MOST_BAD)
        units = each_minute * windows.minutes
        margin = self.policy.error_margin if metric == ERRORS else self.policy.latency_margin
        found = bad_units(
            Simulation(margin, self.policy.log_bound_of(metric), windows.count, seed, windows.runs),
            challenger_units=units * self.share,
            champion_units=units * (1.0 - self.share),
            base_rate=base,
            risk_ratio=ratio,
        )
        effect = f"{ratio:g} times as many ({_share(base)} to {_share(base * ratio)})"
        return self._row(metric, effect, found, windows)

    def _score(self, loss: float, seed: int) -> PowerRow:
        each_minute = self.traffic.labelled_per_minute
        windows = self._windows(QUALITY, each_minute * min(self.share, 1.0 - self.share), _MOST_PAIRS)
        scores = each_minute * windows.minutes
        bound = self.policy.log_bound_of(QUALITY)
        found = score_loss(
            Simulation(self.policy.quality_margin, bound, windows.count, seed, windows.runs),
            challenger_scores=round(scores * self.share),
            champion_scores=round(scores * (1.0 - self.share)),
            mean=self.traffic.mean_score,
            spread=self.traffic.score_spread,
            loss=loss,
        )
        return self._row(QUALITY, f"mean score {loss:.2f} lower", found, windows)

    def _row(self, metric: str, effect: str, found: Detection, windows: _Windows) -> PowerRow:
        return PowerRow(
            metric=metric,
            effect=effect,
            share_percent=self.share * 100.0,
            false_alarm=self.policy.alpha_of(metric),
            step_minutes=self.step_minutes,
            within_step=found.share_within(self.step_minutes / windows.minutes),
            within_hour=found.share_within(_HOUR / windows.minutes),
            median_minutes=None if found.median is None else float(found.median * windows.minutes),
            looked_minutes=float(windows.count * windows.minutes),
        )


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 10.0 else f"{minutes:.2g} minutes"


def _share(share: float) -> str:
    return f"{100.0 * share:.2g}%"
