"""A newer version while a rollout is under way: it waits, ends the rollout or is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.control.reports.status import StatusReader
from holdfast.control.rollout import start
from holdfast.control.rollout.rollback import Request, rollback
from holdfast.control.rollout.start import Requested, Started
from holdfast.errors import ConflictError
from holdfast.rollout import PushOutcome, State
from holdfast.store.db import events
from holdfast.store.rollout import queue, rollouts
from tests.support.queries import read
from tests.support.rollout_world import MODEL, POLICY, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A model whose first version is promoted and serves."""
    made = World.open(tmp_path)
    made.promote(made.add_version())
    return made


def request(world: World, version: str, newer_version: str = "queue") -> Requested:
    model: Any = SimpleNamespace(name=MODEL, rollout=replace(POLICY, newer_version=newer_version))
    return start.request(world.store, model, version, actor="ann", now_us=world.tick())


def canary(world: World) -> str:
    """Bring a version to its first step."""
    version = world.add_version()
    request(world, version)
    world.champion_responses()
    assert world.reconcile() == ["Start"]
    return version


def begin_queued(world: World) -> int | None:
    return start.begin_queued(world.store, MODEL, world.lease, now_us=world.tick())


def waiting(world: World) -> str | None:
    found = read(world.store, queue.find, MODEL)
    return None if found is None else found.version


def test_a_newer_version_waits_for_the_canary_and_the_newest_one_only(world: World) -> None:
    running = canary(world)
    first, second = world.add_version(), world.add_version()
    found = request(world, first)
    assert (found.state, found.waits_for.challenger, found.dropped) == (Started.QUEUED, running, None)
    assert request(world, first).state is Started.QUEUED
    assert request(world, second).dropped == first
    assert (waiting(world), begin_queued(world), world.row().challenger) == (second, None, running)
    world.traffic(failing=20)
    assert world.reconcile() == ["RollBack"]
    assert begin_queued(world) is None  # it is not confirmed that the servers followed
    world.probe()
    assert world.reconcile() == ["Confirm"]
    number = begin_queued(world)
    assert (number, world.row().challenger, world.row().state) == (
        world.row().rollout_id,
        second,
        State.PENDING,
    )
    assert (waiting(world), world.row().actor) == (None, "ann")
    with world.store.ledger.read() as connection:
        (dropped,) = events.newest(connection, subject=MODEL, kind="rollout.dropped")
    assert dropped.explanation == f"{first}, queued by ann, is not rolled out: {second} is newer"


def test_a_pending_rollout_is_ended_because_it_has_seen_nothing(world: World) -> None:
    first, second = world.add_version(), world.add_version()
    pending = request(world, first).rollout
    found = request(world, second)
    assert (found.state, found.ended.rollout_id) == (Started.STARTED, pending)
    assert read(world.store, rollouts.get, pending).state is State.CANCELLED
    assert (world.row().challenger, world.row().state) == (second, State.PENDING)


def test_a_policy_may_end_a_canary_for_a_newer_version(world: World) -> None:
    running, champion = canary(world), world.plan().champion
    newer = world.add_version()
    found = request(world, newer, "supersede")
    assert (found.state, found.ended.challenger) == (Started.QUEUED, running)
    assert (world.plan().champion, world.plan().challenger) == (champion, None)
    assert read(world.store, rollouts.push_of, found.ended.rollout_id).outcome is PushOutcome.CENSORED
    world.probe()
    world.reconcile()
    begin_queued(world)
    assert world.row().challenger == newer


def test_a_version_with_all_traffic_is_not_ended(world: World) -> None:
    canary(world)
    for _ in range(3):
        world.traffic()
        world.reconcile()
    assert world.row().state is State.VERIFYING
    found = request(world, world.add_version(), "supersede")
    assert (found.state, found.ended, world.row().state) == (Started.QUEUED, None, State.VERIFYING)


def test_a_policy_may_refuse(world: World) -> None:
    running = canary(world)
    with pytest.raises(ConflictError, match=r"HF404.*another rollout"):
        request(world, world.add_version(), "refuse")
    assert (request(world, running, "refuse").state, waiting(world)) == (Started.RUNNING, None)


