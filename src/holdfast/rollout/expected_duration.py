"""How long a rollout takes at a given traffic, before it begins, and a policy whose rollout ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from holdfast.errors import InputError
from holdfast.rollout.model.policy import Canary, microseconds

_ROUNDED_FROM: Final = 1_000
"""From so many requests a day two digits are printed."""

_DAY: Final = timedelta(days=1)
_PATIENCE: Final = 3.0
"""The timeout of a suggested policy, as a multiple of its longest step: traffic varies by day and week."""
_SOON_DAYS: Final = 10.0
"""A suggested rollout takes at most so long, if any of `_STEPS` does."""
_STEPS: Final = ((1, 5, 25, 50, 100), (5, 25, 50, 100), (10, 50, 100), (25, 50, 100), (50, 100))
_LABELS_WITHIN: Final = timedelta(days=3)
"""No step of a suggested policy waits for labels that take longer: each would last at least so long."""
_BAKE_BEYOND: Final = timedelta(days=7)
"""How long after the delay of such labels the bake time ends: in it they are judged."""
_SIZES: Final = ((200, 50), (100, 30), (50, 20))
"""Units and labels of each step; fewer show less, so they come last."""


@dataclass(frozen=True, slots=True)
class StepForecast:
    """One step: the challenger's share of the traffic in percent, and how many days its evidence takes, inf for ever."""

    share_percent: float
    days: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The steps of a rollout at `units_per_day`, and the timeout of each, in days.

    `basis` states what the traffic is taken from, if that is more than counting.
    """

    units_per_day: float
    steps: tuple[StepForecast, ...]
    timeout_days: float
    basis: str = ""

    @property
    def days(self) -> float:
        """Return how long all steps take."""
        return sum(step.days for step in self.steps)

    @property
    def slowest(self) -> StepForecast:
        """Return the step that takes longest."""
        return max(self.steps, key=lambda step: step.days)

    @property
    def ends(self) -> bool:
        """Return True if each step has its evidence before its timeout."""
        return self.slowest.days <= self.timeout_days

    def describe(self) -> str:
        """Return the forecast as one sentence.

        >>> print(forecast(Canary(steps=(1, 100)), units_per_day=165.0).describe())  # doctest: +NORMALIZE_WHITESPACE
        at 165 requests a day a rollout takes 17 weeks; its 1 % step takes 17 weeks and times out after 3 days, so it would
        end inconclusive
        """
        unlabelled = "" if self.days < math.inf else " and without labels"
        basis = f" ({self.basis})" if self.basis else ""
        rate = self.units_per_day
        if rate >= _ROUNDED_FROM:
            # Measured over minutes: a second measurement, some seconds later, differs in the third digit.
            rate = float(f"{rate:.2g}")
        begin = f"at {rate:,.0f} requests a day{basis}{unlabelled} a rollout takes {span(self.days)}"
        step = f"its {self.slowest.share_percent:g} % step takes {span(self.slowest.days)}"
        if self.ends:
            return f"{begin}; {step}, its timeout is {span(self.timeout_days)}"
        return f"{begin}; {step} and times out after {span(self.timeout_days)}, so it would end inconclusive"


def forecast(
    policy: Canary,
    *,
    units_per_day: float,
    labelled_share: float = 1.0,
    label_delay: timedelta = timedelta(0),
    basis: str = "",
) -> Forecast:
    """Return how long each step of `policy` takes.

    Parameters
    ----------
    policy
        The policy of the rollout.
    units_per_day
        Units of randomisation that request a prediction on a day, of both arms together; above 0.
    labelled_share
        The share of them that get a label, from 0 to 1.
    label_delay
        How long after its prediction a label comes.
    basis
        What the traffic is taken from, in words.

    Shadow, replay and the bake time are not in it.
    """
    if not 0.0 < units_per_day < math.inf:
        raise InputError("HF107", f"units per day must be above 0 and finite: {units_per_day}")
    return Forecast(
        units_per_day,
        tuple(_steps(policy, units_per_day, labelled_share, label_delay / _DAY)),
        policy.timeout_us / 86_400e6,
        basis,
    )


def _steps(policy: Canary, units: float, labelled_share: float, delay_days: float) -> Iterator[StepForecast]:
    for percent in policy.steps:
        share = percent / 100.0
        # Both arms are needed, except at 100 %, where the champion has shown its level before.
        each_day = units * (share if share == 1.0 else min(share, 1.0 - share))
        days = max(policy.min_step_duration_us / 86_400e6, policy.units_per_step / each_day)
        if policy.labels_per_step:
            labelled = each_day * labelled_share
            days = max(days, policy.labels_per_step / labelled + delay_days if labelled else math.inf)
        yield StepForecast(percent, days)


def suggest(
    *, units_per_day: float, labelled_share: float = 1.0, label_delay: timedelta = timedelta(0)
) -> Canary:
    """Return a policy whose rollout ends at this traffic, with the smallest first step that does not take long.

    Parameters are those of `forecast`. No step waits for labels if there are none, or if they take longer than three days. Such
    labels are judged as they come, in the steps and in a bake time that is a week longer than their delay.

    >>> suggest(units_per_day=100_000) == Canary()
    True
    >>> few = suggest(units_per_day=165)
    >>> few.steps, few.units_per_step, few.timeout.days
    ((25.0, 50.0, 100.0), 200, 15)
    >>> suggest(units_per_day=100_000, label_delay=timedelta(days=30)) == Canary(labels_per_step=0, bake="37d")
    True
    """
    found = Canary()
    waits = labelled_share > 0.0 and label_delay <= _LABELS_WITHIN
    # Labels that come late delay every step alike, however many requests there are.
    late_days = label_delay / _DAY if waits else 0.0
    bake = found.bake if waits or not labelled_share else label_delay + _BAKE_BEYOND
    for units, labels in _SIZES:
        for steps in _STEPS:
            found = Canary(
                steps=steps, units_per_step=units, labels_per_step=labels if waits else 0, bake=bake
            )
            seen = forecast(
                found, units_per_day=units_per_day, labelled_share=labelled_share, label_delay=label_delay
            )
            if seen.days <= _SOON_DAYS + len(steps) * late_days:
                return _patient(found, seen)
    return _patient(found, seen)


def _patient(policy: Canary, seen: Forecast) -> Canary:
    days = math.ceil(_PATIENCE * seen.slowest.days)
    return policy if days <= policy.timeout_us / 86_400e6 else replace(policy, timeout=timedelta(days=days))


def to_python(policy: Canary) -> str:
    """Return `policy` as Python, without what it has by default; of the fields that `suggest` sets.

    >>> to_python(Canary()), to_python(Canary(steps=(50, 100), timeout="9d"))
    ('Canary()', 'Canary(steps=(50, 100), timeout="9d")')
    """
    usual, given = Canary(), list[str]()
    if policy.steps != usual.steps:
        given.append(f"steps=({', '.join(f'{step:g}' for step in policy.steps)})")
    given += [
        f"{name}={getattr(policy, name)}"
        for name in ("units_per_step", "labels_per_step")
        if getattr(policy, name) != getattr(usual, name)
    ]
    given += [
        f'{name}="{microseconds(getattr(policy, name)) // 86_400_000_000}d"'
        for name in ("timeout", "bake")
        if getattr(policy, name) != getattr(usual, name)
    ]
    return f"Canary({', '.join(given)})"


def span(days: float) -> str:
    """Return a number of days as a person counts it.

    >>> span(0.01), span(1 / 24), span(1), span(2.4), span(120), span(float("inf"))
    ('14 minutes', '1 hour', '1 day', '2.4 days', '17 weeks', 'for ever')
    """
    if days == math.inf:
        return "for ever"
    for size, noun, form in (
        (1 / 1440, "minute", ".0f"),
        (1 / 24, "hour", ".2g"),
        (1, "day", ".2g"),
        (7, "week", ",.0f"),
    ):
        longest = {"minute": 1 / 24, "hour": 1.0, "day": 28.0}.get(noun, math.inf)
        if days < longest:
            number = format(max(days / size, 1.0 if noun == "minute" else 0.0), form)
            return f"{number} {noun}" if number == "1" else f"{number} {noun}s"
    raise AssertionError("weeks have no longest number")
