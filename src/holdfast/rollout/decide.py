"""May the canary go on? One pure function from what is known to what is done, with the reason in words.

Harm sends the challenger back at once. A step ends on evidence only: no data is inconclusive and waits, and a
wait that outlasts the policy's patience ends the rollout as inconclusive. That holds at 100 % and until a probe
has confirmed it, too: there the challenger is held to what the champion showed before. "Promoted" and "rolled back" are
said when a probe was answered by the right version under the newest plan, not before (R131, R132).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from holdfast.records import Verdict
from holdfast.rollout.evidence import QUALITY, MetricState
from holdfast.rollout.machine import Event, State
from holdfast.rollout.policy import Canary
from holdfast.rollout.verdict import MetricVerdict


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A rollout as the decision sees it.

    `returns_to` is the version that a roll-back would restore: the champion, or the fallback when the model
    had none; None when there is neither. While it rolls back, the version that the committed plan restores.
    `plan` is the number of the model's newest traffic plan.
    """

    challenger: str
    champion: str | None
    returns_to: str | None
    state: State
    step: int
    policy: Canary
    step_started_us: int
    plan: int | None


@dataclass(frozen=True, slots=True)
class ProbeSeen:
    """What the last probe of one server saw: the plan that it follows and the version that answered."""

    server: str
    plan: int | None
    answered: str | None
    verdict: Verdict


