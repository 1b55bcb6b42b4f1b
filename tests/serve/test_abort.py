"""Traffic is rolled back without a ledger: by the command, over HTTP, through restarts, until a newer rollout (R117-R123)."""

from __future__ import annotations

import contextlib
import getpass
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.contract import Category, Contract
from holdfast.control.rollout import abort_sync
from holdfast.errors import HoldfastError, InputError, NotFoundError, RefusedError, UnavailableError
from holdfast.rollout import Canary, State
from holdfast.rollout.model.abort import Abort
from holdfast.store.db import leases, schema
from holdfast.store.files import blobs
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.serving import aborts, servers
from tests.support import forking
from tests.support.queries import read
from tests.support.serving_world import CONTRACT, MODEL, Served, World

Start = Callable[..., Served]
SERVE = "from holdfast.cli import main; main()"


def is_registered(world: World) -> bool:
    with world.store.ledger.read() as connection:
        return bool(servers.registered(connection, MODEL))


@pytest.fixture
def promoted(world: World) -> World:
    """'half' is the champion by a rollout, 'tenth' was before it, and 'delay' stands in."""
    for kind in ("half", "tenth", "delay"):
        world.version(kind)
    world.plan("tenth", fallback="delay")
    push(world, "half")
    return world


def push(world: World, kind: str, **plan: Any) -> int:
    """A rollout that promoted `kind`, and its plan; the plan's number."""
    with world.store.ledger.write() as connection:
        connection.execute(
            insert(schema.rollouts).values(
                model=MODEL, challenger=world.names[kind], champion=world.names["tenth"], state="promoted", step=0,
                policy_json=Canary().to_json(), started_at_us=1, step_started_at_us=1, changed_at_us=1,
                reason="test", actor="test",
            )
        )  # fmt: skip
        number = connection.exec_driver_sql("SELECT max(rollout_id) FROM rollouts").scalar_one()
    return again(world, kind, number, **plan)


def again(world: World, kind: str, rollout: int, **plan: Any) -> int:
    """Another plan of rollout number `rollout` that gives `kind` everything."""
    made = world.plan(kind, **{"previous": "tenth", "fallback": "delay", **plan})
    with world.store.ledger.write() as connection:
        connection.exec_driver_sql(f"UPDATE traffic_plans SET rollout_id = {rollout} WHERE plan_id = {made}")
    return made


