"""After a back-out the readable rows and the served values are those of a store that never saw the batch."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from holdfast.control.backout.backout import execute_backout, finish_interrupted, plan_backout
from holdfast.control.ingest.ingest import ingest
from holdfast.errors import ConflictError, IntegrityError, NotFoundError
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import backout_loads, backouts
from holdfast.store.catalog import batches, online_features
from holdfast.store.db import events
from holdfast.store.durability import failpoints
from holdfast.tables.backout import BackoutState, RecomputeOnline, RemoveRows
from tests.support import backout_world
from tests.support.profile import repetitions

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = repetitions(5)
STEPS = 14


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_a_batch_goes_with_its_group_and_comes_back_corrected(tmp_path: Path, store: Store) -> None:
    """R6, R8: rows exactly once, values to the last bit; the id is free for the corrected file, as epoch 1."""
    world = backout_world
    for hour in (0, 1, 2):
        for feed in world.FEEDS:
            world.load(store, tmp_path, feed, hour)
    done = world.take_out(store, world.WEATHER, 1)
    assert done.state == "backed_out"
    assert list(done.plan.loads) == [("weather", "h1", 0), ("flights", "h1", 0)]
    removed = [step for step in done.plan.steps if isinstance(step, RemoveRows)]
    assert [(part.table, part.rows, part.files) for part in removed[0].parts] == [
        ("weather", 11, 1),
        ("weather__quarantine", 1, 1),
    ]
    assert all(
        step.removed and step.recomputed for step in done.plan.steps if isinstance(step, RecomputeOnline)
    )
    kept = {(f.name, h): 0 for f in world.FEEDS for h in (0, 1, 2) if h != 1 or f is world.ALONE}
    clean = world.never_saw(tmp_path / "clean", tmp_path, kept)
    assert world.readable(store) == world.readable(clean)
    assert world.served(store) == world.served(clean)

    assert world.load(store, tmp_path, world.FLIGHTS, 1, 1).epoch == 1
    assert (
        world.load(store, tmp_path, world.WEATHER, 1).epoch == 1
    )  # this file was right: the same bytes again
    clean = world.never_saw(tmp_path / "again", tmp_path, {**kept, ("flights", 1): 1, ("weather", 1): 0})
    assert world.readable(store) == world.readable(clean)
    assert world.served(store) == world.served(clean)


def test_siblings_under_other_ids_go_together_with_what_servers_read_of_them(
    tmp_path: Path, store: Store
) -> None:
    """R8: one flights delivery of five hours, and weather by the hour under ids of its own; another hour stays."""
    world = backout_world
    long = tmp_path / "long.parquet"
    pl.concat(
        [pl.read_parquet(world.delivery(tmp_path, world.FLIGHTS, hour)) for hour in (0, 3)]
    ).write_parquet(long)
    ingest(store, world.FLIGHTS, "long", long, now_us=world.NOW_US, aggregates=world.AGGREGATES)
    for hour in (0, 3, 6):
        world.load(store, tmp_path, world.WEATHER, hour)
    done = execute_backout(
        store, world.FEEDS, BatchId("flights", "long"), reason="wrong", actor="ann", now_us=world.NOW_US
    )
    assert list(done.plan.loads) == [("flights", "long", 0), ("weather", "h0", 0), ("weather", "h3", 0)]
    clean = world.never_saw(tmp_path / "clean", tmp_path, {("weather", 6): 0})
    assert world.readable(store) == world.readable(clean)
    assert world.served(store) == world.served(clean)


def test_twice_reports_it_and_what_is_not_loaded_is_refused(tmp_path: Path, store: Store) -> None:
    world = backout_world
    world.load(store, tmp_path, world.ALONE, 0)
    with pytest.raises(NotFoundError, match=r"HF211.*alone/h9 failed: the batch is not loaded"):
        world.take_out(store, world.ALONE, 9)
    first = world.take_out(store, world.ALONE, 0)
    again = world.take_out(store, world.ALONE, 0, now_us=world.NOW_US + 10**12)
    assert (first.state, again.state) == ("backed_out", "already_backed_out")
    assert (again.backout_id, again.requested_at_us, again.plan) == (
        first.backout_id,
        world.NOW_US,
        first.plan,
    )
    with pytest.raises(NotFoundError, match="HF211"):
        plan_backout(store, world.FEEDS, BatchId("alone", "h0"))
    with store.ledger.read() as connection:
        reported = events.newest(connection, subject="alone/h0", kind="batch.backed_out")
    assert len(reported) == 1
    assert reported[0].actor == "ann"
    assert "the clock was wrong" in reported[0].explanation


def test_a_plan_writes_nothing_and_is_the_same_weeks_later(tmp_path: Path, store: Store) -> None:
    """R11, R16."""
    world = backout_world
    for hour in (0, 1):
        world.load(store, tmp_path, world.FLIGHTS, hour)
    before = world.readable(store), world.served(store)
    plan = plan_backout(store, world.FEEDS, BatchId("flights", "h0"))
    for hour in (30, 60):
        world.load(store, tmp_path, world.FLIGHTS, hour)
    later = plan_backout(store, world.FEEDS, BatchId("flights", "h0"))
    assert later == plan
    assert world.take_out(store, world.FLIGHTS, 0).plan == plan
    assert before[0]["flights"][0] not in world.readable(store)["flights"]


def test_a_load_that_comes_between_is_in_the_values(tmp_path: Path, store: Store) -> None:
    """What was computed before it is computed again."""
    world = backout_world
    world.load(store, tmp_path, world.ALONE, 0)
    world.load(store, tmp_path, world.ALONE, 1)
    came: list[str] = []

    def one_more(point: str) -> None:
        if point == "backout.begun" and not came:
            came.append(point)
            world.load(store, tmp_path, world.ALONE, 2)

    failpoints.armed = one_more
    try:
        world.take_out(store, world.ALONE, 1)
    finally:
        failpoints.armed = None
    assert came
    clean = world.never_saw(tmp_path / "clean", tmp_path, {("alone", 0): 0, ("alone", 2): 0})
    assert world.served(store) == world.served(clean)


def test_a_batch_whose_file_is_lost_can_still_be_taken_out(tmp_path: Path, store: Store) -> None:
    """All values over the feed are then computed again, and those that nothing supports are forgotten."""
    world = backout_world
    for hour in (0, 1, 2):
        world.load(store, tmp_path, world.ALONE, hour)
    with store.ledger.read() as connection:
        for fact in backout_loads.files_of(connection, "alone", [("alone", "h1", 0)]):
            (store.root / fact.path).unlink()
    world.take_out(store, world.ALONE, 1)
    clean = world.never_saw(tmp_path / "clean", tmp_path, {("alone", 0): 0, ("alone", 2): 0})
    assert world.served(store) == world.served(clean)
    with store.ledger.read() as connection:
        fact = backout_loads.files_of(connection, "alone", [("alone", "h2", 0)])[0]
    (store.root / fact.path).unlink()
    with pytest.raises(IntegrityError, match="HF301"):
        world.take_out(store, world.ALONE, 0)  # rows that must stay cannot be read: nothing is guessed


def test_a_follower_sees_every_value_go(tmp_path: Path, store: Store) -> None:
    """A server requests what is newer than what it has; what was backed out is among it."""
    world = backout_world
    world.load(store, tmp_path, world.ALONE, 0)
    keys = [each.key for each in world.AGGREGATES]
    with store.ledger.read() as connection:
        has, values = online_features.since(connection, keys, 0)
    held = {(value.aggregate, value.entity, value.known_at_us) for value in values}
    world.take_out(store, world.ALONE, 0)
    with store.ledger.read() as connection:
        _, news = online_features.since(connection, keys, has)
        assert batches.current_version(connection) > has
    assert {
        (value.aggregate, value.entity, value.known_at_us) for value in news if value.value is None
    } == held


class LoadsAndBackOuts(RuleBasedStateMachine):
    """Any order of loads, back-outs and reloads of two feeds of a group and one alone."""

    world: ModuleType

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.store = Store.open(self.directory / "store")
        self.live: dict[tuple[str, int], int] = {}
        self.out: set[tuple[str, int]] = set()

    hours = st.integers(0, 4)
    which = st.integers(0, 2)

    @rule(which=which, hour=hours, variant=st.integers(0, 1))
    def load(self, which: int, hour: int, variant: int) -> None:
        feed = self.world.FEEDS[which]
        before = self.live.get((feed.name, hour))
        if before is not None and before != variant:
            with pytest.raises(ConflictError, match="HF203"):
                self.world.load(self.store, self.directory, feed, hour, variant)
            return
        state = self.world.load(self.store, self.directory, feed, hour, variant).state
        assert state == ("loaded" if before is None else "already_loaded")
        self.live[feed.name, hour] = variant

    @rule(which=which, hour=hours)
    def execute_backout(self, which: int, hour: int) -> None:
        feed = self.world.FEEDS[which]
        if (feed.name, hour) not in self.live:
            if (feed.name, hour) in self.out:
                assert self.world.take_out(self.store, feed, hour).state == "already_backed_out"
            else:
                with pytest.raises(NotFoundError, match="HF211"):
                    self.world.take_out(self.store, feed, hour)
            return
        self.world.take_out(self.store, feed, hour)
        for other in self.world.FEEDS:
            together = other is feed or (feed.group is not None and other.group == feed.group)
            if together and self.live.pop((other.name, hour), None) is not None:
                self.out.add((other.name, hour))

    @precondition(lambda self: self.out)
    @rule()
    def nothing_is_left_to_carry_on(self) -> None:
        assert finish_interrupted(self.store, now_us=self.world.NOW_US) == []

    def teardown(self) -> None:
        clean = self.world.never_saw(self.directory / "clean", self.directory, self.live)
        try:
            assert self.world.readable(self.store) == self.world.readable(clean)
            assert self.world.served(self.store) == self.world.served(clean)
        finally:
            self.store.ledger.close()
            clean.ledger.close()
            shutil.rmtree(self.directory)


def test_any_order_of_loads_and_backouts() -> None:
    """R6: model-based; the model is a dictionary."""
    LoadsAndBackOuts.world = backout_world
    run_state_machine_as_test(
        LoadsAndBackOuts,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_backout_is_done_once_from_two_threads_of_control(tmp_path: Path, store: Store) -> None:
    """The control loop carries on what the command has begun: the second one finds it done."""
    world = backout_world
    world.load(store, tmp_path, world.ALONE, 0)

    def loop_comes_first(point: str) -> None:
        if point in ("backout.begun", "backout.removed"):
            failpoints.armed = None
            finish_interrupted(store, now_us=world.NOW_US)

    failpoints.armed = loop_comes_first
    try:
        done = world.take_out(store, world.ALONE, 0)
    finally:
        failpoints.armed = None
    with store.ledger.read() as connection:
        row = backouts.get(connection, done.backout_id)
        assert (row.state, row.steps_done) == (BackoutState.DONE, len(row.plan.steps))
        assert len(events.newest(connection, kind="batch.backed_out")) == 1
