"""Check that the version which should serve is the one that does (R131, R132, R136-R138).

The plan declares a version; a response shows the observed one. Only a response counts: a server that lists a version
as loaded proves nothing about its traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.records import EVERYTHING_PPM, TrafficPlan, Verdict

SETTLING_US: Final = 10_000_000
"""How long a server may follow an older plan before that is a failure."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of one probe request.

    `error` is why there was no prediction; `is_reachable` is False without any response.
    """

    plan_id: int | None
    observed_version: str | None
    error: str = ""
    is_reachable: bool = True
    serving_config: str | None = None
    """The serving config that the server reports."""
    runtime: str | None = None
    """The runtime that the server reports."""


@dataclass(frozen=True, slots=True)
class ServerVerdict:
    """The verdict on whether a server follows the plan."""

    verdict: Verdict
    planned_version: str | None
    explanation: str


def check_server(plan: TrafficPlan | None, seen: Observation, *, plan_age_us: int) -> ServerVerdict:
    """Compare the response of a server with the newest plan.

    Parameters
    ----------
    plan
        The model's newest plan; None if there is none yet.
    seen
        The result of the probe.
    plan_age_us
        The time since that plan was committed, in microseconds.

    Pass means that a request was served under this very plan, by a version that gets traffic from it, and by the
    intended one if the plan does not share traffic. The right version under an older plan is not a pass: it may be
    chance. Silence is an error. A server that is reachable and serves no request fails after `SETTLING_US`.

    >>> plan = TrafficPlan("m", 4, "v1", None, 0, None, None, None)
    >>> check_server(plan, Observation(4, "v1"), plan_age_us=0).verdict
    <Verdict.PASS: 'pass'>
    >>> check_server(plan, Observation(3, "v1"), plan_age_us=0).verdict
    <Verdict.INCONCLUSIVE: 'inconclusive'>
    """
    if plan is None:
        return ServerVerdict(
            Verdict.INCONCLUSIVE, None, "No version was rolled out yet, so none is expected to serve."
        )
    verdict, explanation = _compare(plan, seen, plan_age_us)
    return ServerVerdict(verdict, plan.intended, explanation)


def _compare(plan: TrafficPlan, seen: Observation, plan_age_us: int) -> tuple[Verdict, str]:
    is_settling = plan_age_us <= SETTLING_US
    unsettled = Verdict.INCONCLUSIVE if is_settling else Verdict.FAIL
    if not seen.is_reachable:
        return Verdict.ERROR, f"No response: {seen.error}."
    if seen.observed_version is None:
        return unsettled, f"No version served: {seen.error or 'the response does not name its version'}."
    if seen.plan_id != plan.plan_id:
        follows = "no plan" if seen.plan_id is None else f"plan {seen.plan_id}"
        ending = (
            " and may still be on its way." if is_settling else f". {seen.observed_version} served a request."
        )
        committed = f"plan {plan.plan_id} was committed {plan_age_us / 1e6:.0f} s ago"
        return unsettled, f"The server follows {follows}; {committed}{ending}"
    if None not in (plan.serving_config, seen.serving_config) and plan.serving_config != seen.serving_config:
        running, declared = seen.serving_config, plan.serving_config
        return unsettled, f"The server runs with {running}; plan {plan.plan_id} declares {declared}."
    is_shared = plan.challenger is not None and 0 < plan.share_ppm < EVERYTHING_PPM
    if seen.observed_version in ({plan.champion, plan.challenger} if is_shared else {plan.intended}):
        served = f"A request was served by {seen.observed_version} under plan {plan.plan_id}, as declared."
        return Verdict.PASS, served
    served = f"Plan {plan.plan_id} declares {plan.intended}, but {seen.observed_version} served a request."
    return Verdict.FAIL, served


@dataclass(frozen=True, slots=True)
class Presence:
    """The declared version of a model, its age, and whether its servers have converged."""

    planned_version: str | None
    deployed_us: int | None
    rolled_back_us: int | None
    age_seconds: float | None
    verdict: Verdict
    explanation: str


def worst(verdicts: Sequence[Verdict]) -> tuple[Verdict, str]:
    """Return one verdict, with its explanation, for the probes of all servers of a model.

    The worst probe decides: fail before error before inconclusive before pass. No server, or none that was probed, is
    inconclusive.
    """
    if not verdicts:
        return Verdict.INCONCLUSIVE, "No server has been probed."
    for verdict, explanation in (
        (Verdict.FAIL, "do not serve as the plan declares"),
        (Verdict.ERROR, "are silent"),
        (Verdict.INCONCLUSIVE, "not settled yet"),
    ):
        count = sum(1 for found in verdicts if found is verdict)
        if count:
            return verdict, f"{count} of {len(verdicts)} servers: {explanation}."
    return Verdict.PASS, f"{len(verdicts)} of {len(verdicts)} servers serve as declared."
