"""What was not tried together gets no traffic: a version, the binary in force, the serving config in force (R115, R116)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.control.rollout import compatibility, plan_parts
from holdfast.control.rollout.plan_parts import Part
from holdfast.control.rollout.rollback import Request, rollback
from holdfast.control.runtimes import runtime as pushing
from holdfast.errors import RefusedError
from holdfast.records import Verdict
from holdfast.rollout.model.runtime import Runtime
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.models import runtimes, serving_configs
from holdfast.store.models.runtimes import CompatibilityResult
from tests.support import rollout_world
from tests.support.rollout_world import MODEL, World

BLUE, GREEN = Runtime({"build": "blue"}), Runtime({"build": "green"})
pytestmark = pytest.mark.sqlite


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A champion answers, and both binaries are registered."""
    made = rollout_world.World.open(tmp_path)
    made.promote(made.add_version())
    with made.store.ledger.write() as connection:
        for each in (BLUE, GREEN):
            runtimes.register(connection, each, ["env"], now_us=made.tick())
    return made


def judge(world: World, version: str, runtime: Runtime, verdict: Verdict = Verdict.PASS) -> None:
    with world.store.ledger.write() as connection:
        limits = plan_parts.serving_config_in_force(connection, MODEL)
        serving_configs.register(connection, limits, now_us=world.tick())
        found = CompatibilityResult(version, runtime.id, limits.id, verdict, "0.2 apart", world.tick())
        runtimes.judge(connection, found)


def use(world: World, runtime: Runtime) -> int:
    return pushing.push(world.store, MODEL, runtime.id, BLUE, actor="ann", reason="new", now_us=world.tick())


def put_in_force(world: World, runtime: Runtime) -> None:
    plan = world.plan()
    assert plan is not None
    judge(world, plan.champion, runtime)
    use(world, runtime)


def test_where_no_plan_asks_for_a_runtime_nothing_is_required_of_a_rollout(world: World) -> None:
    version = world.add_version()
    judge(world, version, GREEN, Verdict.FAIL)
    assert world.begin(version)


def test_a_version_that_the_runtime_in_force_was_not_tried_with_is_not_rolled_out(world: World) -> None:
    put_in_force(world, GREEN)
    version = world.add_version()
    judge(world, version, BLUE)
    newest = world.row().rollout_id
    with pytest.raises(RefusedError, match=rf"HF403.*{GREEN.id} was not tested with {version}") as refused:
        world.begin(version)
    assert refused.value.next_command == f"holdfast runtime test {GREEN.id} --version {version}"
    assert refused.value.state == "nothing was written"
    judge(world, version, GREEN, Verdict.FAIL)
    with pytest.raises(RefusedError, match=r"did not pass its test \(0\.2 apart\)"):
        world.begin(version)
    assert world.row().rollout_id == newest
    judge(world, version, GREEN)
    number = world.begin(version)
    assert number > newest
    limits = replace(ConnectionLimits(), idle_seconds=7.0)
    plan_parts.push_serving_config(
        world.store, MODEL, limits, actor="ann", reason="less", now_us=world.tick()
    )
    assert world.begin(version) == number  # what is under way is only named again


def test_another_serving_config_is_another_combination(world: World) -> None:
    put_in_force(world, GREEN)
    version = world.add_version()
    judge(world, version, GREEN)
    limits = replace(ConnectionLimits(), idle_seconds=7.0)
    plan_parts.push_serving_config(
        world.store, MODEL, limits, actor="ann", reason="less", now_us=world.tick()
    )
    with pytest.raises(RefusedError, match=f"was not tested with {version} and {limits.id}"):
        world.begin(version)
    judge(world, version, GREEN)
    assert world.begin(version)


def test_a_runtime_is_pushed_only_when_what_is_being_rolled_out_was_tried_with_it_too(world: World) -> None:
    plan = world.plan()
    assert plan is not None
    version = world.add_version()
    world.begin(version)
    assert pushing.to_try(world.store, MODEL, GREEN.id) == (plan.champion, version)
    judge(world, plan.champion, GREEN)
    assert pushing.to_try(world.store, MODEL, GREEN.id) == (version,)
    with pytest.raises(RefusedError, match=f"{GREEN.id} was not tested with {version}"):
        use(world, GREEN)
    judge(world, version, GREEN)
    assert pushing.to_try(world.store, MODEL, GREEN.id) == ()
    assert use(world, GREEN) > plan.plan_id


def test_no_roll_back_asks_what_was_tried(world: World) -> None:
    """R117: a binary goes back under a rollout that was tried with the newer one only, and so does the rollout."""
    put_in_force(world, GREEN)
    version = world.add_version()
    judge(world, version, GREEN)
    number = world.begin(version)
    request = Request(MODEL, "ann", "it is slow", only=Part.RUNTIME)
    assert rollback(world.store, request, now_us=world.tick()).returns_to(Part.RUNTIME) == BLUE.id
    with world.store.ledger.read() as connection:
        assert compatibility.untested_runtime(connection, MODEL, version) == BLUE.id
    assert world.rollback() == number
    with world.store.ledger.read() as connection:
        newest = plan_parts.newest(connection, MODEL, world.tick())
    assert version not in newest.versions()


def test_gates_stand_below_a_trial(world: World) -> None:
    """What a version's gates were judged by is kept as tried, and a trial that failed is not forgotten for it."""
    put_in_force(world, GREEN)
    version, other = world.add_version(), world.add_version()
    pushing.qualified(world.store, MODEL, version, GREEN, now_us=world.tick())
    judge(world, other, GREEN, Verdict.FAIL)
    pushing.qualified(world.store, MODEL, other, GREEN, now_us=world.tick())
    with world.store.ledger.read() as connection:
        assert compatibility.untested_runtime(connection, MODEL, version) is None
        assert compatibility.untested_runtime(connection, MODEL, other) == GREEN.id
        assert (runtimes.passed(connection, version), runtimes.passed(connection, other)) == ((GREEN.id,), ())
