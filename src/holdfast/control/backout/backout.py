"""Back a batch out: make the plan, and execute it step by step.

The first transaction removes rows and online values, taints, and writes the event. Then the traffic of each model moves
in a transaction of its own. The last transaction ends the back-out. The ledger has the number of finished steps, so the
same command or the control loop resumes an interrupted back-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal, assert_never

from polars.exceptions import PolarsError

from holdfast.control.backout.dangling_references import find_dangling, find_dependents
from holdfast.control.backout.impact import loads_of_batch, loads_of_plan, make_plan, recompute_all
from holdfast.control.ingest import lookups
from holdfast.control.ingest.online_features import try_refresh
from holdfast.control.rollout.failover import Cause, fail_over
from holdfast.errors import ConflictError, HoldfastError, UnavailableError
from holdfast.feeds import Feed
from holdfast.feeds.state_machine import Event
from holdfast.formatting import counted, first_line
from holdfast.records import BatchId, Level, Violation
from holdfast.store import Store
from holdfast.store.backout import backout_loads, backouts, taints, tombstones
from holdfast.store.backout.backouts import BackoutRow
from holdfast.store.catalog import batches, delta, online_features
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.feeds import admissions, violations, withheld_loads
from holdfast.store.maintenance import repairs
from holdfast.tables.backout import (
    BackoutPlan,
    BackoutState,
    CancelRollout,
    FailOver,
    KeepLastResort,
    KeepVersions,
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
    WithdrawPublished,
    total_impact,
)

_MOST_ATTEMPTS: Final = 16
_NOT_OF_THE_TABLE: Final = ("HF205", "HF302", "HF309", "HF311")
"""Codes of errors that an exported table has no part in: of the ledger, and that other writers came first."""

Outcome = Literal["backed_out", "carried_on", "already_backed_out"]


@dataclass(frozen=True, slots=True)
class BackedOut:
    """The result of a back-out. "carried_on": it was begun before, and this call ended it."""

    state: Outcome
    backout_id: int
    plan: BackoutPlan
    reason: str
    actor: str
    requested_at_us: int


def plan_backout(store: Store, feeds: Sequence[Feed], batch: BatchId) -> BackoutPlan:
    """Return the plan to back `batch` out. Writes nothing.

    Its siblings in the feeds of its group are removed with it, because they are only correct together (R8): the batches of
    the same period.
    The group is the one recorded at load time; for loads without one, the one declared in `feeds`. The plan does not
    depend on when it is made (R16). Raises `NotFoundError` HF211 if the batch is not loaded.
    """
    with store.ledger.read() as connection:
        removed = loads_of_batch(connection, feeds, batch)
    recomputed = recompute_all(store, removed)
    left = find_dangling(store, [each.load.key for each in removed])
    with store.ledger.read() as connection:
        return make_plan(connection, store, batch, removed, recomputed, left)


def execute_backout(
    store: Store,
    feeds: Sequence[Feed],
    batch: BatchId,
    *,
    reason: str,
    actor: str,
    now_us: int,
    cost_per_prediction: float | None = None,
) -> BackedOut:
    """Back `batch` out with its group and everything made from it; return when all of it is done.

    Parameters
    ----------
    feeds
        All declared feeds.
    reason, actor
        The reason and the operator; both are kept in the ledger.
    now_us
        The current time, microseconds since 1970 UTC.
    cost_per_prediction
        What one wrong prediction costs; kept with the back-out, also with one that was finished before. None keeps what
        was stated before.

    Idempotent, also across processes: a back-out that is under way is resumed, and the result of a finished one is
    returned. A later load of the same id is backed out after that, for its own reason.

    Raises
    ------
    NotFoundError
        HF211 if the batch was never loaded.
    UnavailableError
        HF311 if other writers come first too often; the same command resumes.
    """
    with store.ledger.read() as connection:
        requested = backout_loads.live(connection, [batch.feed], batch.batch)
    before: Outcome = "already_backed_out"
    for _ in range(_MOST_ATTEMPTS):
        with store.ledger.read() as connection:
            newest = backouts.newest_of(connection, batch.feed, batch.batch)
            # A correction that was loaded after this request stays.
            there = [
                load
                for load in backout_loads.live(connection, [batch.feed], batch.batch)
                if load in requested
            ]
        if newest is not None and newest.state is BackoutState.UNDER_WAY:
            _finish(store, newest.backout_id, now_us)
            before = "carried_on"
            continue  # it may have removed an earlier load than the requested one
        if newest is not None and not there:
            _keep_cost(store, newest, cost_per_prediction)
            return _outcome(store, before, newest.backout_id)
        number = _begin(store, feeds, batch, reason, actor, now_us, cost_per_prediction)
        if number is not None:
            return _outcome(store, "backed_out", _finish(store, number, now_us))
    raise _overtaken(f"back-out of {batch}", "the back-outs that were begun are in the ledger")


def finish_interrupted(store: Store, *, now_us: int) -> list[int]:
    """Finish every back-out that is under way, and return their numbers. The control loop does so in each round.

    One that fails keeps no other from being finished; its error is raised after them.
    """
    with store.ledger.read() as connection:
        waiting = backouts.under_way(connection)
    finished, failures = list[int](), list[Exception]()
    for row in waiting:
        try:
            finished.append(_finish(store, row.backout_id, now_us))
        except Exception as error:
            error.add_note(f"in back-out {row.backout_id} of {row.feed}/{row.batch}")
            failures.append(error)
    if failures:
        raise failures[0]
    return finished


def _begin(
    store: Store,
    feeds: Sequence[Feed],
    batch: BatchId,
    reason: str,
    actor: str,
    now_us: int,
    cost_per_prediction: float | None,
) -> int | None:
    """Store the plan and return the number of the back-out; None if another process has begun one."""
    plan = replace(plan_backout(store, feeds, batch), cost_per_prediction=cost_per_prediction)
    with store.ledger.write() as connection:
        for feed, each, _ in plan.loads:
            backout_loads.live(connection, [feed], each, lock=True)
        other = backouts.newest_of(connection, batch.feed, batch.batch)
        if other is not None and other.state is BackoutState.UNDER_WAY:
            return None
        number = backouts.begin(connection, plan, reason=reason, actor=actor, now_us=now_us)
        failpoint("backout.before_begin")
    failpoint("backout.begun")
    return number


def _keep_cost(store: Store, row: BackoutRow, cost_per_prediction: float | None) -> None:
    """Keep what one wrong prediction costs with a back-out that is done."""
    if cost_per_prediction is not None and cost_per_prediction != row.plan.cost_per_prediction:
        with store.ledger.write() as connection:
            backouts.price(connection, row, cost_per_prediction)


def _finish(store: Store, backout: int, now_us: int) -> int:
    """Execute the remaining steps of a back-out."""
    for _ in range(_MOST_ATTEMPTS):
        with store.ledger.read() as connection:
            row = backouts.get(connection, backout)
        if row.state is BackoutState.DONE:
            return backout
        try:
            _execute(store, row, now_us)
        except ConflictError:
            continue  # another process, or a load, came first: read the ledger again
    with store.ledger.read() as connection:
        if backouts.get(connection, backout).state is BackoutState.DONE:
            return backout
    raise _overtaken(f"back-out {backout}", "it is under way, and the finished steps are in the ledger")


def _overtaken(operation: str, state: str) -> UnavailableError:
    return UnavailableError(
        "HF311",
        f"{operation} failed: other writers came first {_MOST_ATTEMPTS} times",
        state=state,
        next_command="the same command again, or holdfast control",
    )


def _execute(store: Store, row: BackoutRow, now_us: int) -> None:
    """Execute the remaining steps of `row`, one transaction after the other."""
    if row.steps_done == 0:
        row = _remove(store, row, now_us)
        failpoint("backout.removed")
    # Loads that refer to the removed rows are suspect now, and others of the group may lack a sibling, or have lost the feed
    # that they waited for.
    try_refresh(store, now_us=now_us)
    while row.steps_done < len(row.plan.steps):
        step = row.plan.steps[row.steps_done]
        match step:
            case CancelRollout() | FailOver() | KeepLastResort() | ReplaceFallbacks():
                row = _move_traffic(store, row, step.model, now_us)
                failpoint("backout.after_step")
            case WithdrawPublished():
                row = _withdraw(store, row, step, now_us)
                failpoint("backout.after_step")
            case ListPredictions() | ListFeedback() | Retrain():
                break  # what is listed is in the plan already
            case (
                RemoveRows()
                | RecomputeOnline()
                | SuspectLoad()
                | TaintSnapshots()
                | TaintVersions()
                | KeepVersions()
            ):
                raise AssertionError("the first transaction has executed these")
            case _:
                assert_never(step)
    with store.ledger.write() as connection:
        backouts.advance(
            connection, row, steps_done=len(row.plan.steps), now_us=now_us, state=BackoutState.DONE
        )
        failpoint("backout.before_end")
    failpoint("backout.ended")


def _remove(store: Store, row: BackoutRow, now_us: int) -> BackoutRow:
    """Execute the first transaction.

    It stores a new plan, with everything made from the batch since, and with later loads of its group.
    """
    batch = BatchId(row.feed, row.batch)
    with store.ledger.read() as connection:
        removed = loads_of_plan(connection, row.plan)
    recomputed = recompute_all(store, removed)
    loads = [each.load.key for each in removed]
    left = find_dangling(store, loads)
    with store.ledger.write() as connection:
        if (
            loads_of_plan(connection, row.plan) != removed
            or find_dependents(connection, loads) != left.dependents
            or any(batches.has_feed_changed(connection, each.feed, each.basis) for each in recomputed)
            # An acceptance makes no table version, and the values computed here lack the accepted rows.
            or any(withheld_loads.find(connection, each.feed) != each.withheld for each in recomputed)
        ):
            raise ConflictError("HF304", f"back-out of {batch} failed: the rows of its group have changed")
        made = make_plan(connection, store, batch, removed, recomputed, left)
        plan = replace(made, cost_per_prediction=row.plan.cost_per_prediction)
        backouts.advance(connection, row, steps_done=plan.transactional_steps, now_us=now_us, plan=plan)
        version = backout_loads.remove(connection, plan.loads, reason=f"back out {batch}", now_us=now_us)
        backouts.record_loads(connection, row.backout_id, plan.loads, removed_version=version)
        for each in recomputed:
            online_features.upsert(connection, each.values, version)
            online_features.register(connection, each.definitions, version)
        for step in plan.steps:
            _record(connection, step, row, plan, now_us)
        for feed in dict.fromkeys(feed for feed, _, _ in plan.loads):
            admissions.settle_feed(connection, feed, reason=f"{batch} was backed out", now_us=now_us)
        tombstones.record(store.root, connection, plan.loads, backout=row.backout_id, at_us=now_us)
        failpoint("backout.before_removal")
        return backouts.get(connection, row.backout_id)


def _move_traffic(store: Store, row: BackoutRow, model: str, now_us: int) -> BackoutRow:
    """Move the traffic of one model away from tainted versions, and count its step as done."""
    reason = f"{row.feed}/{row.batch} was backed out: {row.reason}"
    with store.ledger.write() as connection:
        fail_over(connection, store, model, Cause(reason, row.actor, now_us))
        backouts.advance(connection, row, steps_done=row.steps_done + 1, now_us=now_us)
        failpoint("backout.before_step")
        return backouts.get(connection, row.backout_id)


def _withdraw(store: Store, row: BackoutRow, step: WithdrawPublished, now_us: int) -> BackoutRow:
    """Withdraw the rows from exported tables, and count the step as done.

    A table that cannot be rewritten is moved aside, so that it neither blocks the back-out nor keeps the rows.
    """
    moved: dict[str, str] = {}
    for each in step.paths:
        table = delta.at(store.root, each)
        try:
            delta.withdraw(store, table, now_us=now_us)
        except (HoldfastError, OSError, ValueError, PolarsError) as error:
            if isinstance(error, HoldfastError) and error.code in _NOT_OF_THE_TABLE:
                raise
            with suppress(FileNotFoundError):  # another process has moved it
                aside = repairs.set_aside(store.root, table.directory).relative_to(store.root)
                moved[each] = f"it cannot be rewritten ({first_line(error)}); it was moved to {aside}"
    with store.ledger.write() as connection:
        backouts.advance(connection, row, steps_done=row.steps_done + 1, now_us=now_us)
        for each, reason in moved.items():
            events.append(
                connection,
                at_us=now_us,
                kind="exported_table.withdrawn",
                subject=each,
                actor=row.actor,
                explanation=f"{row.feed}/{row.batch} was backed out, and {reason}",
            )
        return backouts.get(connection, row.backout_id)


def _record(connection: Transaction, step: Step, row: BackoutRow, plan: BackoutPlan, now_us: int) -> None:
    """Write the taints of a step, and the event of each load."""
    match step:
        case SuspectLoad():
            _suspect(connection, step, row, now_us)
        case TaintSnapshots():
            taints.add(connection, "snapshot", step.snapshots, backout=row.backout_id, now_us=now_us)
        case TaintVersions():
            taints.add(
                connection,
                "version",
                step.versions,
                backout=row.backout_id,
                now_us=now_us,
                evaluated=step.evaluated,
            )
        case RemoveRows():
            impact = total_impact(plan)
            kept = f", {counted(impact.versions_kept, 'version')} kept" if impact.versions_kept else ""
            events.append(
                connection,
                at_us=now_us,
                kind="batch.backed_out",
                subject=f"{step.feed}/{step.batch}",
                actor=row.actor,
                explanation=(
                    f"{row.reason}; {counted(step.rows, 'row')} removed, {counted(impact.snapshots, 'snapshot')} and "
                    f"{counted(impact.versions, 'version')} tainted{kept}"
                ),
            )
        case _:
            return


def _suspect(connection: Transaction, step: SuspectLoad, row: BackoutRow, now_us: int) -> None:
    """Mark a load with dangling references as suspect, as if it had arrived like that."""
    load = BatchId(step.feed, step.batch)
    message = step.message(row.batch)
    broken = Violation(lookups.REFERENCE, step.column, Level.ERROR, message, float(step.rows), 0.0)
    violations.add(connection, load, step.epoch, [broken], now_us=now_us)
    admissions.move_feed(
        connection, step.feed, Event.LOADED_SUSPECT, contract_hash=None, reason=message, now_us=now_us
    )
    events.append(
        connection,
        at_us=now_us,
        kind="batch.suspect",
        subject=str(load),
        actor=row.actor,
        explanation=message,
    )


def _outcome(store: Store, state: Outcome, backout: int) -> BackedOut:
    with store.ledger.read() as connection:
        row = backouts.get(connection, backout)
    return BackedOut(state, backout, row.plan, row.reason, row.actor, row.requested_at_us)