Verdicts: TypeAlias = tuple[MetricVerdict, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """The challenger gets its first traffic."""

    share_ppm: int
    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.START


@dataclass(frozen=True, slots=True)
class Advance:
    """The challenger's share grows to that of `step`."""

    step: int
    share_ppm: int
    reason: str
    verdicts: Verdicts
    event: Event = Event.ADVANCE


@dataclass(frozen=True, slots=True)
class Complete:
    """The challenger answers everything; a probe has to confirm it before it is the declared champion."""

    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.COMPLETE


@dataclass(frozen=True, slots=True)
class Confirm:
    """Probes saw the version that should answer, answer."""

    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.CONFIRM


@dataclass(frozen=True, slots=True)
class RollBack:
    """The traffic returns. `verdict` is fail when harm was shown, inconclusive when patience ran out."""

    verdict: Verdict
    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.ROLL_BACK


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is done now."""

    reason: str
    verdicts: Verdicts = ()


Decision: TypeAlias = Start | Advance | Complete | Confirm | RollBack | Wait


def decide(
    rollout: RolloutState, evidence: Sequence[MetricState], probes: Sequence[ProbeSeen], now_us: int
) -> Decision:
    """What follows for `rollout`, by the clock reading `now_us` (microseconds since 1970 UTC).

    Parameters
    ----------
    evidence
        One state per metric. For a pending rollout, the states that it would begin with; empty while they
        cannot begin, because the champion has answered too little for a latency bound.
    probes
        The last probe of each server of the model.

    Guarantee: a version within the policy's margins is rolled back as harmful with probability at most
    `alpha`, under the assumptions that `Canary` states, weaker ones at 100 % of the units. Every decision but
    `Wait` is legal in `machine.TRANSITIONS`.

    >>> pending = RolloutState("v2", "v1", "v1", State.PENDING, 0, Canary(), 0, 1)
    >>> decide(pending, [], [], 5).reason
    'inconclusive: too few requests of v1 are known (200 are needed) to freeze a bound on latency'
    """
    match rollout.state:
        case State.PENDING:
            return _pending(rollout, evidence, now_us)
        case State.CANARY:
            return _canary(rollout, evidence, now_us)
        case State.VERIFYING:
            return _verifying(rollout, evidence, probes, now_us)
        case State.ROLLING_BACK:
            return _rolling_back(rollout, probes)
        case State.PROMOTED | State.ROLLED_BACK | State.CANCELLED:
            return Wait(f"nothing is left to decide: the rollout is {rollout.state}")
        case _:
            assert_never(rollout.state)


def judge(state: MetricState, policy: Canary) -> MetricVerdict:
    """The verdict of one metric at the current step. Too few units of either side are inconclusive, never a
    pass."""
    needed = policy.labelled_per_step if state.metric == QUALITY else policy.units_per_step
    units = state.challenger_units_this_step
    wanting = ""
    if units < needed:
        wanting = f"{units} of {needed} units for {state.metric}"
    elif state.champion_units < needed:
        wanting = f"{state.champion_units} of {needed} units of the champion for {state.metric}"
    if state.harmful:
        verdict = Verdict.FAIL
    elif wanting or 0 in (state.challenger_units, state.champion_units):
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS
    return MetricVerdict(state.metric, verdict, units, needed, state.log_e, state.log_bound, wanting)


def _pending(rollout: RolloutState, evidence: Sequence[MetricState], now_us: int) -> Decision:
    if rollout.champion is None:
        return Complete(f"{rollout.challenger} is the first version: there is no champion to compare it with")
    if evidence:
        share_ppm = rollout.policy.shares_ppm[0]
        return Start(share_ppm, f"{rollout.challenger} starts with {_percent(share_ppm)} of the units")
    wanting = (
        f"inconclusive: too few requests of {rollout.champion} are known "
        f"({rollout.policy.latency_requests} are needed) to freeze a bound on latency"
    )
    return _wait_or_give_up(rollout, wanting, (), now_us)


def _canary(rollout: RolloutState, evidence: Sequence[MetricState], now_us: int) -> Decision:
    verdicts = tuple(judge(state, rollout.policy) for state in evidence)
    harm = _harm(evidence, verdicts)
    if harm:
        return RollBack(Verdict.FAIL, harm, verdicts)
    wanting = [verdict.wanting for verdict in verdicts if verdict.wanting]
    share_ppm = rollout.policy.shares_ppm[rollout.step]
    if wanting or not verdicts:
        seen = ", ".join(wanting) or "no evidence at all"
        return _wait_or_give_up(
            rollout, f"inconclusive at {_percent(share_ppm)}: {seen} so far", verdicts, now_us
        )
    shown = ", ".join(f"{verdict.metric} {verdict.units} units" for verdict in verdicts)
    if rollout.step + 1 < len(rollout.policy.shares_ppm):
        following = rollout.policy.shares_ppm[rollout.step + 1]
        reason = f"no harm at {_percent(share_ppm)} ({shown}): the share grows to {_percent(following)}"
        return Advance(rollout.step + 1, following, reason, verdicts)
    return Complete(
        f"no harm at {_percent(share_ppm)}, the last step ({shown}); a probe has to confirm it", verdicts
    )


def _verifying(
    rollout: RolloutState, evidence: Sequence[MetricState], probes: Sequence[ProbeSeen], now_us: int
) -> Decision:
    verdicts = tuple(judge(state, rollout.policy) for state in evidence)
    harm = _harm(evidence, verdicts)
    if harm and rollout.returns_to is not None:
        return RollBack(Verdict.FAIL, harm, verdicts)
    confirmed, seen = _answered_by(rollout.challenger, rollout.plan, probes)
    if confirmed:
        return Confirm(seen, verdicts)
    if rollout.returns_to is None:
        return Wait(f"inconclusive: {seen}", verdicts)
    # Servers that do not obey may be unable to load the version, silent ones may have died of it.
    return _wait_or_give_up(rollout, f"inconclusive: {seen}", verdicts, now_us)


def _rolling_back(rollout: RolloutState, probes: Sequence[ProbeSeen]) -> Decision:
    assert rollout.returns_to is not None, "a roll-back began, so there was something to return to"
    confirmed, seen = _answered_by(rollout.returns_to, rollout.plan, probes)
    return Confirm(seen) if confirmed else Wait(f"inconclusive: {seen}")


def _answered_by(version: str, plan: int | None, probes: Sequence[ProbeSeen]) -> tuple[bool, str]:
    """Whether all servers that answer, and at least one, answered with `version` under `plan`."""
    answering = [probe for probe in probes if probe.verdict is not Verdict.ERROR]
    silent = len(probes) - len(answering)
    if not answering:
        return False, f"no server has answered a probe yet ({silent} silent)"
    other = [probe for probe in answering if (probe.answered, probe.plan) != (version, plan)]
    if other:
        first = other[0]
        return False, (
            f"{len(other)} of {len(answering)} servers do not answer with {version} under plan {plan} yet: "
            f"{first.server} answered with {first.answered} under plan {first.plan}"
        )
    many = "1 server" if len(answering) == 1 else f"{len(answering)} servers"
    words = f"{many} answered the probe with {version} under plan {plan}"
    return True, f"{words}; {silent} were silent" if silent else words


def _harm(evidence: Sequence[MetricState], verdicts: Verdicts) -> str:
    """Which metrics show harm, with their numbers; empty when none does."""
    return "; ".join(
        _harm_in_words(state)
        for state, verdict in zip(evidence, verdicts, strict=True)
        if verdict.verdict is Verdict.FAIL
    )


def _harm_in_words(state: MetricState) -> str:
    strength = f"ln e-value {state.log_e:.1f} >= {state.log_bound:.1f}"
    if state.metric == QUALITY:
        ours = state.challenger_total / max(1, state.challenger_units)
        theirs = state.champion_total / max(1, state.champion_units)
        return (
            f"harm to quality: mean score {ours:.4f} of {state.challenger_units} labelled units, "
            f"champion {theirs:.4f} of {state.champion_units} ({strength})"
        )
    return (
        f"harm to {state.metric}: {state.challenger_total:.0f} of {state.challenger_units} units bad, "
        f"champion {state.champion_total:.0f} of {state.champion_units} ({strength})"
    )


def _wait_or_give_up(rollout: RolloutState, wanting: str, verdicts: Verdicts, now_us: int) -> Wait | RollBack:
    policy = rollout.policy
    patience_us = policy.verify_within_us if rollout.state is State.VERIFYING else policy.patience_us
    waited_us = now_us - rollout.step_started_us
    if waited_us <= patience_us:
        return Wait(wanting, verdicts)
    waited = f"{waited_us / 3.6e9:.1f} h of {patience_us / 3.6e9:.1f} h"
    return RollBack(Verdict.INCONCLUSIVE, f"{wanting}; patience ran out after {waited}", verdicts)


def _percent(share_ppm: int) -> str:
    return f"{share_ppm / 10_000:g} %"
