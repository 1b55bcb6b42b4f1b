"""A plan that is written while a live drill has all users first ends what the drill has moved (R120)."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from holdfast.control.drills import live
from holdfast.control.rollout import drill_traffic, failover, plan_parts, post_promotion, pushes, start
from holdfast.control.rollout.failover import Cause
from holdfast.control.rollout.start import Started
from holdfast.errors import RefusedError
from holdfast.records import TrafficPlan
from holdfast.rollout import PushOutcome, State
from holdfast.rollout.model.drills import DrillKind
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.rollout import drills, rollouts, traffic_plans
from tests.support import rollout_world
from tests.support.queries import read, write

MODEL = rollout_world.MODEL
pytestmark = pytest.mark.sqlite


def move(world: rollout_world.World) -> tuple[int, TrafficPlan, int]:
    """A live drill moves all users to the former champion; its number, what was before, and its plan's number."""
    number = write(world.store, drills.begin, DrillKind.ROLLBACK, MODEL, actor="ann", now_us=world.tick())
    with world.store.ledger.write() as connection:
        newest = traffic_plans.newest_committed(connection, MODEL)
        assert newest is not None
        before = newest.plan
        assert before.previous is not None
        there = replace(before, champion=before.previous, previous=before.champion)
        plan = drill_traffic.append(connection, there, number, "begins", world.tick())
        drills.note(connection, number, {"plan": plan, "returns": asdict(before), "live": True})
    return number, before, plan


def test_what_a_live_drill_moved_stays_nowhere(tmp_path: Path) -> None:
    world = rollout_world.World.open(tmp_path)
    store, heuristic = world.store, "v1-00000000"
    first, second = world.add_version(), world.add_version()
    world.promote(first)
    world.promote(second)
    promotion = world.row()

    def responses() -> tuple[str, str | None]:
        plan = world.plan()
        assert plan is not None
        return plan.champion, plan.previous

    drill, before, moved = move(world)
    assert responses() == (first, second)
    with store.ledger.write() as connection, pytest.raises(RefusedError, match="another drill has moved all"):
        live._before(connection, MODEL, live=False)
    assert post_promotion.carry(store, MODEL, world.lease, now_us=world.tick()) is None
    with store.ledger.read() as connection:
        push = rollouts.push_of(connection, promotion.rollout_id)
    assert push is not None
    assert push.outcome is PushOutcome.OPEN
    limits = replace(ConnectionLimits(), idle_seconds=7.0)
    plan_parts.push_serving_config(store, MODEL, limits, actor="ann", reason="less", now_us=world.tick())
    assert responses() == (second, first)
    assert live.put_back(store, MODEL, drill, before, moved, now_us=world.tick()) is None

    move(world)
    with store.ledger.write() as connection:
        cause = Cause("it fails", "ann", world.tick())
        failover.fail_over(connection, store, MODEL, cause, also=(heuristic,))
    assert responses() == (second, first)

    copied = rollout_world.EVERYTHING_PPM // 2
    with store.ledger.write() as connection:  # copies go on when the fallback version is replaced
        traffic_plans.append(
            connection,
            TrafficPlan(
                MODEL,
                0,
                second,
                previous=first,
                shadow=heuristic,
                shadow_ppm=copied,
                rollout_id=promotion.rollout_id,
            ),
            now_us=world.tick(),
        )
        cause = Cause("it fails", "ann", world.tick())
        failover.fail_over(connection, store, MODEL, cause, also=(first,))
    plan = world.plan()
    assert plan is not None
    assert (plan.previous, plan.shadow, plan.shadow_ppm) == (None, heuristic, copied)
    with store.ledger.write() as connection:
        drill_traffic.append(connection, before, drill, "is over", world.tick())

    move(world)
    assert world.rollback() == promotion.rollout_id
    assert read(store, rollouts.get, promotion.rollout_id).state is State.ROLLING_BACK
    assert responses()[0] == first


@pytest.mark.parametrize("is_pending", [True, False])
def test_a_rollout_that_is_requested_meanwhile_starts_against_the_champion(
    tmp_path: Path, is_pending: bool
) -> None:
    world = rollout_world.World.open(tmp_path)
    first, second, newer = world.add_version(), world.add_version(), world.add_version()
    world.promote(first)
    world.promote(second)
    if is_pending:
        world.begin(world.add_version())
    move(world)
    start.request(world.store, world.model, newer, actor="ann", now_us=world.tick())
    plan = world.plan()
    assert plan is not None
    assert (world.row().challenger, world.row().champion) == (newer, second)
    assert (plan.champion, plan.previous) == (second, first)


def test_the_champion_and_the_target_of_a_live_drill_are_not_confused(tmp_path: Path) -> None:
    world = rollout_world.World.open(tmp_path)
    first, second = world.add_version(), world.add_version()
    world.promote(first)
    world.promote(second)
    move(world)
    found = start.request(world.store, world.model, second, actor="ann", now_us=world.tick())
    assert found.state is Started.CHAMPION
    found = start.request(world.store, world.model, first, actor="ann", now_us=world.tick())
    assert (found.state, world.row().champion) == (Started.STARTED, second)


def test_a_label_that_unloads_a_version_copies_no_plan_of_a_live_drill(tmp_path: Path) -> None:
    world = rollout_world.World.open(tmp_path)
    first, second = world.add_version(), world.add_version()
    world.promote(first)
    labelled = world.row().rollout_id
    world.promote(second)
    move(world)
    pushes.relabel(world.store, labelled, good=False, why="harm", actor="ann", now_us=world.tick())
    plan = world.plan()
    assert plan is not None
    assert (plan.champion, plan.previous) == (second, None)
