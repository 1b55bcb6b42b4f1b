"""`holdfast drill` as a person types it, in the project that `holdfast init` makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.errors import HoldfastError, InputError
from holdfast.records import TrafficPlan
from holdfast.store import Store
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from tests.support.queries import read

pytestmark = [pytest.mark.sqlite, pytest.mark.process]


class Shell:
    """Runs commands in one project, in this process."""

    def __init__(self, directory: Path) -> None:
        load_commands("")
        self.directory = directory

    def __call__(self, name: str, *arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, [name, *arguments, "--project", str(self.directory)])
        if isinstance(done.exception, HoldfastError):
            raise done.exception
        assert done.exit_code == status, (done.output, done.exception)
        return done.output


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A project with a version that serves, and its heuristic next to it."""
    directory = tmp_path_factory.mktemp("parcels")
    shell = Shell(directory)
    shell("init", "--name", "parcels")
    shell("ingest", "rows", str(directory / "parcels.csv"), "--batch", "all")
    shell("train")
    store = Store.open(directory / ".holdfast")
    champion = read(store, versions.newest, "parcels", role="candidate")
    with store.ledger.write() as connection:
        traffic_plans.append(
            connection,
            TrafficPlan(
                "parcels", 0, champion.version, fallback=versions.heuristic_of(connection, champion).version
            ),
            now_us=1,
        )
    store.ledger.close()
    return shell


def test_every_drill_but_the_one_that_needs_a_server_passes(shell: Shell) -> None:
    """The servers of drills on copies are started by the project's own command."""
    assert "never drilled: rollback, restore" in shell("status")
    with pytest.raises(InputError, match="no drill is named"):
        shell("drill")
    with pytest.raises(InputError, match="unknown drill: 'nothing'"):
        shell("drill", "nothing")
    reported: dict[str, Any] = json.loads(shell("drill", "--all", "--valid-for", "3d", "--json", status=1))
    found = {each["kind"]: each for each in reported["drills"]}
    verdicts = {kind: each["verdict"] for kind, each in found.items()}
    assert verdicts == {
        "rollback": "inconclusive",
        "restore": "pass",
        "stale-leader": "pass",
        "dead-database": "pass",
        "bad-push": "pass",
    }, found
    assert found["rollback"]["explanation"] == "no server responds, so nothing was drilled"
    assert found["restore"]["expires_at_us"] - found["restore"]["ended_at_us"] == 3 * 86_400_000_000
    status = shell("status")
    assert "restore ready until 20" in status
    assert "never drilled: rollback;" in status
    listed = json.loads(shell("drill", "--list", "--json"))["kinds"]
    assert [each["kind"] for each in listed if not each["ready"]] == ["rollback"]
    assert "bad-push" in shell("drill", "--list")