@pytest.fixture
def command(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`holdfast rollback` in a project whose store is the world's."""
    load_commands("")
    project = tmp_path / "project"
    done = CliRunner().invoke(app, ["init", "--name", MODEL, "--project", str(project)])
    assert done.exit_code == 0, (done.output, done.exception)
    monkeypatch.setenv("HOLDFAST_ROOT", str(world.root))

    def run(*arguments: str) -> dict[str, Any]:
        found = CliRunner().invoke(app, ["rollback", "--json", *arguments, "--project", str(project)])
        if isinstance(found.exception, HoldfastError):
            raise found.exception
        assert found.exit_code == 0, (found.output, found.exception)
        document: dict[str, Any] = json.loads(found.output)
        return document

    return run


@contextlib.contextmanager
def without_ledger(root: Path) -> Iterator[None]:
    """The ledger's files lie elsewhere."""
    away = root / "away"
    away.mkdir()
    for path in root.glob("ledger.db*"):
        shutil.move(path, away)
    try:
        yield
    finally:
        for path in away.iterdir():
            shutil.move(path, root)
        away.rmdir()


def test_the_traffic_goes_back_without_a_ledger_and_stays_there(
    promoted: World, serve: Start, command: Callable[..., dict[str, Any]]
) -> None:
    """R117, R122: through kill -9 and a restart without the ledger, a ledger that wants the version back, until it is pushed
    by a newer rollout."""
    served = serve()
    status = served.wait(lambda status: (promoted.root / "serve" / MODEL / "plan.json").exists())
    assert served.infer()[1]["model_version"] == promoted.names["half"]
    with without_ledger(promoted.root):
        done = command("--reason", "answers 0.5 for everybody")
        assert (done["by"], done["done"], done["version"]) == ("servers", True, promoted.names["half"])
        assert set(done["answered"].values()) == {promoted.names["tenth"]}
        assert served.infer()[1]["model_version"] == promoted.names["tenth"]
        assert served.call(f"/v2/models/{MODEL}/versions/{promoted.names['half']}/infer", b"{}")[0] == 404
        assert command()["version"] == promoted.names["half"]  # requested again: the same
        served.stop(signal.SIGKILL)
        served = serve()
        assert served.infer()[1]["model_version"] == promoted.names["tenth"]
        [reported] = served.wait(lambda status: bool(status["aborts"]))["aborts"]
        assert (reported["version"], reported["reason"]) == (
            promoted.names["half"],
            "answers 0.5 for everybody",
        )
    rollout = int(status["rollout"])
    served.wait_for_plan(again(promoted, "half", rollout))
    assert served.infer()[1]["model_version"] == promoted.names["tenth"]
    served.wait_for_plan(push(promoted, "half"))
    served.wait(lambda status: not status["aborts"])
    assert served.infer()[1]["model_version"] == promoted.names["half"]
    assert aborts.stamp(promoted.root / "serve" / MODEL) is None


def test_what_has_no_fallback_is_kept_and_reported(
    world: World, serve: Start, command: Callable[..., dict[str, Any]]
) -> None:
    """Never to no version, and never to one whose contract breaks the callers (R133)."""
    carrier = Category("carrier", values=("AA",), unseen="reject")
    columns = [carrier if column.name == "carrier" else column for column in CONTRACT.request_columns]
    narrower = Contract(*columns, key="flight_id", event_time="scheduled", label=CONTRACT.label)
    world.version("half")
    world.version("tenth", narrower)
    plan = world.plan("half", previous="tenth")
    served = serve()
    served.wait_for_plan(plan)
    served.wait(lambda status: (world.root / "serve" / MODEL / "plan.json").exists())
    with pytest.raises(RefusedError, match="accepts the same requests"):
        command("--ledger-timeout", "0")
    assert served.infer()[1]["model_version"] == world.names["half"]
    served.wait(lambda status: not status["aborts"] and not status["last_resort"])
    with pytest.raises(NotFoundError, match="has no traffic"):
        command("--ledger-timeout", "0", "--version", "v9-00000000")
    world.version("delay")
    served.wait_for_plan(world.plan("half", previous="tenth", fallback="delay"))
    served.wait(lambda status: status["fallback"] == world.names["delay"] and kept_fallback(world))
    assert command("--ledger-timeout", "0")["done"]
    assert served.infer()[1]["model_version"] == world.names["delay"]


def kept_fallback(world: World) -> bool:
    return world.names["delay"] in (world.root / "serve" / MODEL / "plan.json").read_text()


def test_a_server_takes_an_abort_from_a_caller_with_its_token(
    promoted: World, serve: Start, monkeypatch: pytest.MonkeyPatch, command: Callable[..., dict[str, Any]]
) -> None:
    """W1, W2: off without a token, closed without the right one, closed to pages of other origins."""
    off = serve()
    assert off.call("/holdfast/abort", {}, headers={"Authorization": "Bearer "})[0] == 403
    off.stop()
    monkeypatch.setenv("HOLDFAST_ABORT_TOKEN", "s3cret-token")
    served = serve(token="s3cret-token")
    path, right = "/holdfast/abort", {"Authorization": "Bearer s3cret-token"}
    for wrong in (
        {},
        {"Authorization": "Bearer no"},
        {"Authorization": "Basic s3cret-token"},
        {"Authorization": ""},
    ):
        assert served.call(path, {}, headers=wrong)[0] == 401, wrong
    assert served.call(path, {}, headers={**right, "Origin": "http://elsewhere.example"})[0] == 403
    assert served.call(path, {}, headers={**right, "Host": "elsewhere.example"})[0] == 421
    assert served.call(path, b"[]", headers=right)[0] == 400
    assert served.call(path, {"version": "v9-00000000"}, headers=right)[0] == 404
    assert served.call(path)[0] == 405
    assert served.infer()[1]["model_version"] == promoted.names["half"]
    done = command("--server", served.address, "--reason", "bad")
    assert (done["by"], done["serves"], done["durable"]) == ("server", promoted.names["tenth"], True)
    assert served.infer()[1]["model_version"] == promoted.names["tenth"]
    monkeypatch.setenv("HOLDFAST_ABORT_TOKEN", "other")
    with pytest.raises(RefusedError, match="token"):
        command("--server", served.address)


def test_no_order_of_aborts_gives_traffic_back_to_a_version_that_was_withdrawn(
    promoted: World, serve: Start
) -> None:
    """R118, R122: the abort after which no version is left is refused, and the earlier ones stand; also after kill -9."""
    served = serve(token="s3cret-token")
    right = {"Authorization": "Bearer s3cret-token"}
    champion, previous, fallback = (promoted.names[each] for each in ("half", "tenth", "delay"))
    path = promoted.root / "serve" / MODEL / "abort.json"

    def abort(version: str) -> tuple[int, Any]:
        status, body = served.call("/holdfast/abort", {"version": version}, headers=right)
        return status, body.get("serves")

    served.wait(lambda _: (promoted.root / "serve" / MODEL / "plan.json").exists())
    assert abort(champion) == (200, previous)
    assert abort(previous) == (200, fallback)
    before = path.read_bytes()
    for version in (fallback, fallback):
        assert abort(version) == (409, None)
        assert path.read_bytes() == before
    for version in (champion, previous):
        assert abort(version) == (200, fallback)
        assert path.read_bytes() == before
    assert abort(fallback) == (409, None)
    assert served.infer()[1]["model_version"] == fallback
    served.stop(signal.SIGKILL)
    with without_ledger(promoted.root):
        served = serve(token="s3cret-token")
        assert served.infer()[1]["model_version"] == fallback
        assert abort(fallback) == (409, None)
        assert {each["version"] for each in served.call("/holdfast/status")[1]["aborts"]} == {
            champion,
            previous,
        }
        assert served.infer()[1]["model_version"] == fallback


@pytest.fixture
def elsewhere(
    promoted: World, command: Callable[..., dict[str, Any]], tmp_path: Path
) -> Iterator[tuple[Served, Path]]:
    """A server as on another machine: it shares the ledger, and has versions, logs and aborts under a root of its own."""
    root = tmp_path / "elsewhere"
    kept = blobs.path_of(promoted.root, "0" * 64).parents[1]
    shutil.copytree(kept, root / kept.relative_to(promoted.root))
    environment = {
        "HOLDFAST_ROOT": str(root),
        "HOLDFAST_LEDGER": f"sqlite:///{promoted.root / 'ledger.db'}",
        "HOLDFAST_PORT": "0",
        "HOLDFAST_ABORT_TOKEN": "s3cret-token",
    }
    with pytest.MonkeyPatch.context() as changed:
        for name, value in environment.items():
            changed.setenv(name, value)
        process = forking.start(SERVE, "serve", "--project", tmp_path / "project")
    try:
        served = Served(process, process.stdout.readline().split()[-1])
        served.wait(lambda status: bool(status["ready"]))
        served.wait(lambda _: is_registered(promoted))
        with promoted.store.ledger.write() as connection:  # no other machine's directory is seen from here
            connection.exec_driver_sql("UPDATE servers SET log_directory = '/nowhere/log'")
        yield served, root
    finally:
        process.kill()
        process.communicate()


@pytest.mark.process
def test_a_server_elsewhere_follows_an_abort_and_the_ledger_learns_it_from_that_server(
    promoted: World,
    elsewhere: tuple[Served, Path],
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., dict[str, Any]],
) -> None:
    """R117, R122: the file that keeps the abort lies where this machine cannot look."""
    served, root = elsewhere
    bad, good = promoted.names["half"], promoted.names["tenth"]
    monkeypatch.setenv("HOLDFAST_ABORT_TOKEN", "other")
    with pytest.raises(RefusedError, match="token"):
        command("--server", served.address)
    assert served.infer()[1]["model_version"] == bad
    monkeypatch.setenv("HOLDFAST_ABORT_TOKEN", "s3cret-token")
    done = command("--server", served.address, "--reason", "answers 0.5 for everybody")
    assert (done["by"], done["version"], done["serves"], done["durable"]) == ("server", bad, good, True)
    responses = {served.infer(unit=f"u{number}")[1]["model_version"] for number in range(30)}
    assert responses == {good}
    assert served.call(f"/v2/models/{MODEL}/versions/{bad}/infer", b"{}")[0] == 404
    assert aborts.stamp(promoted.root / "serve" / MODEL) is None
    assert [each.version for each in aborts.load(root / "serve" / MODEL)] == [bad]
    plan = read(promoted.store, traffic_plans.newest, MODEL)
    assert plan is not None
    assert plan.champion == bad, "the ledger does not know yet"
    with promoted.store.ledger.write() as connection:
        lease = leases.acquire(connection, "control", holder="test", duration_us=10**8, now_us=1)
    assert isinstance(lease, leases.Lease)
    carried = abort_sync.carry(promoted.store, MODEL, lease, now_us=2)
    assert [(each.version, each.reason) for each in carried] == [(bad, "answers 0.5 for everybody")]
    row, plan = (
        read(promoted.store, rollouts.newest, MODEL),
        read(promoted.store, traffic_plans.newest, MODEL),
    )
    assert plan is not None
    assert (row.state, row.actor, plan.champion) == (State.ROLLING_BACK, getpass.getuser(), good)
    served.wait(lambda status: status["plan"] == plan.plan_id and not status["aborts"])
    assert served.infer()[1]["model_version"] == good
    assert abort_sync.carry(promoted.store, MODEL, lease, now_us=3) == []


