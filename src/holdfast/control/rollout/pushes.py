"""Ledger of pushes: label each in the transaction of its transition, relabel it, and list pushes with numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from holdfast.control.rollout import drill_traffic
from holdfast.errors import NotFoundError, RefusedError
from holdfast.records import Verdict
from holdfast.rollout import Canary, MetricState, PushOutcome, State
from holdfast.rollout.evidence.evidence import count_requests, requests_of
from holdfast.rollout.evidence.verdict import harm_of
from holdfast.rollout.model.pushes import Turn, outcome_of, replaced
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import gate_results
from holdfast.store.rollout import evidence, evidence_windows, rollouts, traffic_plans
from holdfast.store.rollout.rollouts import PushRow, RolloutRow
from holdfast.store.telemetry import outcomes

_ENDING = (State.ROLLING_BACK, State.CANCELLED)
_ROLLED_BACK = (State.ROLLING_BACK, State.ROLLED_BACK, State.CANCELLED)


def open_push(connection: Transaction, rollout: int, model: str, *, now_us: int) -> None:
    """Open the push of a rollout that was requested."""
    row = PushRow(rollout, model, PushOutcome.OPEN, "under way: pending", events.SYSTEM, now_us)
    rollouts.put_push(connection, row)


def record(
    connection: Transaction, row: RolloutRow, after: State, *, reason: str, actor: str, harm: str, now_us: int
) -> None:
    """Label the push of `row`, which goes to `after`, in the transaction that moves it.

    `harm` is what the decision saw. Without it current evidence is used, because an operator may roll back a version
    whose harm is shown already.
    """
    before = rollouts.push_of(connection, row.rollout_id)
    if after is State.ROLLED_BACK or (before is not None and before.labelled_by != events.SYSTEM):
        return  # labelled when the rollback was decided, or by an operator
    policy = Canary.from_json(row.policy_json)
    states = _states(connection, row.rollout_id)
    tainted = ""
    if after in _ENDING:
        harm = harm or harm_of(states, policy)
        if taints.tainted(connection, "version", row.challenger):
            tainted = taints.why(connection, "version", row.challenger)
    turn = Turn(row.state, after, row.champion, harm, tainted, actor != events.SYSTEM, reason)
    outcome, why = outcome_of(turn, policy)
    if before is not None and before.outcome is not PushOutcome.OPEN and outcome is PushOutcome.CENSORED:
        return  # rolled back after its bake time: the earlier label stands
    bakes = outcome is PushOutcome.OPEN and after is State.PROMOTED
    if after is State.PROMOTED:
        _replace_baking(connection, row, now_us)
    until_us = None if before is None else before.bake_until_us
    rollouts.put_push(
        connection,
        PushRow(
            rollout_id=row.rollout_id,
            model=row.model,
            outcome=outcome,
            reason=why,
            labelled_by=events.SYSTEM,
            labelled_at_us=now_us,
            requests=_requests_of(connection, row.rollout_id)[0]
            if after in (*_ENDING, State.PROMOTED)
            else None,
            bake_until_us=now_us + policy.bake_us if bakes else until_us,
        ),
    )


def end_bake(
    connection: Transaction, row: RolloutRow, outcome: PushOutcome, reason: str, *, now_us: int
) -> None:
    """Label the push of a promotion whose bake time is over, and append its event."""
    before = rollouts.push_of(connection, row.rollout_id)
    until_us = None if before is None else before.bake_until_us
    rollouts.put_push(
        connection,
        PushRow(
            row.rollout_id,
            row.model,
            outcome,
            reason,
            events.SYSTEM,
            now_us,
            _requests_of(connection, row.rollout_id)[0],
            until_us,
        ),
    )
    events.append(
        connection,
        at_us=now_us,
        kind="push.labelled",
        subject=row.subject,
        explanation=f"the push of {row.challenger} is labelled {outcome}: {reason}",
    )


def relabel(store: Store, rollout: int, *, good: bool, why: str, actor: str, now_us: int) -> PushRow:
    """Replace the label of a push by an operator's, later than its evidence could; return it.

    A bad one that was promoted has escaped. Raises `NotFoundError` HF410 for an unknown rollout, `RefusedError` HF404 for one
    that is under way or in its bake time: roll it back, or wait.
    """
    with store.ledger.write() as connection:
        row = rollouts.get(connection, rollout)
        before = rollouts.push_of(connection, rollout)
        if before is None:
            raise NotFoundError(
                "HF410",
                f"rollout {rollout} has no push to label",
                state="nothing was written",
                next_command="holdfast rollout history",
            )
        if before.outcome is PushOutcome.OPEN:
            raise RefusedError(
                "HF404",
                f"rollout {rollout} is not over: {before.reason}",
                state="nothing was written",
                next_command="holdfast rollback, or wait",
            )
        promoted = rollouts.first_reached_us(connection, rollout, (State.PROMOTED,)) is not None
        bad = PushOutcome.ESCAPED if promoted else PushOutcome.BAD
        outcome = PushOutcome.GOOD if good else bad
        after = PushRow(
            rollout, row.model, outcome, why, actor, now_us, before.requests, before.bake_until_us
        )
        rollouts.put_push(connection, after)
        if not good:
            _unload(connection, row, now_us)
        events.append(
            connection,
            at_us=now_us,
            kind="push.labelled",
            subject=row.subject,
            actor=actor,
            explanation=f"the push of {row.challenger} was labelled {before.outcome} ({before.reason}); "
            f"{actor} labels it {outcome}: {why}",
        )
    return after


def _unload(connection: Transaction, row: RolloutRow, now_us: int) -> None:
    """Let no server keep the version of a bad push for a rollback without the ledger."""
    drill_traffic.settle(
        connection, row.model, now_us
    )  # a copy of its plan would make its champion permanent
    plan = traffic_plans.newest(connection, row.model)
    if plan is not None and plan.previous == row.challenger:
        after = replace(plan, previous=None, serving_config=None, runtime=None)
        traffic_plans.append(connection, after, now_us=now_us)


@dataclass(frozen=True, slots=True)
class Push:
    """One push with its numbers.

    `requests` is how many its challenger was sent: all those of its rollout, and of its bake time those that were collected
    until its end. `failed` is how many of those it could not answer, `wrong` how many got a prediction on the other side of
    0.5 than their label, and `failed_or_wrong` the sum; a good version has such too. A first version, which is compared with
    nothing, has none of these numbers. `for_harm` is True if it was rolled back and harm is
    shown; `detection_us` is the time from its first request to the decision to roll back, None without a detection.
    """

    rollout_id: int
    challenger: str
    champion: str | None
    state: State
    outcome: PushOutcome
    reason: str
    labelled_by: str
    labelled_at_us: int
    bake_until_us: int | None
    requests: int
    failed: int
    wrong: int
    failed_or_wrong: int
    for_harm: bool
    detection_us: int | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of pushes by outcome.

    `false_rollbacks` were rolled back or cancelled for harm and labelled good by an operator; `censored` are neither good nor
    bad, and in no rate.
    """

    pushes: int
    open: int
    good: int
    bad: int
    escaped: int
    false_rollbacks: int
    censored: int


