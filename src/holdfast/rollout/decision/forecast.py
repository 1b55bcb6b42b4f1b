"""Forecast when a rollout decides, from how its evidence has grown so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.rollout.evidence.verdict import MetricVerdict
from holdfast.rollout.model.policy import Canary


@dataclass(frozen=True, slots=True)
class Forecast:
    """Microseconds until the step has enough evidence, and until harm would be shown; None if unknown.

    Both are linear extrapolations, no promise. Harm that does not exist has no time.
    """

    enough_us: int | None
    harm_us: int | None

    @property
    def decision_us(self) -> int | None:
        """Return the time until the first of the two."""
        known = [each for each in (self.enough_us, self.harm_us) if each is not None]
        return min(known, default=None)


def forecast(
    verdicts: Sequence[MetricVerdict], policy: Canary, *, step_us: int, evidence_us: int
) -> Forecast:
    """Return a forecast from the growth of the evidence so far.

    Parameters
    ----------
    verdicts
        The current verdict of each metric.
    policy
        The policy of the rollout.
    step_us
        Duration of the step so far, microseconds; units grow from its beginning.
    evidence_us
        Age of the evidence, microseconds; the natural logarithm of the e-value grows from 0 at its beginning.

    >>> from holdfast.records import Verdict
    >>> half = MetricVerdict("errors", Verdict.INCONCLUSIVE, 50, 200, 1.0, 5.0, "150 more")
    >>> forecast([half], Canary(), step_us=60_000_000, evidence_us=60_000_000)
    Forecast(enough_us=180000000, harm_us=240000000)
    """
    waits = [_wait_us(each.units, each.needed, step_us) for each in verdicts]
    enough_us: int | None = None
    if waits and None not in waits:
        least_us = policy.min_step_duration_us - step_us
        enough_us = max(0, least_us, *(each for each in waits if each is not None))
    growing = [each for each in verdicts if each.log_e > 0.0]
    harm = [evidence_us * (each.log_bound - each.log_e) / each.log_e for each in growing]
    return Forecast(enough_us, round(max(0.0, min(harm))) if harm else None)


def _wait_us(units: int, needed: int, step_us: int) -> int | None:
    if units >= needed:
        return 0
    return round(step_us * (needed - units) / units) if units and step_us > 0 else None
