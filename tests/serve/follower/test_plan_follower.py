"""The follower of the plan: what must be there, what may be missing, and what never stops it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, text

from holdfast.rollout.model.abort import Abort
from holdfast.serve import operator_log
from holdfast.serve.follower import aborts as follower_aborts
from holdfast.serve.follower import local_copy, plan_follower
from holdfast.serve.follower.local_copy import LocalCopy, LocalState
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.settings import Settings
from holdfast.store.db import schema
from holdfast.store.db.commit_listener import CommitListener
from holdfast.store.serving import aborts, servers
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.servers import Server
from tests.support.serving_world import MODEL, RECENT, START, US, Served, World, row
from tests.support.waiting import wait_until

Start = Callable[..., Served]


def metric(served: Served, name: str) -> float:
    page = served.call("/metrics")[1].decode()
    [found] = [family for family in text_string_to_metric_families(page) if family.name == name]
    return float(found.samples[0].value)


def registered(world: World) -> tuple[Server, ...]:
    with world.store.ledger.read() as connection:
        return servers.registered(connection)


def test_only_the_champion_is_mandatory(world: World, serve: Start) -> None:
    """R113: a plan is followed without the versions that cannot be loaded, rollbacks too, and they are tried again."""
    for kind in ("half", "tenth", "delay", "above"):
        world.version(kind)
    world.plan("half")
    served = serve()
    missing = {kind: world.blob(kind).read_bytes() for kind in ("tenth", "delay", "above")}
    for kind in missing:
        world.blob(kind).write_bytes(b"not an ONNX file")
    plan = world.plan("half", "above", 1_000_000, previous="delay", fallback="tenth")
    served.wait_for_plan(plan)
    status = served.wait(lambda status: len(status["unavailable"]) == 3)
    assert set(status["unavailable"]) == {world.names[kind] for kind in missing}
    assert (status["challenger"], status["share_ppm"], status["fallback"]) == (None, 0, None)
    assert metric(served, "holdfast_versions_unavailable") == 3
    assert metric(served, "holdfast_traffic_plans_rejected") == 0
    response = served.infer(unit="u")[1]
    assert (response["model_version"], response["parameters"]["arm"]) == (world.names["half"], "champion")
    served.wait_for_plan(world.plan("half", fallback="tenth"))
    plan = world.plan("half", "above", 1_000_000, previous="delay", fallback="tenth")
    for kind, data in missing.items():
        world.blob(kind).write_bytes(data)
    served.wait_for_plan(plan)
    status = served.wait(lambda status: not status["unavailable"])
    assert (status["plan"], status["challenger"]) == (plan, world.names["above"])
    assert served.infer(unit="u")[1]["model_version"] == world.names["above"]


def test_a_full_standard_error_does_not_end_following(world: World, serve: Start) -> None:
    world.version("half")
    world.version("tenth")
    world.plan("half")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        served = serve(stderr=full)
        world.blob("tenth").write_bytes(b"x")
        world.plan("tenth")
        served.wait(lambda status: bool(status["plan_error"]))
        latest = world.plan("half")
        served.wait_for_plan(latest)
        assert metric(served, "holdfast_plan_follower_up") == 1
        assert (
            served.wait(lambda status: status["plan_follower_up"])["ledger_read_us"] > START.timestamp() * US
        )
        # What cannot be written must not break the end of the process either.
        assert served.infer()[0] == 200


@pytest.mark.parametrize("state", ["closed", "absent"])
def test_logging_never_raises(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8", closefd=False) as closed:
        pass
    os.close(write)
    monkeypatch.setattr(sys, "stderr", closed if state == "closed" else None)
    logger = logging.getLogger("holdfast")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    operator_log.configure()
    logging.getLogger("holdfast.serve").warning("lost")


def test_a_value_that_is_no_number_holds_back_no_plan(world: World, serve: Start) -> None:
    """An infinity in the ledger is left out and counted; values that cannot be read at all are reported."""
    world.version("half")
    world.version("delay")
    world.online(2, ("EWR", START, 10.0))
    with world.store.ledger.write() as connection:
        connection.execute(
            insert(schema.online_features).values(
                aggregate=RECENT.key, entity="JFK", known_at_us=1, value=float("inf"), table_version=2
            )
        )
    world.plan("delay")
    served = serve()
    served.wait(lambda status: status["table_version"] == 2)
    assert served.infer([row(scheduled=START.isoformat())])[1]["outputs"][0]["data"] == [pytest.approx(0.1)]
    assert metric(served, "holdfast_online_features_invalid") == 1
    with world.store.ledger.write() as connection:
        connection.execute(text("ALTER TABLE online_features RENAME TO elsewhere"))
        connection.execute(
            insert(schema.table_versions).values(table_version=3, committed_at_us=1, reason="load")
        )
    served.wait_for_plan(world.plan("half"))
    assert served.infer()[1]["model_version"] == world.names["half"]
    served.wait_for_plan(world.plan("delay"))
    assert (
        "online_features"
        in served.wait(lambda status: bool(status["online_features_error"]))["online_features_error"]
    )


@pytest.fixture
def make_follower(
    world: World, settings: Settings, tmp_path: Path
) -> Callable[[float], plan_follower.PlanFollower]:
    def make(poll_seconds: float) -> plan_follower.PlanFollower:
        plane = DataPlane(MODEL, LogWriter(tmp_path / "s1", "s1", MODEL), lambda: time.time_ns() // 1000)
        server = Server("s1", MODEL, "http://x", tmp_path / "s1", 1, boot_id="b" * 16)
        return plan_follower.PlanFollower(
            plane, settings, server, lambda: time.time_ns() // 1000, poll_seconds=poll_seconds
        )

    return make


@pytest.fixture
def follower(make_follower: Callable[[float], plan_follower.PlanFollower]) -> plan_follower.PlanFollower:
    return make_follower(0.02)


def follows_each_plan(world: World, follower: plan_follower.PlanFollower, kinds: Iterable[str]) -> None:
    """Write plans for the versions of `kinds` one after the other, and wait until each is followed."""

    def follows(number: int) -> bool:
        return follower.switch.plan is not None and follower.switch.plan.plan_id == number

    for kind in kinds:
        wait_until(partial(follows, world.plan(kind)), f"the plan of {kind} is followed")


def settled(world: World, follower: plan_follower.PlanFollower) -> None:
    """Start the follower with a plan, and wait until it has nothing left to do."""
    for kind in ("half", "tenth"):
        world.version(kind)
    world.plan("half")
    follower.start()
    wait_until(lambda: follower.switch.plan is not None and follower._is_settled, "it is settled")


def test_a_commit_nudges_a_server_that_would_not_look_for_an_hour(
    world: World,
    make_follower: Callable[[float], plan_follower.PlanFollower],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Issue 13: it polls rarely, and follows no later for it."""
    monkeypatch.setattr(plan_follower, "REFRESH_SECONDS", 3600.0)
    follower = make_follower(3600.0)
    settled(world, follower)
    follows_each_plan(world, follower, ("tenth", "half", "tenth"))
    world.online(2, ("EWR", START, 10.0))
    wait_until(lambda: follower.online.table_version == 2, "values are followed as well")
    follower.stop()
    wait_until(lambda: not follower.is_alive, "a wait of an hour ends with it")


