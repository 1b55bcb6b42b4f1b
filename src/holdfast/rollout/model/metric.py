"""Names of the metrics of a rollout, and one request as a rollout sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from holdfast.records import Arm

ERRORS: Final = "errors"
LATENCY: Final = "latency"
QUALITY: Final = "quality"
SLICES: Final = "slices"
RATE: Final = "rate"

SHADOW_PREFIX: Final = "shadow."
"""Prefix of the metrics that copies of requests show."""
SHADOW_DISAGREEMENT: Final = "shadow.disagreement"
SHADOW_SCORE: Final = "shadow.score"
SHADOW_ERRORS: Final = "shadow.errors"
SHADOW_LATENCY: Final = "shadow.latency"
SHADOW_QUALITY: Final = "shadow.quality"


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """One request as the canary sees it.

    Parameters
    ----------
    unit
        What was randomised.
    arm
        Where the request was sent, also when the fallback answered it instead.
    failed
        True if that arm could not answer. Leave out malformed requests: they are no evidence about either version.
    latency_us
        Processor time of the request in microseconds.
    slices
        The slices of its rows, such as "carrier=AA"; empty for a failed request, whose rows are not logged.
    """

    unit: bytes
    arm: Arm
    failed: bool
    latency_us: float
    slices: tuple[str, ...] = ()


def is_shadow(metric: str) -> bool:
    """Return True if copies of requests show `metric`; the canary's tests do not use it.

    >>> is_shadow("shadow.errors"), is_shadow("errors")
    (True, False)
    """
    return metric.startswith(SHADOW_PREFIX)
