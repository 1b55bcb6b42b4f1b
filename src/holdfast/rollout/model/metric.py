"""One metric of a rollout as it is kept, and one request as a rollout sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from holdfast.records import Arm

ERRORS: Final = "errors"
LATENCY: Final = "latency"
QUALITY: Final = "quality"
SLICES: Final = "slices"
RATE: Final = "rate"

SHADOW_PREFIX: Final = "shadow."
"""What the name of a metric begins with that was shown on copies."""
SHADOW_DISAGREEMENT: Final = "shadow.disagreement"
SHADOW_SCORE: Final = "shadow.score"
SHADOW_ERRORS: Final = "shadow.errors"
SHADOW_LATENCY: Final = "shadow.latency"
SHADOW_QUALITY: Final = "shadow.quality"


@dataclass(frozen=True, slots=True)
class MetricState:
    """One metric of one rollout: realised counts of both arms, and how strong the evidence of harm is.

    `*_total` is the number of bad units, or the sum of scores. `log_e` is the natural logarithm of the
    largest e-value reached, `log_bound` the one at which harm is declared. `state` is JSON: the tests' own
    state, the units of the current step, and what the metric must remember.
    """

    metric: str
    challenger_units: int
    challenger_total: float
    champion_units: int
    champion_total: float
    log_e: float
    log_bound: float
    state: str

    @property
    def harmful(self) -> bool:
        """Whether harm is shown. Once it is, it stays so."""
        return self.log_e >= self.log_bound

    @property
    def challenger_units_this_step(self) -> int:
        """The challenger's different units since the current step began, counted until the step has enough."""
        return int(json.loads(self.state)["step_units"])

    @property
    def told(self) -> bool:
        """Whether it has changed in a promotion's watch by what the world may have done as well as the version."""
        return bool(json.loads(self.state).get("told", {}).get("alarmed", False))

    @property
    def latency_bound_us(self) -> float | None:
        """Above which latency a request is slow, in microseconds; None for the other metrics."""
        bound = json.loads(self.state).get("latency_bound_us")
        return None if bound is None else float(bound)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request as the canary sees it.

    `unit` is what was randomised, `arm` where it was sent (a challenger that failed was sent there, whoever
    answered), `failed` whether that arm could not answer. A request that was refused because it was malformed
    is no evidence about either version: leave it out. `slices` are those that its rows belong to, such as
    "carrier=AA"; none for a request that nobody could answer, whose rows are not logged.
    """

    unit: bytes
    arm: Arm
    failed: bool
    latency_us: float
    slices: tuple[str, ...] = ()


def is_shadow(metric: str) -> bool:
    """Whether `metric` was shown on copies; the canary's tests know nothing of it.

    >>> is_shadow("shadow.errors"), is_shadow("errors")
    (True, False)
    """
    return metric.startswith(SHADOW_PREFIX)
