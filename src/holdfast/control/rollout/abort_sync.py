"""Brings into the ledger what was rolled back without it: aborts that stand on servers, committed with who gave them and why.

The traffic went back at once, on each server's own word. Here the ledger learns of it, so that what is desired and what is
done agree; then the servers forget the abort. Level-triggered like every concern of the loop: it may be done twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from holdfast.control.http.server_client import FAILURES, TIMEOUT_SECONDS, ServerClient, call_all
from holdfast.control.probing.probe import is_silent
from holdfast.control.rollout import drill_traffic, failover, reconcile
from holdfast.control.rollout.failover import Cause
from holdfast.control.rollout.reconcile import Transition
from holdfast.errors import ConflictError, HoldfastError
from holdfast.rollout import Event, State
from holdfast.rollout.model.abort import Abort
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.serving import aborts, servers
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import probes
from holdfast.tables.backout import KeepLastResort, TrafficStep

_FIELDS: Final = {
    "version": str,
    "plan_id": int,
    "rollout_id": int,
    "reason": str,
    "actor": str,
    "at_us": int,
}
_TOLD_EVENTS: Final = 20


def carry(store: Store, model: str, lease: Lease, *, now_us: int) -> list[Abort]:
    """Commit what the aborts of `model` mean: those on this machine, and those of servers elsewhere. Which were new to the
    ledger.

    One that cannot be carried, for want of anybody else who may answer, goes on standing and keeps no other from being
    carried; an event says so once. Raises `ConflictError` HF304 when `lease` has gone to another loop.
    """
    standing = {each.version: each for each in aborts.load(aborts.directory_of(store.root, model))}
    for abort in _elsewhere(store, model, now_us):
        standing.setdefault(abort.version, abort)
    done: list[Abort] = []
    for abort in standing.values():
        with store.ledger.read() as connection:
            steps = _steps(connection, store, model, abort)
        try:
            if steps == [KeepLastResort(model, abort.version)]:
                _say_held(store, lease, model, abort, "nobody else may answer", now_us)
            elif steps:
                with store.ledger.write() as connection:
                    assert_epoch(connection, lease.name, lease.epoch)
                    if commit(connection, store, model, abort, now_us=now_us):
                        done.append(abort)
        except ConflictError:
            raise
        except HoldfastError as error:
            _say_held(store, lease, model, abort, f"{error.code}: {error.what}", now_us)
    return done


def commit(connection: Transaction, store: Store, model: str, abort: Abort, *, now_us: int) -> bool:
    """Move traffic away from the aborted version in the caller's transaction; return True if it had any.

    Its rollout is rolled back to the version before it; if that must not serve either, the fallback version does.
    """
    if not _steps(connection, store, model, abort):
        return False
    reason, actor = f"asked for by {abort.actor} without the ledger: {abort.reason}", abort.actor
    drill_traffic.settle(connection, model, now_us)
    row = _rollout_of(connection, model, abort.version)
    if row is not None:
        reconcile.commit(connection, store, row, Transition(Event.ROLLBACK, reason, actor), now_us=now_us)
    failover.fail_over(connection, store, model, Cause(reason, actor, now_us), also=(abort.version,))
    return True


def _rollout_of(connection: Transaction, model: str, version: str) -> RolloutRow | None:
    """The rollout that gives `version` its traffic; None when none does, or it is rolling back already."""
    row = rollouts.under_way(connection, model)
    if row is not None:
        return row if row.challenger == version and row.state is not State.ROLLING_BACK else None
    plan = traffic_plans.newest(connection, model)
    if plan is None or plan.champion != version:
        return None
    return rollouts.promotion(connection, model, version)


def _say_held(store: Store, lease: Lease, model: str, abort: Abort, why: str, now_us: int) -> None:
    words = f"the ledger goes on with {abort.version}, which {abort.actor} took back without it: {why}"
    with store.ledger.read() as connection:
        told = events.newest(connection, subject=model, kind="abort.pending", limit=_TOLD_EVENTS)
    if any(each.explanation == words for each in told):
        return
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        events.append(
            connection,
            at_us=now_us,
            kind="abort.pending",
            subject=model,
            actor=abort.actor,
            explanation=words,
        )


def _steps(connection: Transaction, store: Store, model: str, abort: Abort) -> list[TrafficStep]:
    """What the ledger has to do yet for `abort`; nothing when it is over."""
    if rollouts.is_pushed_after(connection, model, abort.version, abort.rollout_id):
        return []  # somebody pushed it again, and knew better than the abort could, whatever is rolled out since
    return failover.plan_failover(connection, store, model, {abort.version})


def _elsewhere(store: Store, model: str, now_us: int) -> list[Abort]:
    """The aborts that servers on other machines obey. One that was silent a moment ago is left to its probe: a machine that
    is gone for good must not delay each round."""
    with store.ledger.read() as connection:
        silent = {each.server for each in probes.last(connection, model) if is_silent(each, now_us)}
        asked = [
            each
            for each in servers.registered(connection, model)
            if each.server not in silent and not each.log_directory.is_dir()
        ]
    return [abort for listed in call_all(asked, _told, TIMEOUT_SECONDS).values() for abort in listed]


def _told(server: Server) -> list[Abort]:
    try:
        with ServerClient(server) as client:
            return read(client.status())
    except FAILURES:
        return []  # whoever is silent says it the next time; that it is silent is told by its probe


def read(status: Mapping[str, Any]) -> list[Abort]:
    """The aborts that a server says it obeys; what is none is passed over."""
    told = status.get("aborts")
    listed: Sequence[object] = told if isinstance(told, list) else ()
    return [Abort(**each) for each in listed if isinstance(each, dict) and _is_abort(each.items())]


def _is_abort(items: Iterable[tuple[object, object]]) -> bool:
    return {name: type(value) for name, value in items} == _FIELDS
