"""A runtime is tried, pushed, followed by `holdfast up` without a failed request, and rolled back (R115, R119)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.cli.demo.sandbox import free_port
from holdfast.errors import HoldfastError, RefusedError
from holdfast.records import TrafficPlan, Verdict
from holdfast.rollout import Canary, State
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.db import events, schema
from holdfast.store.models import runtimes, serving_configs, versions
from holdfast.store.models.runtimes import CompatibilityResult
from holdfast.store.rollout import rollouts, traffic_plans
from tests.support.queries import read
from tests.support.serving_world import MODEL, World
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

PROBE = json.dumps({"inputs": [], "parameters": {"probe": True}})
HOLDFAST = (sys.executable, "-m", "holdfast")
BREAKS = 'case "$*" in *"$WHEN"*) exit 3;; esac; exec "$@"'
"""A build whose server ends at once when it is started with a certain option."""

Command = Callable[..., dict[str, Any]]


def build(name: str, breaks: str = "") -> tuple[str, ...]:
    """A command of this install under another build's name."""
    named = ("env", f"HOLDFAST_BUILD={name}")
    return (*named, f"WHEN={breaks}", "sh", "-c", BREAKS, "sh", *HOLDFAST) if breaks else (*named, *HOLDFAST)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("binary") / "root")
    yield made
    made.store.ledger.close()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port(0)


