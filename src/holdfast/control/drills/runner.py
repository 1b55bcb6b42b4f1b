"""Run drills, by command or when they are due, and record them (R120, R121).

Each has a row in the ledger from its beginning. A killed drill leaves an unfinished row; the next drill cleans up, and restores
the traffic plan that it left.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from holdfast.control.drills import bad_push, live, on_copy
from holdfast.control.drills.live import Workspace, clean_up
from holdfast.errors import HoldfastError
from holdfast.records import Verdict
from holdfast.rollout import Canary, State
from holdfast.rollout.model.drills import (
    Drill,
    DrillKind,
    DrillResult,
    Drills,
    Standing,
    due,
    due_for_rollout,
    ready,
)
from holdfast.store import Store
from holdfast.store.db.leases import Lease
from holdfast.store.rollout import drills, rollouts

EXERCISES: Final[Mapping[DrillKind, Callable[[Workspace, int], DrillResult]]] = {
    DrillKind.ROLLBACK: live.rollback,
    DrillKind.RESTORE: on_copy.restore,
    DrillKind.STALE_LEADER: live.stale_leader,
    DrillKind.DEAD_DATABASE: on_copy.dead_database,
    DrillKind.BAD_PUSH: bad_push.bad_push,
}
"""The function of each kind."""

_log = logging.getLogger("holdfast.control")


def run(workspace: Workspace, kind: DrillKind, *, actor: str, lasts_us: int) -> Drill:
    """Run a drill of `kind` and record it; if it passed, the result is valid for `lasts_us` microseconds.

    An error is the drill's verdict, "error", and not an exception: finding it is the drill's purpose. Raises `UnavailableError`
    HF302 when the ledger cannot store its row.
    """
    store, model = workspace.store, workspace.model.name
    clean_up(store, model, now_us=workspace.clock_us())
    with store.ledger.write() as connection:
        number = drills.begin(connection, kind, model, actor=actor, now_us=workspace.clock_us())
    try:
        found = EXERCISES[kind](workspace, number)
    except (HoldfastError, OSError, ValueError) as error:
        found = DrillResult(Verdict.ERROR, str(error) or type(error).__name__)
    now_us = workspace.clock_us()
    with store.ledger.write() as connection:
        valid_us = lasts_us if found.verdict is Verdict.PASS else 0
        return drills.end(connection, number, found, now_us=now_us, expires_at_us=now_us + valid_us)


def standings(store: Store, model: str, *, now_us: int) -> tuple[Standing, ...]:
    """Return whether each kind of drill is ready."""
    with store.ledger.read() as connection:
        known = drills.of_model(connection, model)
    return tuple(ready(known, kind, now_us) for kind in DrillKind)


class Scheduled:
    """A concern of the control loop that runs due drills in a thread: one at a time.

    During a rollout none runs but the rollback drill that a pending one waits for.
    """

    def __init__(self, workspace: Workspace, schedule: Drills) -> None:
        self._workspace = replace(workspace, within_us=schedule.rollback_timeout_us, live=False)
        self._schedule = schedule
        self._running: threading.Thread | None = None

    def __call__(self, store: Store, model: str, _lease: Lease, *, now_us: int) -> None:
        """Start what is due, unless a drill runs."""
        if self._running is not None and self._running.is_alive():
            return
        clean_up(store, model, now_us=now_us)
        with store.ledger.read() as connection:
            row = rollouts.under_way(connection, model)
            known = drills.of_model(connection, model)
        within_us = None if row is None else Canary.from_json(row.policy_json).max_drill_age_us
        kinds: tuple[DrillKind, ...] = ()
        if row is None:
            kinds = due(self._schedule, known, now_us)
        elif row.state is State.PENDING and within_us is not None:
            kinds = due_for_rollout(known, within_us, now_us)
        if kinds:
            self._running = threading.Thread(target=self._drill, args=kinds[:1], name="drill", daemon=True)
            self._running.start()

    def wait(self, seconds: float) -> None:
        """Wait for the running drill to end, at most so many seconds."""
        if self._running is not None:
            self._running.join(seconds)

    def _drill(self, kind: DrillKind) -> None:
        try:
            ended = run(self._workspace, kind, actor="holdfast", lasts_us=2 * self._schedule.interval_us)
            if ended.verdict is not Verdict.PASS:
                _log.warning("the drill of %s: %s: %s", kind, ended.verdict, ended.explanation)
        except HoldfastError:
            _log.exception("recording the drill of %s failed; it will be repeated", kind)
