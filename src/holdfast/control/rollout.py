"""The rollout's loop: read what is known, decide, commit. The committed plan is the effect; servers follow
it.

One transaction holds the compare-and-set of the rollout's state, the event that tells it and the new traffic
plan, under the lease's epoch. A loop that was killed, or a second one, finds either all of it or nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final, assert_never

from holdfast.control import hooks
from holdfast.control.traffic import traffic_of
from holdfast.errors import NotFoundError, RefusedError
from holdfast.monitor import merge, quantile_seconds
from holdfast.records import EVERYTHING_PPM
from holdfast.rollout import (
    Advance,
    BeginShadow,
    Canary,
    Complete,
    Confirm,
    Decision,
    Event,
    MetricState,
    ProbeSeen,
    RollBack,
    RolloutState,
    Start,
    State,
    Wait,
    begin_step,
    begin_watch,
    decide,
    next_state,
    shadow,
)
from holdfast.rollout import begin as begin_evidence
from holdfast.store import Store, decisions, events, evidence, plans, probes, rollouts, taints, usage, versions
from holdfast.store.faults import fault_point
from holdfast.store.leases import Lease, assert_epoch
from holdfast.store.ledger import Transaction
from holdfast.store.plans import CommittedPlan
from holdfast.store.rollouts import RolloutRow

if TYPE_CHECKING:
    from holdfast.declaration import Model

LATENCY_LOOKBACK_US: Final = 7 * 86_400_000_000
"""How far back the champion's latency is looked at when the bound is frozen, microseconds."""

_BEFORE_TRAFFIC: Final = frozenset({State.PENDING, State.SHADOWING})

DECISIONS_AT_ONCE: Final = 4
"""A round takes few decisions: each has its effect on the traffic before the next is due."""


def begin(store: Store, model: Model, version: str, *, actor: str, now_us: int) -> int:
    """Ask for the rollout of `version`; the control loop carries it on. The number of the rollout.

    Asking again for what is under way gives its number and writes nothing. Raises `NotFoundError` HF303 for a
    version that the model does not have, `RefusedError` HF403 for one that is not a qualified candidate or is
    the champion already, HF406 for a tainted one, and `ConflictError` HF404 while another version is under way.
    """
    row = versions.get(store, version)
    if row.model != model.name:
        raise NotFoundError(
            "HF303",
            f"{version} is a version of {row.model!r}, not of {model.name!r}",
            state="nothing was written",
        )
    if row.role != "candidate" or row.state != "qualified":
        raise RefusedError(
            "HF403",
            f"{version} is a {row.state} {row.role}; only a qualified candidate may be rolled out",
            state="nothing was written",
            next_command=f"holdfast qualify {version}",
        )
    with store.ledger.write() as connection:
        taints.refuse(connection, "version", version)
        current = rollouts.under_way_in(connection, model.name)
        if current is not None and current.challenger == version:
            return current.rollout
        plan = plans.newest_in(connection, model.name)
        champion = None if plan is None else plan.plan.champion
        if champion == version and current is None:
            raise RefusedError(
                "HF403",
                f"{version} is the champion already",
                state="nothing was written",
                next_command="holdfast status",
            )
        reason = f"asked for by {actor}"
        number = rollouts.insert_pending(
            connection,
            model=model.name,
            challenger=version,
            champion=champion,
            policy=model.rollout.to_json(),
            reason=reason,
            actor=actor,
            now_us=now_us,
        )
        events.append(
            connection,
            at_us=now_us,
            kind="rollout.pending",
            subject=rollouts.subject_of(number),
            actor=actor,
            explanation=f"{version} against {champion or 'nothing'}: {reason}",
        )
    return number


