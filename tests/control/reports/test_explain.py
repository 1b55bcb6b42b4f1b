"""The history of a rollout: every decision with what was known at that time, and the traffic that followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.cli.commands.reports.explain import _print
from holdfast.cli.output import Output
from holdfast.control.reports.explain import explain
from holdfast.errors import NotFoundError
from holdfast.records import canonical_json
from tests.support import rollout_world


@pytest.fixture
def world(tmp_path: Path):
    made = rollout_world.World.open(tmp_path / "store")
    made.promote(made.add_version())
    return made


def test_each_decision_is_reported_with_its_evidence_and_its_traffic(
    world, capsys: pytest.CaptureFixture[str]
) -> None:
    challenger = world.add_version()
    number = world.begin(challenger)
    world.champion_responses()
    world.reconcile()
    world.traffic()
    world.reconcile()
    world.traffic(failing=25)
    world.reconcile()
    world.probe()
    world.reconcile()
    history = explain(world.store, number, now_us=world.now_us)
    assert [(each.kind, each.actor) for each in history.events[:4]] == [
        ("rollout.pending", "ann"),
        ("rollout.canary", "holdfast"),
        ("rollout.advanced", "holdfast"),
        ("rollout.rolling_back", "holdfast"),
    ]
    advanced, rolled_back = history.events[2:4]
    assert {metric["metric"]: metric["verdict"] for metric in advanced.evidence} == {
        "errors": "pass",
        "latency": "pass",
        "quality": "pass",
    }
    assert {metric["metric"]: metric["verdict"] for metric in rolled_back.evidence}["errors"] == "fail"
    assert advanced.plan is not None
    assert advanced.plan["share_ppm"] == 500_000
    assert rolled_back.plan is not None
    assert rolled_back.plan["challenger"] is None
    canonical_json(history.as_dict())
    _print(Output(as_json=False), history)
    words = capsys.readouterr().out
    assert f"rollout {number} of m: {challenger}, against v2-00000000; it is rolled_back" in words
    assert "harm to errors" in words
    assert "v3-00000000 gets 50 %" in words


def test_a_rollout_that_is_not_there_is_reported(world) -> None:
    with pytest.raises(NotFoundError, match="HF303"):
        explain(world.store, 99, now_us=world.now_us)
