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
    intended = plan.intended
    if not seen.is_reachable:
        return ServerVerdict(Verdict.ERROR, intended, f"No response: {seen.error}.")
    if seen.observed_version is None:
        explanation = f"No version served: {seen.error or 'the response does not name its version'}."
        settling = plan_age_us <= SETTLING_US
        return ServerVerdict(Verdict.INCONCLUSIVE if settling else Verdict.FAIL, intended, explanation)
    if seen.plan_id != plan.plan_id:
        return _check_other_plan(plan, seen, intended, plan_age_us)
    if None not in (plan.serving_config, seen.serving_config) and plan.serving_config != seen.serving_config:
        explanation = (
            f"The server runs with {seen.serving_config}; plan {plan.plan_id} declares {plan.serving_config}."
        )
        return ServerVerdict(
            Verdict.INCONCLUSIVE if plan_age_us <= SETTLING_US else Verdict.FAIL, intended, explanation
        )
    shared = plan.challenger is not None and 0 < plan.share_ppm < EVERYTHING_PPM
    welcome = {plan.champion, plan.challenger} if shared else {intended}
    if seen.observed_version in welcome:
        return ServerVerdict(
            Verdict.PASS,
            intended,
            f"A request was served by {seen.observed_version} under plan {plan.plan_id}, as declared.",
        )
    return ServerVerdict(
        Verdict.FAIL,
        intended,
        f"Plan {plan.plan_id} declares {intended}, but {seen.observed_version} served a request.",
    )


def _check_other_plan(plan: TrafficPlan, seen: Observation, intended: str, plan_age_us: int) -> ServerVerdict:
    follows = "no plan" if seen.plan_id is None else f"plan {seen.plan_id}"
    explanation = (
        f"The server follows {follows}; plan {plan.plan_id} was committed {plan_age_us / 1e6:.0f} s ago"
    )
    if plan_age_us <= SETTLING_US:
        return ServerVerdict(Verdict.INCONCLUSIVE, intended, f"{explanation} and may still be on its way.")
    return ServerVerdict(Verdict.FAIL, intended, f"{explanation}. {seen.observed_version} served a request.")


@dataclass(frozen=True, slots=True)
class Presence:
    """The declared version of a model, its age, and whether its servers have converged."""

    planned_version: str | None
    deployed_us: int | None
    rolled_back_us: int | None
    age_seconds: float | None
    verdict: Verdict
    explanation: str


def summarise_probes(
    plan: TrafficPlan | None,
    verdicts: Sequence[Verdict],
    *,
    deployed_us: int | None,
    rolled_back_us: int | None,
    trained_us: int | None,
    now_us: int,
) -> Presence:
    """Return one verdict for a model from the probes of all of its servers.

    The worst probe decides: fail before error before inconclusive before pass. No server, or none that was probed, is
    inconclusive.

    Parameters
    ----------
    plan
        The newest plan of the model; None if there is none.
    verdicts
        The verdict of each probed server.
    deployed_us, rolled_back_us
        The time of the last promotion and of the last rollback, microseconds since 1970 UTC; None if never.
    trained_us
        The time when the planned version was trained.
    now_us
        The current time.
    """
    verdict, explanation = _worst(verdicts)
    return Presence(
        planned_version=None if plan is None else plan.intended,
        deployed_us=deployed_us,
        rolled_back_us=rolled_back_us,
        age_seconds=None if trained_us is None else max(0, now_us - trained_us) / 1e6,
        verdict=verdict,
        explanation=explanation,
    )


def _worst(verdicts: Sequence[Verdict]) -> tuple[Verdict, str]:
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
