"""Reconcile a rollout: read the evidence, decide, commit. The committed plan is the effect; servers follow it.

One transaction holds the compare-and-set of the rollout's state, its event and the new traffic plan, under the lease's epoch.
A loop that was killed, or a second one, finds either all of it or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from holdfast.control.evaluation import eligibility
from holdfast.control.rollout import compatibility, drill_traffic, pushes, webhooks
from holdfast.control.rollout.traffic import traffic_of
from holdfast.errors import NotFoundError, RefusedError
from holdfast.formatting import with_article
from holdfast.monitor.latency import Histogram, quantile_seconds
from holdfast.records import DAY_US, EVERYTHING_PPM, Verdict
from holdfast.rollout import Canary, Event, MetricState, State, begin_step, decide, freeze_levels, next_state
from holdfast.rollout import (
    begin as begin_evidence,
)
from holdfast.rollout.decision.decisions import (
    Advance,
    BeginShadow,
    Complete,
    Confirm,
    Decision,
    ProbeSeen,
    Readiness,
    RollBack,
    RolloutState,
    Start,
    Wait,
)
from holdfast.rollout.decision.post_promotion import begin_rate
from holdfast.rollout.evidence import shadow
from holdfast.rollout.evidence.evidence import begin_bake
from holdfast.rollout.evidence.verdict import Verdicts, judge_all
from holdfast.rollout.model.drills import DrillKind, ready
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.models import gate_results, versions
from holdfast.store.rollout import drills, evidence, rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.serving import servers
from holdfast.store.telemetry import request_counts

if TYPE_CHECKING:
    pass

DECISIONS_AT_ONCE: Final = 4
"""A round takes few decisions: each has its effect on the traffic before the next is due."""

LATENCY_LOOKBACK_US: Final = (7 * DAY_US, 92 * DAY_US)
"""How far back the champion's latency is looked at when the bound is frozen, microseconds.

The second applies while the first has too few requests: at ten requests a day, a week never has enough.
"""

_BEFORE_TRAFFIC: Final = frozenset({State.PENDING, State.SHADOWING})


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of a rollout by its state machine.

    Parameters
    ----------
    step
        The index of the step that it comes to; None keeps the present one.
    harm
        The harm that the decision saw, in words; "" for none, or to compute it from current evidence.
    verdicts
        Those that the decision used; None to compute them from current evidence.
    """

    event: Event
    reason: str
    actor: str
    step: int | None = None
    harm: str = ""
    verdicts: Verdicts | None = None


def insert(
    connection: Transaction, model: str, version: str, policy_json: str, *, actor: str, now_us: int
) -> int:
    """Insert the pending rollout of the qualified `version` in the caller's transaction; return its number.

    Raises `RefusedError` HF403 if it is the champion, or has yet to pass a compatibility test with the runtime in force;
    `ConflictError` HF404 while another one is under way.
    """
    plan = traffic_plans.newest(connection, model)
    champion = None if plan is None else plan.champion
    if champion == version and rollouts.under_way(connection, model) is None:
        raise RefusedError(
            "HF403",
            f"{version} is the champion already",
            state="nothing was written",
            next_command="holdfast status",
        )
    compatibility.refuse(connection, model, version)
    reason = f"requested by {actor}"
    number = rollouts.insert_pending(
        connection,
        model=model,
        challenger=version,
        champion=champion,
        policy=policy_json,
        reason=reason,
        actor=actor,
        now_us=now_us,
    )
    pushes.open_push(connection, number, model, now_us=now_us)
    events.append(
        connection,
        at_us=now_us,
        kind="rollout.pending",
        subject=rollouts.subject_of(number),
        actor=actor,
        explanation=f"{version} against {champion or 'nothing'}: {reason}",
    )
    return number


def refuse_unqualified(connection: Transaction, model: str, version: str) -> None:
    """Raise unless `version` is a clean, qualified candidate of `model`: `NotFoundError` HF303, `RefusedError` HF403, HF406."""
    row = versions.get(connection, version)
    if row.model != model:
        raise NotFoundError(
            "HF303", f"{version} is a version of {row.model!r}, not of {model!r}", state="nothing was written"
        )
    taints.refuse(connection, "version", version)  # before the state: no gate could ever let it pass
    if row.role == "candidate" and row.state == "qualified":
        return
    why, next_command = "only a qualified candidate may be rolled out", f"holdfast qualify {version}"
    if row.role != "candidate":
        why = "it is compared with versions and can serve as fallback version, and no rollout moves it"
        next_command = "holdfast rollout start, for the newest candidate"
    elif row.state == "refused":
        next_command = f"holdfast train; holdfast qualify {version} repeats what its gates found"
    raise RefusedError(
        "HF403",
        f"{version} is {with_article(row.state)} {row.role}; {why}",
        state="nothing was written",
        next_command=next_command,
    )