def reconcile(store: Store, model: str, lease: Lease, *, now_us: int) -> list[Decision]:
    """Carry the model's rollout on as far as the evidence leads; the decisions that were committed, in order.

    Raises `ConflictError` HF304 when `lease` has gone to another loop, HF404 when somebody moved the rollout
    meanwhile; in both cases nothing was written by the decision that lost.
    """
    taken: list[Decision] = []
    while len(taken) < DECISIONS_AT_ONCE:
        decision = _step(store, model, lease, now_us)
        if decision is None:
            break
        taken.append(decision)
    return taken


def roll_back(store: Store, model: str, *, actor: str, reason: str, now_us: int) -> int:
    """Give the traffic back to the version before, at once, whatever the evidence says. The number of the
    rollout.

    Undoes the rollout that is under way, else the promotion of the version that is the champion now, however
    many rollouts have ended since, with the checks and the transaction of an automatic one; asking again while
    it is rolling back writes nothing. Raises `NotFoundError` HF303 when the model was never rolled out,
    `RefusedError` HF404 when there is nothing to undo or nothing to return to, HF406 when what is there to return to is
    tainted, `ConflictError` HF404 when the rollout moved meanwhile: then ask again.
    """
    rollouts.newest(store, model)
    with store.ledger.write() as connection:
        row = rollouts.under_way_in(connection, model) or _promotion_in(connection, model)
        if row.state is State.ROLLING_BACK:
            return row.rollout
        commit(
            connection,
            store,
            row,
            Event.ROLL_BACK,
            row.step,
            f"asked for by {actor}: {reason}",
            actor,
            now_us,
        )
    return row.rollout


def _promotion_in(connection: Transaction, model: str) -> RolloutRow:
    """The rollout that made the champion what it is."""
    plan = plans.newest_in(connection, model)
    row = None if plan is None else rollouts.promotion_in(connection, model, plan.plan.champion)
    if row is None:
        serves = (
            "no version serves" if plan is None else f"{plan.plan.champion} was not promoted by a rollout"
        )
        raise RefusedError(
            "HF404",
            f"{model!r} has no promotion to undo: {serves}, and no rollout is under way",
            state="nothing was written",
            next_command="holdfast status",
        )
    return row


def _step(store: Store, model: str, lease: Lease, now_us: int) -> Decision | None:
    """One decision, committed; None when there is nothing to do now."""
    seen = tuple(
        ProbeSeen(each.server, each.plan, each.answered, each.verdict) for each in probes.last(store, model)
    )
    with store.ledger.read() as connection:
        row = rollouts.under_way_in(connection, model)
    if row is None:
        return None
    bound = _latency_bound_seconds(store, row, now_us) if row.state in _BEFORE_TRAFFIC else None
    first = _first_evidence(row, bound)
    with store.ledger.read() as connection:
        wanted = _decide(connection, store, row, first, seen, now_us)
    if isinstance(wanted, Wait) or not hooks.may(store, lease, row, wanted, now_us=now_us):
        return None
    # Decided again inside the transaction that acts: evidence of harm may have come in between.
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        if rollouts.under_way_in(connection, model) != row:
            return None
        decision = _decide(connection, store, row, first, seen, now_us)
        decision = hooks.allowed(connection, row, decision, now_us=now_us)
        if isinstance(decision, Wait):
            return None
        step = decision.step if isinstance(decision, Advance) else row.step
        _prepare_evidence(connection, row, decision, first, now_us)
        reason, actor = decision.reason, events.SYSTEM
        if isinstance(decision, Confirm):
            # Who brought it here, and why, is not lost when a probe says that it is done.
            reason, actor = f"{row.reason}; {decision.reason}", row.actor
        event = commit(connection, store, row, decision.event, step, reason, actor, now_us)
        decisions.put(
            connection, event=event, rollout=row.rollout, kind=decision.event, verdicts=decision.verdicts
        )
        fault_point("rollout.before_commit")
    fault_point("rollout.after_commit")
    return decision


