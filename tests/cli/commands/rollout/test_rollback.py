"""The rollback of a person while PostgreSQL is stopped, and how the ledger learns of it (F10, P7, R122)."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.control.evaluation import eligibility
from holdfast.control.rollout import abort_sync, reconcile, start
from holdfast.control.rollout.reconcile import Transition
from holdfast.rollout import Canary, Event, State
from holdfast.rollout.model.abort import Abort
from holdfast.store.db import events, leases
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.serving import aborts
from tests.support import forking, rollout_world
from tests.support.postgres import Server as Postgres
from tests.support.postgres import UnavailableHereError
from tests.support.queries import read
from tests.support.serving_world import MODEL, Served, World

SERVER = """
import sys
from pathlib import Path
from holdfast.serve.server import serve_forever
from holdfast.settings import Settings
serve_forever(Settings(Path(sys.argv[1]), sys.argv[2], "127.0.0.1", 0, 0), sys.argv[3], linger_seconds=0.0)
"""
US = 1_000_000


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    try:
        server = Postgres.start_new("fsync=off")
    except UnavailableHereError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def canary(postgres: Postgres, tmp_path: Path) -> Iterator[tuple[World, Served]]:
    """'half' has 10 % of the units, by the machine's own transitions; a server follows."""
    world = World(tmp_path / "root", postgres.url())
    for kind in ("tenth", "half"):
        version = world.version(kind)
        with world.store.ledger.write() as connection:
            versions.set_state(connection, version, "qualified", before="registered")
    world.plan("tenth")
    model: Any = SimpleNamespace(name=MODEL, rollout=Canary(steps=(10, 100)))
    number = start.request(world.store, model, world.names["half"], actor="ann", now_us=_now_us()).rollout
    with world.store.ledger.write() as connection:
        row = rollouts.under_way(connection, MODEL)
        assert row is not None
        reconcile.commit(
            connection, world.store, row, Transition(Event.START, "test", "ann"), now_us=_now_us()
        )
    process = forking.start(SERVER, world.root, postgres.url(), MODEL)
    served = Served(process, process.stdout.readline().split()[-1])
    served.wait(lambda status: status["rollout"] == number)
    served.wait(lambda _: _keeps(world, number))
    yield world, served
    process.kill()
    process.communicate()
    world.store.ledger.close()


def _keeps(world: World, number: int) -> bool:
    path = world.root / "serve" / MODEL / "plan.json"
    return path.exists() and json.loads(path.read_text())["state"].get("rollout_id") == number


def _now_us() -> int:
    return time.time_ns() // 1000


@pytest.mark.process
def test_a_stopped_postgresql_does_not_keep_a_rollback_waiting(
    canary: tuple[World, Served], postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, served = canary
    load_commands("")
    project = tmp_path / "project"
    assert CliRunner().invoke(app, ["init", "--name", MODEL, "--project", str(project)]).exit_code == 0
    stopped = [postgres.postmaster, *_children(postgres.postmaster)]
    for number in stopped:
        os.kill(number, signal.SIGSTOP)
    try:
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "holdfast",
            "rollback",
            "--json",
            "--reason",
            "bad",
            "--ledger-timeout",
            "1",
        ]
        environment = {**os.environ, "HOLDFAST_ROOT": str(world.root), "HOLDFAST_LEDGER": postgres.url()}
        done = subprocess.run(
            [*command, "--project", str(project)],
            capture_output=True,
            text=True,
            timeout=600,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert (document["by"], document["done"]) == ("servers", True)
        assert time.monotonic() - began < 30
        assert "did not answer within 1 s" in document["why"]
        responses = {served.infer(unit=f"u{number}")[1]["model_version"] for number in range(60)}
        assert responses == {world.names["tenth"]}
    finally:
        for number in stopped:
            os.kill(number, signal.SIGCONT)
    _loop_once(world)
    row = read(world.store, rollouts.newest, MODEL)
    assert (row.state, row.actor) == (State.ROLLING_BACK, getpass.getuser())
    assert "without the ledger: bad" in row.reason
    plan = read(world.store, traffic_plans.newest, MODEL)
    assert plan is not None
    served.wait(lambda status: status["plan"] == plan.plan_id and not status["aborts"])
    assert aborts.stamp(world.root / "serve" / MODEL) is None
    assert _loop_once(world) == []


def _loop_once(world: World) -> list[Abort]:
    with world.store.ledger.write() as connection:
        lease = leases.acquire(
            connection, f"control-{MODEL}", holder="test", duration_us=60 * US, now_us=_now_us()
        )
    assert isinstance(lease, leases.Lease)
    done = abort_sync.carry(world.store, MODEL, lease, now_us=_now_us())
    with world.store.ledger.write() as connection:
        leases.release(connection, lease)
    return done


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(number) for number in listed.split()]


# --- what the ledger makes of an abort, by the state that the rollout had ------------------------------------------------