def listed(store: Store, model: str) -> tuple[Push, ...]:
    """Return every push of `model` with its numbers, the newest first."""
    with store.ledger.read() as connection:
        return tuple(_with_numbers(connection, row) for row in rollouts.pushes_of(connection, model))


def totals(found: tuple[Push, ...]) -> Totals:
    """Count the pushes by outcome."""
    counts = Counter(each.outcome for each in found)
    false = sum(each.outcome is PushOutcome.GOOD and each.for_harm for each in found)
    by_outcome = {str(outcome): counts[outcome] for outcome in PushOutcome}
    return Totals(pushes=len(found), false_rollbacks=false, **by_outcome)


def _replace_baking(connection: Transaction, row: RolloutRow, now_us: int) -> None:
    """Label the baking promotion that `row` replaces: it will not complete its bake time."""
    older = rollouts.baking(connection, row.model)
    if older is None or older.rollout_id == row.rollout_id:
        return
    promoted = rollouts.get(connection, older.rollout_id)
    policy = Canary.from_json(promoted.policy_json)
    outcome, why = replaced(row.rollout_id, now_us - promoted.changed_at_us, policy)
    if harm := harm_of(_states(connection, older.rollout_id), policy):
        outcome, why = PushOutcome.ESCAPED, f"harm was shown after its promotion: {harm}; {why}"
    end_bake(connection, promoted, outcome, why, now_us=now_us)


def _states(connection: Transaction, rollout: int) -> tuple[MetricState, ...]:
    """Return the evidence of traffic and of copies about a push."""
    return (
        *evidence.canary_of_rollout(connection, rollout),
        *evidence.shadow_of_rollout(connection, rollout),
    )


def _requests_of(connection: Transaction, rollout: int) -> tuple[int, int]:
    """Return how many requests the challenger was sent, and how many failed: counted ones, and those in open windows."""
    states = evidence.canary_of_rollout(connection, rollout)
    waiting = evidence_windows.of_rollout(connection, rollout)
    return requests_of(
        count_requests(states, (each for opened in waiting for each in opened.window.requests))
    )


def _with_numbers(connection: Transaction, push: PushRow) -> Push:
    row = rollouts.get(connection, push.rollout_id)
    requests, failed = _requests_of(connection, push.rollout_id)

    def first_us(*states: State) -> int | None:
        return rollouts.first_reached_us(connection, push.rollout_id, states)

    begun_us, rolled_back_us = first_us(State.CANARY, State.VERIFYING), first_us(State.ROLLING_BACK)
    promoted_us = None if push.bake_until_us is None else first_us(State.PROMOTED)
    ends_us = [each for each in (rolled_back_us, push.bake_until_us) if each is not None]
    pushed = outcomes.PushedPredictions(
        row.rollout_id, row.challenger, promoted_us, min(ends_us, default=None)
    )
    wrong = 0 if row.champion is None else outcomes.count_wrong(connection, row.model, pushed)
    for_harm = _for_harm(connection, row)
    detected = for_harm or push.outcome in (PushOutcome.BAD, PushOutcome.ESCAPED)
    return Push(
        rollout_id=push.rollout_id,
        challenger=row.challenger,
        champion=row.champion,
        state=row.state,
        outcome=push.outcome,
        reason=push.reason,
        labelled_by=push.labelled_by,
        labelled_at_us=push.labelled_at_us,
        bake_until_us=push.bake_until_us,
        requests=max(requests, push.requests or 0),
        failed=failed,
        wrong=wrong,
        failed_or_wrong=failed + wrong,
        for_harm=for_harm,
        detection_us=rolled_back_us - begun_us if detected and rolled_back_us and begun_us else None,
    )


def _for_harm(connection: Transaction, row: RolloutRow) -> bool:
    """Return True if it was rolled back or cancelled, and its evidence, or its replay, shows harm."""
    if row.state not in _ROLLED_BACK:
        return False
    if harm_of(_states(connection, row.rollout_id), Canary.from_json(row.policy_json)):
        return True
    replayed = (
        gate_results.newest_replay(connection, row.challenger) if row.state is State.CANCELLED else None
    )
    return replayed is not None and replayed.verdict is Verdict.FAIL
