"""Files of rows: what is written is read back to the bit, or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from holdfast.errors import InputError, IntegrityError, NotFoundError
from holdfast.feeds import Manifest
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.files import data_files, parquet, staging
from tests.support.loads import insert_load

FRAME = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "word": ["a", "nul\0", "\N{GRINNING FACE}"],
        "value": [0.1, None, float("inf")],
        "at": [datetime(2013, 3, 10, 6, tzinfo=UTC) + timedelta(minutes=20 * row) for row in range(3)],
    },
    schema_overrides={"at": pl.Datetime("us", "UTC")},
).with_columns(pl.col("at").dt.convert_time_zone("America/New_York"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _load(store: Store, batch: str = "d1", rows: int = 3) -> int:
    manifest = Manifest.of(BatchId("flights", batch), 0, "aa", "cc", ("id",))
    with staging.staged(store.root) as stage:
        facts = stage.write_parts("flights", [FRAME] * (rows // 3), manifest.as_dict())
        stage.sync()
        return insert_load(store, manifest, facts, low_us=1, high_us=2)


def test_rows_come_back_as_they_were(store: Store) -> None:
    """Zone, NUL, 4-byte UTF-8, null and infinity survive; several parts keep their order."""
    assert _load(store, rows=9) == 1
    assert_frame_equal(data_files.read_rows(store, 1, "flights"), pl.concat([FRAME] * 3))
    assert data_files.read_rows(store, 1, "flights", ["word", "id"]).columns == ["word", "id"]
    assert data_files.read_rows(store, 0, "flights").is_empty()


@pytest.mark.parametrize("times", [1, 300, 2_000])
def test_a_small_file_is_written_as_a_large_one(tmp_path: Path, times: int) -> None:
    """One too small to be compressed, one too small for statistics, and a large one differ in nothing that a reader sees."""
    kinds = FRAME.with_columns(
        flag=pl.Series([True, None, False]),
        words=pl.Series([["a"], [], None]),
        parts=pl.Series([{"x": 1, "y": "q"}, None, {"x": None, "y": "r"}]),
    )
    frame = pl.concat([kinds] * times, rechunk=False).slice(1)
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet.encode(frame, {}))
    written = pq.read_schema(path).remove_metadata()
    assert written.equals(frame.to_arrow().schema)
    assert_frame_equal(parquet.read(path), frame)
    codec = pq.ParquetFile(path).metadata.row_group(0).column(0).compression
    assert codec == ("UNCOMPRESSED" if times == 1 else "ZSTD")


def _loaded(store: Store, *frames: pl.DataFrame) -> None:
    """`frames` as one batch each, as if each were of another contract."""
    for number, frame in enumerate(frames):
        manifest = Manifest.of(BatchId("flights", f"d{number}"), 0, f"{number}", f"c{number}")
        with staging.staged(store.root) as stage:
            facts = stage.write("flights", frame, manifest.as_dict())
            stage.sync()
            insert_load(store, manifest, [facts], low_us=number, high_us=number)


def test_files_of_an_older_contract_are_read_by_the_newer(store: Store) -> None:
    """A column that was added is null in the older rows, one that was renamed is two, another zone shows the same
    timestamps: nothing of this is damage.
    """
    tokyo = pl.col("at").dt.convert_time_zone("Asia/Tokyo")
    newer = FRAME.rename({"word": "text"}).with_columns(tokyo, pl.lit(2.5).alias("speed"))
    _loaded(store, FRAME, newer)
    rows = data_files.read_rows(store, 2, "flights", ["id", "speed", "at", "text", "height"])
    assert rows["speed"].to_list() == [None] * 3 + [2.5] * 3
    assert rows["text"].to_list() == [None] * 3 + FRAME["word"].to_list()
    assert rows.schema["at"] == pl.Datetime("us", "Asia/Tokyo")
    assert rows["at"].dt.epoch("us").to_list() == FRAME["at"].dt.epoch("us").to_list() * 2
    kinds = {"at": pl.Datetime("us", "America/New_York"), "height": pl.Float64()}
    wanted = data_files.read_rows(store, 2, "flights", kinds)
    assert wanted.schema == kinds
    assert_frame_equal(wanted[:3, ["at"]], FRAME[["at"]])
    with store.ledger.read() as connection:
        found = data_files.entries(connection, "flights", 2)
    late = data_files.read(store.root, found, kinds, at_least=("at", FRAME["at"][1]))
    assert late.height == 4
    assert data_files.read(store.root, found, ["id"], at_least=("speed", 9.0))["id"].to_list() == [1, 2, 3]
    assert data_files.read_rows(store, 2, "flights").columns == ["id", "word", "value", "at", "text", "speed"]


def test_a_name_with_another_meaning_is_no_damage_either(store: Store) -> None:
    _loaded(store, FRAME, FRAME.with_columns(pl.col("id").cast(pl.String)))
    with pytest.raises(InputError, match=r"HF212.*'id' is .* in some files"):
        data_files.read_rows(store, 2, "flights")
    assert data_files.read_rows(store, 2, "flights", ["value"]).height == 6
    with pytest.raises(InputError, match=r"HF212.*'value'"):
        data_files.read_rows(store, 2, "flights", {"value": pl.String()})


def test_the_footer_reports_what_the_file_is(store: Store) -> None:
    _load(store)
    with store.ledger.read() as connection:
        (fact,) = data_files.entries(connection, "flights", 1)
    footer = parquet.manifest(store.root / fact.path)
    assert footer == {
        "feed": "flights",
        "batch": "d1",
        "epoch": 0,
        "digest": "aa",
        "contract_hash": "cc",
        "key": "id",
        "table": "flights",
        "rows": 3,
        "format": parquet.FORMAT,
        "rows_in_footer": 3,
        "file": 0,
        "files": 0,
        "rows_loaded": 0,
        "rows_quarantined": 0,
        "source": "",
    }


def test_every_flipped_bit_is_found(store: Store) -> None:
    """Reliability F3, P3: one changed bit anywhere, footer included, and no row is served."""
    _load(store)
    (path,) = (store.root / data_files.ROWS_DIRECTORY).iterdir()
    original = path.read_bytes()
    for position in range(0, len(original), 37):
        path.write_bytes(original[:position] + bytes([original[position] ^ 1]) + original[position + 1 :])
        with pytest.raises(IntegrityError, match=f"HF301.*{path.name}"):
            data_files.read_rows(store, 1, "flights")
    path.write_bytes(original)
    assert data_files.read_rows(store, 1, "flights").height == 3


def test_a_flipped_bit_in_a_page_is_found_without_the_digest(store: Store) -> None:
    """Other readers have only the pages' checksums; ours are there and are looked at."""
    _load(store)
    (path,) = (store.root / data_files.ROWS_DIRECTORY).iterdir()
    original = path.read_bytes()
    page = original.index(b"nul")
    path.write_bytes(original[:page] + b"N" + original[page + 1 :])
    with pytest.raises(IntegrityError, match="HF301"):
        parquet.read(path)


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"half"])
def test_a_missing_or_short_file_is_named(store: Store, content: bytes | None) -> None:
    _load(store)
    (path,) = (store.root / data_files.ROWS_DIRECTORY).iterdir()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"HF301.*{path.name}"):
        data_files.read_rows(store, 1, "flights")


def test_an_unknown_snapshot_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match="HF303"):
        data_files.read_rows(store, "s9-nothing", "flights")
