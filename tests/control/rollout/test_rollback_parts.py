"""A rollback of version, serving config and runtime is one transaction (R117, R119)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.control.rollout import plan_parts, rollback
from holdfast.control.rollout.plan_parts import Part
from holdfast.control.rollout.rollback import Request
from holdfast.control.runtimes import runtime as pushing
from holdfast.records import Verdict
from holdfast.rollout import State
from holdfast.rollout.model.runtime import Runtime
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.db import events
from holdfast.store.models import runtimes, serving_configs
from holdfast.store.models.runtimes import CompatibilityResult
from tests.support import rollout_world
from tests.support.rollout_world import MODEL, World

BLUE, GREEN = Runtime({"build": "blue"}), Runtime({"build": "green"})
LIMITS = replace(ConnectionLimits(), idle_seconds=7.0)
REQUEST = Request(MODEL, "ann", "bad")


@pytest.fixture
def pushed(tmp_path: Path) -> World:
    """A promoted version, and a serving config and a runtime that were pushed since."""
    world = rollout_world.World.open(tmp_path)
    versions = [world.add_version(), world.add_version()]
    with world.store.ledger.write() as connection:
        for runtime in (BLUE, GREEN):
            runtimes.register(connection, runtime, ("x",), now_us=world.tick())
        for limits in (ConnectionLimits(), LIMITS):
            serving_configs.register(connection, limits, now_us=world.tick())
            for version in versions:
                passed = CompatibilityResult(version, GREEN.id, limits.id, Verdict.PASS, "same", world.tick())
                runtimes.judge(connection, passed)
    for version in versions:
        world.promote(version)
    plan_parts.push_serving_config(world.store, MODEL, LIMITS, actor="ann", reason="x", now_us=world.tick())
    pushing.push(world.store, MODEL, GREEN.id, BLUE, actor="ann", reason="x", now_us=world.tick())
    return world


def seen(world: World) -> tuple[object, ...]:
    with world.store.ledger.read() as connection:
        return (
            world.row(),
            world.plan(),
            serving_configs.in_force(connection, MODEL),
            runtimes.in_force(connection, MODEL),
            events.newest(connection, limit=1)[0].event_id,
        )


def test_version_serving_config_and_runtime_go_back_in_one_plan(pushed: World) -> None:
    champion = pushed.row().champion
    done = rollback.rollback(pushed.store, REQUEST, now_us=pushed.tick())
    assert [step.part for step in done.steps] == [Part.MODEL, Part.SERVING_CONFIG, Part.RUNTIME]
    plan = pushed.plan()
    assert plan is not None
    assert (plan.plan_id, plan.intended) == (done.plan, done.intended) == (done.plan, champion)
    assert (plan.serving_config, plan.runtime) == (ConnectionLimits().id, BLUE.id)
    assert pushed.row().state is State.ROLLING_BACK
    before = seen(pushed)
    again = rollback.rollback(
        pushed.store, replace(REQUEST, version=done.steps[0].undone), now_us=pushed.tick()
    )
    assert seen(pushed) == before
    assert all(step.is_done for step in again.steps)
    assert again.plan == done.plan


def test_a_rollback_that_fails_half_way_leaves_everything_as_it_was(
    pushed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(pushed)

    def die(*_: object, **__: object) -> int:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(rollback, "_record", die)
        with pytest.raises(RuntimeError):
            rollback.rollback(pushed.store, REQUEST, now_us=pushed.tick())
    assert seen(pushed) == before
    rollback.rollback(pushed.store, REQUEST, now_us=pushed.tick())
    assert pushed.row().state is State.ROLLING_BACK


@pytest.mark.parametrize(
    ("part", "config", "runtime"),
    [(Part.SERVING_CONFIG, ConnectionLimits(), GREEN), (Part.RUNTIME, LIMITS, BLUE)],
)
def test_one_part_goes_back_alone(
    pushed: World, part: Part, config: ConnectionLimits, runtime: Runtime
) -> None:
    done = rollback.rollback(pushed.store, replace(REQUEST, only=part), now_us=pushed.tick())
    assert done.rollout is None
    assert pushed.row().state is State.PROMOTED
    with pushed.store.ledger.read() as connection:
        assert serving_configs.in_force(connection, MODEL)[0][1] == config.id
        assert runtimes.in_force(connection, MODEL)[0][1] == runtime.id
