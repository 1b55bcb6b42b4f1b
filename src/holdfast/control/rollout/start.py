"""Start the rollout of a version at once, or when the rollout under way ends.

A model has at most one rollout under way and one queued version. Repeating a request changes nothing, so that a job that runs
every night never fails because of the night before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from holdfast.control.rollout import drill_traffic, reconcile
from holdfast.control.rollout.reconcile import Transition
from holdfast.errors import HoldfastError
from holdfast.rollout import Canary, Event, NewerVersion, State
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import drills, queue, rollouts, traffic_plans
from holdfast.store.rollout.queue import QueuedRollout
from holdfast.store.rollout.rollouts import RolloutRow

if TYPE_CHECKING:
    from holdfast.declaration import Model

_ENDING: Final[dict[str, frozenset[State]]] = {
    NewerVersion.QUEUE: frozenset({State.PENDING}),
    NewerVersion.SUPERSEDE: frozenset({State.PENDING, State.SHADOWING, State.CANARY, State.PAUSED}),
    NewerVersion.REFUSE: frozenset(),
}
"""States in which a newer version ends a rollout.

A pending one has seen nothing. After these, the challenger has all traffic or is rolled back already.
"""


class Started(StrEnum):
    """What became of a request to roll a version out."""

    STARTED = "started"
    RUNNING = "running"  # its rollout was under way before
    QUEUED = "queued"  # it starts when the rollout under way ends
    CHAMPION = "champion"  # it serves already


@dataclass(frozen=True, slots=True)
class Requested:
    """What became of a request.

    Parameters
    ----------
    state
        What became of it.
    rollout
        The number of the version's rollout; None while it is queued, and for a champion that no rollout promoted.
    ended
        The rollout that was ended for it; None if none was.
    waits_for
        The rollout that it waits for; None unless it is queued.
    dropped
        The queued version that it replaced; None if there was none.
    """

    state: Started
    rollout: int | None = None
    ended: RolloutRow | None = None
    waits_for: RolloutRow | None = None
    dropped: str | None = None


def request(store: Store, model: Model, version: str, *, actor: str, now_us: int) -> Requested:
    """Roll `version` out: at once, or by the policy's `newer_version` after the rollout under way.

    A live drill ends early. A repeated request writes nothing.

    Raises
    ------
    NotFoundError
        HF303 for an unknown version or one of another model.
    RefusedError
        HF403 for one that is no qualified candidate, or has yet to pass a compatibility test with the runtime in force; HF406
        for a tainted one.
    InputError
        HF107 if the policy guards slices by a column that the version or the champion does not have.
    ConflictError
        HF404 while another version is under way and the policy's `newer_version` is "refuse".
    """
    # The page decides what a rollback would return to, and never starts a rollout: this loads Polars and ONNX.
    from holdfast.control.collect.log_summary import refuse_unguarded

    policy = model.rollout
    with store.ledger.read() as connection:
        reconcile.refuse_unqualified(connection, model.name, version)
        current = rollouts.under_way(connection, model.name)
        champion = _champion(connection, model.name)
        if current is None and champion == version:
            promotion = rollouts.promotion(connection, model.name, version)
            return Requested(Started.CHAMPION, None if promotion is None else promotion.rollout_id)
    if current is None or current.challenger != version:
        refuse_unguarded(store, policy, version, champion)
    with store.ledger.write() as connection:
        taints.refuse(connection, "version", version)
        current = rollouts.under_way(connection, model.name)
        if current is not None and current.challenger == version:
            return Requested(Started.RUNNING, current.rollout_id)
        ended = None
        ending = _ENDING[policy.newer_version]
        if current is None or current.state in ending:
            # A live drill's champion is temporary: the rollout must not start against it.
            drill_traffic.settle(connection, model.name, now_us)
        if current is not None and current.state in ending:
            transition = Transition(Event.ROLLBACK, f"{version} is newer", actor)
            reconcile.commit(connection, store, current, transition, now_us=now_us)
            ended, current = current, rollouts.under_way(connection, model.name)
        if current is None or policy.newer_version is NewerVersion.REFUSE:
            dropped = _drop_older(connection, model.name, version, actor, now_us)
            number = reconcile.insert(
                connection, model.name, version, policy.to_json(), actor=actor, now_us=now_us
            )
            return Requested(Started.STARTED, number, ended, dropped=dropped)
        dropped = _queue(connection, model.name, version, policy, current, actor, now_us)
    return Requested(Started.QUEUED, ended=ended, waits_for=current, dropped=dropped)


def begin_queued(store: Store, model: str, lease: Lease, *, now_us: int) -> int | None:
    """Start the queued version if no rollout is under way; return the number of its rollout, None if none was started.

    A version that may not be rolled out any more is dropped, with an event. Raises `ConflictError` HF304 when `lease` has
    gone to another loop.
    """
    with store.ledger.read() as connection:
        queued = queue.find(connection, model)
        if queued is None or not _is_free(connection, model):
            return None
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        if queue.find(connection, model) != queued or not _is_free(connection, model):
            return None
        try:
            reconcile.refuse_unqualified(connection, model, queued.version)
            number = reconcile.insert(
                connection, model, queued.version, queued.policy_json, actor=queued.actor, now_us=now_us
            )
        except HoldfastError as error:
            drop(connection, model, f"{error.code}: {error.what}", actor=events.SYSTEM, now_us=now_us)
            return None
        queue.remove(connection, model)
    return number


def drop(connection: Transaction, model: str, why: str, *, actor: str, now_us: int) -> str | None:
    """Take the queued version of `model` out of the queue, with an event; return it, None if none is queued."""
    queued = queue.find(connection, model)
    if queued is None:
        return None
    queue.remove(connection, model)
    events.append(
        connection,
        at_us=now_us,
        kind="rollout.dropped",
        subject=model,
        actor=actor,
        explanation=f"{queued.version}, queued by {queued.actor}, is not rolled out: {why}",
    )
    return queued.version


def last_dropped(connection: Transaction, model: str) -> str:
    """Return which queued version was dropped last, and why; empty if none was, or a rollout was requested since."""
    found = events.newest(connection, subject=model, kind="rollout.dropped", limit=1)
    since = events.newest(connection, subject=model, kind="rollout.queued", limit=1)
    newest = rollouts.find_newest(connection, model)
    if newest is not None:
        subject = rollouts.subject_of(newest.rollout_id)
        since += events.newest(connection, subject=subject, kind="rollout.pending", limit=1)
    if not found or any(each.event_id > found[0].event_id for each in since):
        return ""
    return found[0].explanation


def _queue(
    connection: Transaction,
    model: str,
    version: str,
    policy: Canary,
    current: RolloutRow,
    actor: str,
    now_us: int,
) -> str | None:
    """Queue `version` behind `current`; return the version that it replaces in the queue."""
    before = queue.find(connection, model)
    if before is not None and before.version == version:
        return None
    dropped = _drop_older(connection, model, version, actor, now_us)
    queue.put(connection, QueuedRollout(model, version, policy.to_json(), actor, now_us))
    events.append(
        connection,
        at_us=now_us,
        kind="rollout.queued",
        subject=model,
        actor=actor,
        explanation=f"{version} waits for rollout {current.rollout_id} of {current.challenger}, which is {current.state}",
    )
    return dropped


def _drop_older(connection: Transaction, model: str, version: str, actor: str, now_us: int) -> str | None:
    """Empty the queue for `version`, which was requested later; return what was dropped, None if nothing else was queued."""
    queued = queue.find(connection, model)
    if queued is not None and queued.version == version:
        queue.remove(connection, model)
        return None
    return drop(connection, model, f"{version} is newer", actor=actor, now_us=now_us)


def _champion(connection: Transaction, model: str) -> str | None:
    """Return the champion, which a live drill does not change; None before the first plan."""
    plan = traffic_plans.newest(connection, model)
    if plan is None:
        return None
    moved = drills.moving(connection, model, plan.plan_id)
    return plan.champion if moved is None else moved[1].champion


def _is_free(connection: Transaction, model: str) -> bool:
    """Return True if a rollout may start: none is under way, and no live drill has all users."""
    if rollouts.under_way(connection, model) is not None:
        return False
    plan = traffic_plans.newest(connection, model)
    return plan is None or not drills.moves_users(connection, model, plan.plan_id)
