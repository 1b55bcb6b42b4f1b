"""What a back-out does to versions that were trained on the batch: nothing tainted is given traffic again."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from holdfast.control.backout.backout import finish_interrupted, plan_backout
from holdfast.control.evaluation import qualify
from holdfast.control.rollout import failover, reconcile
from holdfast.control.rollout.failover import Cause
from holdfast.control.training import train
from holdfast.errors import RefusedError
from holdfast.monitor.usage import UsageRow
from holdfast.records import Arm, BatchId
from holdfast.rollout import State
from holdfast.store.backout import backouts, taints
from holdfast.store.catalog import snapshots
from holdfast.store.db import events, schema
from holdfast.store.durability import failpoints
from holdfast.store.durability.failpoints import BACKOUT_POINTS
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.telemetry import request_counts
from holdfast.tables.backout import (
    BackoutState,
    CancelRollout,
    FailOver,
    KeepLastResort,
    ListFeedback,
    ListPredictions,
    ReplaceFallbacks,
    Retrain,
    TaintVersions,
    total_impact,
)
from tests.support import backout_world, forking, rollout_world
from tests.support.queries import newest_backouts, read, write

if TYPE_CHECKING:
    from tests.support.rollout_world import World

HEURISTIC = "v1-00000000"


class Case:
    """A model with a clean champion, and a batch from which a snapshot was made."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.world: World = rollout_world.World.open(root)
        self.rows = backout_world
        self.store = self.world.store
        self.directory = directory
        self.clean = self.world.add_version()
        self.world.promote(self.clean)
        for hour in (0, 1):
            backout_world.load(self.store, directory, backout_world.FLIGHTS, hour)
        snapshot = write(
            self.store,
            snapshots.create,
            self.store.root,
            ["flights"],
            contract_hash="c",
            now_us=self.world.tick(),
        )
        self.dirty = snapshot.snapshot

    def tainted_version(self) -> str:
        return self.world.add_version(snapshot=self.dirty)

    def execute_backout(self) -> backouts.BackoutRow:
        done = self.rows.take_out(self.store, self.rows.FLIGHTS, 1, now_us=self.world.tick())
        with self.store.ledger.read() as connection:
            return backouts.get(connection, done.backout_id)

    def plan(self) -> list[object]:
        return list(plan_backout(self.store, self.rows.FEEDS, BatchId("flights", "h1")).steps)

    def step(self, kind: type) -> object:
        return next(step for step in self.plan() if isinstance(step, kind))

    def reported(self, kind: str) -> list[str]:
        with self.store.ledger.read() as connection:
            return [each.explanation for each in events.newest(connection, kind=kind)]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path / "store", tmp_path)


def test_a_live_tainted_version_gives_its_traffic_back(case: Case) -> None:
    """R7, R9: to the newest clean version, by the rollout's own rollback, which a probe confirms."""
    bad = case.tainted_version()
    case.world.promote(bad)
    assert case.world.row().state is State.PROMOTED
    assert case.step(FailOver) == FailOver("m", bad, case.clean, case.world.row().rollout_id)
    row = case.execute_backout()
    assert row.state is BackoutState.DONE
    assert case.world.row().state is State.ROLLING_BACK
    assert "the clock was wrong" in case.world.row().reason
    plan = case.world.plan()
    assert plan is not None
    assert (plan.champion, plan.challenger, plan.fallback) == (case.clean, None, HEURISTIC)
    case.world.probe()
    assert case.world.reconcile() == ["Confirm"]
    assert case.world.row().state is State.ROLLED_BACK


def test_what_is_tainted_is_refused_everywhere(case: Case) -> None:
    """R5, R15: HF406 reports which batch, and what to do."""
    bad = case.tainted_version()
    row = case.execute_backout()
    with pytest.raises(RefusedError, match=r"HF406.*flights/h1.*the clock was wrong.*holdfast train"):
        case.world.begin(bad)
    unjudged = case.world.add_version(state="registered", snapshot=case.dirty)
    with case.store.ledger.write() as connection:
        taints.add(connection, "version", [unjudged], backout=row.backout_id, now_us=case.world.tick())
    with pytest.raises(RefusedError, match="HF406"):  # not HF403: to qualify it would lead nowhere
        case.world.begin(unjudged)
    model = case.world.model
    with pytest.raises(RefusedError, match="HF406"):
        qualify.qualify(case.store, model, bad, now_us=case.world.tick())
    with pytest.raises(RefusedError, match=r"HF406.*snapshot"):
        train.train(case.store, model, case.dirty, now_us=case.world.tick())


