"""Backing a batch out: the plan, and its execution step by step.

The rows, the values that servers read, the taints and the event go in one transaction; the traffic follows, one
transaction for each model; what is only listed is done with the end. The ledger says after each how far it is, so a
back-out that was killed is carried on from there by the same command, or by the control loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from holdfast.control.backout.dangling_references import dangling, dependents
from holdfast.control.backout.impact import forget_all, leaving, plan_of, still_leaving
from holdfast.control.ingest import references
from holdfast.control.rollout.failover import Cause, fail_over
from holdfast.errors import ConflictError, UnavailableError
from holdfast.feeds import Feed
from holdfast.feeds.state_machine import Event
from holdfast.records import BatchId, Level, Violation
from holdfast.store import Store
from holdfast.store.backout import backouts, taints, tombstones
from holdfast.store.backout.backouts import BackoutRow
from holdfast.store.catalog import online_features
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.feeds import feed_states as feeds_rows
from holdfast.store.feeds import violations
from holdfast.tables.backout import (
    BackoutPlan,
    BackoutState,
    CancelRollout,
    FailOver,
    KeepLastResort,
    ListFeedback,
    ListPredictions,
    RecomputeOnline,
    RemoveRows,
    ReplaceFallbacks,
    Retrain,
    Step,
    SuspectLoad,
    TaintSnapshots,
    TaintVersions,
    total_impact,
)

_MOST_ATTEMPTS: Final = 16

Told = Literal["backed_out", "carried_on", "already_backed_out"]


@dataclass(frozen=True, slots=True)
class BackedOut:
    """What is true after a back-out. "carried_on": it was begun before, and this call ended it."""

    state: Told
    backout_id: int
    plan: BackoutPlan
    reason: str
    actor: str
    requested_at_us: int


def plan_back_out(store: Store, feeds: Sequence[Feed], batch: BatchId) -> BackoutPlan:
    """What it means to back `batch` out, in the order of doing. Writes nothing.

    A batch goes together with those of the same id in the feeds of its group, because they are only ever right together
    (R8). The group is that of the time of loading; of a load of which it was not noted, what `feeds`, all that are declared,
    say. The list is the same whether it is asked for after a minute or after weeks
    (R16). Raises `NotFoundError` HF211 when the batch is not loaded.
    """
    with store.ledger.read() as connection:
        going = leaving(connection, feeds, batch)
    forgotten = forget_all(store, going)
    left = dangling(store, [each.load.key for each in going])
    with store.ledger.read() as connection:
        return plan_of(connection, store, batch, going, forgotten, left)


def back_out(
    store: Store, feeds: Sequence[Feed], batch: BatchId, *, reason: str, actor: str, now_us: int
) -> BackedOut:
    """Back `batch` out with its group and everything that was made from it; on return all of it is done.

    Parameters
    ----------
    feeds
        All that are declared, as for `plan_back_out`.
    reason, actor
        Why, and who says so; kept in the ledger.
    now_us
        Microseconds since 1970 UTC.

    However often and from however many processes it is asked for, it is done once: one that is under way is carried on,
    and one that is done is told. A load under the same id that came after the one that is under way is backed out after it,
    for its own reason. Raises `NotFoundError` HF211 when the batch was never loaded, `UnavailableError` HF311
    when other loads come first again and again; then the same command carries on.
    """
    with store.ledger.read() as connection:
        asked = backouts.live(connection, [batch.feed], batch.batch)
    before: Told = "already_backed_out"
    for _ in range(_MOST_ATTEMPTS):
        with store.ledger.read() as connection:
            newest = backouts.newest_of(connection, batch.feed, batch.batch)
            # A correction that came after this was asked for is nobody's to take out.
            there = [load for load in backouts.live(connection, [batch.feed], batch.batch) if load in asked]
        if newest is not None and newest.state is BackoutState.UNDER_WAY:
            _finish(store, newest.backout_id, now_us)
            before = "carried_on"
            continue  # it may have been about an earlier load than the one that is asked for
        if newest is not None and not there:
            return _told(store, before, newest.backout_id)
        number = _begin(store, feeds, batch, reason, actor, now_us)
        if number is not None:
            return _told(store, "backed_out", _finish(store, number, now_us))
    raise _overtaken(f"{batch} was backed out", "the back-outs that were begun are in the ledger")


def carry_on(store: Store, *, now_us: int) -> list[int]:
    """End every back-out that is under way; their numbers. What the control loop does in each round."""
    with store.ledger.read() as connection:
        waiting = backouts.under_way(connection)
    return [_finish(store, row.backout_id, now_us) for row in waiting]


def _begin(
    store: Store, feeds: Sequence[Feed], batch: BatchId, reason: str, actor: str, now_us: int
) -> int | None:
    """Write down what will be done; None when another process has written it meanwhile."""
    plan = plan_back_out(store, feeds, batch)
    with store.ledger.write() as connection:
        backouts.live(connection, [feed for feed, _, _ in plan.loads], batch.batch, lock=True)
        other = backouts.newest_of(connection, batch.feed, batch.batch)
        if other is not None and other.state is BackoutState.UNDER_WAY:
            return None
        number = backouts.begin(connection, plan, reason=reason, actor=actor, now_us=now_us)
        failpoint("backout.before_begin")
    failpoint("backout.begun")
    return number


def _finish(store: Store, backout: int, now_us: int) -> int:
    """Do what is left of a back-out, from where the ledger says it is."""
    for _ in range(_MOST_ATTEMPTS):
        with store.ledger.read() as connection:
            row = backouts.get(connection, backout)
        if row.state is BackoutState.DONE:
            return backout
        try:
            _next(store, row, now_us)
        except ConflictError:
            continue  # another process, or a load, came first: look again at what is true now
    with store.ledger.read() as connection:
        if backouts.get(connection, backout).state is BackoutState.DONE:
            return backout
    raise _overtaken(
        f"back-out {backout} was carried on", "it is under way, and every step that was told is done"
    )


def _overtaken(doing: str, state: str) -> UnavailableError:
    return UnavailableError(
        "HF311",
        f"other writers came first {_MOST_ATTEMPTS} times while {doing}",
        state=state,
        next_command="the same command again, or holdfast control",
    )


def _next(store: Store, row: BackoutRow, now_us: int) -> None:
    """Everything that is left of `row`, each transaction told before the next is begun."""
    if row.steps_done == 0:
        row = _take_out(store, row, now_us)
        failpoint("backout.removed")
    while row.steps_done < len(row.plan.steps):
        step = row.plan.steps[row.steps_done]
        match step:
            case CancelRollout() | FailOver() | KeepLastResort() | ReplaceFallbacks():
                row = _move_traffic(store, row, step.model, now_us)
                failpoint("backout.after_step")
            case ListPredictions() | ListFeedback() | Retrain():
                break  # what is listed is in the plan already
            case RemoveRows() | RecomputeOnline() | SuspectLoad() | TaintSnapshots() | TaintVersions():
                raise AssertionError("these are the first transaction's")
            case _:
                assert_never(step)
    with store.ledger.write() as connection:
        backouts.advance(
            connection, row, steps_done=len(row.plan.steps), now_us=now_us, state=BackoutState.DONE
        )
        failpoint("backout.before_end")
    failpoint("backout.ended")


def _take_out(store: Store, row: BackoutRow, now_us: int) -> BackoutRow:
    """The first transaction. What was made from the batch since the plan was shown is found too, and kept in its place;
    loads of its group that came since go with it.
    """
    batch = BatchId(row.feed, row.batch)
    with store.ledger.read() as connection:
        going = still_leaving(connection, row.plan)
    forgotten = forget_all(store, going)
    loads = [each.load.key for each in going]
    left = dangling(store, loads)
    with store.ledger.write() as connection:
        if (
            still_leaving(connection, row.plan) != going
            or dependents(connection, loads) != left.dependents
            or any(backouts.moved_on(connection, each.feed, each.basis) for each in forgotten)
        ):
            raise ConflictError("HF304", f"rows of the group of {batch} came or went meanwhile")
        plan = plan_of(connection, store, batch, going, forgotten, left)
        backouts.advance(connection, row, steps_done=plan.transactional_steps, now_us=now_us, plan=plan)
        version = backouts.remove(connection, plan.loads, reason=f"back out {batch}", now_us=now_us)
        backouts.note(connection, row.backout_id, plan.loads, removed_version=version)
        for each in forgotten:
            online_features.upsert(connection, each.values, version)
            online_features.register(connection, each.definitions, version)
        for step in plan.steps:
            _tell(connection, step, row, plan, now_us)
        for feed in dict.fromkeys(feed for feed, _, _ in plan.loads):
            feeds_rows.settle(connection, feed, reason=f"{batch} was backed out", now_us=now_us)
        tombstones.record(store.root, connection, plan.loads, backout=row.backout_id, at_us=now_us)
        failpoint("backout.before_removal")
        return backouts.get(connection, row.backout_id)


def _move_traffic(store: Store, row: BackoutRow, model: str, now_us: int) -> BackoutRow:
    """One model's traffic, as far as it is still that of tainted versions; the steps of that model are done with it."""
    reason = f"{row.feed}/{row.batch} was backed out: {row.reason}"
    with store.ledger.write() as connection:
        fail_over(connection, store, model, Cause(reason, row.actor, now_us))
        backouts.advance(connection, row, steps_done=row.steps_done + 1, now_us=now_us)
        failpoint("backout.before_step")
        return backouts.get(connection, row.backout_id)


