"""The declared objective in production: one event when the champion surely misses it, one when it does no more (R150)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from holdfast.control.reports import live_objective
from holdfast.control.reports.live_objective import EVERY_US, ObjectiveMonitor, judge
from holdfast.control.reports.status import StatusReader
from holdfast.monitor.quality import Outcomes, compute_quality
from holdfast.qualify import Objective
from holdfast.records import DAY_US
from holdfast.store.db import events
from holdfast.store.telemetry import outcomes
from tests.support.labelled import predict
from tests.support.rollout_world import MODEL, World


def predicted(version: str, at_us: int, *, inverted: bool, rows: int = 400) -> Outcomes:
    """Predictions that order the labels well, or the wrong way round."""
    chance = np.random.default_rng(7)
    label = (chance.random(rows) < 0.5).astype(float)
    probability = np.clip(0.5 + (0.2 - 0.4 * inverted) * (2 * label - 1) + chance.normal(0, 0.1, rows), 0, 1)
    at = np.full(rows, at_us, np.int64)
    return Outcomes(np.full(rows, version), at, at, probability, label)


@pytest.mark.parametrize("objective", [Objective("auc", at_least=0.6), Objective("brier", at_most=0.2)])
def test_only_a_whole_interval_on_the_wrong_side_misses(objective: Objective) -> None:
    good = judge(compute_quality(predicted("v", 1, inverted=False)), objective)
    bad = judge(compute_quality(predicted("v", 1, inverted=True)), objective)
    assert (good is not None, bad is not None) == (True, True)
    assert (good[0], bad[0]) == (False, True)
    assert f"needed at {'least' if objective.metric == 'auc' else 'most'} {objective.bound:g}" in bad[1]
    assert (
        judge(compute_quality(predicted("v", 1, inverted=True, rows=4)), Objective("auc", at_least=0.6))
        is None
    )


def test_a_missed_objective_is_an_event_and_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.open(tmp_path)
    world.promote(world.add_version())
    champion = world.plan().champion
    monitor = ObjectiveMonitor(Objective("auc", at_least=0.6))
    joined = 0

    def after(inverted: bool) -> list[str]:
        nonlocal joined
        if inverted:
            joined += 1
        else:  # a correction, which joins no label
            with world.store.ledger.write() as connection:
                events.append(
                    connection,
                    at_us=world.now_us,
                    kind=outcomes.CORRECTED,
                    subject=MODEL,
                    explanation="1 corrected",
                )
        monkeypatch.setattr(outcomes, "newest", lambda *_: joined)
        found = predicted(champion, world.now_us, inverted=inverted)
        monkeypatch.setattr(outcomes, "of_model", lambda *_, **__: found)
        monitor(world.store, MODEL, world.lease, now_us=world.tick(EVERY_US))
        with world.store.ledger.read() as connection:
            kinds = (live_objective.MISSED, live_objective.REACHED)
            return [each.explanation for kind in kinds for each in events.newest(connection, kind=kind)]

    assert after(inverted=False) == []
    (event,) = after(inverted=True)
    assert event.startswith(f"{champion} misses its objective: auc 0.")
    assert after(inverted=True) == [event]
    health = StatusReader(world.store, MODEL, ()).read(now_us=world.now_us).health
    assert ("objective_missed", event) in [(each.kind, each.text) for each in health.problems]
    assert len(after(inverted=False)) == 2
    assert StatusReader(world.store, MODEL, ()).read(now_us=world.now_us).missed_objective == ""


def test_labels_that_come_after_the_window_are_compared_and_a_failed_write_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With labels after 30 days `objective.missed` never came: the window was of 28."""
    world = World.open(tmp_path)
    world.promote(world.add_version())
    at_us = world.now_us - 31 * DAY_US
    for number in range(60):
        predict(world.store, number, at_us, at_us, version=world.plan().champion, inverted=True)
    objective = Objective("auc", at_least=0.6)
    early, monitor = ObjectiveMonitor(objective), ObjectiveMonitor(objective, timedelta(days=30))

    def has_missed(one: ObjectiveMonitor) -> bool:
        one(world.store, MODEL, world.lease, now_us=world.tick(EVERY_US))
        with world.store.ledger.read() as connection:
            return bool(live_objective.missed(connection, MODEL, world.plan().champion))

    assert not has_missed(early)
    with monkeypatch.context() as patch:
        patch.setattr(events, "append", Mock(side_effect=OSError("the disk is full")))
        with pytest.raises(OSError, match="full"):
            has_missed(monitor)
    assert has_missed(monitor)
