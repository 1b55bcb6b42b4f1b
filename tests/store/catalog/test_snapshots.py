"""Snapshots of the feeds of a group: half a delivery is in none of them (R8, R56), and other engines read the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import files as _files_of
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.verify import verify
from holdfast.errors import InputError, NotFoundError
from holdfast.feeds import FeedGroup, Manifest
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import delta, snapshots
from holdfast.store.files import data_files, staging
from holdfast.tables import Snapshot
from holdfast.tables.snapshots import DAY_US
from tests.support.loads import insert_load
from tests.support.queries import read, write

pytestmark = pytest.mark.usefixtures("each_ledger")

GROUPS = {"flights": FeedGroup("airport"), "weather": FeedGroup("airport"), "holidays": None}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def load(
    store: Store, feed: str, batch: str, day: int, *, word: str | float | None = None, zone: str = "UTC"
) -> None:
    """Ten rows of `day`."""
    first = day * DAY_US
    at = pl.Series("at", range(first, first + 10), pl.Int64).cast(pl.Datetime("us", zone))
    frame = pl.DataFrame({"id": range(10 * day, 10 * day + 10), "word": [word or batch] * 10}).with_columns(
        at
    )
    with staging.staged(store.root) as stage:
        manifest = Manifest.of(BatchId(feed, batch), 0, f"{feed}{batch}", "cc", ("id",))
        manifest = replace(
            manifest,
            rows_loaded=10,
            rows_quarantined=0,
            event_time_min_us=first,
            event_time_max_us=first + 9,
            source="x",
            files=1,
        )
        written = stage.write(feed, frame, manifest.as_dict(), event_time="at")
        stage.sync()
        insert_load(store, manifest, [written], low_us=first, high_us=first + 9)


def snapshot(store: Store, *feeds: str, now_us: int = 1, delay_days: int = 0) -> Snapshot:
    return write(
        store,
        snapshots.create,
        store.root,
        feeds,
        contract_hash="cc",
        now_us=now_us,
        groups={feed: GROUPS[feed] for feed in feeds},
        label_delays_us={"flights": delay_days * DAY_US},
    )


def days(store: Store, snapshot: Snapshot, feed: str) -> list[int]:
    return (data_files.read_rows(store, snapshot.snapshot, feed)["id"] // 10).unique().sort().to_list()


def test_a_delivery_that_is_not_whole_is_left_out(store: Store) -> None:
    """Weather begins on day 2 and lacks days 3 and 5; day 1 of flights will never have any."""
    for day in (1, 2, 3, 4, 5):
        load(store, "flights", f"d{day}", day)
    for day in (2, 4):
        load(store, "weather", f"d{day}", day)
    load(store, "holidays", "all", 9)
    made = snapshot(store, "flights", "weather", "holidays")
    assert made.incomplete_loads == (("flights", "d3", 0), ("flights", "d5", 0))
    assert {table.table: table.rows for table in made.tables} == {
        "flights": 30,
        "weather": 20,
        "holidays": 10,
    }
    assert days(store, made, "flights") == [1, 2, 4]
    assert (
        snapshot(store, "flights", "weather", "holidays") == made == read(store, snapshots.get, made.snapshot)
    )
    load(store, "weather", "d5", 5)
    later = snapshot(store, "flights", "weather", "holidays")
    assert later.incomplete_loads == (("flights", "d3", 0),)
    assert (days(store, later, "flights"), days(store, later, "weather")) == ([1, 2, 4, 5], [2, 4, 5])
    assert days(store, made, "flights") == [1, 2, 4]


def test_a_table_whose_every_row_waits_reports_it(store: Store) -> None:
    load(store, "flights", "d2", 2)
    load(store, "weather", "d1", 1)
    with pytest.raises(NotFoundError, match=r"HF410.*'flights' has no row.*1 of its batches wait"):
        snapshot(store, "flights", "weather")
    assert snapshot(store, "flights").incomplete_loads == ()


def test_other_engines_read_exactly_the_rows_of_a_snapshot(store: Store) -> None:
    """Files that hold rows of other loads too: what is held back or gone is in no exported table."""
    for day in (1, 2, 3):
        load(store, "flights", f"d{day}", day)
    load(store, "weather", "d1", 1)
    load(store, "weather", "d2", 2)
    before = snapshot(store, "flights", "weather")
    compact(store, now_us=7)
    after = snapshot(store, "flights", "weather")
    assert before.snapshot != after.snapshot
    (partial,) = _entries(store, after, "flights")
    assert (partial.row_groups, partial.rows) == ((0, 1), 20)
    for made in (before, after):
        place = delta.export(store, made.snapshot, now_us=7)["flights"]
        rows = data_files.read_rows(store, made.snapshot, "flights")
        assert rows["id"].to_list() == list(range(10, 30))
        assert_frame_equal(pl.read_delta(str(place)).sort("id"), rows)
        assert _by_duckdb(place) == [(number,) for number in range(10, 30)]
    assert verify(store).findings == ()


def test_a_change_of_zone_is_exported_and_a_column_of_two_kinds_is_not(store: Store) -> None:
    """Timestamps are the same in every zone; words and numbers have no type of a Delta table in common."""
    load(store, "flights", "d1", 1)
    load(store, "flights", "d2", 2, zone="Asia/Tokyo")
    made = snapshot(store, "flights")
    place = delta.export(store, made.snapshot, now_us=7)["flights"]
    times = pl.read_delta(str(place))["at"].sort()
    assert times.equals(
        data_files.read_rows(store, made.snapshot, "flights")["at"].dt.convert_time_zone("UTC")
    )
    load(store, "flights", "d3", 3, word=7.5)
    made = snapshot(store, "flights")
    with pytest.raises(InputError, match=r"HF212.*word"):
        delta.export(store, made.snapshot, now_us=7)
    with pytest.raises(InputError, match=r"HF212.*word"):
        data_files.read_rows(store, made.snapshot, "flights")


def _entries(store: Store, snapshot: Snapshot, table: str) -> list[data_files.FileFacts]:
    return read(store, data_files.snapshot_entries, snapshot.snapshot, table)


def test_planners_keep_the_file_of_one_day_alone(store: Store) -> None:
    """DuckDB skips files by numbers and words; it reads no statistics of timestamps, also in tables of others."""
    for day in range(1, 9):
        load(store, "flights", f"d{day}", day)
    place = delta.export(store, snapshot(store, "flights").snapshot, now_us=7)["flights"]
    ((_, planned),) = _duckdb(
        f"EXPLAIN ANALYZE SELECT count(*) FROM delta_scan('{place}') WHERE id BETWEEN 40 AND 49"
    )
    assert "Scanning Files: 1/8" in str(planned)
    at = ds.field("at")
    start = datetime(1970, 1, 5, tzinfo=UTC)
    one_day = (at >= start) & (at < start + timedelta(days=1))
    assert len(list(DeltaTable(place).to_pyarrow_dataset().get_fragments(one_day))) == 1


def _by_duckdb(table: Path) -> list[tuple[object, ...]]:
    return _duckdb(f"SELECT id FROM delta_scan('{table}') ORDER BY 1")


def _duckdb(query: str) -> list[tuple[object, ...]]:
    extension = next(
        path for path in _files_of("duckdb-extension-delta") or () if path.name == "delta.duckdb_extension"
    ).locate()
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        return connection.execute(query).fetchall()


def test_labels_that_come_due_make_a_new_snapshot_each_day(store: Store) -> None:
    """Unchanged tables: one snapshot a day while a label may come due, and one for good when the last one is."""
    load(store, "flights", "d1", 1)
    snapshots = [
        snapshot(store, "flights", now_us=int(day * DAY_US), delay_days=2) for day in (2, 2.9, 3, 4, 5, 400)
    ]
    names = [made.snapshot for made in snapshots]
    assert names[0] == names[1]
    assert len({*names[1:4]}) == 3
    assert names[3] == names[4] == names[5]
    assert [made.created_at_us // DAY_US for made in snapshots] == [2, 2, 3, 4, 4, 4]


def test_an_unknown_table_of_a_snapshot_is_not_read(store: Store) -> None:
    load(store, "flights", "d1", 1)
    load(store, "weather", "d1", 1)
    made = snapshot(store, "flights")
    with pytest.raises(NotFoundError, match=r"HF303.*has no table 'weather'"):
        data_files.read_rows(store, made.snapshot, "weather")