def _tell(connection: Transaction, step: Step, row: BackoutRow, plan: BackoutPlan, now_us: int) -> None:
    """The taints of a step, and for each load the event."""
    match step:
        case SuspectLoad():
            _suspect(connection, step, row, now_us)
        case TaintSnapshots():
            taints.add(connection, "snapshot", step.snapshots, backout=row.backout_id, now_us=now_us)
        case TaintVersions():
            taints.add(connection, "version", step.versions, backout=row.backout_id, now_us=now_us)
        case RemoveRows():
            reached = total_impact(plan)
            events.append(
                connection,
                at_us=now_us,
                kind="batch.backed_out",
                subject=f"{step.feed}/{step.batch}",
                actor=row.actor,
                explanation=(
                    f"{row.reason}; {step.rows} rows taken out, {reached.snapshots} snapshots and "
                    f"{reached.versions} versions tainted"
                ),
            )
        case _:
            return


def _suspect(connection: Transaction, step: SuspectLoad, row: BackoutRow, now_us: int) -> None:
    """A load that is left with rows that refer to nothing is suspect, as if it had come like that."""
    load = BatchId(step.feed, step.batch)
    words = step.message(row.batch)
    broken = Violation(references.CHECK, step.column, Level.ERROR, words, float(step.rows), 0.0)
    violations.add(connection, load, step.epoch, [broken], now_us=now_us)
    feeds_rows.move(
        connection, step.feed, Event.LOADED_SUSPECT, contract_hash=None, reason=words, now_us=now_us
    )
    events.append(
        connection,
        at_us=now_us,
        kind="batch.suspect",
        subject=str(load),
        actor=row.actor,
        explanation=words,
    )


def _told(store: Store, state: Told, backout: int) -> BackedOut:
    with store.ledger.read() as connection:
        row = backouts.get(connection, backout)
    return BackedOut(state, backout, row.plan, row.reason, row.actor, row.requested_at_us)
