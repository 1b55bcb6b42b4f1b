"""Decide what happens to a rollout. One pure function from what is known to a decision with its reason.

The order is: a replay and a drill first, then copies of requests, then traffic in steps.
Harm rolls the challenger back at once. A step ends on evidence only: without data it is inconclusive and waits. A wait
that exceeds the policy's timeout ends the rollout as inconclusive. The same holds at 100 % until a probe has confirmed
it; there the challenger is compared with what the champion showed before. "Promoted" and "rolled back" are reported only
after the right version responded to a probe under the newest plan (R131, R132).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from holdfast import formatting
from holdfast.formatting import counted
from holdfast.records import EVERYTHING_PPM, Verdict
from holdfast.rollout.decision.decisions import (
    Advance,
    BeginShadow,
    Complete,
    Confirm,
    Decision,
    ProbeSeen,
    RollBack,
    RolloutState,
    Start,
    Wait,
)
from holdfast.rollout.evidence.records import MetricState
from holdfast.rollout.evidence.verdict import Verdicts, harm_of, judge_all
from holdfast.rollout.model.metric import QUALITY
from holdfast.rollout.model.policy import Canary
from holdfast.rollout.model.state_machine import State


def decide(
    rollout: RolloutState, evidence: Sequence[MetricState], probes: Sequence[ProbeSeen], now_us: int
) -> Decision:
    """Return the decision about `rollout` at `now_us` (microseconds since 1970 UTC).

    Parameters
    ----------
    rollout
        Its state, policy and versions.
    evidence
        One state per metric, those of the shadow included. Before the canary, the states that it would begin with; empty while
        they cannot begin, because the champion has too few requests for a latency bound.
    probes
        The last probe of each server of the model.
    now_us
        The current time.

    Guarantee: a version within the policy's margins is rolled back as harmful with probability at most
    `alpha`, under the assumptions that `Canary` states, weaker ones at 100 % of the units. Every decision but
    `Wait` is legal in `machine.TRANSITIONS`.

    >>> from holdfast.rollout.model.policy import Canary
    >>> pending = RolloutState("v2", "v1", "v1", State.PENDING, 0, Canary(), 0, 1)
    >>> decide(pending, [], [], 5).reason
    'inconclusive: 0 of 200 requests of v1 are known; a bound on latency is frozen from them'
    """
    match rollout.state:
        case State.PENDING:
            return _pending(rollout, evidence, now_us)
        case State.SHADOWING:
            return _shadowing(rollout, evidence, now_us)
        case State.CANARY:
            return _canary(rollout, evidence, now_us)
        case State.PAUSED:
            return _paused(rollout, evidence)
        case State.VERIFYING:
            return _verifying(rollout, evidence, probes, now_us)
        case State.ROLLING_BACK:
            return _rolling_back(rollout, probes)
        case State.PROMOTED | State.ROLLED_BACK | State.CANCELLED:
            return Wait(f"nothing is left to decide: the rollout is {rollout.state}")
        case _:
            assert_never(rollout.state)


def judged(evidence: Sequence[MetricState], policy: Canary) -> tuple[Verdicts, str]:
    """Return the verdicts of a challenger that has traffic, and a description of its harm.

    Labels of its time in shadow may arrive when it has traffic already; harm that they show rolls it back too. No
    decision waits for them, so of the shadow's verdicts only those that show harm are returned.
    """
    copies, others = _split_copies(evidence)
    harmful = (verdict for verdict in judge_all(copies, policy) if verdict.verdict is Verdict.FAIL)
    return (*judge_all(others, policy), *harmful), harm_of(evidence, policy)


def _split_copies(evidence: Sequence[MetricState]) -> tuple[list[MetricState], list[MetricState]]:
    """Return the evidence of copies, and that of traffic."""
    copies = [state for state in evidence if state.is_shadow]
    return copies, [state for state in evidence if not state.is_shadow]


def _pending(rollout: RolloutState, evidence: Sequence[MetricState], now_us: int) -> Decision:
    if rollout.champion is None:  # nor anything to replay, or to roll back to and drill
        return Complete(f"{rollout.challenger} is the first version: there is no champion to compare it with")
    missing = _missing(rollout, now_us)
    if missing is not None:
        return missing
    wanted = rollout.policy.shadow
    if wanted is None:
        return _start(rollout, evidence, "", (), now_us)
    share = formatting.share(wanted.share_ppm)
    reason = f"{rollout.challenger} gets copies of {share} of the requests; no caller gets its predictions"
    return BeginShadow(wanted.share_ppm, reason)


def _missing(rollout: RolloutState, now_us: int) -> RollBack | Wait | None:
    """Return what to do while a replay or drill that the policy requires is missing; None if none is."""
    policy, ready = rollout.policy, rollout.ready
    if policy.replay_requests:
        if ready.replay is Verdict.FAIL:
            return RollBack(
                Verdict.FAIL, f"{rollout.challenger} failed the replay of {ready.replayed} requests"
            )
        if ready.replay is not Verdict.PASS or ready.replayed < policy.replay_requests:
            wanting = (
                f"inconclusive: {rollout.challenger} has answered {ready.replayed} of "
                f"{policy.replay_requests} recorded requests (holdfast replay {rollout.challenger})"
            )
            return _wait_or_give_up(rollout, wanting, (), now_us)
    within_us = policy.max_drill_age_us
    if within_us is None or ready.drill.ready:
        return None
    if not ready.can_drill:
        return None  # without a second version no drill can pass, and only a rollout brings a second version
    wanting = (
        f"inconclusive: {ready.drill.explanation}, and the policy requires a drill within "
        f"{formatting.hours(within_us)} (holdfast drill rollback)"
    )
    return _wait_or_give_up(rollout, wanting, (), now_us)


def _start(
    rollout: RolloutState, evidence: Sequence[MetricState], after: str, verdicts: Verdicts, now_us: int
) -> Decision:
    if evidence:
        share_ppm = rollout.policy.shares_ppm[0]
        reason = f"{after}{rollout.challenger} starts with {formatting.share(share_ppm)} of the units"
        return Start(share_ppm, reason, verdicts)
    wanting = (
        f"inconclusive: {rollout.champion_requests} of {rollout.policy.latency_requests} requests of "
        f"{rollout.champion} are known; a bound on latency is frozen from them"
    )
    return _wait_or_give_up(rollout, wanting, verdicts, now_us)


def _shadowing(rollout: RolloutState, evidence: Sequence[MetricState], now_us: int) -> Decision:
    """Cancel a challenger that does harm or differs too much; it has no traffic yet."""
    copies, others = _split_copies(evidence)
    verdicts = judge_all(copies, rollout.policy)
    harm = harm_of(copies, rollout.policy)
    if harm:
        return RollBack(Verdict.FAIL, harm, verdicts)
    wanting = [verdict.wanting for verdict in verdicts if verdict.wanting]
    if wanting or not verdicts:
        seen = ", ".join(wanting) or "no copy got a response"
        return _wait_or_give_up(rollout, f"inconclusive in shadow: {seen} so far", verdicts, now_us)
    shown = f"no harm in shadow ({_shown(verdicts)}): "
    return _start(rollout, others, shown, verdicts, now_us)


def _canary(rollout: RolloutState, evidence: Sequence[MetricState], now_us: int) -> Decision:
    verdicts, harm = judged(evidence, rollout.policy)
    if harm:
        return RollBack(Verdict.FAIL, harm, verdicts)
    wanting = [verdict.wanting for verdict in verdicts if verdict.wanting]
    share_ppm = rollout.policy.shares_ppm[rollout.step]
    if wanting or not verdicts:
        seen = ", ".join(wanting) or "no evidence at all"
        return _wait_or_give_up(
            rollout, f"inconclusive at {formatting.share(share_ppm)}: {seen} so far", verdicts, now_us
        )
    lasted_us = now_us - rollout.step_started_at_us
    if lasted_us < rollout.policy.min_step_duration_us:
        least = formatting.hours(rollout.policy.min_step_duration_us)
        return Wait(
            f"no harm at {formatting.share(share_ppm)} in {formatting.hours(lasted_us)}; a step lasts {least}",
            verdicts,
        )
    after = rollout.policy.shares_ppm[rollout.step + 1 :]
    labelled = sum(state.challenger_units for state in evidence if state.metric == QUALITY)
    if labelled < rollout.policy.min_labels_total and (not after or after[0] == EVERYTHING_PPM):
        wanted = f"inconclusive: {labelled} of {rollout.policy.min_labels_total} labelled units in all"
        return _wait_or_give_up(rollout, wanted, verdicts, now_us)
    if after:
        grown = formatting.share(after[0])
        reason = f"no harm at {formatting.share(share_ppm)} ({_shown(verdicts)}): the share grows to {grown}"
        return Advance(rollout.step + 1, after[0], reason, verdicts)
    return Complete(
        f"no harm at {formatting.share(share_ppm)}, the last step ({_shown(verdicts)}); a probe has to confirm it",
        verdicts,
    )


def _paused(rollout: RolloutState, evidence: Sequence[MetricState]) -> Decision:
    """Wait for the operator; harm rolls the challenger back all the same."""
    verdicts, harm = judged(evidence, rollout.policy)
    if harm:
        return RollBack(Verdict.FAIL, harm, verdicts)
    share = formatting.share(rollout.policy.shares_ppm[rollout.step])
    return Wait(f"paused at {share} of the units by an operator (holdfast rollout resume)", verdicts)


def _verifying(
    rollout: RolloutState, evidence: Sequence[MetricState], probes: Sequence[ProbeSeen], now_us: int
) -> Decision:
    verdicts, harm = judged(evidence, rollout.policy)
    if harm and rollout.returns_to is not None:
        return RollBack(Verdict.FAIL, harm, verdicts)
    confirmed, seen = _is_converged(rollout.challenger, rollout.plan_id, probes)
    if confirmed:
        return Confirm(seen, verdicts)
    if rollout.returns_to is None:
        return Wait(f"inconclusive: {seen}", verdicts)
    # Servers that do not converge may be unable to load the version; silent ones may have crashed on it.
    return _wait_or_give_up(rollout, f"inconclusive: {seen}", verdicts, now_us)


def _rolling_back(rollout: RolloutState, probes: Sequence[ProbeSeen]) -> Decision:
    assert rollout.returns_to is not None, "a rollback began, so there is a version to return to"
    confirmed, seen = _is_converged(rollout.returns_to, rollout.plan_id, probes)
    return Confirm(seen) if confirmed else Wait(f"inconclusive: {seen}")


def _is_converged(version: str, plan: int | None, probes: Sequence[ProbeSeen]) -> tuple[bool, str]:
    """Return True if every server that responds, and at least one, did so with `version` under `plan`; and a description."""
    responding = [probe for probe in probes if probe.verdict is not Verdict.ERROR]
    silent = len(probes) - len(responding)
    if not responding:
        return False, f"no server has answered a probe yet ({silent} silent)"
    other = [probe for probe in responding if (probe.observed_version, probe.plan_id) != (version, plan)]
    if other:
        first = other[0]
        return False, (
            f"{len(other)} of {len(responding)} servers do not answer with {version} under plan {plan} yet: "
            f"{first.server} answered with {first.observed_version} under plan {first.plan_id}"
        )
    many = counted(len(responding), "server")
    words = f"{many} answered the probe with {version} under plan {plan}"
    return True, f"{words}; {silent} were silent" if silent else words


def _wait_or_give_up(rollout: RolloutState, wanting: str, verdicts: Verdicts, now_us: int) -> Wait | RollBack:
    policy = rollout.policy
    timeout_us = policy.convergence_timeout_us if rollout.state is State.VERIFYING else policy.timeout_us
    waited_us = now_us - rollout.step_started_at_us
    if waited_us <= timeout_us:
        return Wait(wanting, verdicts)
    waited = f"{formatting.hours(waited_us)} of {formatting.hours(timeout_us)}"
    return RollBack(Verdict.INCONCLUSIVE, f"{wanting}; timeout after {waited}", verdicts)


def _shown(verdicts: Verdicts) -> str:
    return ", ".join(f"{verdict.metric} {counted(verdict.units, 'unit')}" for verdict in verdicts)
