"""A drill that copies the store looks at the room first: the disk is the one that servers log their answers to."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.control.drills import bad_push, on_copy
from holdfast.control.rollout import plan_parts
from holdfast.control.runtimes import runtime
from holdfast.errors import UnavailableError
from holdfast.records import Verdict
from holdfast.store.models import runtimes
from tests.support import rollout_world

KB = 1024


@pytest.fixture
def workspace(tmp_path: Path):
    world = rollout_world.World.open(tmp_path / "store")
    world.promote(world.add_version())
    (world.store.root / "data").mkdir(exist_ok=True)
    (world.store.root / "data" / "large.parquet").write_bytes(b"x" * 4000 * KB)
    return SimpleNamespace(store=world.store, model=world.model, clock_us=world.tick)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Reports how many kB are free on the disk."""

    def report(kilobytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=kilobytes * KB))

    return report


@pytest.mark.parametrize("exercise", [on_copy.restore, on_copy.dead_database, bad_push.bad_push])
def test_without_room_nothing_is_copied(workspace, free, exercise) -> None:
    free(200)
    found = exercise(workspace, 1)
    assert (found.verdict, found.measured_duration_us) == (Verdict.INCONCLUSIVE, None)
    assert "bytes of free space are needed" in found.explanation
    assert found.evidence["free_bytes"] == 200 * KB < found.evidence["wanted_bytes"]
    assert not list(workspace.store.root.parent.glob("*.drill-*"))


def test_a_bad_push_against_a_heuristic_is_not_to_be_judged(workspace, free) -> None:
    """R114: after a rollback to the heuristic there is no candidate whose twin could be pushed."""
    free(10**9)
    with workspace.store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET role = 'heuristic'")
    found = bad_push.bad_push(workspace, 1)
    assert (found.verdict, found.measured_duration_us) == (Verdict.INCONCLUSIVE, None)
    assert found.explanation.startswith("nothing to push against: v2-00000000 answers, a heuristic")


def test_without_room_no_runtime_is_tried_and_none_is_blamed(workspace, free) -> None:
    free(200)
    version = "v2-00000000"
    with workspace.store.ledger.write() as connection:
        named = runtimes.register(connection, runtimes.here("green"), ["env"], now_us=1)
        candidate = runtimes.get(connection, named)
    with pytest.raises(UnavailableError, match=r"HF306.*bytes of free space are needed"):
        runtime.try_out(workspace, version, candidate, ["env"], [])
    with workspace.store.ledger.read() as connection:
        limits = plan_parts.serving_config_in_force(connection, workspace.model.name)
        assert runtimes.compatibility_result(connection, version, named, limits.id) is None
    assert not list(workspace.store.root.parent.glob("*.drill-*"))


def test_a_restore_wants_room_for_the_whole_store_three_times(workspace, free) -> None:
    free(11_000)
    found = on_copy.restore(workspace, 1)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.evidence["wanted_bytes"] > 12_000 * KB
    free(40_000)
    assert on_copy.no_room(workspace.store.root, [workspace.store.root]) is None
