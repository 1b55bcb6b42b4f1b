"""Power of a policy: which harm it detects, how soon, and how often it raises a false alarm, before any traffic is exposed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InputError
from holdfast.formatting import percent
from holdfast.rollout.evidence.windows import window_units
from holdfast.rollout.model.metric import ERRORS, LATENCY, QUALITY
from holdfast.rollout.model.policy import Canary
from holdfast.stats.power import RUNS, Detection, Simulation, bad_units, score_loss

_RATIOS: Final = {ERRORS: (2.0, 5.0), LATENCY: (2.0,)}
_LOSSES: Final = (0.02, 0.05, 0.10)
_LEAST_RATE: Final = 0.001  # of errors, where none was seen, because twice 0 is 0
_HOUR: Final = 60.0

# With much traffic larger windows than the product's are simulated, up to so many bad units: what one costs grows with the
# square of what is in it. Even the largest has at most 1/n more information than one of n units.
_MOST_BAD: Final = 20.0
_MOST_WINDOWS: Final = 360

# Labels are not gathered in windows: their scores are paired, and a simulated window is a time after which one looks.
_LOOKS: Final = 60
_MOST_LOOKS: Final = 100
_MOST_PAIRS: Final = 60.0


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
            f"({self.step_minutes:.0f} minutes) in {percent(self.within_step)} of rollouts, within an hour in "
            f"{percent(self.within_hour)}, in half of them {self.soon}; false alarms in at most "
            f"{percent(self.false_alarm, 2)}{looked}"
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

    Guarantee: the tests are the product's own, simulated, in windows as the product closes them (`windows_of`); a share is
    known within about 0.03 (errors, latency) or 0.05 (quality, with high traffic within 0.1). It takes seconds whatever the
    traffic. Slices have no rows, because each has its own traffic; their part of `alpha` is not
    the others'. Assumptions: units fail independently, at the champion's rate and at a multiple of it.
    Raises `InputError` HF107 for a step that the policy does not have, or at which no champion is left.

    >>> doubled, *others = power_of(Canary(steps=(10, 100)), MeasuredTraffic(1200, 120, error_rate=0.01))
    >>> doubled.effect, round(doubled.median_minutes), round(doubled.within_hour, 1)
    ('2 times as many (1% to 2%)', 13, 1.0)
    >>> [each.metric for each in others]
    ['errors', 'latency', 'quality', 'quality', 'quality']
    """
    if not 0 <= step < len(policy.steps) or policy.steps[step] >= 100.0:
        raise InputError("HF107", f"step {step} of the steps {policy.steps} has no champion to compare with")
    plan = _Plan.of(policy, traffic, step)
    return tuple(plan.rows(seed))


@dataclass(frozen=True, slots=True)
class Windows:
    """The simulated windows in which units of both arms are compared; windows without a unit of one arm show nothing.

    Parameters
    ----------
    count
        How many.
    minutes
        From one to the next, on average.
    challenger_units, champion_units
        Mean number of units in each, at least 1.
    """

    count: int
    minutes: float
    challenger_units: float
    champion_units: float


def windows_of(
    policy: Canary, units_per_minute: float, share: float, *, horizon_minutes: float, bad_rate: float
) -> Windows:
    """Return the windows in which the product compares units (`rollout.evidence.windows`), as far as they show anything.

    Parameters
    ----------
    policy
        It determines how many units close a window.
    units_per_minute, share
        Units of both arms together, above 0, and the challenger's share of them, between 0 and 1.
    horizon_minutes
        How long to simulate.
    bad_rate
        The share of bad units, above 0: with much traffic it limits how large the windows are.

    A window is closed by its units or by its minute. Units arrive independently, so that an arm whose mean is m has none in
    exp(-m) of the windows.

    >>> windows_of(Canary(), 1200.0, 0.1, horizon_minutes=60.0, bad_rate=0.01).count
    360
    >>> windows_of(Canary(), 2.0, 0.5, horizon_minutes=60.0, bad_rate=0.01).count  # both arms in 40 % of the minutes
    24
    """
    minutes = min(1.0, window_units(policy) / units_per_minute)
    if horizon_minutes / minutes > _MOST_WINDOWS:
        largest = max(minutes, _MOST_BAD / (units_per_minute * bad_rate))
        minutes = min(1.0, largest, horizon_minutes / _MOST_WINDOWS)
    means = [units_per_minute * minutes * each for each in (share, 1.0 - share)]
    ours, theirs = (-math.expm1(-mean) for mean in means)
    between = minutes / (ours * theirs)
    count = max(1, min(_MOST_WINDOWS, round(horizon_minutes / between)))
    return Windows(count, between, means[0] / ours, means[1] / theirs)


@dataclass(frozen=True, slots=True)
class _Plan:
    """One step, and what is simulated of it."""

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

    @property
    def _horizon_minutes(self) -> float:
        return max(self.step_minutes, _HOUR)

    def _bad(self, metric: str, base: float, ratio: float, seed: int) -> PowerRow:
        windows = windows_of(
            self.policy,
            self.traffic.units_per_minute,
            self.share,
            horizon_minutes=self._horizon_minutes,
            bad_rate=base,
        )
        margin = self.policy.error_margin if metric == ERRORS else self.policy.latency_margin
        found = bad_units(
            Simulation(margin, self.policy.log_bound_of(metric), windows.count, seed, RUNS // 2),
            challenger_units=windows.challenger_units,
            champion_units=windows.champion_units,
            base_rate=base,
            risk_ratio=ratio,
        )
        effect = f"{ratio:g} times as many ({_share(base)} to {_share(base * ratio)})"
        return self._row(metric, effect, found, windows.minutes)

    def _score(self, loss: float, seed: int) -> PowerRow:
        each_minute = self.traffic.labelled_per_minute
        minutes: float = math.ceil(self._horizon_minutes / _LOOKS)
        count, runs = _LOOKS, RUNS // 4
        most_minutes = _MOST_PAIRS / max(each_minute * min(self.share, 1.0 - self.share), 1e-12)
        if minutes > most_minutes:
            minutes = most_minutes
            count = max(_LOOKS, min(_MOST_LOOKS, math.ceil(self._horizon_minutes / minutes)))
            runs = runs * _LOOKS // (2 * count)
        scores = each_minute * minutes
        bound = self.policy.log_bound_of(QUALITY)
        found = score_loss(
            Simulation(self.policy.quality_margin, bound, count, seed, runs),
            challenger_scores=round(scores * self.share),
            champion_scores=round(scores * (1.0 - self.share)),
            mean=self.traffic.mean_score,
            spread=self.traffic.score_spread,
            loss=loss,
        )
        return self._row(QUALITY, f"mean score {loss:.2f} lower", found, minutes)

    def _row(self, metric: str, effect: str, found: Detection, minutes: float) -> PowerRow:
        return PowerRow(
            metric=metric,
            effect=effect,
            share_percent=self.share * 100.0,
            false_alarm=self.policy.alpha_of(metric),
            step_minutes=self.step_minutes,
            within_step=found.share_within(self.step_minutes / minutes),
            within_hour=found.share_within(_HOUR / minutes),
            median_minutes=None if found.median is None else float(found.median * minutes),
            looked_minutes=float(found.windows * minutes),
        )


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 10.0 else f"{minutes:.2g} minutes"


def _share(share: float) -> str:
    return f"{100.0 * share:.2g}%"
