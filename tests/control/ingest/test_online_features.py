"""What servers read of aggregates equals what training joins, through new, changed and given-up declarations."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from holdfast.contract import Category, Contract, Integer, Number, Text, Timestamp
from holdfast.control.backout import backout
from holdfast.control.ingest import acceptance
from holdfast.control.ingest import online_features as control
from holdfast.control.ingest.contract_changes import accept
from holdfast.control.ingest.ingest import ingest
from holdfast.features import Aggregate
from holdfast.features.asof import aggregate_rows
from holdfast.feeds import Expectations, Feed, Limits
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.files import data_files

COLUMNS = (Text("id"), Category("e"), Number("x", unit="1"), Timestamp("at", tz="UTC"))
CONTRACT = Contract(*COLUMNS, key="id", event_time="at")
COUNTED = Contract(*COLUMNS, Integer("n"), key="id", event_time="at")
FEED = Feed("rows", CONTRACT)
HOURLY = Aggregate("g", over="rows", by="e", value="x", known_at="at", window="1h", every="10min")
DAILY = replace(HOURLY, window="24h", agg="count")
START = datetime(2024, 1, 1, tzinfo=UTC)

Load = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def load(store: Store, tmp_path: Path) -> Load:
    """Loads ten rows of one more hour, under the given declarations."""
    count = iter(range(100))

    def go(*declared: Aggregate) -> None:
        hour = next(count)
        path = tmp_path / f"{hour}.parquet"
        pl.DataFrame(
            {
                "id": [f"{hour}-{n}" for n in range(10)],
                "e": ["ab"[n % 2] for n in range(10)],
                "x": [float(hour * n) for n in range(10)],
                "at": [START + timedelta(hours=hour, minutes=6 * n) for n in range(10)],
            }
        ).write_parquet(path)
        ingest(store, FEED, f"b{hour}", path, now_us=1, aggregates=declared)

    return go


def served(store: Store, aggregate: Aggregate) -> list[tuple[str, int, float]]:
    with store.ledger.read() as connection:
        _, values = online_features.since(connection, [aggregate.key], 0)
    return sorted((value.entity, value.known_at_us, value.value) for value in values)


def trained(store: Store, aggregate: Aggregate) -> list[tuple[str, int, float]]:
    return sorted(aggregate_rows(aggregate, data_files.read_rows(store, 1_000, "rows")).rows())


def test_two_definitions_under_one_name_never_mix(store: Store, load: Load) -> None:
    """The declaration changes; the champion of the old one goes on reading, and new loads go on feeding, its values."""
    for _ in range(3):
        load(HOURLY)
    before = served(store, HOURLY)
    for _ in range(2):
        load(DAILY)
    assert served(store, DAILY) == trained(store, DAILY)  # the loads before its declaration are in it
    assert served(store, HOURLY) == trained(store, HOURLY)
    assert len(served(store, HOURLY)) > len(before)


def test_a_new_definition_is_filled_from_the_rows_that_are_there(store: Store, load: Load) -> None:
    load()
    load(HOURLY)
    load()
    assert served(store, DAILY) == []
    written = control.backfill(store, [FEED], [HOURLY, DAILY], now_us=1)
    assert served(store, DAILY) == trained(store, DAILY)
    assert len(served(store, DAILY)) == written
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
        followed, _ = online_features.since(connection, [DAILY.key], version - 1)
    assert followed == version == 4  # a server that follows by table version sees it
    assert control.backfill(store, [FEED], [HOURLY, DAILY], now_us=1) == 0
    with store.ledger.read() as connection:
        assert batches.current_version(connection) == version  # nothing was missing, nothing was written
    load()
    assert served(store, DAILY) == trained(store, DAILY)
    assert served(store, HOURLY) == trained(store, HOURLY)


def test_a_load_during_a_backfill_is_in_it(store: Store, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one computes again: neither the load nor the backfill leaves a gap."""
    load()
    real, once = data_files.read, threading.Lock()

    def overtaken(*arguments: object, **named: object) -> object:
        rows = real(*arguments, **named)  # type: ignore[arg-type]  # handed through as it came
        if once.acquire(blocking=False):
            load()
        return rows

    monkeypatch.setattr(data_files, "read", overtaken)
    control.backfill(store, [FEED], [HOURLY], now_us=1)
    assert served(store, HOURLY) == trained(store, HOURLY)


def test_a_definition_whose_column_is_gone_stops_no_load(store: Store, load: Load, tmp_path: Path) -> None:
    load(HOURLY)
    before = served(store, HOURLY)
    slim = Feed(
        "rows", Contract(Text("id"), Category("e"), Timestamp("at", tz="UTC"), key="id", event_time="at")
    )
    path = tmp_path / "slim.parquet"
    pl.DataFrame({"id": ["s"], "e": ["a"], "at": [START + timedelta(hours=9)]}).write_parquet(path)
    accept(store, slim, reason="x is not delivered any more", actor="test", now_us=1)
    assert ingest(store, slim, "slim", path, now_us=1).state == "loaded"
    assert served(store, HOURLY) == before