@pytest.mark.parametrize("state", ["pending", "canary", "verifying"])
def test_the_rollout_of_a_tainted_challenger_ends(case: Case, state: str) -> None:
    bad = case.tainted_version()
    number = case.world.begin(bad)
    if state != "pending":
        case.world.champion_responses()
        case.world.reconcile()
    if state == "verifying":
        for _ in range(3):
            case.world.traffic()
            case.world.reconcile()
    assert case.world.row().state == state
    wanted = CancelRollout("m", number, bad) if state == "pending" else FailOver("m", bad, case.clean, number)
    assert wanted in case.plan()
    case.execute_backout()
    assert case.world.row().state is (State.CANCELLED if state == "pending" else State.ROLLING_BACK)
    plan = case.world.plan()
    assert plan is not None
    assert (plan.champion, plan.challenger) == (case.clean, None)


def test_a_clean_challenger_of_a_tainted_champion_gives_way_to_what_was_proven(case: Case) -> None:
    bad = case.tainted_version()
    case.world.promote(bad)
    new = case.world.add_version()
    case.world.begin(new)
    case.world.champion_responses()
    case.world.reconcile()
    assert case.world.row().state is State.CANARY
    case.execute_backout()
    plan = case.world.plan()
    assert plan is not None
    assert (plan.champion, plan.challenger) == (case.clean, None)
    case.world.probe()
    case.world.reconcile()
    case.world.begin(new)  # nothing speaks against it: it may begin anew, against a clean champion
    assert case.world.row().champion == case.clean


def test_without_a_clean_version_the_heuristic_serves(tmp_path: Path) -> None:
    case = _only_tainted(tmp_path, heuristic="clean")
    champion = case.world.row().challenger
    assert case.step(FailOver) == FailOver("m", champion, HEURISTIC, case.world.row().rollout_id)
    case.execute_backout()
    plan = case.world.plan()
    assert plan is not None
    assert plan.champion == HEURISTIC


def test_with_nothing_clean_the_last_one_goes_on_and_it_is_reported(tmp_path: Path) -> None:
    """R9: the rebuild may then take over by a rollout, against the one that is held."""
    case = _only_tainted(tmp_path, heuristic="tainted")
    champion = case.world.row().challenger
    before = case.world.plan()
    assert case.step(KeepLastResort) == KeepLastResort("m", champion)
    case.execute_backout()
    assert case.world.plan() == before
    assert len(case.reported("traffic.last_resort")) == 1
    assert champion in case.reported("traffic.last_resort")[0]
    rebuilt = case.world.add_version()
    case.world.promote(rebuilt)
    plan = case.world.plan()
    assert plan is not None
    assert (plan.champion, plan.previous, plan.fallback) == (rebuilt, None, None)
    with pytest.raises(RefusedError, match=r"HF406.*no clean version to return to"):
        case.world.rollback()


def _only_tainted(tmp_path: Path, *, heuristic: str) -> Case:
    """A model whose only candidate, and its heuristic with `heuristic` "tainted", were trained on the batch."""
    case = Case.__new__(Case)
    case.world, case.rows, case.directory = (
        rollout_world.World.open(tmp_path / "store"),
        backout_world,
        tmp_path,
    )
    case.store = case.world.store
    backout_world.load(case.store, tmp_path, backout_world.FLIGHTS, 1)
    case.dirty = write(
        case.store,
        snapshots.create,
        case.store.root,
        ["flights"],
        contract_hash="c",
        now_us=case.world.tick(),
    ).snapshot
    if heuristic == "tainted":
        with case.store.ledger.write() as connection:
            connection.execute(schema.versions.update().values(snapshot=case.dirty))
    case.world.promote(case.tainted_version())
    return case


def test_tainted_versions_stop_standing_by(case: Case) -> None:
    """The champion is clean, and what it would fall back to is not."""
    bad = case.tainted_version()
    case.world.promote(bad)
    good = case.world.add_version()
    case.world.promote(good)
    plan = case.world.plan()
    assert plan is not None
    assert plan.previous == bad
    assert case.step(ReplaceFallbacks) == ReplaceFallbacks("m", (bad,), HEURISTIC)
    case.execute_backout()
    plan = case.world.plan()
    assert plan is not None
    assert (plan.champion, plan.previous, plan.fallback) == (good, None, HEURISTIC)
    case.world.rollback()  # a person takes the champion back: not to the version before, which is tainted
    plan = case.world.plan()
    assert plan is not None
    assert plan.champion == case.clean