def _prepare_evidence(
    connection: Transaction, row: RolloutRow, decision: Decision, first: tuple[MetricState, ...], now_us: int
) -> None:
    """What the evidence must know of a decision: that it begins, that a step does, that nobody is compared."""
    match decision:
        case Start():
            evidence.begin(connection, row.rollout, first, now_us=now_us)
        case Advance() | Complete():
            states = evidence.of_running(connection, row.rollout)
            alone = isinstance(decision, Complete) or decision.share_ppm == EVERYTHING_PPM
            if isinstance(decision, Advance):
                states = begin_step(states)
            if alone:
                states = begin_watch(states, Canary.from_json(row.policy))
            evidence.put(connection, row.rollout, states, now_us=now_us)
        case BeginShadow():
            bounds_us = [state.latency_bound_us for state in first if state.latency_bound_us is not None]
            bound = bounds_us[0] / 1e6 if bounds_us else None
            states = shadow.begin(Canary.from_json(row.policy), bound)
            evidence.begin(connection, row.rollout, states, now_us=now_us)
        case Confirm() | RollBack() | Wait():
            pass
        case _:
            assert_never(decision)


def _decide(
    connection: Transaction,
    store: Store,
    row: RolloutRow,
    first: tuple[MetricState, ...],
    seen: tuple[ProbeSeen, ...],
    now_us: int,
) -> Decision:
    plan = plans.newest_in(connection, row.model)
    if row.state in _BEFORE_TRAFFIC:
        known = (*evidence.shadow_of_rollout_in(connection, row.rollout), *first)
    else:
        known = evidence.of_rollout_in(connection, row.rollout)
    return decide(_state(row, plan), known, seen, now_us)


def _state(row: RolloutRow, committed: CommittedPlan | None) -> RolloutState:
    plan = None if committed is None else committed.plan
    returns_to = row.champion
    if plan is not None and row.state is State.ROLLING_BACK:
        returns_to = plan.champion  # what was decided then; what one would choose now may be another
    elif plan is not None:
        returns_to = row.champion or plan.fallback
    return RolloutState(
        challenger=row.challenger,
        champion=row.champion,
        returns_to=returns_to,
        state=row.state,
        step=row.step,
        policy=Canary.from_json(row.policy),
        step_started_us=row.step_started_us,
        plan=None if plan is None else plan.plan,
    )


def _first_evidence(row: RolloutRow, bound: float | None) -> tuple[MetricState, ...]:
    """The states with which the canary would begin; empty while it cannot."""
    policy = Canary.from_json(row.policy)
    if row.state not in _BEFORE_TRAFFIC or (policy.latency_quantile is not None and bound is None):
        return ()
    return begin_evidence(policy, bound)


def _latency_bound_seconds(store: Store, row: RolloutRow, now_us: int) -> float | None:
    """The champion's own latency quantile before the canary; None while too little is known."""
    policy = Canary.from_json(row.policy)
    if policy.latency_quantile is None or row.champion is None:
        return None
    known = merge(
        each.latency
        for each in usage.since(store, row.model, now_us - LATENCY_LOOKBACK_US)
        if each.version == row.champion and each.result == "ok"
    )
    if sum(known.values()) < policy.latency_requests:
        return None
    return quantile_seconds(known, policy.latency_quantile)


def commit(
    connection: Transaction,
    store: Store,
    row: RolloutRow,
    event: Event,
    step: int,
    reason: str,
    actor: str,
    now_us: int,
) -> int:
    """The whole of one transition in the caller's transaction: state, story and traffic. The number of its event."""
    following = next_state(row.state, event)
    rollouts.move(connection, row, state=following, step=step, reason=reason, actor=actor, now_us=now_us)
    told = events.append(
        connection,
        at_us=now_us,
        kind="rollout.advanced" if event is Event.ADVANCE else f"rollout.{following}",
        subject=row.subject,
        actor=actor,
        explanation=f"{row.challenger} is {following}: {reason}",
    )
    traffic = traffic_of(connection, store, row, following, step)
    if traffic is not None:
        plans.append(connection, model=row.model, rollout=row.rollout, now_us=now_us, **asdict(traffic))
    return told
