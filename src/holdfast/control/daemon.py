"""The concerns of the control loop of one model, in the order of a round."""

from __future__ import annotations

from typing import Final

from holdfast.control.backout import backout
from holdfast.control.collect import collector
from holdfast.control.drills import live
from holdfast.control.ingest import online_features
from holdfast.control.interrupted_operations import InterruptedOperations
from holdfast.control.loop import Concern
from holdfast.control.probing.membership import Members
from holdfast.control.probing.probe import probe
from holdfast.control.reports import traffic_comparison
from holdfast.control.rollout import abort_sync, post_promotion, reconcile, start
from holdfast.store import Store
from holdfast.store.db import leases

_REFRESH_US: Final = 30_000_000


_ABORTS: Final = "bringing aborts into the ledger"


def between_rounds() -> dict[str, Concern]:
    """Return the concerns that go on while no round is due: a server on another machine shows its aborts only by a request."""
    return {_ABORTS: abort_sync.carry}


def concerns() -> dict[str, Concern]:
    """Return the concerns of a round, by name and in order."""
    return {
        "collecting the logs": collector.collect,
        "joining labels": collector.join,
        "reporting killed loads and trainings": InterruptedOperations(),
        "carrying back-outs on": _carry_back_outs_on,
        "keeping online values in step": _KeepOnlineValues(),
        _ABORTS: abort_sync.carry,
        "probing the servers": probe,
        "following the members": Members(),
        "starting the queued rollout": start.begin_queued,
        "carrying the rollout on": reconcile.reconcile,
        "watching the promotion": post_promotion.carry,
        "comparing traffic with training data": traffic_comparison.compare,
        "ending drills that were killed": _end_drills,
    }


def _carry_back_outs_on(store: Store, _model: str, _lease: leases.Lease, *, now_us: int) -> None:
    """Continue back-outs of any process: a back-out is fenced by its own count of steps."""
    backout.finish_interrupted(store, now_us=now_us)


def _end_drills(store: Store, model: str, _lease: leases.Lease, *, now_us: int) -> None:
    """End drills of any process. The state before is restored only where no other process has written since."""
    live.clean_up(store, model, now_us=now_us)


class _KeepOnlineValues:
    """Refresh online values every half minute: only a process that was killed after a load leaves something to do."""

    def __init__(self) -> None:
        self._next_us = 0

    def __call__(self, store: Store, _model: str, _lease: leases.Lease, *, now_us: int) -> None:
        if now_us >= self._next_us:
            self._next_us = now_us + _REFRESH_US
            online_features.refresh(store, now_us=now_us)