def test_servers_read_no_value_of_a_suspect_batch(store: Store, tmp_path: Path) -> None:
    """R15: not before an operator accepts it, whatever is loaded meanwhile; and then all that its rows give."""
    feed = replace(FEED, expects=Expectations(max_future="1d"))

    def go(hour: int, *, early: bool = False) -> None:
        path = tmp_path / f"{hour}.parquet"
        times = [START + timedelta(hours=hour, minutes=6 * n) for n in range(10)]
        pl.DataFrame(
            {"id": [f"{hour}-{n}" for n in range(10)], "e": ["a"] * 10, "x": [hour + 0.5] * 10, "at": times}
        ).write_parquet(path)
        now_us = 1 if early else round(times[-1].timestamp() * 1e6)
        ingest(store, feed, f"b{hour}", path, now_us=now_us, aggregates=[HOURLY, DAILY])

    def reference(*hours: int) -> list[tuple[str, int, float]]:
        rows = data_files.read_rows(store, 1_000, "rows")
        rows = rows.filter(pl.col("id").str.split("-").list.first().cast(pl.Int64).is_in(hours))
        return sorted(aggregate_rows(HOURLY, rows).rows())

    go(0)
    go(1, early=True)
    assert served(store, HOURLY) == reference(0)
    go(2)
    assert served(store, HOURLY) == reference(0, 2)
    assert control.backfill(store, [feed], [HOURLY, DAILY], now_us=5) == 0
    acceptance.accept(store, BatchId("rows", "b1"), reason="their clock", actor="ann", now_us=6)
    assert served(store, HOURLY) == reference(0, 1, 2)
    assert served(store, DAILY) == trained(store, DAILY)
    go(3, early=True)
    backout.execute_backout(store, [feed], BatchId("rows", "b2"), reason="wrong", actor="ann", now_us=8)
    left = [value for value in served(store, HOURLY) if value[2] is not None]
    assert left == reference(0, 1)


def test_an_acceptance_during_a_backout_keeps_its_values(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The back-out computes without the suspect batch, and must not count its rows as done."""
    feed = replace(FEED, expects=Expectations(max_future="1d"))
    for hour, now_us in ((0, 2**52), (1, 1), (9, 2**52)):
        path = tmp_path / f"{hour}.parquet"
        times = [START + timedelta(hours=hour, minutes=6 * n) for n in range(10)]
        ids = [f"{hour}-{n}" for n in range(10)]
        pl.DataFrame({"id": ids, "e": ["a"] * 10, "x": [hour + 0.5] * 10, "at": times}).write_parquet(path)
        ingest(store, feed, f"b{hour}", path, now_us=now_us, aggregates=[HOURLY])

    real, calls = backout.recompute_all, itertools.count(1)

    def accept_meanwhile(*arguments: Any) -> Any:
        found = real(*arguments)
        if next(calls) == 2:  # the first call is for the plan
            acceptance.accept(store, BatchId("rows", "b1"), reason="their clock", actor="ann", now_us=6)
        return found

    monkeypatch.setattr(backout, "recompute_all", accept_meanwhile)
    backout.execute_backout(store, [feed], BatchId("rows", "b9"), reason="wrong", actor="ann", now_us=8)
    control.backfill(store, [feed], [HOURLY], now_us=9)
    assert [value for value in served(store, HOURLY) if value[2] is not None] == trained(store, HOURLY)


def test_a_new_definition_is_complete_without_a_suspect_batch(
    store: Store, load: Load, tmp_path: Path
) -> None:
    load(HOURLY)
    feed = replace(FEED, expects=Expectations(max_future="1d"))
    path = tmp_path / "suspect.parquet"
    pl.DataFrame({"id": ["s"], "e": ["a"], "x": [1e6], "at": [START]}).write_parquet(path)
    before = trained(store, DAILY)
    ingest(store, feed, "suspect", path, now_us=1, aggregates=[HOURLY, DAILY])
    assert served(store, DAILY) == before
    assert control.backfill(store, [feed], [HOURLY, DAILY], now_us=7) == 0


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_batch_is_served_when_its_gap_is_filled(store: Store, tmp_path: Path, level: str) -> None:
    """A batch that comes late must not make the next load read every row of the feed."""
    limits = Limits(warning=1) if level == "warning" else Limits(error=1)
    feed = replace(FEED, contract=COUNTED, expects=Expectations(sequence="n", sequence_gaps=limits))
    for hour in (0, 2, 1):
        path = tmp_path / f"{hour}.parquet"
        numbers = range(10 * hour, 10 * hour + 10)
        times = [START + timedelta(hours=hour, minutes=6 * n) for n in range(10)]
        pl.DataFrame(
            {"id": map(str, numbers), "e": ["a"] * 10, "x": [0.5] * 10, "at": times, "n": numbers}
        ).write_parquet(path)
        found = ingest(store, feed, f"b{hour}", path, now_us=2**52, aggregates=[HOURLY]).violations
        assert [each.level for each in found] == ([level] if hour == 2 else [])
    assert served(store, HOURLY) == trained(store, HOURLY)
    assert control.backfill(store, [feed], [HOURLY], now_us=2**52) == 0


def test_the_export_of_the_guide_has_what_training_joins(
    store: Store, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script of docs/how-to/aggregates-for-feast.md, run as it is written there."""
    for _ in range(3):
        load(HOURLY)
    guide = (Path(__file__).parents[3] / "docs/how-to/aggregates-for-feast.md").read_text()
    script = guide.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'store' / 'ledger.db'}"
    exec(script.replace("sqlite:///.holdfast/ledger.db", url), {})
    exported = pl.read_parquet("aggregate.parquet")
    known_us = exported["known_at"].dt.timestamp("us")
    rows = list(zip(exported["entity"], known_us, exported["value"], strict=True))
    assert rows == served(store, HOURLY)
