"""A serving config is followed without a restart, and rolled back alone or together with a version (R115, R119)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.errors import HoldfastError, RefusedError
from holdfast.records import TrafficPlan
from holdfast.rollout import Canary
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.db import schema
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from tests.support.serving_world import MODEL, Served, World

Start = Callable[..., Served]
Command = Callable[..., dict[str, Any]]
USUAL = ConnectionLimits().id


@pytest.fixture
def command(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    load_commands("")
    project = tmp_path / "project"
    assert CliRunner().invoke(app, ["init", "--name", MODEL, "--project", str(project)]).exit_code == 0
    monkeypatch.setenv("HOLDFAST_ROOT", str(world.root))

    def run(*arguments: str) -> dict[str, Any]:
        found = CliRunner().invoke(app, [*arguments, "--json", "--project", str(project)])
        if isinstance(found.exception, HoldfastError):
            raise found.exception
        assert found.exit_code == 0, (found.output, found.exception)
        document: dict[str, Any] = json.loads(found.output)
        return document

    return run


def test_a_serving_config_is_pushed_followed_kept_and_rolled_back(
    world: World, serve: Start, command: Command
) -> None:
    world.version("half")
    world.plan("half")
    served = serve()
    served.wait(lambda status: status["serving_config"] == USUAL)
    with pytest.raises(RefusedError, match="no serving-config"):
        command("rollback", "--only", "serving-config")
    pushed = command("serving-config", "set", "body_bytes=1024", "--reason", "too big")
    assert pushed["done"]
    assert served.call(f"/v2/models/{MODEL}/infer", b"x" * 2000)[0] == 413
    served.wait(lambda _: "1024" in (world.root / "serve" / MODEL / "plan.json").read_text())
    served.stop()
    served = serve()
    assert served.wait(lambda status: bool(status["ready"]))["serving_config"] == pushed["serving_config"]
    again = command("serving-config", "set", "body_bytes=1024")
    assert (again["plan"], again["done"]) == (pushed["plan"], True)  # nothing was written
    returned = command("rollback", "--only", "serving-config")
    assert (returned["done"], returned["serving_config"], returned["rollout"]) == (True, USUAL, None)
    assert served.call(f"/v2/models/{MODEL}/infer", b"x" * 2000)[0] == 400
    assert command("rollback", "--only", "serving-config")["plan"] == returned["plan"]  # nothing was written
    assert command("serving-config", "get")["serving_config"] == USUAL


def test_version_and_serving_config_go_back_together_or_apart(
    world: World, serve: Start, command: Command
) -> None:
    """What was pushed since the rollout began goes back with it, by default."""
    for kind in ("tenth", "half"):
        version = world.version(kind)
        with world.store.ledger.write() as connection:
            versions.set_state(connection, version, "qualified", before="registered")
    world.plan("tenth")
    served = serve()
    first = _push_both(world, served, command, 64)
    assert command("rollback", "--only", "model")["done"]
    found = served.wait(lambda status: status["intended"] == world.names["tenth"])
    assert found["serving_config"] == first
    _confirm(world)
    second = _push_both(world, served, command, 65)
    assert second != first
    # So soon after a rollback the next one has to name what it rolls back.
    done = command("rollback", "--version", world.names["half"])
    assert (done["done"], done["challenger"]) == (True, world.names["half"])
    found = served.wait(lambda status: status["intended"] == world.names["tenth"])
    assert found["serving_config"] == first


def _push_both(world: World, served: Served, command: Command, connections: int) -> str:
    """'half' is promoted, and then a serving config is pushed; its id."""
    _promote(world)
    served.wait(lambda status: status["intended"] == world.names["half"])
    return str(command("serving-config", "set", f"connections={connections}")["serving_config"])


def _promote(world: World) -> None:
    with world.store.ledger.write() as connection:
        number = connection.execute(
            insert(schema.rollouts).values(
                model=MODEL, challenger=world.names["half"], champion=world.names["tenth"], state="promoted", step=0,
                policy_json=Canary().to_json(), started_at_us=1, step_started_at_us=1, changed_at_us=1,
                reason="test", actor="test",
            )
        ).inserted_primary_key[0]  # fmt: skip
        traffic_plans.append(
            connection,
            TrafficPlan(MODEL, 0, world.names["half"], previous=world.names["tenth"], rollout_id=number),
            now_us=1,
        )


def _confirm(world: World) -> None:
    with world.store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE rollouts SET state = 'rolled_back' WHERE state = 'rolling_back'")
