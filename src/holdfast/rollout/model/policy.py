"""Policy of a rollout: what a canary must show before it advances, and the evidence that stops it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.records import EVERYTHING_PPM, canonical_json, duration
from holdfast.rollout.model.metric import ERRORS, LATENCY, QUALITY, SLICES

_LEVEL_SHARE: Final = 0.02  # of alpha, for the bound on the champion's own level; the rest is the tests'

DURATIONS: Final = (
    "timeout", "convergence_timeout", "min_step_duration", "bake", "latency_slack", "max_drill_age",
)  # fmt: skip
"""The settings of a canary that are durations."""

SERVER: Final = "server"
"""The name in `slices` that guards each server separately."""

_ALPHA_PARTS: Final[dict[str, int]] = {ERRORS: 8, LATENCY: 1, QUALITY: 1, SLICES: 2}
"""Parts of alpha. Evidence of errors is scarce and late, so they get most; the others lose a fifth of their speed."""


@dataclass(frozen=True)
@checked()
class Shadow:
    """What a challenger must show on copies of requests, before callers get its predictions.

    Parameters
    ----------
    share
        Percentage of the units whose requests are copied to it, above 0 to 100. Default 100.
    units
        How many different units it must have responded to. Default 500.
    disagreement
        Tolerated share of units whose decision differs from the champion's, from 0 to 1: an always-valid lower bound above it
        ends the rollout. Default 1: any.
    threshold
        The probability from which a decision is "yes", above 0 and below 1. Default 0.5.

    Raises `InputError` HF107 for an invalid value.
    """

    share: float = 100.0
    units: int = 500
    disagreement: float = 1.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        _check(
            self,
            ("share", 0.0001 <= self.share <= 100.0, "lies above 0 and at most at 100"),
            ("units", self.units >= 1, "is at least 1"),
            ("disagreement", 0.0 <= self.disagreement <= 1.0, "lies from 0 to 1"),
            ("threshold", 0.0 < self.threshold < 1.0, "lies between 0 and 1"),
        )

    @property
    def share_ppm(self) -> int:
        """Return the share of units that it gets copies of, in parts per million."""
        return round(self.share * EVERYTHING_PPM / 100.0)


class NewerVersion(StrEnum):
    """What happens to a newer version that is to be rolled out while a rollout is under way."""

    QUEUE = "queue"
    SUPERSEDE = "supersede"
    REFUSE = "refuse"


@dataclass(frozen=True)
@checked()
class Canary:
    """A rollout in steps. The challenger's share grows on evidence only, and harm rolls it back.

    Parameters
    ----------
    steps
        The challenger's share of the units in percent, growing, each above 0 and at most 100, the first below 100: at 100 it is
        compared with what the champion showed until then.
    alpha
        The probability that a version which is no worse than the margins allow is rolled back, in each of replay,
        shadow, canary and bake time that the policy has, over all metrics of that stage together, however often one
        looks. Between 0 and 0.5. Default 0.01. `false_alarm` is the sum over the stages: 0.02 with the defaults,
        canary and bake time.
    units_per_step
        How many different units of the challenger (of what was randomised) each step must have seen, and how many the champion
        must have shown by then. At least 1. Default 200.
    labels_per_step
        The same for labelled predictions. Default 50. 0 does not wait for labels; those that arrive are still judged.
    error_margin, latency_margin
        The tolerated odds ratio of failing, and of being slower than the frozen bound; at least 1. Defaults 1.0 (no worse at
        all, though finding a version that is worse by a fifth takes very many units) and 1.05.
    latency_quantile
        The quantile of the champion's latency that is frozen as the bound when the canary starts, between 0 and 1; None judges
        no latency. Default 0.99.
    latency_tolerance, latency_slack
        The bound is so many times that quantile (at least 1), and at least so much above it. Defaults 1.25 and 1 ms: a
        challenger with few requests has smaller batches, whose fixed cost fewer rows share, and the quantile itself is known
        within 12 %. A version that is a little slower as a whole stays below such a bound, while requests that take a slow path
        lie far above it.
    latency_requests
        How many requests of the champion must be known before that quantile is trusted. Default 200.
    quality_margin
        The tolerated loss of mean score, in units of 1 - (label - probability)², from 0 to below 1. Default 0.005.
    timeout
        How long a step may wait for its evidence before the rollout ends as inconclusive. Default 3 days.
    shadow
        What a challenger must show on copies of requests before it gets traffic; None skips that.
    replay_requests
        How many recorded requests a version must have responded to as well as the version that served them, before its rollout
        begins. Default 0: none.
    min_step_duration
        Minimum duration of each step, however clear its evidence is. Default 0.
    min_labels_total
        How many labelled predictions of the challenger are needed, over all steps, before it gets all traffic: traffic may
        advance on early signals while labels arrive days later. Default 0.
    slices
        Columns of the request by whose values each slice is guarded separately: a version that fails for one carrier
        only is not hidden by the others. Each names a request column of both versions; a step must have seen units by
        each of them. "server", unless the versions have a column of that name, guards each server that answers, so that
        the reason of a rollback names the one on which the challenger fails. None by default.
    rate_margin
        The factor by which the rate of requests may differ after a switch, to either side, before that is reported; more than
        1, or None to judge no rate. Default 2.
    bake
        Bake time of a promotion. Harm that is shown in it is rolled back and counted as an escaped bad push. Default 3 days.
    bake_quality_margin
        How much more than `quality_margin` the mean score may lie below what the champion showed before that is rolled back
        without a comparison: at 100 % and in the bake time. From 0 to below 1, default 0.05. A smaller loss may come from a
        world that got harder; it is reported, and the bake time ends censored.
    max_drill_age
        Maximum age of the last passed rollback drill when a rollout begins, within its validity; None requires none. None is
        required either while there is no version besides the champion that it could return to.
    newer_version
        What `holdfast rollout start` does for a newer version while a rollout is under way. "queue" (default): it starts when
        the rollout ends, and replaces an older one that waits. "supersede": it ends the rollout, unless that has all traffic.
        "refuse": nothing is started (HF404). A rollout that is still pending has seen nothing and is always ended, except by
        "refuse".
    convergence_timeout
        How long servers may take to respond with the version that has all traffic, before it is rolled back: they may be unable
        to load it, or crash on it. Default 10 minutes.

    Guarantee: P(needless rollback for harm) <= `alpha` in the canary, at most `false_alarm` in all, under the assumptions of
    `holdfast.stats.HypergeometricTest` and `BettingTest`, by Ville's inequality and Bonferroni over the metrics. At 100 % no
    champion is left to compare with. There the challenger is compared with what the champion showed in the steps
    before, and the guarantee is the weaker one of `LevelTest`, which counts a surge that would have hit both as the
    challenger's harm. The same holds in the bake time: for errors and latency as long as no surge lifts them over the
    champion's level, for quality as long as the world takes no more than `bake_quality_margin`. A machine that gets busy
    after the switch may therefore count as harm; a larger `latency_slack` is for machines that are shared. Latency is the
    processor time that the server logged as the request's own: reading and checking it, and its rows' part of its
    batch's time in the model. Waiting for other requests, or for a processor, does not depend on the version and is
    not in it. Power of the defaults: `power_of`.

    Raises `InputError` HF107 for an invalid value.

    >>> Canary(steps=(1, 100)).shares_ppm
    (10000, 1000000)
    """

    steps: Sequence[float] = (1, 5, 25, 50, 100)
    alpha: float = 0.01
    units_per_step: int = 200
    labels_per_step: int = 50
    error_margin: float = 1.0
    latency_margin: float = 1.05
    latency_quantile: float | None = 0.99
    latency_tolerance: float = 1.25
    latency_slack: timedelta | str = timedelta(milliseconds=1)
    latency_requests: int = 200
    quality_margin: float = 0.005
    timeout: timedelta | str = timedelta(days=3)
    shadow: Shadow | None = None
    replay_requests: int = 0
    min_step_duration: timedelta | str = timedelta(0)
    min_labels_total: int = 0
    slices: Sequence[str] = ()
    rate_margin: float | None = 2.0
    bake: timedelta | str = timedelta(days=3)
    max_drill_age: timedelta | str | None = None
    convergence_timeout: timedelta | str = timedelta(minutes=10)
    bake_quality_margin: float = 0.05
    newer_version: str = "queue"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(float(step) for step in self.steps))
        object.__setattr__(self, "slices", tuple(self.slices))
        choices = tuple(NewerVersion)
        known = self.newer_version in choices
        _check(self, ("newer_version", known, f"is one of {', '.join(choices)}"))
        object.__setattr__(self, "newer_version", NewerVersion(self.newer_version))
        for name in DURATIONS:
            if name != "max_drill_age" or self.max_drill_age is not None:
                object.__setattr__(self, name, duration(getattr(self, name), name))
        steps, quantile, rate = self.steps, self.latency_quantile, self.rate_margin
        rising = len(steps) > 0 and all(low < high for low, high in pairwise(steps))
        between = rising and 0.0001 <= min(steps) < 100.0 and max(steps) <= 100.0
        first = "the first below 100 so that there is a champion to compare with"
        _check(
            self,
            ("steps", between, f"rise from above 0 to at most 100, {first}"),
            ("alpha", 0.0 < self.alpha < 0.5, "lies between 0 and 0.5"),
            ("units_per_step", self.units_per_step >= 1, "is at least 1"),
            ("labels_per_step", self.labels_per_step >= 0, "is at least 0"),
            ("error_margin", 1.0 <= self.error_margin < math.inf, "is an odds ratio of at least 1"),
            ("latency_margin", 1.0 <= self.latency_margin < math.inf, "is an odds ratio of at least 1"),
            ("latency_quantile", quantile is None or 0.0 < quantile < 1.0, "lies between 0 and 1"),
            ("latency_tolerance", 1.0 <= self.latency_tolerance < math.inf, "is a factor of at least 1"),
            ("latency_slack", duration(self.latency_slack) >= timedelta(0), "is at least 0"),
            ("latency_requests", self.latency_requests >= 1, "is at least 1"),
            ("quality_margin", 0.0 <= self.quality_margin < 1.0, "lies from 0 to below 1"),
            ("bake_quality_margin", 0.0 <= self.bake_quality_margin < 1.0, "lies from 0 to below 1"),
            ("replay_requests", self.replay_requests >= 0, "is at least 0"),
            ("min_labels_total", self.min_labels_total >= 0, "is at least 0"),
            ("rate_margin", rate is None or 1.0 < rate < math.inf, "is a factor above 1"),
            ("slices", len(set(self.slices)) == len(self.slices), "name each column once"),
            ("max_drill_age", self.max_drill_age_us is None or self.max_drill_age_us > 0, "is above 0"),
            ("timeout", self.timeout_us > 0, "is above 0"),
            ("convergence_timeout", self.convergence_timeout_us > 0, "is above 0"),
            ("min_step_duration", duration(self.min_step_duration) >= timedelta(0), "is at least 0"),
            ("bake", duration(self.bake) >= timedelta(0), "is at least 0"),
        )

    @property
    def shares_ppm(self) -> tuple[int, ...]:
        """Return the challenger's share at each step, in parts per million."""
        return tuple(round(step * EVERYTHING_PPM / 100.0) for step in self.steps)

    @property
    def timeout_us(self) -> int:
        """Return `timeout` in microseconds."""
        return microseconds(self.timeout)

    @property
    def convergence_timeout_us(self) -> int:
        """Return how long servers may take to converge, in microseconds."""
        return microseconds(self.convergence_timeout)

    @property
    def min_step_duration_us(self) -> int:
        """Return the minimum duration of each step, in microseconds."""
        return microseconds(self.min_step_duration)

    @property
    def bake_us(self) -> int:
        """Return the bake time of a promotion, in microseconds."""
        return microseconds(self.bake)

    @property
    def max_drill_age_us(self) -> int | None:
        """Return the maximum age of the last passed rollback drill, in microseconds; None requires none."""
        return None if self.max_drill_age is None else microseconds(self.max_drill_age)

    def latency_bound_us(self, quantile_seconds: float) -> float:
        """Return the latency above which a request is slow, in microseconds, given the champion's quantile in seconds.

        >>> Canary().latency_bound_us(0.020), Canary().latency_bound_us(0.0005)
        (25000.0, 1500.0)
        """
        quantile_us = quantile_seconds * 1e6
        return max(self.latency_tolerance * quantile_us, quantile_us + microseconds(self.latency_slack))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the judged metrics; each gets a part of `alpha`."""
        metrics = (ERRORS, QUALITY) if self.latency_quantile is None else (ERRORS, LATENCY, QUALITY)
        return (*metrics, SLICES) if self.slices else metrics

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the stages that may roll a version back by evidence, in order; each errs with `alpha` at most."""
        enabled = {
            "replay": self.replay_requests,
            "shadow": self.shadow is not None,
            "canary": True,
            "bake": self.bake_us,
        }
        return tuple(stage for stage, is_enabled in enabled.items() if is_enabled)

    @property
    def false_alarm(self) -> float:
        """Return a bound on the probability that a version within the margins is rolled back by any stage, by Bonferroni.

        >>> Canary(shadow=Shadow()).false_alarm
        0.03
        """
        return min(1.0, self.alpha * len(self.stages))

    def alpha_of(self, metric: str) -> float:
        """Return the part of `alpha` that `metric` has; all parts sum to `alpha`.

        >>> [round(Canary().alpha_of(each), 4) for each in Canary().metrics]
        [0.008, 0.001, 0.001]
        """
        return self.alpha * _ALPHA_PARTS[metric] / sum(_ALPHA_PARTS[each] for each in self.metrics)

    def log_bound_of(self, metric: str) -> float:
        """Return the natural logarithm of the e-value at which `metric` shows harm."""
        return -math.log((1.0 - _LEVEL_SHARE) * self.alpha_of(metric))

    def level_alpha_of(self, metric: str) -> float:
        """Return the probability that the frozen level of `metric` at 100 % is below the champion's true one."""
        return _LEVEL_SHARE * self.alpha_of(metric)

    def to_json(self) -> str:
        """Return the policy as canonical JSON, as the ledger stores it; durations are in seconds."""
        return canonical_json(self)

    @classmethod
    def from_json(cls, text: str) -> Canary:
        """Return the policy that `to_json` wrote.

        >>> Canary.from_json(Canary(alpha=0.05).to_json()) == Canary(alpha=0.05)
        True
        """
        known = json.loads(text)
        for name in DURATIONS:
            known[name] = None if known[name] is None else timedelta(seconds=known[name])
        if known.get("shadow") is not None:
            known["shadow"] = Shadow(**known["shadow"])
        return cls(**known)


def microseconds(span: timedelta | str) -> int:
    """Return `span` in microseconds.

    >>> microseconds("1.5s")
    1500000
    """
    return round(duration(span).total_seconds() * 1e6)


def _check(policy: Canary | Shadow, *rules: tuple[str, bool, str]) -> None:
    """Raise `InputError` HF107 for the first field whose rule does not hold."""
    for name, holds, rule in rules:
        if not holds:
            raise InputError("HF107", f"{name} of a canary {rule}: {getattr(policy, name)}")
