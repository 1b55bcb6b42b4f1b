"""Forecast when a rollout decides, from how its evidence has grown so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.formatting import counted, span
from holdfast.records import DAY_US, MINUTE_US
from holdfast.rollout.evidence.verdict import MetricVerdict
from holdfast.rollout.model.metric import QUALITY, SHADOW_QUALITY
from holdfast.rollout.model.policy import Canary

_SECOND_US: Final = 1_000_000
_SHORTEST_SILENCE_US: Final = MINUTE_US
"""Requests are counted by the minute: a shorter time without one is not known."""

_MOST_REQUESTS_PER_UNIT: Final = 10
_FEWEST_REQUESTS: Final = 100


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


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The requests on which the evidence of a rollout rests.

    `requests` are those since it has traffic, as far as they are counted. `units` is the largest number of different units
    from which they can be. `silent_us` is the time without a request until now, microseconds; 0 if unknown.
    """

    requests: int = 0
    units: int = 0
    silent_us: int = 0


def waits_for_requests(
    verdicts: Sequence[MetricVerdict], policy: Canary, arrivals: Arrivals, *, step_us: int, evidence_us: int
) -> bool:
    """Return True if a step lacks units, and no request came for longer than its forecast needs.

    The forecast is that of the time with requests: one over the whole step recedes as long as none comes. Parameters are
    those of `forecast`.

    >>> from holdfast.records import Verdict
    >>> half = MetricVerdict("errors", Verdict.INCONCLUSIVE, 50, 100, 0.0, 5.0, "50 more")
    >>> [
    ...     waits_for_requests([half], Canary(), Arrivals(100, 50, silent), step_us=600_000_000, evidence_us=600_000_000)
    ...     for silent in (240_000_000, 360_000_000)
    ... ]
    [False, True]
    """
    silent_us = min(arrivals.silent_us, step_us)
    if silent_us < _SHORTEST_SILENCE_US or not _lacks_units(verdicts):
        return False
    with_requests = [max(0, each - silent_us) for each in (step_us, evidence_us)]
    needed_us = forecast(verdicts, policy, step_us=with_requests[0], evidence_us=with_requests[1]).decision_us
    return needed_us is None or silent_us > needed_us


def few_units(verdicts: Sequence[MetricVerdict], arrivals: Arrivals) -> str:
    """Return that many requests are few units, in words, if a step lacks units; "" if not.

    A caller that sends a constant id makes all of its requests one unit, and no rollout ends with enough evidence.

    >>> from holdfast.records import Verdict
    >>> none = MetricVerdict("errors", Verdict.INCONCLUSIVE, 0, 50, 0.0, 5.0, "50 more")
    >>> few_units([none], Arrivals(300, 1))
    '300 requests of this rollout came from 1 unit: give each request or session an id of its own'
    >>> few_units([none], Arrivals(300, 3)), few_units([none], Arrivals(300, 250)), few_units([none], Arrivals(30, 1))
    ('300 requests of this rollout came from at most 3 units: give each request or session an id of its own', '', '')
    """
    is_few = 0 < arrivals.units * _MOST_REQUESTS_PER_UNIT <= arrivals.requests
    if arrivals.requests < _FEWEST_REQUESTS or not is_few or not _lacks_units(verdicts):
        return ""
    most = "" if arrivals.units == 1 else "at most "
    return (
        f"{counted(arrivals.requests, 'request')} of this rollout came from {most}{counted(arrivals.units, 'unit')}: "
        "give each request or session an id of its own"
    )


def _lacks_units(verdicts: Sequence[MetricVerdict]) -> bool:
    """Return True if more requests are needed; labels come without any."""
    return any(each.units < each.needed for each in verdicts if each.metric not in (QUALITY, SHADOW_QUALITY))