def test_the_same_wish_again_takes_nothing_from_the_version_that_serves_instead(
    promoted: World, serve: Start, monkeypatch: pytest.MonkeyPatch, command: Callable[..., dict[str, Any]]
) -> None:
    """R118: when the ledger has agreed meanwhile, over HTTP and without the ledger; by its name it may be rolled back."""
    monkeypatch.setenv("HOLDFAST_ABORT_TOKEN", "s3cret-token")
    served = serve(token="s3cret-token")
    bad, good = promoted.names["half"], promoted.names["tenth"]
    assert command("--server", served.address)["version"] == bad
    assert (
        command("--server", served.address)["version"] == bad
    )  # the ledger does not know yet: it is given again
    with promoted.store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE rollouts SET state = 'rolled_back'")
    served.wait_for_plan(promoted.plan("tenth", fallback="delay"))
    served.wait(lambda status: not status["aborts"])
    kept = promoted.root / "serve" / MODEL / "plan.json"
    served.wait(lambda _: bad not in kept.read_text())
    for way in (("--server", served.address), ("--ledger-timeout", "0")):
        with pytest.raises(RefusedError, match=r"name it to abort|only if it is named"):
            command(*way)
        assert served.infer()[1]["model_version"] == good
    assert command("--server", served.address, "--version", good)["version"] == good
    assert served.infer()[1]["model_version"] == promoted.names["delay"]


