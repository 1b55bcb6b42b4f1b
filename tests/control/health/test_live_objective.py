"""The declared objective in production: one rule for the gate and for live labels, one typed result (R150)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.control.health.live_objective import EVERY_US, ObjectiveReader
from holdfast.control.reports.status import StatusReader
from holdfast.qualify import Objective
from holdfast.records import DAY_US, Verdict
from holdfast.store.db import events
from holdfast.store.telemetry import outcomes
from tests.support.labelled import predict
from tests.support.rollout_world import MODEL, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.open(tmp_path)
    world.promote(world.add_version())
    return world


def label(world: World, numbers: range, *, inverted: bool, ago_us: int = 0) -> None:
    at_us = world.now_us - ago_us
    for number in numbers:
        predict(world.store, number, at_us, at_us, version=world.plan().champion, inverted=inverted)


@pytest.mark.parametrize("objective", [Objective("auc", at_least=0.6), Objective("brier", at_most=0.3)])
def test_a_missed_objective_is_a_problem_until_labels_are_corrected(
    world: World, objective: Objective
) -> None:
    reader = StatusReader(world.store, MODEL, objective=objective)

    def missed() -> list[str]:
        found = reader.read(now_us=world.tick(EVERY_US))
        assert (found.objective is not None and found.objective.verdict is Verdict.FAIL) == any(
            each.kind == "objective_missed" for each in found.health.problems
        )
        return [each.text for each in found.health.problems if each.kind == "objective_missed"]

    assert missed() == []
    label(world, range(100), inverted=True)
    (text,) = missed()
    assert text.startswith(f"{world.plan().champion} misses the objective: {objective.metric} 0.")
    assert text.endswith(
        f"on 100 rows, needed {'at least 0.6' if objective.metric == 'auc' else 'at most 0.3'}"
    )
    with world.store.ledger.write() as connection:
        outcomes.withdraw(connection, [f"s1-1-{number}/0" for number in range(97)])
        events.append(
            connection, at_us=world.now_us, kind=outcomes.CORRECTED, subject=MODEL, explanation="97 withdrawn"
        )
    assert missed() == []


def test_few_labels_do_not_miss_an_objective(world: World) -> None:
    label(world, range(8), inverted=True)
    reader = StatusReader(world.store, MODEL, objective=Objective("auc", at_least=0.6))
    assert reader.read(now_us=world.now_us).objective is None


def test_labels_that_come_after_the_window_are_compared(world: World) -> None:
    """With labels after 30 days the objective was never missed: the window was of 28."""
    label(world, range(60), inverted=True, ago_us=31 * DAY_US)
    objective, champion = Objective("auc", at_least=0.6), world.plan().champion
    early, late = ObjectiveReader(objective), ObjectiveReader(objective, timedelta(days=30))
    assert early.read(world.store, MODEL, champion, now_us=world.now_us) is None
    found = late.read(world.store, MODEL, champion, now_us=world.now_us)
    assert found is not None
    assert found.verdict is Verdict.FAIL


def test_the_labels_of_another_version_are_not_the_champions(world: World) -> None:
    for number in range(100):
        predict(world.store, number, world.now_us, world.now_us, version="other", inverted=True)
    reader = ObjectiveReader(Objective("auc", at_least=0.6))
    assert reader.read(world.store, MODEL, world.plan().champion, now_us=world.now_us) is None


def next_commands(world: World) -> list[str]:
    reader = StatusReader(world.store, MODEL, objective=Objective("auc", at_least=0.6))
    found = reader.read(now_us=world.now_us).health.problems
    return [each.next_command for each in found if each.kind == "objective_missed"]


def test_a_missed_objective_names_a_rollback_only_if_it_works(world: World) -> None:
    first, second = world.plan().champion, world.add_version()
    world.promote(second)
    label(world, range(100), inverted=True)
    (command,) = next_commands(world)
    assert command.startswith(f"holdfast rollback --version {second}, which returns to {first}, or ")
    world.begin(world.add_version())
    assert next_commands(world) == ["holdfast train, with newer rows"], (
        "a rollout is under way: it comes first"
    )
    world.rollback()
    world.probe()
    world.reconcile()
    assert next_commands(world) == [command], (
        "also right after another rollback, because it names the version"
    )
    world.rollback(second)
    assert next_commands(world) == [], "another version serves"
    assert world.plan().champion == first
    world.probe()
    world.reconcile()
    label(world, range(100, 200), inverted=True)
    (command,) = next_commands(world)
    assert command.startswith(f"holdfast rollback --version {first}, which returns to v1-00000000, or ")
    world.rollback(first)
    assert world.plan().champion == "v1-00000000", "the heuristic"
