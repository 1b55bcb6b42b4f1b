"""What left the store as Delta tables is withdrawn by a back-out: a new version at the same path, without its rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from holdfast.control.backout.backout import finish_interrupted, plan_backout
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.repair import repair
from holdfast.control.maintenance.verify import verify
from holdfast.errors import InputError, UnavailableError
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import delta, snapshots
from holdfast.store.db import events
from holdfast.store.durability import failpoints
from holdfast.store.files import data_files
from holdfast.tables.backout import WithdrawPublished, explain
from tests.support import backout_world as world
from tests.support.profile import examples
from tests.support.queries import write


def _published(store: Store) -> tuple[str, Path]:
    made = write(
        store, snapshots.create, store.root, ["flights", "weather"], contract_hash="c", now_us=world.NOW_US
    )
    return made.snapshot, delta.publish(store, made.snapshot)["flights"]


def _hours(table: Path, version: int | None = None) -> list[int]:
    ids = pl.scan_delta(str(table), version=version).collect()["id"]
    return (ids // 1000).unique().sort().to_list()


@contextmanager
def _interrupted(at: str) -> Iterator[None]:
    def stop(point: str) -> None:
        if point == at:
            raise KeyboardInterrupt

    failpoints.armed = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        failpoints.armed = None


@pytest.mark.parametrize("compacted", [False, True])
def test_the_rows_are_withdrawn_and_the_plan_names_the_tables(tmp_path: Path, compacted: bool) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3, 6):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    if compacted:
        compact(store, now_us=world.NOW_US)
    name, table = _published(store)
    (step,) = [
        each
        for each in plan_backout(store, world.FEEDS, BatchId("weather", "h3")).steps
        if isinstance(each, WithdrawPublished)
    ]
    assert set(step.tables) == {f"{name}/flights", f"{name}/weather"}
    assert f"published/{name}/flights" in explain([step])[0]
    world.take_out(store, world.WEATHER, 3)
    assert (_hours(table), _hours(table, 0)) == ([0, 6], [0, 3, 6])
    assert delta.publish(store, name)["flights"] == table
    assert _hours(table) == [0, 6]
    assert [each.code for each in verify(store).findings] == []


def test_an_interrupted_withdrawal_is_a_finding_and_is_finished(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    _, table = _published(store)

    with _interrupted("backout.removed"):
        world.take_out(store, world.FLIGHTS, 3)
    assert _hours(table) == [0, 3]
    assert any("holds rows that were backed out" in str(each) for each in verify(store).findings)
    assert finish_interrupted(store, now_us=world.NOW_US) == [1]
    assert _hours(table) == [0]
    assert verify(store).findings == ()


def _truncate_log(store: Store, table: Path) -> None:
    log = table / "_delta_log" / f"{0:020}.json"
    log.write_bytes(log.read_bytes()[:-9])


def _damage_links(store: Store, table: Path) -> None:
    """Damage the compacted file that holds the removed rows and the others."""
    with store.ledger.read() as connection:
        (file,) = {
            fact.path for fact in data_files.snapshot_entries(connection, table.parent.name, "flights")
        }
    damaged = (store.root / file).read_bytes()[:-9]
    (store.root / file).unlink()
    (store.root / file).write_bytes(damaged)


@pytest.mark.parametrize("damage", [_truncate_log, _damage_links])
def test_a_table_that_cannot_be_rewritten_is_moved_aside(
    tmp_path: Path, damage: Callable[[Store, Path], None]
) -> None:
    """It neither blocks the back-out nor keeps the rows."""
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    compact(store, now_us=world.NOW_US)
    name, table = _published(store)
    with _interrupted("backout.removed"):
        world.take_out(store, world.FLIGHTS, 3)
    damage(store, table)
    assert finish_interrupted(store, now_us=world.NOW_US) == [1]
    assert not table.exists()
    assert (store.root / "aside" / f"published_{name}_flights.1").is_dir()
    assert _hours(table.with_name("weather")) == [0]
    with store.ledger.read() as connection:
        (event,) = events.newest(connection, kind="published_table.withdrawn")
    assert (event.subject, event.actor) == (f"published/{name}/flights", "ann")
    assert "flights/h3 was backed out, and it cannot be rewritten" in event.explanation
    assert finish_interrupted(store, now_us=world.NOW_US) == []


def test_a_backout_that_cannot_be_finished_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3, 6):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    _, table = _published(store)
    for hour in (3, 6):
        with _interrupted("backout.removed"):
            world.take_out(store, world.FLIGHTS, hour)
    real, calls = delta.withdraw, iter(range(9))

    def fail_once(*arguments: Any, **named: Any) -> bool:
        if next(calls) == 0:
            raise UnavailableError("HF311", "other writers came first")
        return real(*arguments, **named)

    monkeypatch.setattr(delta, "withdraw", fail_once)
    with pytest.raises(UnavailableError, match="HF311"):
        finish_interrupted(store, now_us=world.NOW_US)
    assert _hours(table) == [0]
    assert finish_interrupted(store, now_us=world.NOW_US) == [1]


def test_a_withdrawal_that_was_killed_before_its_checksum_is_completed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    name, table = _published(store)
    before = (table / delta.CHECKSUM_FILE).read_bytes()
    world.take_out(store, world.FLIGHTS, 3)
    (table / delta.CHECKSUM_FILE).write_bytes(before)
    assert verify(store).findings
    assert not delta.withdraw(store, name, "flights", now_us=world.NOW_US)
    assert verify(store).findings == ()


def test_repair_publishes_no_row_that_was_backed_out(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    _, table = _published(store)
    world.take_out(store, world.FLIGHTS, 3)
    (table / "_delta_log" / f"{0:020}.json").write_text("{}")
    repair(store, now_us=world.NOW_US)
    assert _hours(table) == [0]


def test_the_fields_name_their_units_and_meanings(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    world.load(store, tmp_path, world.FLIGHTS, 0)
    world.load(store, tmp_path, world.WEATHER, 0)
    fields = {field.name: field.metadata for field in DeltaTable(_published(store)[1]).schema().fields}
    assert (fields["delay"], fields["origin"]) == ({"unit": "min"}, {})


def test_a_filter_by_time_reads_the_files_of_that_time_alone(tmp_path: Path) -> None:
    """Bounds and missing values of each column are in the log, as the rows have them."""
    store = Store.open(tmp_path / "store")
    for hour in (0, 3, 6):
        world.load(store, tmp_path, world.FLIGHTS, hour)
        world.load(store, tmp_path, world.WEATHER, hour)
    _, table = _published(store)
    rows = pl.read_delta(str(table))
    by_file = delta.active_files(table)
    assert sum(count or 0 for count in by_file.values()) == rows.height
    log = [json.loads(line) for line in (table / "_delta_log" / f"{0:020}.json").read_text().splitlines()]
    for add in (each["add"] for each in log if "add" in each):
        found = json.loads(add["stats"])
        mine = pl.read_parquet(table / add["path"])
        assert found["minValues"]["id"] == mine["id"].min()
        assert found["maxValues"]["id"] == mine["id"].max()
        assert found["nullCount"]["delay"] == mine["delay"].null_count()
        low, high = (datetime.fromisoformat(found[each]["at"]) for each in ("minValues", "maxValues"))
        assert (
            low <= mine["at"].min() <= mine["at"].max() <= high < mine["at"].max() + timedelta(milliseconds=1)
        )
    hour = pl.col("at") >= world.START.replace(hour=5)
    assert (pl.scan_delta(str(table)).filter(hour).collect()["id"] // 1000).unique().to_list() == [6]


@examples(15)
@given(
    st.lists(st.sampled_from([0, 3, 6, 9]), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([0, 3, 6, 9]), max_size=3, unique=True),
    st.booleans(),
)
def test_every_published_table_has_the_rows_that_are_left(tmp_path_factory, loaded, gone, compacted) -> None:
    """By brute force: whatever was published when, its newest version is its snapshot without what was backed out."""
    directory = tmp_path_factory.mktemp("published")
    store = Store.open(directory / "store")
    published: dict[Path, set[int]] = {}
    for count, hour in enumerate(loaded, 1):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, directory, feed, hour)
        if compacted and count == 2:
            compact(store, now_us=world.NOW_US)
        published[_published(store)[1]] = set(loaded[:count])
    for hour in set(gone) & set(loaded):
        world.take_out(store, world.FLIGHTS, hour)
        for rows in published.values():
            rows.discard(hour)
        assert {table: set(_hours(table)) for table in published} == published
    assert verify(store).findings == ()


def test_without_its_extra_nothing_is_exported_and_rows_are_withdrawn_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    name, table = _published(store)
    for module in ("deltalake", "deltalake.transaction"):
        monkeypatch.setitem(sys.modules, module, None)  # as Python sees a package that is not installed
    world.take_out(store, world.WEATHER, 3)
    # Only a new table needs deltalake.
    assert delta.publish(store, name)["flights"] == table
    made = write(store, snapshots.create, store.root, ["flights"], contract_hash="c", now_us=world.NOW_US)
    with pytest.raises(InputError, match=r"HF112: exporting Delta tables .*pip install 'holdfast\[delta\]'"):
        delta.publish(store, made.snapshot)
    assert not list(delta.published_of(store.root, [made.snapshot], ["flights"]))
    monkeypatch.undo()
    assert _hours(table) == [0]