def test_responses_and_feedback_are_listed_by_version_and_time(case: Case) -> None:
    """R10: of tainted versions all, of clean ones that read its online values at most so many; and what it cost."""
    bad = case.tainted_version()
    case.world.promote(bad)
    minute = 60_000_000
    first = case.rows.NOW_US // minute * minute + 10 * minute
    with case.store.ledger.write() as connection:
        for version, at, rows in ((bad, first, 5), (bad, first + 3 * minute, 7), (case.clean, first, 4)):
            request_counts.add(connection, "m", [UsageRow(version, Arm.CHAMPION, "ok", at, 2, rows, 0, {})])
        request_counts.add(connection, "m", [UsageRow(bad, Arm.CHAMPION, "contract", first, 1, 9, 0, {})])
        for number in range(3):
            connection.execute(
                insert(schema.labels).values(
                    prediction_id=f"p{number}", value=1.0, source="s", received_at_us=1, joined=1
                )
            )
            connection.execute(
                insert(schema.outcomes).values(
                    prediction_id=f"p{number}", model="m", version=bad, arm="champion", probability=0.5, label=1.0,
                    event_time_us=1, joined_at_us=first, predicted_at_us=1,
                )
            )  # fmt: skip
    plan = plan_backout(case.store, case.rows.FEEDS, BatchId("flights", "h1"))
    listed = next(step for step in plan.steps if isinstance(step, ListPredictions)).predictions
    mine = [each for each in listed if each.version == bad]
    assert [(each.cause, each.requests, each.rows) for each in mine] == [("version", 4, 12)]
    assert (mine[0].first_us, mine[0].last_us) == (first, first + 3 * minute)
    assert next(each for each in listed if each.version == case.clean).cause == "online"
    assert next(step for step in plan.steps if isinstance(step, ListFeedback)).labels[0].labels == 3
    assert next(step for step in plan.steps if isinstance(step, Retrain)) == Retrain(
        "m", ("flights",), (bad,)
    )
    totals = total_impact(replace(plan, cost_per_prediction=0.25))
    assert (totals.predictions, totals.labels, totals.versions, totals.live, totals.cost) == (
        12,
        3,
        1,
        1,
        3.0,
    )


def state_of(case: Case) -> dict[str, object]:
    """Everything that a back-out may change."""
    plan = case.world.plan()
    with case.store.ledger.read() as connection:
        row = newest_backouts(connection)
        reported = [
            (each.kind, each.subject, each.actor, each.explanation)
            for each in reversed(events.newest(connection))
        ]
        tainted = sorted(taints.versions_of(connection, "m"))
    assert plan is not None
    return {
        "rows": case.rows.readable(case.store),
        "served": case.rows.served(case.store),
        "plan": (plan.champion, plan.challenger, plan.previous, plan.fallback),
        "rollouts": [(each.rollout_id, each.state) for each in read(case.store, rollouts.of_model, "m")],
        "events": reported,
        "tainted": tainted,
        "backouts": [(each.state, each.steps_done, each.plan) for each in row],
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The end of a back-out that was not killed."""
    directory = tmp_path_factory.mktemp("undisturbed")
    case = Case(directory / "store", directory)
    case.world.promote(case.tainted_version())
    backout_world.take_out(case.store, backout_world.FLIGHTS, 1)
    return state_of(case)


BACKOUT = "import sys; from tests.support import backout_world; backout_world.main(*sys.argv[1:])"


@pytest.mark.process
@pytest.mark.crash
@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("point", "resumed_by"), [(point, ("command", "loop")[n % 2]) for n, point in enumerate(BACKOUT_POINTS)]
)
def test_a_killed_back_out_is_carried_on(
    case: Case, undisturbed: dict[str, object], point: str, resumed_by: str
) -> None:
    """R2, R6: kill -9 at every named point; the end is that of one that was not killed."""
    case.world.promote(case.tainted_version())
    process = forking.start(BACKOUT, case.store.root, point, "1", stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == -9, errors
    assert "ACK" not in output
    if resumed_by == "loop":
        done = finish_interrupted(case.store, now_us=case.rows.NOW_US)
        assert done == ([] if point in ("backout.before_begin", "backout.ended") else [1])
    case.rows.take_out(case.store, case.rows.FLIGHTS, 1)
    assert state_of(case) == undisturbed


def test_carrying_out_twice_changes_and_reports_nothing_more(case: Case) -> None:
    case.world.promote(case.tainted_version())
    case.execute_backout()
    before = state_of(case)
    with case.store.ledger.write() as connection:
        assert failover.fail_over(connection, case.store, "m", Cause("r", "a", 1)) == []
    assert state_of(case) == before


def test_a_rollout_that_moves_on_meanwhile_is_found(case: Case) -> None:
    """The loop promotes the tainted challenger between the removal and the step: the step looks again."""
    bad = case.tainted_version()
    case.world.begin(bad)
    case.world.champion_responses()
    case.world.reconcile()

    def loop(point: str) -> None:
        if point == "backout.removed":
            for _ in range(6):
                case.world.traffic()
                case.world.reconcile()
                case.world.probe()

    failpoints.armed = loop
    try:
        case.execute_backout()
    finally:
        failpoints.armed = None
    plan = case.world.plan()
    assert plan is not None
    assert (plan.champion, plan.challenger) == (case.clean, None)
    assert next(step for step in case.reported("batch.backed_out"))
    assert isinstance(case.world.row().state, State)
    with case.store.ledger.read() as connection:
        assert taints.tainted(connection, "version", bad)
        assert TaintVersions((bad,)) in newest_backouts(connection)[0].plan.steps
    assert read(case.store, traffic_plans.newest, "m") == plan
    assert reconcile.reconcile(case.store, "m", case.world.lease, now_us=case.world.tick()) == []