@pytest.fixture(scope="module")
def command(world: World, port: int) -> Iterator[Command]:
    """Runs commands in a project that `holdfast up` serves, for all tests here: its processes take their time to start."""
    load_commands("")
    project = str(world.root.parent / "project")
    assert CliRunner().invoke(app, ["init", "--name", MODEL, "--project", project]).exit_code == 0
    world.version("half")
    world.plan("half")

    def run(name: str, *arguments: str) -> dict[str, Any]:
        at = arguments.index("--") if "--" in arguments else len(arguments)
        given = [*arguments[:at], "--json", "--project", project, *arguments[at:]]
        found = CliRunner().invoke(app, [*name.split(), *given])
        if isinstance(found.exception, HoldfastError):
            raise found.exception
        assert found.exit_code == 0, (found.output, found.exception)
        document: dict[str, Any] = json.loads(found.output)
        return document

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOLDFAST_PORT", str(port))
        environment.setenv("HOLDFAST_PAGE_PORT", str(free_port(0)))
        environment.setenv("HOLDFAST_ROOT", str(world.root))
        process = subprocess.Popen(
            [*HOLDFAST, "up", "--project", project], env=os.environ, stdout=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: bool(status(port).get("ready")))
            yield run
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def status(port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/holdfast/status")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
    except OSError:
        return {}
    finally:
        connection.close()
    return found


class Load:
    """Clients that ask without a pause, over kept connections and fresh ones; what failed is in `failed`."""

    def __init__(self, port: int) -> None:
        self.responded = 0
        self.failed: list[object] = []
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(kept,)) for kept in (True, True, False)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, kept: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._ended.is_set():
            try:
                connection.request(
                    "POST", f"/v2/models/{MODEL}/infer", PROBE, {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(error)
                connection.close()
                continue
            self.responded += 1
            if response.status != 200:
                self.failed.append(response.status)
            if not kept:
                connection.close()
            time.sleep(0.02)
        connection.close()


def test_a_runtime_takes_over_under_load_is_rolled_back_and_stays_out_when_it_fails(
    world: World, command: Command, port: int
) -> None:
    before = status(port)["runtime"]
    green = command("runtime register", "--", *build("green"))["runtime"]
    assert green != before
    with Load(port) as load:
        assert command("runtime use", green)["done"]
        assert status(port)["runtime"] == green
        # What is rolled out now is tried with it first, by the command; and then no more.
        version = qualified(world, "tenth")
        assert command("rollout start", version)["tested_with"] == green
        assert command("rollout start", version)["tested_with"] is None
        assert command("rollback", "--only", "model", "--no-wait")["challenger"] == version
        back = command("rollback", "--only", "runtime")
        assert (back["done"], back["runtime"], back["rollout"]) == (True, before, None)
        wait_until(lambda: status(port)["runtime"] == before)
    assert not load.failed
    assert load.responded > 100
    listed = {each["runtime"]: each for each in command("runtime list")["runtimes"]}
    assert listed[before]["in_force"]
    assert listed[green]["servers"] == []
    # One that breaks in its trial is refused. One that breaks only where it should take over stays out, and the plan goes back.
    broken = command("runtime register", "--", *build("broken", "serve"))["runtime"]
    with pytest.raises(RefusedError, match="did not pass its test"):
        command("runtime use", broken)
    late = command("runtime register", "--", *build("late", "--when-ready"))["runtime"]
    with Load(port) as load:
        command("runtime use", late, "--no-wait")
        wait_until(lambda: bool(_reported(world)))
    assert not load.failed
    assert _reported(world) == [f"{late}: serve ended with status 3"]
    assert status(port)["runtime"] == before
    assert {each["runtime"]: each["in_force"] for each in command("runtime list")["runtimes"]}[before]


def test_version_serving_config_and_runtime_go_back_together_and_each_apart(
    world: World, command: Command, port: int
) -> None:
    """R119: what was pushed since the rollout began goes back with it by default, in one plan that all servers follow."""
    good, bad, usual = qualified(world, "half"), qualified(world, "tenth"), ConnectionLimits().id
    before = status(port)["runtime"]
    green = command("runtime register", "--", *build("green"))["runtime"]
    with world.store.ledger.write() as connection:
        serving_configs.register(connection, ConnectionLimits(), now_us=1)
        for each in (good, bad):  # trials are another test's
            runtimes.judge(connection, CompatibilityResult(each, green, usual, Verdict.PASS, "the same", 1))

    def serves(version: str, runtime: str, limits: str) -> bool:
        found = status(port)
        return (found.get("intended"), found.get("runtime"), found.get("serving_config")) == (
            version,
            runtime,
            limits,
        )

    def push(idle_seconds: int) -> str:
        pushed = command("serving-config set", f"idle_seconds={idle_seconds}")
        assert pushed["done"]
        return str(pushed["serving_config"])

    _promote(world, good, bad)
    assert command("runtime use", green)["done"]
    first = push(50)
    assert serves(bad, green, first)
    # Each apart: the others stay as they are.
    back = command("rollback", "--only", "serving-config")
    assert (back["done"], back["serving_config"], back["runtime"], back["rollout"]) == (
        True,
        usual,
        None,
        None,
    )
    assert serves(bad, green, usual)
    second = push(60)
    back = command("rollback", "--only", "model", "--version", bad)
    assert (back["done"], back["challenger"], back["serving_config"], back["runtime"]) == (
        True,
        bad,
        None,
        None,
    )
    assert serves(good, green, second)
    back = command("rollback", "--only", "runtime")
    assert (back["done"], back["runtime"], back["serving_config"], back["rollout"]) == (
        True,
        before,
        None,
        None,
    )
    assert serves(good, before, second)
    # All three since a rollout began, and all three with it.
    wait_until(lambda: _is_rolled_back(world))
    _promote(world, good, bad)
    with world.store.ledger.write() as connection:
        runtimes.judge(connection, CompatibilityResult(bad, green, second, Verdict.PASS, "the same", 1))
    assert command("runtime use", green)["done"]
    third = push(70)
    assert serves(bad, green, third)
    back = command("rollback", "--version", bad)
    assert (back["done"], back["challenger"], back["serving_config"], back["runtime"]) == (
        True,
        bad,
        second,
        before,
    )
    assert serves(good, before, second)
    plan = back["plan"]
    # Requesting again writes nothing.
    assert command("rollback", "--version", bad)["plan"] == plan


def qualified(world: World, kind: str) -> str:
    """A version that may be rolled out."""
    version = world.version(kind)
    with world.store.ledger.write() as connection:
        if versions.get(connection, version).state == "registered":
            versions.set_state(connection, version, "qualified", before="registered")
    return version


def _promote(world: World, champion: str, challenger: str) -> None:
    """`challenger` has taken over from `champion` by a rollout, under which all plans from now on are."""
    with world.store.ledger.write() as connection:
        made = connection.execute(
            insert(schema.rollouts).values(
                model=MODEL, challenger=challenger, champion=champion, state="promoted", step=0, policy_json=Canary().to_json(),
                started_at_us=1, step_started_at_us=1, changed_at_us=1, reason="test", actor="test",
            )
        )  # fmt: skip
        number = made.inserted_primary_key[0]
        traffic_plans.append(
            connection, TrafficPlan(MODEL, 0, challenger, previous=champion, rollout_id=number), now_us=1
        )


def _is_rolled_back(world: World) -> bool:
    return read(world.store, rollouts.newest, MODEL).state is State.ROLLED_BACK


def _reported(world: World) -> list[str]:
    with world.store.ledger.read() as connection:
        found = events.newest(connection, subject=MODEL, kind="runtime.failed", limit=5)
    return [each.explanation for each in found]
