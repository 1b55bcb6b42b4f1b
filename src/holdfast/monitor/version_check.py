"""Is the version that should answer the one that does (R131, R132, R136-R138).

What the plan says is declared; what a request was answered with is observed. Only an answer counts: that a
server lists a version as loaded proves nothing about its traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.records import EVERYTHING_PPM, TrafficPlan, Verdict

SETTLING_US: Final = 10_000_000
"""How long a server may still follow an older plan before that is a failure."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one probe request came back with. `trouble` says why there was no answer, `reached` whether the
    server said anything at all."""

    plan_id: int | None
    observed_version: str | None
    trouble: str = ""
    reached: bool = True
    serving_config: str | None = None
    """What the server says that it runs with."""
    runtime: str | None = None
    """What the server says that it is."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a server does what the plan says."""

    verdict: Verdict
    planned_version: str | None
    explanation: str


def judge(plan: TrafficPlan | None, seen: Observation, *, plan_age_us: int) -> Judgement:
    """Compare what a server did with what the newest plan says.

    Parameters
    ----------
    plan
        The model's newest plan; None when nothing was rolled out yet.
    seen
        What the probe came back with.
    plan_age_us
        How long ago that plan was committed, in microseconds.

    Pass means that a request was answered, under this very plan, by a version that it gives traffic to, and
    by the intended one when the plan does not share. An answer by the right version under an older plan is
    not a pass: it may be luck. Silence is an error, never a pass. A server that is there and does not answer
    requests fails once it has had `SETTLING_US` to follow the plan.

    >>> plan = TrafficPlan("m", 4, "v1", None, 0, None, None, None)
    >>> judge(plan, Observation(4, "v1"), plan_age_us=0).verdict
    <Verdict.PASS: 'pass'>
    >>> judge(plan, Observation(3, "v1"), plan_age_us=0).verdict
    <Verdict.INCONCLUSIVE: 'inconclusive'>
    """
    if plan is None:
        return Judgement(
            Verdict.INCONCLUSIVE, None, "No version was rolled out yet, so none is expected to answer."
        )
    intended = plan.intended
    if not seen.reached:
        return Judgement(Verdict.ERROR, intended, f"No answer: {seen.trouble}.")
    if seen.observed_version is None:
        words = f"No version answered: {seen.trouble or 'the answer does not name the one that gave it'}."
        settling = plan_age_us <= SETTLING_US
        return Judgement(Verdict.INCONCLUSIVE if settling else Verdict.FAIL, intended, words)
    if seen.plan_id != plan.plan_id:
        return _other_plan(plan, seen, intended, plan_age_us)
    if None not in (plan.serving_config, seen.serving_config) and plan.serving_config != seen.serving_config:
        words = (
            f"The server runs with {seen.serving_config}; plan {plan.plan_id} declares {plan.serving_config}."
        )
        return Judgement(
            Verdict.INCONCLUSIVE if plan_age_us <= SETTLING_US else Verdict.FAIL, intended, words
        )
    shared = plan.challenger is not None and 0 < plan.share_ppm < EVERYTHING_PPM
    welcome = {plan.champion, plan.challenger} if shared else {intended}
    if seen.observed_version in welcome:
        return Judgement(
            Verdict.PASS,
            intended,
            f"A request was answered by {seen.observed_version} under plan {plan.plan_id}, as declared.",
        )
    return Judgement(
        Verdict.FAIL,
        intended,
        f"Plan {plan.plan_id} declares {intended}, but {seen.observed_version} answered a request.",
    )


def _other_plan(plan: TrafficPlan, seen: Observation, intended: str, plan_age_us: int) -> Judgement:
    follows = "no plan" if seen.plan_id is None else f"plan {seen.plan_id}"
    words = f"The server follows {follows}; plan {plan.plan_id} was committed {plan_age_us / 1e6:.0f} s ago"
    if plan_age_us <= SETTLING_US:
        return Judgement(Verdict.INCONCLUSIVE, intended, f"{words} and may still be on its way.")
    return Judgement(Verdict.FAIL, intended, f"{words}. {seen.observed_version} answered a request.")


@dataclass(frozen=True, slots=True)
class Presence:
    """Which version a model declares, since when, how old it is, and whether its servers obey."""

    planned_version: str | None
    deployed_us: int | None
    rolled_back_us: int | None
    age_seconds: float | None
    verdict: Verdict
    explanation: str


def presence(
    plan: TrafficPlan | None,
    verdicts: Sequence[Verdict],
    *,
    deployed_us: int | None,
    rolled_back_us: int | None,
    trained_us: int | None,
    now_us: int,
) -> Presence:
    """One answer for a model from the probes of all of its servers.

    The worst probe decides: fail before error before inconclusive before pass. No server, or none that was
    probed, is inconclusive.
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
    for verdict, words in (
        (Verdict.FAIL, "do not answer as the plan declares"),
        (Verdict.ERROR, "are silent"),
        (Verdict.INCONCLUSIVE, "not settled yet"),
    ):
        count = sum(1 for found in verdicts if found is verdict)
        if count:
            return verdict, f"{count} of {len(verdicts)} servers: {words}."
    return Verdict.PASS, f"{len(verdicts)} of {len(verdicts)} servers were seen to answer as declared."