def reconcile(store: Store, model: str, lease: Lease, *, now_us: int) -> list[Decision]:
    """Advance the model's rollout as far as the evidence leads; return the committed decisions, in order.

    Raises `ConflictError` HF304 when `lease` has gone to another loop, or another process moved the rollout.
    In both cases the decision that lost wrote nothing.
    """
    taken: list[Decision] = []
    while len(taken) < DECISIONS_AT_ONCE:
        decision = _step(store, model, lease, now_us)
        if decision is None:
            break
        taken.append(decision)
    return taken


def _step(store: Store, model: str, lease: Lease, now_us: int) -> Decision | None:
    """Commit one decision and return it; None when there is nothing to do."""
    with store.ledger.read() as connection:
        seen = _probes(connection, model)
        row = rollouts.under_way(connection, model)
        if row is None:
            return None
        first = _first_evidence(connection, row, now_us)
        wanted = _decide(connection, row, first, seen, now_us)
    if isinstance(wanted, Wait) or not webhooks.may(store, lease, row, wanted, now_us=now_us):
        return None
    # Look, then compare and set: the first decision only shows whether a transaction is worth it. The second one, inside the
    # transaction that acts, binds: evidence of harm may have come in between, or a webhook may have answered.
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        if rollouts.under_way(connection, model) != row:
            return None
        if row.state is State.PENDING:
            drill_traffic.settle(
                connection, model, now_us
            )  # a live drill's champion is no champion to start against
        decision = _decide(connection, row, first, seen, now_us)
        decision = webhooks.allowed(connection, row, decision, now_us=now_us)
        if isinstance(decision, Wait):
            return None
        _update_evidence(connection, row, decision, first, now_us)
        commit(connection, store, row, _transition(row, decision), now_us=now_us)
        failpoint("rollout.before_commit")
    failpoint("rollout.after_commit")
    return decision


def waits_for(connection: Transaction, row: RolloutRow, now_us: int) -> str:
    """Return what the rollout `row` waits for at `now_us`, as its next decision states it; empty if it waits for nothing."""
    first = _first_evidence(connection, row, now_us)
    decision = _decide(connection, row, first, _probes(connection, row.model), now_us)
    decision = webhooks.allowed(connection, row, decision, now_us=now_us)
    return decision.reason if isinstance(decision, Wait) else ""


def _probes(connection: Transaction, model: str) -> tuple[ProbeSeen, ...]:
    return tuple(
        ProbeSeen(each.server, each.plan_id, each.observed_version, each.verdict)
        for each in servers.last_probes(connection, model)
    )


def _transition(row: RolloutRow, decision: Decision) -> Transition:
    assert not isinstance(decision, Wait), "a wait has no transition"
    step = decision.step if isinstance(decision, Advance) else None
    reason, actor = decision.reason, events.SYSTEM
    if isinstance(decision, Confirm):
        # When a probe confirms it, the event keeps the actor and reason that brought the rollout here.
        reason, actor = f"{row.reason}; {decision.reason}", row.actor
    harm = decision.reason if isinstance(decision, RollBack) and decision.verdict is Verdict.FAIL else ""
    return Transition(decision.event, reason, actor, step=step, harm=harm, verdicts=decision.verdicts)


def _decide(
    connection: Transaction,
    row: RolloutRow,
    first: tuple[MetricState, ...],
    seen: tuple[ProbeSeen, ...],
    now_us: int,
) -> Decision:
    plan = traffic_plans.newest(connection, row.model)
    returns_to = row.champion
    if plan is not None and row.state is State.ROLLING_BACK:
        returns_to = plan.champion  # what was decided then; what one would choose now may be another
    elif plan is not None:
        returns_to = row.champion or plan.fallback
    state = RolloutState(
        challenger=row.challenger,
        champion=row.champion,
        returns_to=returns_to,
        state=row.state,
        step=row.step,
        policy=Canary.from_json(row.policy_json),
        step_started_at_us=row.step_started_at_us,
        plan_id=None if plan is None else plan.plan_id,
        ready=_readiness(connection, row, now_us),
        champion_requests=sum(_champions_latency(connection, row, now_us).values())
        if row.state in _BEFORE_TRAFFIC and not first
        else 0,
    )
    return decide(state, _evidence_for(connection, row, first), seen, now_us)


def commit(
    connection: Transaction, store: Store, row: RolloutRow, transition: Transition, *, now_us: int
) -> None:
    """Write one transition in the caller's transaction: rollout state, event, decision, push label, traffic plan.

    Raises `ConflictError` HF304 when the rollout is no longer where `row` has it, `RefusedError` HF404 or HF406 when there
    is no version to return to.
    """
    event, reason, actor = transition.event, transition.reason, transition.actor
    step = row.step if transition.step is None else transition.step
    verdicts = transition.verdicts
    if verdicts is None:
        states = evidence.canary_of_rollout(connection, row.rollout_id)
        verdicts = judge_all(states, Canary.from_json(row.policy_json))
    following = next_state(row.state, event)
    rollouts.move(connection, row, state=following, step=step, reason=reason, actor=actor, now_us=now_us)
    written = events.append(
        connection,
        at_us=now_us,
        kind="rollout.advanced" if event is Event.ADVANCE else f"rollout.{following}",
        subject=row.subject,
        actor=actor,
        explanation=f"{row.challenger} is {following}: {reason}",
    )
    evidence.put_decision(connection, event=written, rollout=row.rollout_id, kind=event, verdicts=verdicts)
    pushes.record(connection, row, following, reason=reason, actor=actor, harm=transition.harm, now_us=now_us)
    plan = traffic_of(connection, store, row, following, step)
    if plan is not None:
        traffic_plans.append(connection, plan, now_us=now_us)


