"""Drills on real servers and real copies of the store: what each shows, and that each can fail (R120, R121, R131)."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from holdfast.control.drills import bad_push, live, on_copy, runner
from holdfast.control.drills import live as drill_live
from holdfast.control.drills.live import Workspace
from holdfast.control.maintenance import backup as backing
from holdfast.control.probing import convergence
from holdfast.control.rollout import reconcile, start
from holdfast.records import Verdict
from holdfast.rollout import Canary, Hook
from holdfast.rollout.decision.decisions import RollBack, Wait
from holdfast.rollout.model.drills import DrillKind, Drills
from holdfast.store import Store
from holdfast.store.db import leases, schema
from holdfast.store.models import runtimes
from holdfast.store.rollout import drills, traffic_plans, webhooks
from holdfast.store.serving import servers
from tests.support.queries import read
from tests.support.waiting import wait_until

MODEL = "flight-delay"
DAY_US = 86_400_000_000
SERVER = """
import os
from pathlib import Path
from holdfast.settings import Settings
from holdfast.serve.server import serve_forever
serve_forever(Settings.read(Path(os.environ["HOLDFAST_ROOT"])), "flight-delay", linger_seconds=0.0)
"""


@dataclasses.dataclass(frozen=True)
class Declared:
    """What drills read of a declaration."""

    name: str = MODEL
    rollout: Canary = dataclasses.field(default_factory=Canary)


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def workspace(world) -> Workspace:
    """A champion, one before it, and a fallback."""
    for kind in ("half", "tenth", "delay"):
        world.version(kind)
    with world.store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET state = 'qualified'")
    world.plan("half", previous="tenth", fallback="delay")
    return Workspace(
        store=world.store,
        model=Declared(),
        serve=[sys.executable, "-c", SERVER],
        clock_us=now_us,
        within_us=20_000_000,
    )


def run(workspace: Workspace, kind: DrillKind) -> Any:
    return runner.run(workspace, kind, actor="ann", lasts_us=DAY_US)


def _was_champion(world, kind: str) -> None:
    with world.store.ledger.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO rollouts (model, challenger, state, step, policy_json, started_at_us, step_started_at_us, "
            "changed_at_us, reason, "
            f"actor) VALUES ('{MODEL}', '{world.names[kind]}', 'promoted', 0, '{{}}', 1, 1, 1, 'then', 'ann')"
        )


def _deaf(really: Any) -> Any:
    """Decides as ever, and lets no harm count."""

    def decide(*given: Any, **named: Any) -> Any:
        found = really(*given, **named)
        return Wait("deaf") if isinstance(found, RollBack) else found

    return decide


def registered(store: Store) -> tuple[servers.Server, ...]:
    with store.ledger.read() as connection:
        return servers.registered(connection)


def announced(world) -> None:
    """Wait until the server has reported the ledger where it is."""
    wait_until(lambda: registered(world.store), "the server is announced")


def leftovers(workspace: Workspace) -> list[Path]:
    return list(workspace.store.root.parent.glob("*.drill-*"))


def test_a_rollback_is_drilled_on_a_server_and_no_user_is_moved(world, workspace: Workspace, serve) -> None:
    served = serve()
    announced(world)
    before = read(world.store, traffic_plans.newest, MODEL)
    responded: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            responded.append(served.infer()[1]["model_version"])

    user = threading.Thread(target=ask)
    user.start()
    try:
        found = run(workspace, DrillKind.ROLLBACK)
    finally:
        stop.set()
        user.join()
    assert (found.verdict, found.evidence["target"]) == (Verdict.PASS, world.names["tenth"]), found
    assert found.expires_at_us - found.ended_at_us == DAY_US
    assert 0 < found.measured_duration_us < 20_000_000
    after = read(world.store, traffic_plans.newest, MODEL)
    assert dataclasses.replace(after, plan_id=0) == dataclasses.replace(before, plan_id=0)
    assert after.plan_id == before.plan_id + 2
    assert set(responded) == {world.names["half"]}
    standing = runner.standings(world.store, MODEL, now_us=now_us())
    assert [each.kind for each in standing if each.ready] == [DrillKind.ROLLBACK]


def test_a_live_drill_moves_all_users_and_back(world, workspace: Workspace, serve) -> None:
    """Only to what was the champion before; else it reports why not."""
    served = serve()
    announced(world)
    live = dataclasses.replace(workspace, live=True)
    refused = run(live, DrillKind.ROLLBACK)
    assert refused.verdict is Verdict.INCONCLUSIVE
    assert "was never the champion" in refused.explanation
    _was_champion(world, "tenth")
    seen: set[str] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen.add(served.infer()[1]["model_version"])

    user = threading.Thread(target=ask)
    user.start()
    try:
        found = run(live, DrillKind.ROLLBACK)
    finally:
        stop.set()
        user.join()
    assert found.verdict is Verdict.PASS, found
    assert found.evidence["live"] is True
    assert served.infer()[1]["model_version"] == world.names["half"]
    assert seen <= {world.names["half"], world.names["tenth"]}


def test_a_follower_that_is_slow_or_deaf_fails_the_drill(
    world, workspace: Workspace, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    announced(world)
    strict = dataclasses.replace(workspace, within_us=1)
    found = run(strict, DrillKind.ROLLBACK)
    assert found.verdict is Verdict.FAIL
    assert "at most 0.001 ms are allowed" in found.explanation
    assert found.expires_at_us == found.ended_at_us
    monkeypatch.setattr(drill_live, "CONVERGENCE_SECONDS", 0.3)
    monkeypatch.setattr(
        convergence, "on_plan", lambda _plan, _version: lambda client: client.probe() and None
    )
    found = run(workspace, DrillKind.ROLLBACK)
    assert found.verdict is Verdict.FAIL
    assert "did not follow within" in found.explanation
    served.stop()
    monkeypatch.undo()
    found = run(workspace, DrillKind.ROLLBACK)
    assert (found.verdict, found.measured_duration_us is None) == (Verdict.INCONCLUSIVE, True)
    assert not any(each.ready for each in runner.standings(world.store, MODEL, now_us=now_us()))


@pytest.mark.process
def test_nothing_to_return_to_shows_nothing_and_a_rollout_under_way_is_left_alone(
    world, workspace: Workspace
) -> None:
    """It reports nothing against a drill that passed before: nothing was drilled."""
    world.plan("half")
    found = run(workspace, DrillKind.ROLLBACK)
    assert (found.verdict, "no version to return to" in found.explanation) == (Verdict.INCONCLUSIVE, True)
    world.plan("half", "tenth", 1000)
    with world.store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE rollouts SET state = 'canary'")
    newest = read(world.store, traffic_plans.newest, MODEL)
    found = run(workspace, DrillKind.ROLLBACK)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert read(world.store, traffic_plans.newest, MODEL) == newest


def test_a_drill_that_is_killed_leaves_a_row_and_its_plan_is_put_back(
    world, workspace: Workspace, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan that it left is put back by the next process that looks, unless another has written a newer one."""

    class KilledError(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise KilledError

    _was_champion(world, "tenth")
    before = read(world.store, traffic_plans.newest, MODEL)
    monkeypatch.setattr(convergence, "wait", die)
    monkeypatch.setattr(drill_live, "put_back", die)
    with pytest.raises(KilledError):
        run(dataclasses.replace(workspace, live=True), DrillKind.ROLLBACK)
    monkeypatch.undo()
    (row,) = read(world.store, drills.unfinished, MODEL)
    assert row.verdict is Verdict.ERROR
    assert live.clean_up(world.store, MODEL, now_us=now_us()) == []  # it may still be going on
    later_us = now_us() + live.LIMIT_US[DrillKind.ROLLBACK]
    assert live.clean_up(world.store, MODEL, now_us=later_us) == [row.drill_id]
    after = read(world.store, traffic_plans.newest, MODEL)
    assert after.plan_id == before.plan_id + 2
    assert dataclasses.replace(after, plan_id=before.plan_id) == before
    assert live.clean_up(world.store, MODEL, now_us=later_us) == []
    start.request(world.store, Declared(), world.names["delay"], actor="ann", now_us=now_us())
    assert "killed before its end; plan" in read(world.store, drills.of_model, MODEL)[0].explanation


@pytest.mark.process
def test_the_fence_is_drilled_and_a_missing_one_is_found(
    world, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(workspace, DrillKind.STALE_LEADER)
    assert found.verdict is Verdict.PASS, found
    assert found.evidence["new_epoch"] == found.evidence["old_epoch"] + 1
    assert run(workspace, DrillKind.STALE_LEADER).verdict is Verdict.PASS
    monkeypatch.setattr(leases, "assert_epoch", lambda *_: None)
    found = run(workspace, DrillKind.STALE_LEADER)
    assert (found.verdict, found.evidence["refused"]) == (Verdict.FAIL, [])


@pytest.mark.process
def test_a_restore_is_drilled_and_a_damaged_backup_is_found(
    world, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(workspace, DrillKind.RESTORE)
    assert found.verdict is Verdict.PASS, found
    assert found.evidence["ledger_rows"] > 0
    assert leftovers(workspace) == []
    really = backing.backup

    def damaged(store: Store, directory: Path, *, now_us: int) -> Any:
        taken = really(store, directory, now_us=now_us)
        largest = max(
            (directory / "objects").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0
        )
        largest.write_bytes(largest.read_bytes()[:-1] + b"?")
        return taken

    monkeypatch.setattr(backing, "backup", damaged)
    found = run(workspace, DrillKind.RESTORE)
    assert (found.verdict, "HF301" in found.explanation) == (Verdict.ERROR, True)
    assert leftovers(workspace) == []


@pytest.mark.process
def test_what_a_killed_drill_left_is_removed(workspace: Workspace) -> None:
    left = workspace.store.root.parent / f"{workspace.store.root.name}.drill-999999999-1"
    left.mkdir()
    with on_copy.scratch(workspace.store) as home:
        assert not left.exists()
        assert home.is_dir()
    assert leftovers(workspace) == []


@pytest.mark.process
def test_a_server_without_its_ledger_goes_on_and_starts_again(workspace: Workspace) -> None:
    found = run(workspace, DrillKind.DEAD_DATABASE)
    assert found.verdict is Verdict.PASS, found
    assert found.evidence["requests"] == 2 * on_copy.REQUESTS
    assert (found.evidence["failed"], found.evidence["failed_after_restart"]) == (0, 0)
    assert found.evidence["ledger_error"]
    assert leftovers(workspace) == []


@pytest.mark.process
def test_a_server_that_cannot_start_fails_the_drill(workspace: Workspace) -> None:
    broken = dataclasses.replace(workspace, serve=[sys.executable, "-c", "raise SystemExit(3)"])
    found = run(broken, DrillKind.DEAD_DATABASE)
    assert (found.verdict, "starting the server on the copy failed" in found.explanation) == (
        Verdict.ERROR,
        True,
    )


@pytest.mark.process
def test_a_bad_push_is_rolled_back_in_a_copy(
    world, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever binary is in force, and however much was requested. And when the evidence is not looked at, it reports that.

    The copy used to keep how far the log of the original was read: what its own server logged was never read.
    """
    with world.store.ledger.write() as connection:
        named_s1 = servers.Server("s1", MODEL, "http://127.0.0.1:9", world.store.root / "logs" / "s1", 1)
        servers.announce(connection, named_s1)
        position = {"predictions": 1_000_000, "feedback": 0, "rejected_labels": 0}
        connection.execute(
            insert(schema.log_positions).values(server="s1", segment=1, collected_bytes=5_421_529, **position)
        )
        veto = Hook("freeze", "http://127.0.0.1:9/freeze", on=("start",), veto=True)
        webhooks.declare(connection, MODEL, [veto], now_us=now_us())
    with world.store.ledger.write() as connection:
        named = runtimes.register(connection, runtimes.here("green"), ["env"], now_us=now_us())
        connection.exec_driver_sql(f"UPDATE traffic_plans SET runtime = '{named}'")
    newest, rows = read(world.store, traffic_plans.newest, MODEL), world.names.copy()
    found = run(workspace, DrillKind.BAD_PUSH)
    assert found.verdict is Verdict.PASS, found
    assert found.evidence["failed"] == 0
    assert 0 < found.evidence["requests"] < 2_000
    assert "harm to errors" in found.evidence["reason"]
    assert read(world.store, traffic_plans.newest, MODEL) == newest
    assert world.names == rows
    with world.store.ledger.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM versions").scalar() == len(rows)
    monkeypatch.setattr(bad_push, "MOST_REQUESTS", 100)
    monkeypatch.setattr("holdfast.control.rollout.reconcile.decide", _deaf(reconcile.decide))
    found = run(workspace, DrillKind.BAD_PUSH)
    assert (found.verdict, found.evidence["state"]) == (Verdict.FAIL, "canary"), found


@pytest.mark.process
def test_what_is_due_is_drilled_by_the_loop(world, workspace: Workspace) -> None:
    concern = runner.Scheduled(workspace, Drills(interval="1d", kinds=("stale-leader",)))
    with world.store.ledger.write() as connection:
        lease = leases.acquire(connection, "control-x", holder="a", duration_us=10**6, now_us=now_us())
    for _ in range(3):
        concern(world.store, MODEL, lease, now_us=now_us())
        concern.wait(20)
    found = read(world.store, drills.of_model, MODEL)
    assert [(each.kind, each.verdict) for each in found] == [(DrillKind.STALE_LEADER, Verdict.PASS)]
    assert json.loads(json.dumps(dict(found[0].evidence)))["refused"]


@pytest.mark.process
def test_a_write_ahead_log_that_disappears_meanwhile_fails_no_drill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite removes it when the server's last connection closes, between the listing and the write."""
    (tmp_path / "ledger.db").write_bytes(b"x" * 8192)
    listed = [tmp_path / "ledger.db-wal", tmp_path / "ledger.db"]
    monkeypatch.setattr(Path, "glob", lambda _, __: iter(listed))
    on_copy._destroy(tmp_path)
    assert (tmp_path / "ledger.db").read_bytes() == b"\xff" * 8192
    assert on_copy.no_room(tmp_path, listed) is None