def test_nothing_but_time_is_lost_with_the_nudges(
    world: World,
    make_follower: Callable[[float], plan_follower.PlanFollower],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CommitListener, "wait", lambda self, seconds, *_others: time.sleep(seconds))
    follower = make_follower(0.02)
    settled(world, follower)
    follows_each_plan(world, follower, ("tenth", "half"))
    world.online(2, ("EWR", START, 10.0))
    wait_until(lambda: follower.online.table_version == 2, "values are followed as well")
    follower.stop()


def test_a_ledger_that_takes_no_pipe_is_polled_as_often_as_before(
    world: World, settings: Settings, make_follower: Callable[[float], plan_follower.PlanFollower]
) -> None:
    (settings.root / "nudges-ledger.db").write_bytes(b"")
    follower = make_follower(3600.0)
    settled(world, follower)
    follows_each_plan(world, follower, ("tenth", "half"))
    follower.stop()


def test_an_abort_of_another_process_nudges_the_server(
    world: World, follower: plan_follower.PlanFollower, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_aborts, "POLL_SECONDS", 3600.0)
    settled(world, follower)
    follows_each_plan(world, follower, ["tenth"])
    directory = aborts.directory_of(settings.root, MODEL)
    abort = Abort(world.names["tenth"], 2, 0, "bad", "ann", 1)
    aborts.add(directory, abort)
    wait_until(lambda: abort.version in follower.switch.aborts, "the abort is followed")
    follower.stop()
    wait_until(lambda: not follower.aborts.is_alive, "a wait of an hour ends with it")


