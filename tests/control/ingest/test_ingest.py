"""What a load accepts, refuses and reports, from the sender's file to the rows that training reads (R1, R3-R5,
R55).
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files as files_of
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal
from sqlalchemy import text

from holdfast.contract import Contract, Number, Timestamp
from holdfast.contract.batch.compiler import dtypes
from holdfast.control.ingest import contract_changes
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.outcome import LoadResult
from holdfast.control.maintenance.verify import verify
from holdfast.errors import ConflictError, InputError, NotFoundError, RefusedError, UnavailableError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import Feed
from holdfast.store import Store
from holdfast.store.catalog import delta, snapshots
from holdfast.store.db import events
from holdfast.store.durability import failpoints
from holdfast.store.files import data_files
from tests.support import loader
from tests.support.queries import read, write

HEADER = "id,origin,delay,at,left\n"
GOOD = "{id},EWR,4.5,2013-01-01T05:{minute:02}:00-05:00,2013-01-01T10:20:00Z\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def load(store: Store, tmp_path: Path) -> Callable[..., LoadResult]:
    """Loads text as a CSV delivery, or a frame as a Parquet delivery."""

    def go(content: str | bytes | pl.DataFrame, batch: str = "d1", name: str = "d1.csv") -> LoadResult:
        path = tmp_path / name
        if isinstance(content, pl.DataFrame):
            path = path.with_suffix(".parquet")
            content.write_parquet(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return ingest(store, loader.FEED, batch, path, now_us=7, aggregates=[loader.AGGREGATE])

    return go


def _rows(minutes: list[int]) -> str:
    return HEADER + "".join(GOOD.format(id=row, minute=minute) for row, minute in enumerate(minutes))


def test_rows_are_published_in_the_order_of_their_event_time(
    store: Store, load: Callable[..., LoadResult]
) -> None:
    result = load(_rows([30, 10, 20, 10]))
    assert (result.state, result.rows_received, result.rows_loaded, result.reasons) == ("loaded", 4, 4, {})
    load(HEADER + GOOD.format(id=9, minute=5).replace("2013-01-01T05", "2012-12-31T05"), "earlier")
    assert data_files.read_rows(store, 2, "flights")["id"].to_list() == [9, 1, 3, 2, 0]


def test_a_bad_row_is_quarantined_with_its_reasons(store: Store, load: Callable[..., LoadResult]) -> None:
    bad = "x,EWR,9000,2013-01-01T05:00:00-05:00,\n"
    result = load(_rows([0, 1]) + bad)
    assert (result.rows_loaded, result.rows_quarantined) == (2, 1)
    assert result.reasons == {"id|type": 1, "delay|range": 1}
    held = data_files.read_rows(store, 1, "flights__quarantine")
    assert held.row(0, named=True) == {
        "id": "x",
        "origin": "EWR",
        "delay": "9000",
        "at": "2013-01-01T05:00:00-05:00",
        "left": "",
        "_reasons": ["id|type", "delay|range"],
        "_line": None,
    }
    with store.ledger.read() as connection:
        (reported,) = events.newest(connection, subject="flights/d1")
    assert reported.explanation == "2 rows loaded from d1.csv; 1 in quarantine: 1 id|type, 1 delay|range"


def test_a_line_that_is_truncated_is_quarantined_whole(store: Store, load: Callable[..., LoadResult]) -> None:
    """Padding it with nulls would load a row with wrong values: delay is 4 here, and may have been 45."""
    result = load(_rows([0]) + "2,EWR,4\n" + GOOD.format(id=3, minute=3) + "4,EWR,4,5,6,7\n")
    assert (result.rows_received, result.rows_loaded, result.reasons) == (4, 2, {"_line|fields": 2})
    held = data_files.read_rows(store, 1, "flights__quarantine")
    assert held["_line"].to_list() == ["2,EWR,4", "4,EWR,4,5,6,7"]
    assert held["_reasons"].to_list() == [["_line|fields"]] * 2


def test_the_quarantine_is_one_table_however_the_rows_came(
    store: Store, load: Callable[..., LoadResult]
) -> None:
    load(_rows([0]) + GOOD.format(id=1, minute=1).replace("4.5", "9000"))
    at = datetime(2013, 1, 1, tzinfo=UTC)
    typed = {"id": [5, 6], "origin": ["EWR"] * 2, "delay": [1.0, 9000.0], "at": [at] * 2, "left": [at, None]}
    load(pl.DataFrame(typed, schema_overrides={"left": pl.Datetime("us", "UTC")}), "d2")
    held = data_files.read_rows(store, 2, "flights__quarantine")
    assert held.sort("id").select("id", "delay", "at", "left").rows() == [
        ("1", "9000", "2013-01-01T05:01:00-05:00", "2013-01-01T10:20:00Z"),
        ("6", "9000.0", "2013-01-01T00:00:00.000000+00:00", None),
    ]


def test_what_means_missing_is_reported_by_the_feed(store: Store, tmp_path: Path) -> None:
    """`NA` is Namibia, unless the sender writes it for a missing number."""
    path = tmp_path / "d1.csv"
    path.write_text(_rows([0]).replace("EWR", "NA") + GOOD.format(id=1, minute=1).replace("4.5", "NA"))
    result = ingest(store, loader.FEED, "d1", path, now_us=7)
    assert (result.rows_loaded, result.reasons) == (1, {"delay|type": 1})
    assert data_files.read_rows(store, 1, "flights")["origin"].to_list() == ["NA"]
    feed = replace(loader.FEED, name="other", missing_words=("", "NA"))
    result = ingest(store, feed, "d1", path, now_us=7)
    assert (result.rows_loaded, result.reasons) == (1, {"origin|missing": 1})
    assert data_files.read_rows(store, 2, "other")["delay"].to_list() == [None]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([Decimal("1.5")], pa.decimal256(50, 2)),
        pa.array([[1.5]]),
        pa.array([b"1"], pa.binary(1)),
        pa.array([1], pa.duration("us")),
    ],
    ids=lambda values: str(values.type),
)
def test_a_type_that_no_column_can_be_is_refused(store: Store, tmp_path: Path, values: pa.Array) -> None:
    path = tmp_path / "d1.parquet"
    at = pa.array([datetime(2013, 1, 1, tzinfo=UTC)])
    pq.write_table(pa.table({"id": [1], "origin": ["EWR"], "delay": values, "at": at, "left": at}), path)
    with pytest.raises(InputError, match=r"HF202.*delay is"):
        ingest(store, loader.FEED, "d1", path, now_us=7)


def test_a_name_that_is_there_twice_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "d1.parquet"
    one = pa.array([1])
    pq.write_table(pa.Table.from_arrays([one, one], names=["id", "id"]), path)
    with pytest.raises(InputError, match=r"HF202.*id is there twice"):
        ingest(store, loader.FEED, "d1", path, now_us=7)


def test_a_contract_may_gain_a_column_and_change_its_zone(
    store: Store, load: Callable[..., LoadResult], tmp_path: Path
) -> None:
    """What was loaded under the older contract is read by the newer: history of aggregates, and rows to train on."""
    load(_rows([1, 2]))
    newer = Contract(
        *[column for column in loader.CONTRACT.columns if column.name not in ("at", "left")],
        Timestamp("at", tz="UTC"),
        Timestamp("left", tz="Asia/Tokyo", missing="keep"),
        Number("wind", unit="mph", missing="keep"),
        key="id",
        event_time="at",
    )
    path = tmp_path / "d2.csv"
    path.write_text("id,origin,delay,at,left,wind\n7,EWR,5.5,2013-01-01T10:00:00Z,2013-01-01T10:21:00Z,8\n")
    windy = Aggregate(
        "wind_3h", over="flights", by="origin", value="wind", known_at="left", window="3h", every="1h"
    )
    feed = Feed("flights", newer)
    with pytest.raises(RefusedError, match=r"HF210.*at: time zone changed"):
        ingest(store, feed, "d2", path, now_us=7)
    contract_changes.accept(store, feed, reason="all airports by one clock", actor="ann", now_us=7)
    ingest(store, feed, "d2", path, now_us=7, aggregates=[loader.AGGREGATE, windy])
    rows = data_files.read_rows(store, 2, "flights", dtypes(newer))
    assert rows.schema == dtypes(newer)
    assert rows.sort("id")["wind"].to_list() == [None, None, 8.0]
    mean = "SELECT value FROM online_features WHERE aggregate LIKE 'delay_3h%' ORDER BY known_at_us LIMIT 1"
    with store.ledger.engine.connect() as connection:
        (value,) = connection.execute(text(mean)).one()
    assert value == pytest.approx((4.5 + 4.5 + 5.5) / 3)


def test_a_load_whose_files_were_swept_writes_them_again(
    store: Store, load: Callable[..., LoadResult]
) -> None:
    """Where a file system has no locks a sweep may take a living loader for dead: that is no damage."""

    def sweep(times: int) -> None:
        rows = store.root / "rows"
        kept = set(rows.iterdir()) if rows.is_dir() else set()

        def hook(name: str) -> None:
            nonlocal times
            if name == "ingest.staged" and times:
                times -= 1
                for path in set(rows.iterdir()) - kept:
                    path.unlink()

        failpoints.armed = hook

    try:
        sweep(2)
        assert load(_rows([1, 2])).state == "loaded"
        assert verify(store).clean
        sweep(3)
        with pytest.raises(UnavailableError, match=r"HF313.*removed 3 times.*nothing was loaded"):
            load(_rows([3]), "d2")
    finally:
        failpoints.armed = None


def test_no_valid_row_loads_nothing_reports_why_and_leaves_the_id_free(
    store: Store, load: Callable[..., LoadResult]
) -> None:
    for content in (HEADER, HEADER + "x,EWR,1,2013-01-01T05:00:00-05:00,\n"):
        with pytest.raises(RefusedError, match=r"HF204.*nothing was loaded.*id is free"):
            load(content)
    with store.ledger.read() as connection:
        reported = [event.explanation for event in events.newest(connection, kind="batch.refused")]
    assert reported == [
        'none of the 1 row of batch flights/d1 is valid: 1 id|type (such as "x")',
        "batch flights/d1 has no row",
    ]
    assert list((store.root / "rows").iterdir() if (store.root / "rows").is_dir() else []) == []
    assert load(_rows([1])).state == "loaded"


def test_the_same_content_again_is_a_no_op_and_other_content_a_conflict(
    load: Callable[..., LoadResult],
) -> None:
    first = load(_rows([1, 2]))
    again = load(_rows([1, 2]), name="renamed.csv")
    assert again.state == "already_loaded"
    assert (again.table_version, again.digest, again.rows_loaded) == (first.table_version, first.digest, 2)
    with pytest.raises(ConflictError, match=r"HF203.*unchanged"):
        load(_rows([1, 3]))
    with pytest.raises(ConflictError, match=r"HF203.*as batch flights/d1.*d2 was not loaded"):
        load(_rows([1, 2]), "d2")


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"", "empty.csv", "HF201"),
        (b"\xff\xfe" + HEADER.encode() + b"\x80,\xff,1,2,3\n", "latin.csv", "HF201"),
        (b"PAR1 and then nothing", "snapshot.parquet", "HF201"),
        (b"{}", "rows.json", "HF201"),
        (b"\x1f\x8b\x08broken", "broken.csv.gz", "HF201"),
        ((HEADER + "1,2,3,4,5,6,7\n").encode(), "wide.csv", "HF204"),
        ((HEADER + GOOD.format(id=1, minute=1) + "2,EWR,4").encode(), "snapshot.csv", "HF201"),
        ((HEADER + GOOD.format(id=1, minute=1) + '2,"EWR,4,5,6\n7,8\n').encode(), "open.csv", "HF201"),
        ((HEADER + '1,EWR,4,2013-01-01T05:00:00Z,"2013\n').encode(), "last.csv", "HF201"),
        (
            gzip.compress((HEADER + GOOD.format(id=1, minute=1)).encode(), mtime=0)[:-9],
            "snapshot.csv.gz",
            "HF201",
        ),
        (b"id,id,origin,delay,at,left\n", "twice.csv", "HF201"),
        (b"id,origin\n1,EWR\n", "narrow.csv", "HF202"),
        ((HEADER.strip() + ",extra\n1,EWR,1,2013-01-01T05:00:00Z,,7\n").encode(), "extra.csv", "HF202"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_words(
    store: Store, load: Callable[..., LoadResult], content: bytes, name: str, code: str
) -> None:
    # A file that can be read and has no valid row was judged; the others are no input.
    with pytest.raises(RefusedError if code == "HF204" else InputError) as refused:
        load(content, name=name)
    assert refused.value.code == code
    outcome = verify(store)
    assert (outcome.clean, outcome.files) == (True, 0)


def test_a_missing_source_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"HF201.*gone.csv does not exist"):
        ingest(store, loader.FEED, "d1", tmp_path / "gone.csv", now_us=7)
    with pytest.raises(InputError, match="HF109"):
        ingest(store, loader.FEED, "../d1", tmp_path / "gone.csv", now_us=7)


@pytest.mark.usefixtures("each_ledger")
def test_strange_text_and_packed_files_are_loaded_as_they_are(
    store: Store, load: Callable[..., LoadResult]
) -> None:
    """NUL bytes and 4-byte UTF-8 in a category are just another word."""
    text = _rows([1, 2]).replace("0,EWR", "0,\N{GRINNING FACE}", 1).replace("1,EWR", "1,a\0b", 1)
    load(gzip.compress(text.encode()), name="d1.csv.gz")
    assert data_files.read_rows(store, 1, "flights")["origin"].to_list() == ["\N{GRINNING FACE}", "a\0b"]


def test_parquet_types_are_widened_only_without_loss(store: Store, load: Callable[..., LoadResult]) -> None:
    timestamps = pl.Series([1_357_034_400_000_000_000]).cast(pl.Datetime("ns", "UTC"))
    frame = pl.DataFrame(
        {
            "id": pl.Series([7], dtype=pl.UInt8),
            "origin": pl.Series(["EWR"], dtype=pl.Categorical),
            "delay": pl.Series([2.5], dtype=pl.Float32),
            "at": timestamps,
            "left": pl.Series([None], dtype=pl.Null),
        }
    )
    load(frame)
    assert data_files.read_rows(store, 1, "flights").row(0)[:3] == (7, "EWR", 2.5)
    with pytest.raises(RefusedError, match=r"HF204.*1 id\|not_exact"):
        load(frame.with_columns(pl.Series("id", [7.5])), batch="d2")
    with pytest.raises(InputError, match=r"HF202.*at"):
        load(frame.with_columns(pl.Series("at", [1], dtype=pl.Datetime("us"))), batch="d2")


def test_a_snapshot_stands_still_and_is_read_by_other_engines(
    store: Store, load: Callable[..., LoadResult]
) -> None:
    """Published without copies: Polars and DuckDB read, by the Delta log, the rows that training reads."""
    with pytest.raises(NotFoundError, match="HF410"):
        write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=1)
    load(_rows([1, 2]))
    snapshot = write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=1)
    assert write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=2) == snapshot
    assert read(store, snapshots.get, snapshot.snapshot) == snapshot
    load(_rows([3]).replace("0,EWR", "5,EWR"), "d2")
    assert snapshot.rows == 2
    rows = data_files.read_rows(store, snapshot.snapshot, "flights")
    assert rows["id"].to_list() == [0, 1]
    place = delta.export(store, snapshot.snapshot, now_us=1)["flights"]
    assert delta.export(store, snapshot.snapshot, now_us=1) == {"flights": place}
    utc = rows.with_columns(pl.col("at").dt.convert_time_zone("UTC"))
    assert_frame_equal(pl.read_delta(str(place)), utc)
    by_log = DeltaTable(place).file_uris()
    assert [Path(uri).stat().st_nlink for uri in by_log] == [2]
    assert _by_duckdb(place, 'id, origin, delay, epoch_us("at")') == [
        (row["id"], row["origin"], row["delay"], int(row["at"].timestamp() * 1e6)) for row in rows.to_dicts()
    ]
    assert [path.name for path in place.parent.iterdir()] == ["flights"]  # no draft is left


def _by_duckdb(table: Path, columns: str) -> list[tuple[object, ...]]:
    """`columns` of a Delta table, read by DuckDB's own extension, in the order of the first column."""
    extension = (
        files_of("duckdb_extension_delta") / f"extensions/v{duckdb.__version__}/delta.duckdb_extension"
    )
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        return connection.execute(f"SELECT {columns} FROM delta_scan('{table}') ORDER BY 1").fetchall()


def test_progress_is_reported_to_the_end(store: Store, tmp_path: Path) -> None:
    path, reported = tmp_path / "d1.csv", []
    path.write_text(_rows([1]))
    ingest(store, loader.FEED, "d1", path, now_us=7, progress=lambda done, of: reported.append((done, of)))
    assert reported == [(step, 4) for step in range(1, 5)]