def test_a_server_that_stood_still_forgets_an_abort_of_what_was_pushed_again(
    promoted: World, serve: Start
) -> None:
    directory = promoted.root / "serve" / MODEL
    directory.mkdir(parents=True)
    aborts.add(directory, Abort(promoted.names["half"], 1, 1, "bad", "ann", 1))
    push(promoted, "half")
    plan = promoted.plan("half", "tenth", 1000)
    served = serve()
    served.wait_for_plan(plan)
    served.wait(lambda status: not status["aborts"])
    assert served.infer(unit="u")[1]["model_version"] == promoted.names["half"]


def test_a_damaged_file_takes_nothing_and_is_reported_and_replaced(promoted: World, serve: Start) -> None:
    served = serve()
    directory = promoted.root / "serve" / MODEL
    abort = Abort(promoted.names["half"], 99, 9, "bad", "ann", 1)
    aborts.add(directory, abort)
    served.wait(lambda status: status["intended"] == promoted.names["tenth"])
    whole = (directory / "abort.json").read_bytes()
    (directory / "abort.json").write_bytes(whole.replace(b"bad", b"bed"))
    served.wait(lambda status: "was altered" in status["abort_error"])
    assert served.infer()[1]["model_version"] == promoted.names["tenth"]  # what it knew, it knows
    assert aborts.add(directory, replace(abort, reason="still bad")).abort.reason == "still bad"
    assert aborts.add(directory, abort).abort.reason == "still bad"
    served.wait(lambda status: not status["abort_error"])
    assert [each.reason for each in aborts.load(directory)] == ["still bad"]


def test_without_a_copy_the_command_reports_where_else_to_ask(
    world: World, command: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.version("half")
    world.plan("half")
    with without_ledger(world.root), pytest.raises(NotFoundError, match="does not exist, and no server"):
        command()
    with pytest.raises(InputError, match="is not set"):
        command("--server", "http://127.0.0.1:9")
    monkeypatch.setenv("HOLDFAST_ABORT_TOKEN", "s3cret-token")
    with pytest.raises(UnavailableError, match="no Holdfast server responds"):
        command("--server", "http://127.0.0.1:9")


def test_what_the_ledger_agrees_with_already_is_done_too(
    promoted: World, serve: Start, command: Callable[..., dict[str, Any]]
) -> None:
    """A ledger that takes no writes may be read: servers forget an abort that it agrees with before they are requested."""
    with promoted.store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE rollouts SET state = 'rolling_back'")
    plan = promoted.plan("tenth", fallback="delay")
    served = serve()
    served.wait_for_plan(plan)
    kept = promoted.root / "serve" / MODEL / "plan.json"
    served.wait(lambda _: kept.exists() and '"under_way":{' in kept.read_text())
    done = command("--ledger-timeout", "0")
    assert (done["done"], done["version"]) == (True, promoted.names["half"])
    served.wait(lambda status: not status["aborts"])
    assert aborts.stamp(promoted.root / "serve" / MODEL) is None
