"""Import aborts from servers into the ledger, with their actor and reason.

Each server moved the traffic at once, without the ledger. Here the ledger is updated, so that the desired state agrees with
it; then the servers drop the abort. Level-triggered like every concern of the loop: running it twice is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

import msgspec

from holdfast.control.http.server_client import FAILURES, TIMEOUT_SECONDS, ServerClient, call_all
from holdfast.control.probing.probe import is_silent
from holdfast.control.rollout import drill_traffic, failover, reconcile, start
from holdfast.control.rollout.failover import Cause
from holdfast.control.rollout.reconcile import Transition
from holdfast.errors import ConflictError, HoldfastError
from holdfast.rollout import Event, State
from holdfast.rollout.model.abort import Abort
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts, traffic_plans, withdrawals
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.serving import aborts, members, servers
from holdfast.store.serving.servers import Server
from holdfast.tables.backout import KeepLastResort, TrafficStep

_READ_EVENTS: Final = 20


def carry(store: Store, model: str, lease: Lease, *, now_us: int) -> list[Abort]:
    """Commit the aborts of `model`, of this machine and of servers elsewhere; return those that were new to the ledger.

    An abort that cannot be committed, because no other version may serve, stays in force and blocks no other; an
    event reports it once. Raises `ConflictError` HF304 when `lease` has gone to another loop.
    """
    standing = {each.version: each for each in aborts.load(aborts.directory_of(store.root, model))}
    for abort in _elsewhere(store, model, now_us):
        standing.setdefault(abort.version, abort)
    done: list[Abort] = []
    for abort in standing.values():
        with store.ledger.read() as connection:
            is_settled = _is_settled(connection, store, model, abort)
            steps = [] if is_settled else _steps(connection, store, model, abort)
        try:
            if steps == [KeepLastResort(model, abort.version)]:
                _report_pending(store, lease, model, abort, "no other version may serve", now_us)
            elif not is_settled:
                with store.ledger.write() as connection:
                    assert_epoch(connection, lease.name, lease.epoch)
                    if commit(connection, store, model, abort, now_us=now_us):
                        done.append(abort)
        except ConflictError:
            raise
        except HoldfastError as error:
            _report_pending(store, lease, model, abort, f"{error.code}: {error.what}", now_us)
    return done


def commit(connection: Transaction, store: Store, model: str, abort: Abort, *, now_us: int) -> bool:
    """Move traffic away from the aborted version in the caller's transaction, and record that it was withdrawn.

    Its rollout is rolled back to the version before it; if that must not serve either, the fallback version does. Return
    False if the ledger has nothing to do.
    """
    if _is_settled(connection, store, model, abort):
        return False
    reason, actor = f"requested by {abort.actor} without the ledger: {abort.reason}", abort.actor
    drill_traffic.settle(connection, model, now_us)
    start.drop(connection, model, reason, actor=actor, now_us=now_us)
    row = _rollout_of(connection, model, abort.version)
    if row is not None:
        reconcile.commit(connection, store, row, Transition(Event.ROLLBACK, reason, actor), now_us=now_us)
    failover.fail_over(connection, store, model, Cause(reason, actor, now_us), also=(abort.version,))
    # Also where it had no traffic: no later fallback may bring it back.
    withdrawals.withdraw(connection, model, abort.version, reason=reason, actor=actor, now_us=now_us)
    return True


def _rollout_of(connection: Transaction, model: str, version: str) -> RolloutRow | None:
    """Return the rollout that gives `version` its traffic; None if none does, or it is rolling back already."""
    row = rollouts.under_way(connection, model)
    if row is not None:
        return row if row.challenger == version and row.state is not State.ROLLING_BACK else None
    plan = traffic_plans.newest(connection, model)
    if plan is None or plan.champion != version:
        return None
    return rollouts.promotion(connection, model, version)


def _report_pending(store: Store, lease: Lease, model: str, abort: Abort, why: str, now_us: int) -> None:
    explanation = f"the ledger keeps {abort.version}, which {abort.actor} rolled back without it: {why}"
    with store.ledger.read() as connection:
        reported = events.newest(connection, subject=model, kind="abort.pending", limit=_READ_EVENTS)
    if any(each.explanation == events.as_written(explanation) for each in reported):
        return
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        events.append(
            connection,
            at_us=now_us,
            kind="abort.pending",
            subject=model,
            actor=abort.actor,
            explanation=explanation,
        )


def _steps(connection: Transaction, store: Store, model: str, abort: Abort) -> list[TrafficStep]:
    """Return what moves the traffic of `abort`; nothing when the version has none."""
    return failover.plan_failover(connection, store, model, {abort.version})


def _is_settled(connection: Transaction, store: Store, model: str, abort: Abort) -> bool:
    """Return True if the ledger has nothing to do: a newer rollout pushes the version, it is withdrawn, or it must stay."""
    if rollouts.is_pushed_after(connection, model, abort.version, abort.rollout_id):
        return True  # whatever is rolled out since
    if _steps(connection, store, model, abort):
        return False
    plan = traffic_plans.newest(connection, model)
    if plan is not None and abort.version in plan.versions():
        return True  # it is compared with a challenger, and no other version may take its place
    standing = withdrawals.standings(connection, model, [abort.version])[abort.version]
    return not standing.may_serve


def _elsewhere(store: Store, model: str, now_us: int) -> list[Abort]:
    """Return the aborts that servers on other machines follow.

    A server that was silent recently is left to its probe: a machine that is gone must not delay each round.
    """
    with store.ledger.read() as connection:
        silent = {each.server for each in servers.last_probes(connection, model) if is_silent(each, now_us)}
        polled = [
            each
            for each in members.polled(connection, model)
            if each.server not in silent and not each.log_directory.is_dir()
        ]
    return [abort for listed in call_all(polled, _aborts_of, TIMEOUT_SECONDS).values() for abort in listed]


def _aborts_of(server: Server) -> list[Abort]:
    try:
        with ServerClient(server) as client:
            return read(client.status())
    except FAILURES:
        return []  # a silent server reports its aborts in the next round; its probe reports the silence


def read(status: Mapping[str, Any]) -> list[Abort]:
    """Return the aborts that a server reports; those that are invalid, or of another shape, are skipped."""
    reported = status.get("aborts")
    listed: list[Abort] = []
    for each in reported if isinstance(reported, list) else ():
        with suppress(msgspec.ValidationError):
            abort = msgspec.convert(each, Abort)
            listed += [abort] if asdict(abort) == each else []
    return listed