def describe_next(
    found: Forecast,
    *,
    waits_for: str = "",
    timeout_us: int | None = None,
    step_us: int | None = None,
    paused: bool = False,
    bake_us: int | None = None,
    silent_us: int | None = None,
) -> str:
    """Return what comes next of a rollout and when, in one sentence.

    Parameters
    ----------
    found
        The forecast of the step.
    waits_for
        What the next decision waits for, in words.
    timeout_us
        Microseconds until the stage ends inconclusive if nothing is decided; None if it never does.
    step_us
        How long the stage has lasted, microseconds; None if it is long enough for its rate to count.
    paused
        Whether an operator paused it.
    bake_us
        Microseconds until the bake time ends; None outside of it.
    silent_us
        How long no request came, microseconds, if the step waits for requests; else None.

    >>> describe_next(Forecast(9_000_000, None), silent_us=240_000_000)
    'waits for requests: none for 4 min'
    >>> describe_next(Forecast(7_200_000_000, None), timeout_us=3_600_000_000)
    'needs about 2 h more for enough evidence, and ends inconclusive in 1 h: send more requests, or set a longer timeout'
    >>> describe_next(Forecast(None, None), waits_for="0 of 200 units for errors", timeout_us=3_600_000_000)
    'waits: 0 of 200 units for errors; ends inconclusive in 1 h if nothing changes'
    """
    if paused:
        return "paused by an operator: evidence counts, the rollout does not advance"
    if bake_us is not None:
        return f"the bake time ends in {_span(bake_us)}, unless harm is shown before"
    if silent_us is not None:
        return _until(f"waits for requests: none for {_span(silent_us)}", timeout_us)
    at_us = found.decision_us
    if at_us is not None and at_us < _SECOND_US:
        return "is being decided now"
    if at_us is not None and (timeout_us is None or at_us <= timeout_us):
        return f"decision in about {_span(at_us)}"
    if (
        at_us is not None
        and timeout_us is not None
        and step_us is not None
        and _is_early(timeout_us, step_us)
    ):
        return (
            f"needs about {_span(at_us)} more at the rate of its first {_span(step_us)}, which is no whole day; "
            f"ends inconclusive in {_span(timeout_us)} if it stays so"
        )
    if at_us is not None and timeout_us is not None:
        return (
            f"needs about {_span(at_us)} more for enough evidence, and ends inconclusive in {_span(timeout_us)}: "
            "send more requests, or set a longer timeout"
        )
    waits = (
        f"waits: {waits_for.removeprefix('inconclusive: ')}" if waits_for else "waits for the control loop"
    )
    return _until(waits, timeout_us)


def _until(waits: str, timeout_us: int | None) -> str:
    if timeout_us is None:
        return waits
    return f"{waits}; ends inconclusive in {_span(timeout_us)} if nothing changes"


def is_stalled(found: Forecast, *, timeout_us: int | None, step_us: int) -> bool:
    """Return True if a stage that has lasted `step_us` ends inconclusive as it goes on.

    A forecast counts after a whole day, because traffic differs by the hour, and in a shorter stage from half of the time on
    that it may take. Without a forecast the latter holds too.

    >>> is_stalled(Forecast(None, None), timeout_us=9, step_us=1), is_stalled(Forecast(None, None), timeout_us=1, step_us=9)
    (False, True)
    >>> evening, day = 3_600_000_000, 86_400_000_000
    >>> [is_stalled(Forecast(17 * day, None), timeout_us=11 * day, step_us=each) for each in (evening, day)]
    [False, True]
    """
    if timeout_us is None:
        return False
    if found.decision_us is None:
        return step_us > timeout_us
    return found.decision_us > timeout_us and not _is_early(timeout_us, step_us)


def _is_early(timeout_us: int, step_us: int) -> bool:
    return step_us < min(DAY_US, timeout_us)


def _span(us: int) -> str:
    return span(max(0, us) / 1e6)


def _wait_us(units: int, needed: int, step_us: int) -> int | None:
    if units >= needed:
        return 0
    return round(step_us * (needed - units) / units) if units and step_us > 0 else None