def _readiness(connection: Transaction, row: RolloutRow, now_us: int) -> Readiness:
    """Return the prerequisites that the policy of a pending rollout may require, at `now_us`."""
    policy = Canary.from_json(row.policy_json)
    if row.state is not State.PENDING or not (policy.replay_requests or policy.max_drill_age_us):
        return Readiness()
    replay = gate_results.newest_replay(connection, row.challenger)
    drilled = drills.of_model(connection, row.model)
    return Readiness(
        replay=None if replay is None else replay.verdict,
        replayed=0 if replay is None or replay.observed is None else int(replay.observed),
        drill=ready(drilled, DrillKind.ROLLBACK, now_us, within_us=policy.max_drill_age_us),
        can_drill=_can_drill(connection, row.model),
    )


def _can_drill(connection: Transaction, model: str) -> bool:
    """Return True if there is a clean version besides the champion that a drill could return to."""
    plan = traffic_plans.newest(connection, model)
    others = () if plan is None else (plan.previous, plan.fallback)
    barred = eligibility.barred_versions(connection, model)
    return any(each is not None and each not in barred for each in others)


def _first_evidence(connection: Transaction, row: RolloutRow, now_us: int) -> tuple[MetricState, ...]:
    """Return the states that the canary would begin with; empty while it cannot begin, and after it has begun."""
    if row.state not in _BEFORE_TRAFFIC:
        return ()
    policy = Canary.from_json(row.policy_json)
    bound = _champions_quantile_seconds(connection, row, policy, now_us)
    return () if policy.latency_quantile is not None and bound is None else begin_evidence(policy, bound)


def _evidence_for(
    connection: Transaction, row: RolloutRow, first: tuple[MetricState, ...]
) -> tuple[MetricState, ...]:
    """Return the evidence for the decision about `row`. Labels of its shadow may still arrive when it has traffic."""
    others = first if row.state in _BEFORE_TRAFFIC else evidence.canary_of_rollout(connection, row.rollout_id)
    return (*evidence.shadow_of_rollout(connection, row.rollout_id), *others)


def _update_evidence(
    connection: Transaction, row: RolloutRow, decision: Decision, first: tuple[MetricState, ...], now_us: int
) -> None:
    """Update the evidence for a decision: start it, start a step, end the comparison, or start the bake time."""
    policy = Canary.from_json(row.policy_json)
    match decision:
        case Start():
            evidence.begin(connection, row.rollout_id, first, now_us=now_us)
        case BeginShadow():
            bounds_us = [state.latency_bound_us for state in first if state.latency_bound_us is not None]
            bound = bounds_us[0] / 1e6 if bounds_us else None
            evidence.begin(connection, row.rollout_id, shadow.begin(policy, bound), now_us=now_us)
        case Advance() | Complete():
            states = evidence.canary_of_running(connection, row.rollout_id)
            alone = isinstance(decision, Complete) or decision.share_ppm == EVERYTHING_PPM
            if isinstance(decision, Advance):
                states = begin_step(states)
            if alone:
                states = freeze_levels(states, policy)
            evidence.put(connection, row.rollout_id, states, now_us=now_us)
        case Confirm() if row.state is State.VERIFYING and row.champion is not None and policy.bake_us:
            states = begin_bake(evidence.canary_of_running(connection, row.rollout_id), policy)
            evidence.put(connection, row.rollout_id, states, now_us=now_us)
            rate = begin_rate(policy, now_us)
            if rate is not None:
                evidence.begin(connection, row.rollout_id, [rate], now_us=now_us)
        case Confirm() | RollBack() | Wait():
            pass
        case _:
            assert_never(decision)


def _champions_quantile_seconds(
    connection: Transaction, row: RolloutRow, policy: Canary, now_us: int
) -> float | None:
    """Return the champion's own latency quantile before the canary; None while it has too few requests."""
    if policy.latency_quantile is None or row.champion is None:
        return None
    found = _champions_latency(connection, row, now_us)
    if sum(found.values()) < policy.latency_requests:
        return None
    return quantile_seconds(found, policy.latency_quantile)


def _champions_latency(connection: Transaction, row: RolloutRow, now_us: int) -> Histogram:
    """Return the latencies of the champion's recent requests; of older ones too if those are too few."""
    if row.champion is None:
        return {}
    needed = Canary.from_json(row.policy_json).latency_requests
    found: Histogram = {}
    for lookback_us in LATENCY_LOOKBACK_US:
        found = request_counts.latency_of(connection, row.model, row.champion, now_us - lookback_us)
        if sum(found.values()) >= needed:
            break
    return found