def test_a_server_without_a_plan_is_announced_when_it_listens_and_not_before(
    world: World, follower: plan_follower.PlanFollower
) -> None:
    follower.start()
    assert follower.first_read.wait(60)
    time.sleep(0.1)
    assert registered(world) == ()
    follower.announce("http://127.0.0.1:1")
    wait_until(lambda: len(registered(world)) == 1)
    follower.stop()


def test_a_server_is_registered_before_it_is_ready(
    world: World, follower: plan_follower.PlanFollower
) -> None:
    """Killed right after its first prediction, it still leaves a log that the control loop collects."""
    world.version("half")
    world.plan("half")
    follower.start()
    assert follower.first_read.wait(60)
    assert len(registered(world)) == 1
    follower.stop()


def test_a_disk_that_hangs_is_in_no_plans_way(
    world: World, follower: plan_follower.PlanFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R117: a rollback is followed while the plan before it is still being written."""
    disk_responses, saved, save = threading.Event(), list[str](), LocalCopy.save

    def follows(kind: str) -> bool:
        plan = follower.switch.plan
        return plan is not None and plan.champion == world.names[kind]

    def slowly(copy: LocalCopy, state: LocalState, fetch: Callable[[str], bytes]) -> bool:
        assert disk_responses.wait(30)
        saved.append(state.plan.champion)
        return save(copy, state, fetch)

    monkeypatch.setattr(LocalCopy, "save", slowly)
    world.version("half")
    world.version("tenth")
    world.plan("half")
    follower.start()
    wait_until(lambda: follows("half"))
    for kind in ("tenth", "half", "tenth"):
        world.plan(kind)
        wait_until(partial(follows, kind))
    assert saved == []
    assert not follower.copy_writer.is_idle
    disk_responses.set()
    wait_until(lambda: follower.copy_writer.is_idle)
    assert saved[-1] == world.names["tenth"]
    follower.stop()


def test_a_copy_that_could_not_be_saved_is_saved_later(
    world: World, follower: plan_follower.PlanFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D7: a full disk at the time of a new plan must not leave the next start with the old one."""
    monkeypatch.setattr(local_copy, "ERROR_SECONDS", 0.05)
    copy = world.root / "serve"
    copy.write_text("in the way of the directory", encoding="utf-8")
    world.version("half")
    world.plan("half")
    follower.start()
    wait_until(lambda: bool(follower.copy_writer.error))
    copy.unlink()
    wait_until((copy / MODEL / "plan.json").exists)
    wait_until(lambda: not follower.copy_writer.error)
    follower.stop()


def test_an_abort_of_a_pending_push_stands_until_the_ledger_has_recorded_it(
    world: World, follower: plan_follower.PlanFollower, settings: Settings
) -> None:
    """The version was rolled back before: that withdrawal is no answer to an abort of its newest rollout."""
    settled(world, follower)
    tenth = world.names["tenth"]
    for state in ("rolled_back", "pending"):
        with world.store.ledger.write() as connection:
            made = connection.execute(
                insert(schema.rollouts).values(
                    model=MODEL, challenger=tenth, champion=world.names["half"], state=state, step=0, policy_json="{}",
                    started_at_us=1, step_started_at_us=1, changed_at_us=1, reason="test", actor="test",
                )
            )  # fmt: skip
    assert made.inserted_primary_key is not None
    newest = int(made.inserted_primary_key[0])
    aborts.add(aborts.directory_of(settings.root, MODEL), Abort(tenth, 1, newest, "bad", "ann", 1))
    wait_until(lambda: tenth in follower.switch.aborts, "the abort is followed")
    for _ in range(3):
        before = follower._went_round_at
        wait_until(lambda before=before: follower._went_round_at > before, "another round")
    assert tenth in follower.switch.aborts
    follower.stop()
