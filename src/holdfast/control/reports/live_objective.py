"""Compare the champion's quality in production with the declared objective, and report when it misses it (R150)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from holdfast.monitor.quality import CONFIDENCE, Quality, compute_quality
from holdfast.qualify import Objective
from holdfast.records import DAY_US, MINUTE_US
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import traffic_plans
from holdfast.store.telemetry import outcomes

WINDOW_US: Final = 28 * DAY_US
"""Predictions of the last four weeks are compared, microseconds. The label's delay is added to it."""
EVERY_US: Final = MINUTE_US
MISSED: Final = "objective.missed"
REACHED: Final = "objective.reached"
"""The kinds of the events, whose subject is the model and whose explanation begins with the version."""


class ObjectiveMonitor:
    """A concern of the control loop: one event when the champion surely misses its objective, one when it does no more.

    Parameters
    ----------
    objective
        The declared objective.
    label_delay
        The duration from an event until its label is known: younger predictions have none.
    """

    def __init__(self, objective: Objective, label_delay: timedelta = timedelta(0)) -> None:
        self._objective = objective
        self._window_us = WINDOW_US + label_delay // timedelta(microseconds=1)
        self._compared: tuple[str, tuple[int, int]] | None = None
        self._compared_at_us = 0

    def __call__(self, store: Store, model: str, lease: Lease, *, now_us: int) -> None:
        """Compare once a minute, if labels were joined, corrected or withdrawn since."""
        if 0 <= now_us - self._compared_at_us < EVERY_US:
            return
        self._compared_at_us = now_us
        with store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, model)
            newest = outcomes.newest_change(connection, model)
            if plan is None or (plan.champion, newest) == self._compared:
                return
            found = outcomes.of_model(connection, model, since_us=now_us - self._window_us)
        quality = compute_quality(found.where(found.version == plan.champion))
        judged = judge(quality, self._objective)
        if judged is not None:
            _report(store, model, plan.champion, judged, lease, now_us)
        self._compared = (plan.champion, newest)  # last: a failed write is tried again


def _report(
    store: Store, model: str, champion: str, judged: tuple[bool, str], lease: Lease, now_us: int
) -> None:
    is_missed, why = judged
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        if is_missed == bool(missed(connection, model, champion)):
            return
        kind = MISSED if is_missed else REACHED
        events.append(connection, at_us=now_us, kind=kind, subject=model, explanation=f"{champion} {why}")


def judge(quality: Quality, objective: Objective) -> tuple[bool, str] | None:
    """Return whether `quality` surely misses the objective, and why; None without enough labels.

    It is missed if the whole interval lies on the wrong side of the bound: an estimate may be there by chance.
    """
    found = quality.auc if objective.metric == "auc" else quality.brier
    if found is None:
        return None
    is_missed = found.high < objective.bound if objective.metric == "auc" else found.low > objective.bound
    side = "at least" if objective.metric == "auc" else "at most"
    verb = "misses its objective" if is_missed else "does not surely miss its objective"
    return is_missed, (
        f"{verb}: {objective.metric} {found.estimate:.3f} ({found.low:.3f} to {found.high:.3f}, {CONFIDENCE:.0%}) of "
        f"{quality.rows:,} labelled predictions, needed {side} {objective.bound:g}"
    )


def missed(connection: Transaction, model: str, champion: str | None) -> str:
    """Return how `champion` misses its objective, in words; empty if it does not, or is not known to."""
    newest = [
        each
        for kind in (MISSED, REACHED)
        for each in events.newest(connection, subject=model, kind=kind, limit=1)
    ]
    last = max(newest, key=lambda each: each.event_id, default=None)
    if (
        champion is None
        or last is None
        or last.kind != MISSED
        or not last.explanation.startswith(f"{champion} ")
    ):
        return ""
    return last.explanation
