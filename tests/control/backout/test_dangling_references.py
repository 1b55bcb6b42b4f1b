"""Rows that were admitted for the keys of another feed, when these keys are backed out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from holdfast.contract import Contract, Number, Text, Timestamp
from holdfast.control.backout.backout import execute_backout, plan_backout
from holdfast.control.ingest.acceptance import accept
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.outcome import LoadResult
from holdfast.control.maintenance.compact import compact
from holdfast.feeds import Expectations, Feed, Reference
from holdfast.feeds.state_machine import State
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import lineage, snapshots
from holdfast.store.durability import failpoints
from holdfast.store.feeds import admissions, loaded_rows, violations
from holdfast.tables.backout import BackoutPlan, SuspectLoad, TaintSnapshots, explain
from holdfast.tables.lineage import Node, NodeKind
from tests.support.queries import write

NOW_US = 1_700_000_000_000_000
START = datetime(2024, 1, 1, tzinfo=UTC)
CONTRACT = Contract(Text("id"), Timestamp("at", tz="UTC"), Number("x", unit="km"), key="id", event_time="at")
SHOPS = Feed("shops", CONTRACT)
SALES = Feed("sales", CONTRACT, expects=Expectations(references=(Reference("id", "shops", "id"),)))
SOON = Feed("soon", CONTRACT, expects=Expectations(references=(Reference("id", "shops", "id", "2h"),)))
FEEDS = (SHOPS, SALES, SOON)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _load(store: Store, feed: Feed, batch: str, ids: range, *, day: int = 0) -> LoadResult:
    path = store.root.parent / f"{feed.name}-{batch}.parquet"
    times = [START + timedelta(days=day, minutes=number) for number in range(len(ids))]
    pl.DataFrame(
        {"id": [f"k{number}" for number in ids], "at": times, "x": [float(hash(batch) % 97 + n) for n in ids]}
    ).write_parquet(path)
    return ingest(store, feed, batch, path, now_us=NOW_US)


def _out(store: Store, feed: str, batch: str) -> None:
    execute_backout(store, FEEDS, BatchId(feed, batch), reason="wrong", actor="ann", now_us=NOW_US)


def _suspects(store: Store, feed: str) -> list[str]:
    with store.ledger.read() as connection:
        return violations.suspect_batches(connection, feed)


def _dangling(plan: BackoutPlan) -> dict[str, int]:
    return {step.feed: step.rows for step in plan.steps if isinstance(step, SuspectLoad)}


def test_what_refers_to_rows_that_go_is_reported_and_suspect(store: Store) -> None:
    """R7, R8: exactly the loads of which rows dangle, with how many; the trained rows of others stay as they are."""
    _load(store, SHOPS, "s0", range(10))
    _load(store, SHOPS, "s1", range(10, 20), day=1)
    _load(store, SALES, "d0", range(5))
    _load(store, SALES, "d1", range(8, 14), day=1)
    snapshot = write(
        store, snapshots.create, store.root, ["sales"], contract_hash="c", now_us=NOW_US
    ).snapshot
    plan = plan_backout(store, FEEDS, BatchId("shops", "s1"))
    reported = [step for step in plan.steps if isinstance(step, SuspectLoad)]
    assert reported == [SuspectLoad("sales", "d1", 0, "id", "shops", 4)]
    assert not any(isinstance(step, TaintSnapshots) for step in plan.steps)  # its rows are in no snapshot
    assert "sales/d1 (load 0) is suspect: 4 rows of it refer by 'id' to removed rows of shops" in explain(
        plan.steps
    )
    assert _suspects(store, "sales") == []
    _out(store, "shops", "s1")
    assert _suspects(store, "sales") == ["d1"]
    with store.ledger.read() as connection:
        row = admissions.feed_row(connection, "sales")
        assert row is not None
        assert row.state is State.SUSPECT
        (broken,) = violations.suspects_in(
            connection, snapshot
        )  # nothing trains on it, although it was made before
    assert (broken.check_name, broken.subject, broken.observed) == ("reference", "id", 4.0)
    assert broken.explanation == (
        "4 rows of load 0 of sales/d1 refer by 'id' to rows of shops/s1 that were backed out"
    )
    accept(store, BatchId("sales", "d1"), reason="known", actor="ann", now_us=NOW_US)
    assert _suspects(store, "sales") == []


def test_the_lineage_has_the_reference_both_ways(store: Store) -> None:
    _load(store, SHOPS, "s0", range(10))
    _load(store, SHOPS, "s1", range(10, 20), day=1)
    _load(store, SALES, "d1", range(10, 14), day=1)
    snapshot = write(
        store, snapshots.create, store.root, ["sales"], contract_hash="c", now_us=NOW_US
    ).snapshot
    with store.ledger.read() as connection:
        found = lineage.down(connection, Node.load("shops", "s1", 0))
        assert found.nodes == (
            Node.load("shops", "s1", 0),
            Node.load("sales", "d1", 0),
            Node(NodeKind.SNAPSHOT, snapshot),
        )
        assert lineage.down(connection, Node.load("shops", "s0", 0)).nodes == (Node.load("shops", "s0", 0),)
        assert lineage.up(connection, Node.load("sales", "d1", 0)).names(NodeKind.BATCH) == (
            "sales/d1@0",
            "shops/s1@0",
        )


def test_a_key_that_another_load_has_too_does_not_dangle(store: Store) -> None:
    """As far back as the load looked: what stands only further back is no support."""
    _load(store, SHOPS, "s0", range(10))
    _load(store, SHOPS, "s5", range(5, 15), day=5)
    _load(store, SALES, "d5", range(5, 12), day=5)
    _load(store, SOON, "d5", range(5, 12), day=5)
    with store.ledger.read() as connection:
        requested = loaded_rows.dependents(connection, [("shops", "s5", 0)])
        assert [each.load[0] for each in requested] == ["sales", "soon"]
    plan = plan_backout(store, FEEDS, BatchId("shops", "s5"))
    # k5 to k9 are in s0 too, which is days before: support for sales, none for what looks two hours back alone.
    assert _dangling(plan) == {"sales": 2, "soon": 7}
    assert _dangling(plan_backout(store, FEEDS, BatchId("shops", "s0"))) == {}
    compact(store, now_us=NOW_US)
    assert _dangling(plan_backout(store, FEEDS, BatchId("shops", "s5")))["sales"] == 2


def test_a_load_that_came_between_showing_and_doing_is_suspect_too(store: Store) -> None:
    _load(store, SHOPS, "s0", range(10))
    _load(store, SHOPS, "s1", range(10, 20), day=1)
    reached = []

    def meanwhile(point: str) -> None:
        if point == "backout.begun" and not reached:
            reached.append(point)
            _load(store, SALES, "d1", range(10, 14), day=1)

    failpoints.armed = meanwhile
    try:
        _out(store, "shops", "s1")
    finally:
        failpoints.armed = None
    assert reached
    assert _suspects(store, "sales") == ["d1"]


def test_rows_that_go_while_a_delivery_is_loaded_are_no_support(store: Store) -> None:
    """What was looked up before the back-out is looked up again when the delivery is published."""
    _load(store, SHOPS, "s0", range(10))
    _load(store, SHOPS, "s1", range(10, 20), day=1)

    def before(point: str) -> None:
        if point == "ingest.staged":
            failpoints.armed = None
            _out(store, "shops", "s1")

    failpoints.armed = before
    try:
        loaded = _load(store, SALES, "d1", range(8, 14), day=1)
    finally:
        failpoints.armed = None
    assert (loaded.rows_loaded, loaded.reasons) == (2, {"id|reference": 4})
    with store.ledger.read() as connection:
        assert loaded_rows.dependents(connection, [("shops", "s1", 0)]) == []


def test_against_an_empty_feed_a_load_is_suspect_and_reports_it(store: Store) -> None:
    _load(store, SHOPS, "s0", range(10))
    _out(store, "shops", "s0")
    loaded = _load(store, SALES, "d0", range(5))
    assert [each.explanation for each in loaded.violations] == [
        "feed 'shops' has no row with 'id' that 'id' could refer to"
    ]
    assert _suspects(store, "sales") == ["d0"]
    snapshot = write(
        store, snapshots.create, store.root, ["sales"], contract_hash="c", now_us=NOW_US
    ).snapshot
    with store.ledger.read() as connection:
        assert [each.batch for each in violations.suspects_in(connection, snapshot)] == ["d0"]


def test_a_load_that_goes_too_is_not_suspect_of_itself(store: Store) -> None:
    """R8: in one group the rows and what refers to them go together."""
    grouped = [Feed("shops", CONTRACT, group="g"), Feed("sales", CONTRACT, group="g", expects=SALES.expects)]
    for feed in grouped:
        _load(store, feed, "d0", range(5))
    plan = plan_backout(store, grouped, BatchId("shops", "d0"))
    assert {feed for feed, _, _ in plan.loads} == {"shops", "sales"}
    assert not any(isinstance(step, SuspectLoad) for step in plan.steps)