def test_a_repeated_request_ends_as_the_first_did(world: World) -> None:
    champion, promotion = world.plan().champion, world.row().rollout_id
    assert request(world, champion) == Requested(Started.CHAMPION, promotion)
    running = canary(world)
    assert request(world, running) == Requested(Started.RUNNING, world.row().rollout_id)


def test_what_may_not_be_rolled_out_any_more_is_dropped(world: World) -> None:
    canary(world)
    queued = world.add_version()
    request(world, queued)
    with world.store.ledger.write() as connection:
        connection.exec_driver_sql(f"UPDATE versions SET state = 'refused' WHERE version = '{queued}'")
    world.rollback_by_harm()
    assert (begin_queued(world), waiting(world)) == (None, None)
    with world.store.ledger.read() as connection:
        (dropped,) = events.newest(connection, subject=MODEL, kind="rollout.dropped")
    assert "HF403" in dropped.explanation


@pytest.mark.parametrize("named", [True, False])
def test_an_operators_rollback_empties_the_queue(world: World, named: bool) -> None:
    """No rollout starts by itself after it; and a queued version can be rolled back by its name alone."""
    running, queued = canary(world), world.add_version()
    request(world, queued)
    if named:
        found = rollback(world.store, Request(MODEL, "ann", "no", queued), now_us=world.tick())
        assert [step.undone for step in found.steps] == [queued]
        assert world.row().state is State.CANARY
    else:
        found = rollback(world.store, Request(MODEL, "ann", "no"), now_us=world.tick())
        assert world.row().state is State.ROLLING_BACK
    assert (waiting(world), world.row().challenger) == (None, running)
    assert found.dropped == queued
    status = StatusReader(world.store, MODEL).read(now_us=world.now_us)
    explained = f"{queued}, queued by ann, is not rolled out: ann rolled back: no"
    assert (status.queued, status.dropped) == (None, explained)
    world.probe()
    world.reconcile()
    request(world, world.add_version())
    assert StatusReader(world.store, MODEL).read(now_us=world.now_us).dropped == "", (
        "another one was requested"
    )


@pytest.mark.parametrize("newer_version", ["queue", "supersede", "refuse"])
def test_a_version_that_starts_at_once_takes_the_place_of_an_older_queued_one(
    world: World, newer_version: str
) -> None:
    """The rollout before has ended, and the control loop has not started the queued version yet."""
    canary(world)
    older, newer = world.add_version(), world.add_version()
    request(world, older)
    world.rollback_by_harm()
    found = request(world, newer, newer_version)
    assert (found.state, found.dropped, waiting(world)) == (Started.STARTED, older, None)
    with world.store.ledger.read() as connection:
        (dropped,) = events.newest(connection, subject=MODEL, kind="rollout.dropped")
    assert f"{newer} is newer" in dropped.explanation
    assert (begin_queued(world), world.row().challenger) == (None, newer)


def test_a_queued_version_that_is_requested_again_starts_at_once(world: World) -> None:
    canary(world)
    queued = world.add_version()
    request(world, queued)
    world.rollback_by_harm()
    found = request(world, queued)
    assert (found.state, found.dropped, waiting(world)) == (Started.STARTED, None, None)


def test_sixty_nights_end_without_an_operator(world: World) -> None:
    """`rollout start` each night, whatever the night before left; some canaries take several nights, some do harm."""
    for night in range(60):
        version = world.add_version()
        for _ in range(2):  # by hand, once more
            request(world, version)
        for _ in range(night % 4):
            world.champion_responses()
            world.reconcile()
            if world.row().state is State.CANARY:
                world.traffic(failing=20 if night % 7 == 0 else 0)
            world.probe()
            world.reconcile()
            begin_queued(world)
    rows = read(world.store, rollouts.of_model, MODEL)
    assert {State.PROMOTED, State.ROLLED_BACK} <= {row.state for row in rows}
    for _ in range(20):
        world.champion_responses()
        world.reconcile()
        if world.row().state is State.CANARY:
            world.traffic()
        world.probe()
        begin_queued(world)
    assert (world.row().state, world.plan().champion) == (State.PROMOTED, version)