@pytest.mark.parametrize(
    ("events_before", "ends"),
    [
        ((), State.CANCELLED),
        ((Event.START,), State.ROLLING_BACK),
        ((Event.START, Event.PAUSE), State.ROLLING_BACK),
        ((Event.START, Event.COMPLETE), State.ROLLING_BACK),
        ((Event.START, Event.COMPLETE, Event.CONFIRM), State.ROLLING_BACK),
        ((Event.START, Event.ROLLBACK), State.ROLLING_BACK),
    ],
)
def test_the_ledger_learns_of_an_abort_in_every_state(
    tmp_path: Path, events_before: tuple[Event, ...], ends: State
) -> None:
    """R117: by the rollout's own rollback, to the version that was before; once."""
    world = rollout_world.World.open(tmp_path)
    good, bad = world.add_version(), world.add_version()
    world.promote(good)
    number = world.begin(bad)
    for event in events_before:
        row = world.row()
        with world.store.ledger.write() as connection:
            reconcile.commit(
                connection, world.store, row, Transition(event, "test", "ann"), now_us=world.tick()
            )
    plan = world.plan()
    assert plan is not None
    directory = aborts.directory_of(tmp_path, rollout_world.MODEL)
    aborts.add(directory, Abort(bad, plan.plan_id, number, "bad", "bea", world.tick()))
    abort_sync.carry(world.store, rollout_world.MODEL, world.lease, now_us=world.tick())
    row, plan = world.row(), world.plan()
    assert plan is not None
    assert (row.rollout_id, row.state) == (number, ends)
    assert plan.champion == good
    assert bad not in plan.versions()
    with world.store.ledger.read() as connection:
        reported = events.newest(connection, limit=1)[0]
    if Event.ROLLBACK not in events_before:
        assert (reported.actor, row.actor) == ("bea", "bea")
    assert abort_sync.carry(world.store, rollout_world.MODEL, world.lease, now_us=world.tick()) == []


def test_a_newer_rollout_is_not_touched_by_an_old_abort(tmp_path: Path) -> None:
    world = rollout_world.World.open(tmp_path)
    good, bad = world.add_version(), world.add_version()
    world.promote(good)
    plan = world.plan()
    assert plan is not None
    directory = aborts.directory_of(tmp_path, rollout_world.MODEL)
    aborts.add(directory, Abort(bad, plan.plan_id, plan.rollout_id or 0, "bad", "bea", world.tick()))
    world.begin(bad)
    assert abort_sync.carry(world.store, rollout_world.MODEL, world.lease, now_us=world.tick()) == []
    assert world.row().state is State.PENDING


def test_an_abort_of_before_does_not_roll_back_what_was_proved_since(tmp_path: Path) -> None:
    """A file of a server that stood still: its version was pushed again, promoted, and is what another is compared with."""
    world = rollout_world.World.open(tmp_path)
    first, again, third = (world.add_version() for _ in range(3))
    world.promote(first)
    world.begin(again)
    world.rollback()
    plan = world.plan()
    assert plan is not None
    directory = aborts.directory_of(tmp_path, rollout_world.MODEL)
    aborts.add(directory, Abort(again, plan.plan_id, world.row().rollout_id, "bad", "bea", world.tick()))
    world.promote(again)
    world.begin(third)
    world.champion_responses()
    world.reconcile()
    plan = world.plan()
    assert plan is not None
    assert (plan.champion, plan.challenger) == (again, third)
    assert abort_sync.carry(world.store, rollout_world.MODEL, world.lease, now_us=world.tick()) == []
    assert (world.plan(), world.row().state) == (plan, State.CANARY)


def fallback_of(world: rollout_world.World, tainted: str, warm: str) -> str | None:
    with world.store.ledger.read() as connection:
        choice = eligibility.fallback(
            connection, world.store, rollout_world.MODEL, None, warm=warm, tainted={tainted}
        )
    return choice.version


def test_a_champion_that_was_aborted_during_a_canary_is_no_fallback(tmp_path: Path) -> None:
    """Its promotion stands in the ledger, and what a person rolled back does not return by the system."""
    world = rollout_world.World.open(tmp_path)
    first, bad, third = (world.add_version() for _ in range(3))
    world.promote(first)
    world.promote(bad)
    promotion = world.row().rollout_id
    world.begin(third)
    world.champion_responses()
    world.reconcile()
    plan = world.plan()
    assert plan is not None
    assert (plan.champion, plan.challenger, plan.previous) == (bad, third, first)
    directory = aborts.directory_of(tmp_path, rollout_world.MODEL)
    aborts.add(directory, Abort(bad, plan.plan_id, world.row().rollout_id, "bad", "bea", world.tick()))
    assert len(abort_sync.carry(world.store, rollout_world.MODEL, world.lease, now_us=world.tick())) == 1
    plan = world.plan()
    assert plan is not None
    assert plan.champion == first
    assert read(world.store, rollouts.get, promotion).state is State.PROMOTED
    heuristic = "v1-00000000"
    assert fallback_of(world, first, heuristic) == heuristic
    world.probe()
    world.reconcile()
    assert world.row().state is State.ROLLED_BACK
    world.begin(bad)  # a push that has given it nothing yet reports nothing for it
    assert fallback_of(world, first, heuristic) == heuristic


def test_of_a_stranger_server_only_whole_aborts_are_read() -> None:
    abort = {"version": "v1", "plan_id": 1, "rollout_id": 1, "reason": "r", "actor": "a", "at_us": 1}
    status = {"aborts": [abort, {**abort, "plan_id": "1"}, {**abort, "more": 1}, {"version": "v1"}, 7]}
    assert len(abort_sync.read(status)) == 1
    assert abort_sync.read({}) == []
