"""What left the store as Delta tables is withdrawn by a back-out: a new version at the same path, without its rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from holdfast.control.backout.backout import finish_interrupted, plan_backout
from holdfast.control.maintenance import vacuum
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.repair import repair
from holdfast.control.maintenance.verify import verify
from holdfast.errors import InputError, UnavailableError
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import delta, delta_log, snapshots
from holdfast.store.db import events
from holdfast.store.durability import failpoints
from holdfast.store.files import data_files
from holdfast.tables.backout import WithdrawPublished, explain
from tests.support import backout_world as world
from tests.support.profile import examples
from tests.support.queries import write


def _snapshot(store: Store) -> str:
    made = write(
        store, snapshots.create, store.root, ["flights", "weather"], contract_hash="c", now_us=world.NOW_US
    )
    return made.snapshot


def _exported(store: Store, *, old: bool = False) -> tuple[str, Path]:
    """The snapshot, and the table of flights; `old` exports where older releases did."""
    name = _snapshot(store)
    if not old:
        return name, delta.export(store, name, now_us=world.NOW_US)["flights"]
    for feed in ("flights", "weather"):
        place = delta.at(store.root, f"published/{name}/{feed}")
        delta.export_to(store, place, name, now_us=world.NOW_US)
    return name, store.root / "published" / name / "flights"


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


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("compacted", [False, True])
def test_the_rows_are_withdrawn_and_the_plan_names_the_tables(
    tmp_path: Path, compacted: bool, old: bool
) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3, 6):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    if compacted:
        compact(store, now_us=world.NOW_US)
    name, table = _exported(store, old=old)
    place = f"published/{name}" if old else "exported"
    (step,) = [
        each
        for each in plan_backout(store, world.FEEDS, BatchId("weather", "h3")).steps
        if isinstance(each, WithdrawPublished)
    ]
    assert set(step.paths) == {f"{place}/flights", f"{place}/weather"}
    assert f"{place}/flights" in explain([step])[0]
    world.take_out(store, world.WEATHER, 3)
    assert (_hours(table), _hours(table, 0)) == ([0, 6], [0, 3, 6])
    assert _hours(delta.export(store, name, now_us=world.NOW_US)["flights"]) == [0, 6]
    assert _hours(table) == [0, 6]
    assert [each.code for each in verify(store).findings] == []


def test_an_interrupted_withdrawal_is_a_finding_and_is_finished(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    _, table = _exported(store)

    with _interrupted("backout.removed"):
        world.take_out(store, world.FLIGHTS, 3)
    assert _hours(table) == [0, 3]
    assert any("holds rows that were backed out" in str(each) for each in verify(store).findings)
    assert finish_interrupted(store, now_us=world.NOW_US) == [1]
    assert _hours(table) == [0]
    assert verify(store).findings == ()


def _truncate_log(store: Store, name: str, table: Path) -> None:
    log = table / "_delta_log" / f"{0:020}.json"
    log.write_bytes(log.read_bytes()[:-9])


def _damage_links(store: Store, name: str, table: Path) -> None:
    """Damage the compacted file that holds the removed rows and the others."""
    with store.ledger.read() as connection:
        (file,) = {fact.path for fact in data_files.snapshot_entries(connection, name, "flights")}
    damaged = (store.root / file).read_bytes()[:-9]
    (store.root / file).unlink()
    (store.root / file).write_bytes(damaged)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("damage", [_truncate_log, _damage_links])
def test_a_table_that_cannot_be_rewritten_is_moved_aside(
    tmp_path: Path, damage: Callable[[Store, str, Path], None], old: bool
) -> None:
    """It neither blocks the back-out nor keeps the rows."""
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    compact(store, now_us=world.NOW_US)
    name, table = _exported(store, old=old)
    place = f"published/{name}" if old else "exported"
    with _interrupted("backout.removed"):
        world.take_out(store, world.FLIGHTS, 3)
    damage(store, name, table)
    assert finish_interrupted(store, now_us=world.NOW_US) == [1]
    assert not table.exists()
    assert (store.root / "aside" / f"{place.replace('/', '_')}_flights.1").is_dir()
    assert _hours(table.with_name("weather")) == [0]
    with store.ledger.read() as connection:
        (event,) = events.newest(connection, kind="exported_table.withdrawn")
    assert (event.subject, event.actor) == (f"{place}/flights", "ann")
    assert "flights/h3 was backed out, and it cannot be rewritten" in event.explanation
    assert finish_interrupted(store, now_us=world.NOW_US) == []


def test_a_backout_that_cannot_be_finished_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3, 6):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    _, table = _exported(store)
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
    _, table = _exported(store)
    before = (table / delta_log.CHECKSUM_FILE).read_bytes()
    world.take_out(store, world.FLIGHTS, 3)
    (table / delta_log.CHECKSUM_FILE).write_bytes(before)
    assert verify(store).findings
    assert not delta.withdraw(store, delta.at(store.root, "exported/flights"), now_us=world.NOW_US)
    assert verify(store).findings == ()


def test_repair_exports_no_row_that_was_backed_out(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    _, table = _exported(store)
    world.take_out(store, world.FLIGHTS, 3)
    (table / "_delta_log" / f"{0:020}.json").write_text("{}")
    repair(store, now_us=world.NOW_US)
    assert _hours(table) == [0]


def test_each_export_is_the_next_version_of_one_table(tmp_path: Path) -> None:
    """History, time travel, and back to an older snapshot; the same snapshot again is no new version."""
    store = Store.open(tmp_path / "store")
    names = []
    for hour in (0, 3, 6):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
        name, table = _exported(store)
        assert delta.export(store, name, now_us=world.NOW_US)["flights"] == table
        names.append(name)
    delta.export(store, names[0], now_us=world.NOW_US + 1)
    read = DeltaTable(table)
    assert [each["userMetadata"] for each in reversed(read.history())] == [*names, names[0]]
    assert [_hours(table, version) for version in range(4)] == [[0], [0, 3], [0, 3, 6], [0]]
    assert [path.name for path in sorted((store.root / "exported").iterdir())] == ["flights", "weather"]
    assert verify(store).findings == ()


def test_a_long_history_is_read_by_checkpoints(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    names = []
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
        names.append(_exported(store)[0])
    for count in range(10):
        delta.export(store, names[count % 2], now_us=world.NOW_US + count)
    table = store.root / "exported" / "flights"
    log = table / "_delta_log"
    assert (log / f"{10:020}.checkpoint.parquet").is_file()
    assert [_hours(table, version) for version in range(2, 10)] == [[0], [0, 3]] * 4
    for version in range(10):  # so that only the checkpoint has them
        (log / f"{version:020}.json").rename(tmp_path / f"{version}")
    assert _hours(table) == [0, 3]
    assert [each.subject for each in verify(store).findings] == ["exported/flights"]
    for version in range(10):
        (tmp_path / f"{version}").rename(log / f"{version:020}.json")
    assert verify(store).findings == ()


def test_a_new_column_and_a_new_unit_are_in_the_next_version(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    world.load(store, tmp_path, world.FLIGHTS, 0)
    world.load(store, tmp_path, world.WEATHER, 0)
    _, table = _exported(store)
    log = delta_log.read(table)
    columns = json.loads(log.metadata["schemaString"])
    columns["fields"] = [each for each in columns["fields"] if each["name"] != "delay"]
    delta_log.commit(
        table, log, snapshot="s", removed=[], added=[], schema=json.dumps(columns), now_us=world.NOW_US
    )
    _exported(store)
    assert [len(DeltaTable(table, version=version).schema().fields) for version in range(3)] == [5, 4, 5]


@pytest.mark.process
def test_exports_at_the_same_time_are_versions_one_after_the_other(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    names = []
    for hour in (0, 3, 6):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
        names.append(_snapshot(store))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: delta.export(store, names[number % 3], now_us=world.NOW_US), range(12)))
    table = store.root / "exported" / "flights"
    log = delta_log.read(table)
    hours = {names[0]: [0], names[1]: [0, 3], names[2]: [0, 3, 6]}
    for version, made in enumerate(reversed(DeltaTable(table).history())):
        assert _hours(table, version) == hours[made["userMetadata"]]
    assert log.version >= 2
    assert verify(store).findings == ()


def test_a_vacuum_keeps_the_newest_version_and_ends_the_history(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    name, table = _exported(store)
    compact(store, now_us=world.NOW_US)
    (table / "left-behind.parquet").touch()
    day = timedelta(days=1)
    later = world.NOW_US + 2 * 86_400_000_000
    shown = vacuum.plan(store, now_us=later, keep=day, newest=0)
    assert shown.pinned[name] == "exported/weather has it"
    assert shown.exported == ("exported/flights/left-behind.parquet",)
    world.load(store, tmp_path, world.FLIGHTS, 6)
    world.load(store, tmp_path, world.WEATHER, 6)
    _exported(store)
    shown = vacuum.plan(store, now_us=later, keep=day, newest=0)
    assert name not in shown.pinned
    assert len(shown.exported) == 1 + 2 + 2
    assert vacuum.plan(store, now_us=world.NOW_US + 1, keep=day, newest=0).exported == shown.exported[2:3]
    vacuum.vacuum(store, shown, now_us=later, keep=day, newest=0)
    assert _hours(table) == [0, 3, 6]
    assert not any((store.root / path).exists() for path in shown.exported)
    with pytest.raises(Exception, match=r"(?i)no such file|not found"):
        _hours(table, 0)
    assert verify(store).findings == ()


def test_the_fields_name_their_units_and_meanings(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    world.load(store, tmp_path, world.FLIGHTS, 0)
    world.load(store, tmp_path, world.WEATHER, 0)
    fields = {field.name: field.metadata for field in DeltaTable(_exported(store)[1]).schema().fields}
    assert (fields["delay"], fields["origin"]) == ({"unit": "min"}, {})


@pytest.mark.parametrize("compacted", [False, True])
def test_the_fields_of_our_own_files_name_their_units(tmp_path: Path, compacted: bool) -> None:
    """Also in a file of some rows of a compacted one; of old files, which have none, they are read from the contract."""
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    if compacted:
        compact(store, now_us=world.NOW_US)
        world.take_out(store, world.FLIGHTS, 3)
    for path in _exported(store)[1].glob("*.parquet"):
        assert pq.read_schema(path).field("delay").metadata == {b"unit": b"min"}
        assert pq.read_schema(path).field("origin").metadata is None


def test_a_filter_by_time_reads_the_files_of_that_time_alone(tmp_path: Path) -> None:
    """Bounds and missing values of each column are in the log, as the rows have them."""
    store = Store.open(tmp_path / "store")
    for hour in (0, 3, 6):
        world.load(store, tmp_path, world.FLIGHTS, hour)
        world.load(store, tmp_path, world.WEATHER, hour)
    _, table = _exported(store)
    rows = pl.read_delta(str(table))
    by_file = delta_log.read(table).files
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
def test_every_exported_table_has_the_rows_that_are_left(tmp_path_factory, loaded, gone, compacted) -> None:
    """By brute force: whatever was exported when, its newest version is its snapshot without what was backed out."""
    directory = tmp_path_factory.mktemp("exported")
    store = Store.open(directory / "store")
    exported: dict[Path, set[int]] = {}
    for count, hour in enumerate(loaded, 1):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, directory, feed, hour)
        if compacted and count == 2:
            compact(store, now_us=world.NOW_US)
        for old in (True, False):
            exported[_exported(store, old=old)[1]] = set(loaded[:count])
    table = store.root / "exported" / "flights"
    history = [_hours(table, version) for version in range(len(loaded))]
    assert history == [sorted(loaded[:count]) for count in range(1, len(loaded) + 1)]
    for hour in set(gone) & set(loaded):
        world.take_out(store, world.FLIGHTS, hour)
        for rows in exported.values():
            rows.discard(hour)
        assert {each: set(_hours(each)) for each in exported} == exported
    assert [_hours(table, version) for version in range(len(loaded))] == history
    assert verify(store).findings == ()


def test_without_its_extra_nothing_is_exported_and_rows_are_withdrawn_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    for hour in (0, 3):
        for feed in (world.FLIGHTS, world.WEATHER):
            world.load(store, tmp_path, feed, hour)
    name, table = _exported(store)
    for module in ("deltalake", "deltalake.transaction"):
        monkeypatch.setitem(sys.modules, module, None)  # as Python sees a package that is not installed
    world.take_out(store, world.WEATHER, 3)
    # Only an export needs deltalake.
    assert delta.export(store, name, now_us=world.NOW_US)["flights"] == table
    made = write(store, snapshots.create, store.root, ["flights"], contract_hash="c", now_us=world.NOW_US)
    with pytest.raises(InputError, match=r"HF112: exporting Delta tables .*pip install 'holdfast\[delta\]'"):
        delta.export(store, made.snapshot, now_us=world.NOW_US)
    assert delta.holding(store.root, [made.snapshot], ["flights"]) == ()
    monkeypatch.undo()
    assert _hours(table) == [0]
