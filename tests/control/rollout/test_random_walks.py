"""Random walks through a rollout over the real ledger, and two control loops at once: invariants hold."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.control.rollout import reconcile as rollout
from holdfast.errors import ConflictError, HoldfastError
from holdfast.rollout import Canary, State
from holdfast.store import Store
from holdfast.store.db import events, leases
from holdfast.store.rollout import rollouts
from tests.support import rollout_world
from tests.support.queries import read

COMPARING = (State.CANARY, State.VERIFYING)


class Walk(RuleBasedStateMachine):
    """Anything that can happen to a rollout, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.world = rollout_world.World.open(Path(self.directory.name))
        self.stale = None
        self.last_plan = 0
        self.harmed: set[str] = set()

    def teardown(self) -> None:
        self.world.store.ledger.close()
        self.directory.cleanup()

    def newest(self) -> rollouts.RolloutRow | None:
        rows = read(self.world.store, rollouts.of_model, rollout_world.MODEL)
        return rows[0] if rows else None

    def acting(self) -> rollouts.RolloutRow | None:
        """The rollout that decides about the traffic: the one that was moved last and had any."""
        rows = read(self.world.store, rollouts.of_model, rollout_world.MODEL)
        idle = (State.PENDING, State.CANCELLED)
        return max((r for r in rows if r.state not in idle), key=lambda r: r.changed_at_us, default=None)

    def running(self) -> bool:
        return any(row.running for row in read(self.world.store, rollouts.of_model, rollout_world.MODEL))

    @rule()
    def begin(self) -> None:
        running = self.running()
        code = _code_of(lambda: self.world.begin(self.world.add_version()))
        assert code == ("HF404" if running else "")

    @precondition(lambda self: self.world.plan() is not None)
    @rule()
    def champion_responses(self) -> None:
        self.world.champion_responses()

    @precondition(lambda self: (row := self.acting()) is not None and row.state in COMPARING and row.champion)
    @rule(failing=st.sampled_from([0, 0, 0, 20]), labelled=st.sampled_from([0, 6]))
    def traffic(self, failing: int, labelled: int) -> None:
        self.world.traffic(failing=failing, labelled=labelled)
        if failing:
            self.harmed.add(self.acting().challenger)

    @rule(honest=st.booleans())
    def probe(self, honest: bool) -> None:
        self.world.probe(None if honest else "v99-00000000")

    @rule()
    def reconcile(self) -> None:
        running = self.running()
        taken = self.world.reconcile()
        if not running:
            assert taken == []

    @rule()
    def rollback(self) -> None:
        rows, plan = read(self.world.store, rollouts.of_model, rollout_world.MODEL), self.world.plan()
        promoted = plan is not None and any(
            row.state is State.PROMOTED and row.challenger == plan.champion for row in rows
        )
        expected = "" if self.running() or promoted else "HF404"
        assert _code_of(self.world.rollback) == (expected if rows else "HF410")

    @rule(hours=st.integers(1, 3))
    def time_passes(self, hours: int) -> None:
        self.world.tick(hours * 3_600_000_000)

    @rule()
    def another_loop_takes_over(self) -> None:
        self.stale = self.world.lease
        with self.world.store.ledger.write() as connection:
            leases.release(connection, self.stale)
        self.world.lease = rollout_world.take(
            self.world.store, "another" if self.stale.holder == "loop" else "loop"
        )

    @precondition(lambda self: self.stale is not None)
    @rule()
    def the_old_loop_wakes(self) -> None:
        before = self.newest(), self.world.plan()
        assert _code_of(lambda: self.world.reconcile(self.stale)) in ("", "HF304")
        assert (self.newest(), self.world.plan()) == before

    @invariant()
    def the_plan_is_what_the_state_declares(self) -> None:
        row, plan, newest = self.acting(), self.world.plan(), self.newest()
        if newest is not None and plan is not None and newest.state in (State.PENDING, State.CANCELLED):
            assert newest.challenger not in plan.versions()
        if row is None or plan is None:
            return
        assert plan.plan_id >= self.last_plan
        self.last_plan = plan.plan_id
        back_to = row.champion or plan.fallback
        match row.state:
            case State.CANARY:
                share = Canary.from_json(row.policy_json).shares_ppm[row.step]
                assert (plan.champion, plan.challenger, plan.share_ppm) == (
                    row.champion,
                    row.challenger,
                    share,
                )
            case State.VERIFYING if row.champion is not None:
                assert (plan.champion, plan.intended) == (row.champion, row.challenger)
            case State.VERIFYING | State.PROMOTED:
                assert (plan.champion, plan.challenger, plan.previous) == (row.challenger, None, row.champion)
            case State.ROLLING_BACK | State.ROLLED_BACK:
                assert plan.champion == back_to
                assert row.challenger not in plan.versions()

    @invariant()
    def at_most_one_is_under_way_and_the_history_is_whole(self) -> None:
        rows = read(self.world.store, rollouts.of_model, rollout_world.MODEL)
        assert sum(row.running for row in rows) <= 1
        with self.world.store.ledger.read() as connection:
            for row in rows[:1]:
                reported = events.newest(connection, subject=row.subject, limit=1)
                assert reported[0].at_us == row.changed_at_us

    @invariant()
    def what_did_harm_is_not_promoted(self) -> None:
        for row in read(self.world.store, rollouts.of_model, rollout_world.MODEL):
            assert not (row.state is State.PROMOTED and row.challenger in self.harmed)


Walk.TestCase.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestWalk = Walk.TestCase


def test_two_loops_at_once_are_harmless(tmp_path: Path) -> None:
    """Two threads with a ledger of their own each reconcile as fast as they can: every step is taken once."""
    world = rollout_world.World.open(tmp_path)
    world.promote(world.add_version())
    number = world.begin(world.add_version())
    world.champion_responses()
    taken: list[str] = []
    odd: list[BaseException] = []
    stop = threading.Event()

    def loop() -> None:
        store = Store.open(tmp_path)
        try:
            while not stop.is_set():
                try:
                    found = rollout.reconcile(store, rollout_world.MODEL, world.lease, now_us=world.now_us)
                    taken.extend(type(each).__name__ for each in found)
                except ConflictError:
                    continue
        except BaseException as error:
            odd.append(error)
        finally:
            store.ledger.close()

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for expected in (1, 2, 3, 4):
            _until(lambda expected=expected: len(taken) >= expected or bool(odd))
            if world.row().state is State.CANARY:
                world.traffic()
        world.probe()
        _until(lambda: world.row().state is State.PROMOTED or bool(odd))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not odd
    assert taken == ["Start", "Advance", "Advance", "Complete", "Confirm"]
    with world.store.ledger.read() as connection:
        reported = events.newest(connection, subject=rollouts.subject_of(number))
    assert len(reported) == 6


def _code_of(operation) -> str:
    """The code of the error that `operation` ends in, empty when it succeeds."""
    try:
        operation()
    except HoldfastError as error:
        return error.code
    return ""


def _until(holds) -> None:
    waited = threading.Event()
    for _ in range(600):
        if holds():
            return
        waited.wait(0.05)
    raise AssertionError("it did not happen within 30 s")
