"""A rollout that shadows first: real servers, the control loop's rounds, and no user touched by a bad candidate (R111)."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from holdfast.control.collect import collector
from holdfast.control.probing.probe import probe
from holdfast.control.rollout import reconcile, start
from holdfast.rollout import Canary, MetricState, Shadow, State
from holdfast.rollout.evidence.shadow import describe
from holdfast.store import Store
from holdfast.store.db import leases, schema
from holdfast.store.db.leases import Lease
from holdfast.store.files import parquet
from holdfast.store.maintenance import file_checks, orphans
from holdfast.store.rollout import evidence, rollouts, traffic_plans
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, ShadowRecord, frame
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry.collected_log import PREDICTIONS, SHADOWS
from tests.support.queries import collected, read
from tests.support.serving_world import MODEL, Served, World, row
from tests.support.waiting import wait_until

Start = Callable[..., Served]
POLICY = Canary(
    steps=(10, 100), units_per_step=20, labels_per_step=0, latency_quantile=None, shadow=Shadow(units=60)
)


class Loop:
    """The control loop, a round at a time, on the wall clock."""

    def __init__(self, world: World) -> None:
        self.store = world.store
        with world.store.ledger.write() as connection:
            found = leases.acquire(
                connection, f"control-{MODEL}", holder="test", duration_us=600_000_000, now_us=now_us()
            )
        assert isinstance(found, Lease)
        self.lease = found

    def begin(self, version: str, policy: Canary) -> None:
        with self.store.ledger.write() as connection:
            connection.execute(
                update(schema.versions).where(schema.versions.c.version == version).values(state="qualified")
            )
        model: Any = SimpleNamespace(name=MODEL, rollout=policy)
        start.request(self.store, model, version, actor="ann", now_us=now_us())

    def round(self) -> None:
        for concern in (collector.collect, collector.join, probe, reconcile.reconcile):
            concern(self.store, MODEL, self.lease, now_us=now_us())

    def until(self, condition: Callable[[], bool]) -> None:
        """Play rounds until `condition` holds: copies come to the log some time after their requests."""

        def holds() -> bool:
            self.round()
            return condition()

        wait_until(holds)

    @property
    def row(self) -> rollouts.RolloutRow:
        return read(self.store, rollouts.newest, MODEL)

    @property
    def pairs(self) -> int:
        """How many copied requests are known with both predictions."""
        states = self.shadow()
        return states["shadow.errors"].challenger_units if states else 0

    def shadow(self) -> dict[str, MetricState]:
        states = read(self.store, evidence.of_rollout, self.row.rollout_id)
        return {state.metric: state for state in states if state.metric.startswith("shadow.")}


def now_us() -> int:
    return time.time_ns() // 1000


def started(world: World, serve: Start, challenger: str, policy: Canary) -> tuple[Served, Loop]:
    """A server with a champion, and a rollout of `challenger` that has begun to shadow."""
    world.version("half")
    version = world.version(challenger)
    world.plan("half")
    served = serve()
    loop = Loop(world)
    loop.begin(version, policy)
    loop.round()
    assert loop.row.state is State.SHADOWING
    newest = read(world.store, traffic_plans.newest, MODEL)
    assert newest is not None
    assert (newest.shadow, newest.challenger, newest.share_ppm) == (version, None, 0)
    served.wait_for_plan(newest.plan_id)
    return served, loop


def test_a_version_that_decides_otherwise_is_found_before_anybody_sees_it(world: World, serve: Start) -> None:
    policy = Canary(latency_quantile=None, shadow=Shadow(units=400, disagreement=0.05))
    served, loop = started(world, serve, "tenth", policy)
    seen: Counter[str] = Counter()
    requested = 0
    while loop.row.state is State.SHADOWING:
        for _ in range(5):
            seen[served.infer(unit=f"u{requested}")[1]["model_version"]] += 1
            requested += 1
        loop.until(
            lambda requested=requested: loop.row.state is not State.SHADOWING or loop.pairs >= requested
        )
        assert requested <= 400
    assert set(seen) == {world.names["half"]}
    found = loop.shadow()["shadow.disagreement"]
    print(f"found after {found.challenger_units} pairs of {requested} requests: {describe(found)}")
    assert found.is_harmful
    assert found.challenger_total == found.challenger_units <= 30
    assert loop.row.state is State.CANCELLED
    assert "decided differently" in loop.row.reason
    newest = read(world.store, traffic_plans.newest, MODEL)
    assert newest is not None
    assert newest.shadow is None


def test_a_version_that_cannot_predict_is_found_in_shadow(world: World, serve: Start) -> None:
    policy = Canary(latency_quantile=None, shadow=Shadow(units=400))
    served, loop = started(world, serve, "nan", policy)
    requested = 0
    while loop.row.state is State.SHADOWING:
        for _ in range(5):
            status, response = served.infer([row(distance=5500.0)], unit=f"u{requested}")
            assert (status, response["model_version"]) == (200, world.names["half"])
            requested += 1
        loop.until(
            lambda requested=requested: loop.row.state is not State.SHADOWING or loop.pairs >= requested
        )
        assert requested <= 400
    found = loop.shadow()["shadow.errors"]
    print(f"found after {found.challenger_units} pairs: {describe(found)}")
    assert found.is_harmful
    assert loop.row.state is State.CANCELLED


def test_a_good_version_passes_on_to_its_canary(world: World, serve: Start) -> None:
    """And labels that came back count for the pair, before and after the copy was collected."""
    served, loop = started(world, serve, "delay", POLICY)
    for requested in range(70):
        status, response = served.infer([row(), row()], unit=f"u{requested}")
        assert (status, response["model_version"]) == (200, world.names["half"])
        if requested % 2:
            label = {"id": f"{response['parameters']['prediction_id']}/1", "value": False}
            assert served.call(f"/v2/models/{MODEL}/feedback", label)[0] == 202
        if requested == 35:
            loop.round()
            assert loop.row.state is State.SHADOWING
    served.wait(lambda status: status["shadow_requests"] == 70)
    loop.until(lambda: loop.row.state is State.CANARY)
    shadow = loop.shadow()
    assert shadow["shadow.errors"].challenger_units == 70
    # A constant half against a quarter: the same decision would be another's; both scores are known exactly.
    quality = shadow["shadow.quality"]
    assert (quality.challenger_units, quality.champion_total) == (35, pytest.approx(35 * 0.75))
    assert quality.challenger_total == pytest.approx(35 * (1.0 - 0.25**2))
    newest = read(world.store, traffic_plans.newest, MODEL)
    assert newest is not None
    assert (newest.shadow, newest.challenger, newest.share_ppm) == (None, world.names["delay"], 100_000)
    everything_once(world.store, 140)


def test_a_server_that_is_killed_loses_copies_and_doubles_none(world: World, serve: Start) -> None:
    served, loop = started(world, serve, "delay", Canary(latency_quantile=None, shadow=Shadow(units=10_000)))
    requested = collected = 0
    for _ in range(2):
        for _ in range(40):
            served.infer(unit=f"u{requested}")
            requested += 1
        loop.until(lambda least=collected + 20: loop.pairs >= least)
        served.stop(signal.SIGKILL)
        loop.round()
        collected = loop.pairs
        served = serve()
        served.wait(lambda status: status["shadow"] is not None)
    served.infer(unit="last")
    loop.until(lambda: loop.pairs > collected)
    print(f"{loop.pairs} pairs of {requested + 1} requests, over 2 kill -9")
    assert 40 < loop.pairs <= requested + 1
    everything_once(world.store, loop.pairs)


def test_a_hanging_shadow_ends_its_rollout(world: World, serve: Start) -> None:
    """No evidence of numbers is needed for a version that would have taken the server with it."""
    served, loop = started(world, serve, "tenth", POLICY)
    served.stop(signal.SIGKILL)
    champion, challenger = world.names["half"], world.names["tenth"]
    [path] = (world.root / "log").glob("*/*.log")
    name = path.parent.name
    hung = ShadowRecord(
        f"{name}-1-1", now_us(), b"u", loop.row.rollout_id, challenger, "hung", 10_000_000, None, [], champion, "ok", 90, [0.5]
    )  # fmt: skip
    with path.open("ab") as file:
        file.write(frame(hung))

    loop.until(lambda: loop.row.state is State.CANCELLED)
    assert "hung 1" in loop.row.reason


@pytest.mark.parametrize("late", ["copy", "label"])
def test_a_label_counts_once_whether_it_or_the_copy_came_first(world: World, late: str) -> None:
    champion, challenger = world.version("half"), world.version("tenth")
    world.plan("half")
    loop = Loop(world)
    loop.begin(challenger, POLICY)
    loop.round()
    log = world.root / "log" / "s1"
    log.mkdir(parents=True)
    with world.store.ledger.write() as connection:
        servers.announce(connection, Server("s1", MODEL, "http://127.0.0.1:1", log, now_us()))
    number, at = loop.row.rollout_id, now_us()
    response = PredictionRecord(
        "s1-1-1", at, at, b"u", "champion", champion, "", None, "ok", 900, [0.5], [["F1"]]
    )  # fmt: skip
    copy = ShadowRecord(
        "s1-1-1", at, b"u", number, challenger, "ok", 90, 80, [0.1], champion, "ok", 900, [0.5]
    )  # fmt: skip
    label = FeedbackRecord("s1-1-1/0", 0.0, "t", at)
    first, last = (label, copy) if late == "copy" else (copy, label)
    with (log / "00000001.log").open("wb") as file:
        file.write(frame(response) + frame(first))
        file.flush()
        for _ in range(2):
            bring_home(loop)
        assert loop.shadow()["shadow.quality"].challenger_units == 0
        file.write(frame(last))
        file.flush()
        for _ in range(3):
            bring_home(loop)
    quality = loop.shadow()["shadow.quality"]
    assert (quality.challenger_units, quality.champion_total) == (1, 0.75)
    assert quality.challenger_total == pytest.approx(0.99)


def bring_home(loop: Loop) -> None:
    collector.collect(loop.store, MODEL, loop.lease, now_us=now_us())
    collector.join(loop.store, MODEL, loop.lease, now_us=now_us())


def everything_once(store: Store, rows: int) -> None:
    """Every row is in one file, every file is what was acknowledged, and none is an orphan."""
    with store.ledger.read() as connection:
        named = collected(connection, SHADOWS)
        predictions = collected(connection, PREDICTIONS)
    ids = [each for file in named for each in parquet.read(store.root / file.path)["prediction"].to_list()]
    assert len(ids) == len(set(ids)) == rows
    orphans.sweep(store)
    with store.ledger.read() as connection:
        for expected in file_checks.expected_files(connection):
            assert file_checks.check_file(store.root, expected) == []
    on_disk = {path.name for path in (store.root / "rows").glob("*.parquet")}
    assert on_disk == {Path(file.path).name for file in (*named, *predictions)}
