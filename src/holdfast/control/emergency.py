"""Brings into the ledger what was rolled back without it: aborts that stand on servers, committed with who gave them and why.

The traffic went back at once, on each server's own word. Here the ledger learns of it, so that what is desired and what is
done agree; then the servers forget the abort. Level-triggered like every concern of the loop: it may be done twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from holdfast.control import retreat, rollout
from holdfast.control.asking import FAILURES, TIMEOUT_SECONDS, Asking
from holdfast.rollout import Event, State
from holdfast.rollout.abort import Abort
from holdfast.store import Store, aborts, plans, rollouts, servers
from holdfast.store.leases import Lease, assert_epoch
from holdfast.store.ledger import Transaction
from holdfast.store.rollouts import RolloutRow
from holdfast.store.servers import Server

_FIELDS: Final = {"version": str, "plan": int, "rollout": int, "reason": str, "actor": str, "at_us": int}


def carry(store: Store, model: str, lease: Lease, *, now_us: int) -> list[Abort]:
    """Commit what the aborts of `model` mean: those on this machine, and those of servers elsewhere. Which were new to the
    ledger.

    Raises `ConflictError` HF304 when `lease` has gone to another loop.
    """
    standing = {each.version: each for each in aborts.load(aborts.directory_of(store.root, model))}
    for abort in _elsewhere(store, model):
        standing.setdefault(abort.version, abort)
    done: list[Abort] = []
    for abort in standing.values():
        with store.ledger.read() as connection:
            if not _is_due(connection, store, model, abort):
                continue
        with store.ledger.write() as connection:
            assert_epoch(connection, lease.name, lease.epoch)
            if commit(connection, store, model, abort, now_us=now_us):
                done.append(abort)
    return done


def commit(connection: Transaction, store: Store, model: str, abort: Abort, *, now_us: int) -> bool:
    """Take from the aborted version in the ledger what it has there, in the caller's transaction; whether there was any.

    By its rollout's own roll-back, which returns to what was before; then, if that may not answer either, to a refuge.
    """
    if not _is_due(connection, store, model, abort):
        return False
    reason, actor = f"asked for by {abort.actor} without the ledger: {abort.reason}", abort.actor
    row = _rollout_of(connection, model, abort.version)
    if row is not None:
        rollout.commit(connection, store, row, Event.ROLL_BACK, row.step, reason, actor, now_us)
    retreat.carry_out(
        connection, store, model, reason=reason, actor=actor, now_us=now_us, also=(abort.version,)
    )
    return True


def _rollout_of(connection: Transaction, model: str, version: str) -> RolloutRow | None:
    """The rollout that gives `version` its traffic; None when none does, or it is rolling back already."""
    row = rollouts.under_way_in(connection, model)
    if row is not None:
        return row if row.challenger == version and row.state is not State.ROLLING_BACK else None
    committed = plans.newest_in(connection, model)
    if committed is None or committed.plan.champion != version:
        return None
    return rollouts.promotion_in(connection, model, version)


def _is_due(connection: Transaction, store: Store, model: str, abort: Abort) -> bool:
    if rollouts.is_pushed_after_in(connection, model, abort.version, abort.rollout):
        return False  # somebody pushed it again, and knew better than the abort could, whatever is rolled out since
    return bool(retreat.retreat(connection, store, model, {abort.version}))


def _elsewhere(store: Store, model: str) -> list[Abort]:
    """The aborts that servers on other machines obey."""
    found: dict[str, list[Abort]] = {}

    def ask(server: Server) -> None:
        try:
            with Asking(server) as asking:
                found[server.server] = read(asking.status())
        except FAILURES:
            return  # whoever is silent says it the next time; that it is silent is told by its probe

    asked = [each for each in servers.registered(store, model) if not each.log_directory.is_dir()]
    threads = [threading.Thread(target=ask, args=(each,), daemon=True) for each in asked]
    for thread in threads:
        thread.start()
    until = time.monotonic() + TIMEOUT_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [abort for listed in list(found.values()) for abort in listed]


def read(status: Mapping[str, Any]) -> list[Abort]:
    """The aborts that a server says it obeys; what is none is passed over."""
    told = status.get("aborts")
    listed: Sequence[object] = told if isinstance(told, list) else ()
    return [Abort(**each) for each in listed if isinstance(each, dict) and _is_abort(each.items())]


def _is_abort(items: Iterable[tuple[object, object]]) -> bool:
    return {name: type(value) for name, value in items} == _FIELDS
