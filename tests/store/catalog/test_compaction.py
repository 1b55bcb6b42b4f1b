"""Small files become one, and every row keeps its batch: what is read stays the same at every version (R4, R6)."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sqlalchemy import select, update

from holdfast.control.maintenance.compact import compact
from holdfast.errors import IntegrityError
from holdfast.feeds import Manifest
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches, snapshots
from holdfast.store.db import schema
from holdfast.store.files import data_files, parquet, staging
from holdfast.store.maintenance import duplicate_keys, orphans
from tests.support.loads import insert_load
from tests.support.queries import write

SEED = 20131
pytestmark = pytest.mark.usefixtures("each_ledger")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def load(store: Store, batch: str, rows: int, at: int, *, contract: str = "cc", feed: str = "flights") -> int:
    """`rows` rows of `batch`, one in each second from `at` on; the table version."""
    first = int(batch[1:]) * 1_000_000
    frame = pl.DataFrame({"id": range(first, first + rows), "at": [at * 1_000_000 + n for n in range(rows)]})
    frame = frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    manifest = Manifest.of(BatchId(feed, batch), 0, f"{feed}{batch}", contract, ("id",))
    with staging.staged(store.root) as stage:
        written = stage.write(feed, frame, manifest.as_dict(), event_time="at")
        stage.sync()
        low = at * 1_000_000
        return insert_load(store, manifest, [written], low_us=low, high_us=low + rows - 1)


def take_out(store: Store, batch: str, feed: str = "flights") -> int:
    """Take `batch` out as a back-out does; the table version from which it is gone."""
    parts, table = schema.file_row_groups, schema.files
    mine = (parts.c.feed == feed) & (parts.c.batch == batch)
    with store.ledger.write() as connection:
        version = batches.new_version(connection, f"back-out {batch}", 6)
        connection.execute(
            update(schema.batches)
            .where(schema.batches.c.feed == feed, schema.batches.c.batch == batch)
            .values(state="backed_out")
        )
        connection.execute(update(parts).where(mine).values(removed_version=version))
        emptied = table.c.path.not_in(select(parts.c.path).where(parts.c.removed_version.is_(None)))
        connection.execute(
            update(table).where(table.c.removed_version.is_(None), emptied).values(removed_version=version)
        )
    return version


def read(store: Store, at: int | str) -> list[int]:
    rows = data_files.read_rows(store, at, "flights", {"id": pl.Int64()})
    return rows["id"].to_list() if rows.width else []


def live(store: Store) -> list[data_files.FileFacts]:
    with store.ledger.read() as connection:
        return data_files.entries(connection, "flights", batches.current_version(connection))


@pytest.mark.parametrize("run", range(3))
def test_loads_backouts_and_compactions_in_any_order(store: Store, run: int) -> None:
    """Rows against a model that only knows which batch is there at which version; their order against what it was."""
    chance = random.Random(SEED + run)
    there: dict[str, int] = {}
    seen: dict[int, list[int]] = {}
    for number in range(20):
        doing = chance.choice(["load", "load", "load", "compact", "out"])
        if doing == "load":
            there[f"d{number}"] = chance.choice([1, 3, 40])
            contract = chance.choice(["cc", "cc", "cd"])
            load(store, f"d{number}", there[f"d{number}"], chance.randrange(8), contract=contract)
        elif doing == "out" and there:
            take_out(store, there.popitem()[0] if chance.random() < 0.5 else _pop_first(there))
        else:
            before = read(store, _version(store))
            compact(store, now_us=7, target_rows=chance.choice([50, 10_000]))
            assert read(store, _version(store)) == before
        seen[_version(store)] = read(store, _version(store))
        expected = [int(batch[1:]) * 1_000_000 + row for batch, rows in there.items() for row in range(rows)]
        assert sorted(seen[_version(store)]) == sorted(expected)
        assert {at: read(store, at) for at in seen} == seen
    assert orphans.sweep(store) == []


def _version(store: Store) -> int:
    with store.ledger.read() as connection:
        return batches.current_version(connection)


def _pop_first(there: dict[str, int]) -> str:
    first = next(iter(there))
    del there[first]
    return first


def test_a_batch_in_a_compacted_file_can_be_taken_out_alone(store: Store) -> None:
    for number in range(5):
        load(store, f"d{number}", 10, number)
    snapshot = write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=1)
    (result,) = compact(store, ["flights"], now_us=7)[:1]
    assert (result.files_before, result.files_after, result.rows_rewritten) == (5, 1, 50)
    (whole,) = live(store)
    assert (whole.row_groups, whole.rows) == (None, 50)
    footer = parquet.manifest(store.root / whole.path)
    assert [(each["batch"], each["row_group"], each["rows"]) for each in footer["parts"]] == [
        (f"d{number}", number, 10) for number in range(5)
    ]
    assert (footer["key"], footer["table"]) == ("id", "flights")
    version = take_out(store, "d2")
    (left,) = live(store)
    assert (left.row_groups, left.rows) == ((0, 1, 3, 4), 40)
    assert read(store, version) == [n * 1_000_000 + row for n in (0, 1, 3, 4) for row in range(10)]
    assert len(read(store, version - 1)) == 50
    assert len(read(store, snapshot.snapshot)) == 50
    late = data_files.read(
        store.root, [left], ["id"], at_least=("at", pl.Series([3_000_000]).cast(pl.Datetime("us", "UTC"))[0])
    )
    assert late["id"].to_list() == [n * 1_000_000 + row for n in (3, 4) for row in range(10)]
    load(store, "d7", 40, 7)
    compact(store, now_us=8)
    (again,) = live(store)
    assert (again.row_groups, again.rows) == (None, 80)
    assert compact(store, now_us=9)[0].rows_rewritten == 0


def test_what_changed_meanwhile_is_not_put_in_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A back-out between the copying and the transaction: the copy is thrown away, the rows stay as they are."""
    from holdfast.control.maintenance import compact as compacting

    for number in range(4):
        load(store, f"d{number}", 10, number)
    monkeypatch.setattr(compacting, "failpoint", lambda _: take_out(store, "d1"))
    assert compact(store, ["flights"], now_us=7)[0].files_after == 4
    assert len(live(store)) == 3
    assert orphans.sweep(store) == []


def test_a_damaged_file_is_not_compacted(store: Store) -> None:
    for number in range(3):
        load(store, f"d{number}", 10, number)
    path = store.root / live(store)[1].path
    path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
    with pytest.raises(IntegrityError, match=f"HF301.*{path.name}"):
        compact(store, now_us=7)
    assert len(live(store)) == 3


def test_keys_that_come_twice_are_found_in_compacted_files(store: Store) -> None:
    for number in range(3):
        load(store, f"d{number}", 10, number)
    load(store, "d1", 10, 5, feed="other")
    compact(store, now_us=7)
    load(store, "d02", 10, 9)  # the keys of d2
    with store.ledger.read() as connection:
        found = duplicate_keys.repeated(store.root, duplicate_keys.live_files(connection))
    assert [(each.feed, each.rows, sorted(each.batches)) for each in found] == [
        ("flights", 10, ["d02", "d2"])
    ]
    take_out(store, "d2")
    with store.ledger.read() as connection:
        assert duplicate_keys.repeated(store.root, duplicate_keys.live_files(connection)) == []


def test_bounds_of_each_file_show_which_hold_a_time(store: Store) -> None:
    """A large batch is several files in event order, and only those are read that reach back."""
    frame = pl.DataFrame({"at": pl.Series(range(100)).cast(pl.Datetime("us", "UTC"))})
    manifest = Manifest.of(BatchId("flights", "d1"), 0, "aa", "cc")
    with staging.staged(store.root) as stage:
        facts = stage.write_parts("flights", [frame[:40], frame[40:]], manifest.as_dict(), event_time="at")
        stage.sync()
        insert_load(store, manifest, facts, low_us=0, high_us=99)
    with store.ledger.read() as connection:
        assert [fact.rows for fact in data_files.entries(connection, "flights", 1, lookback_start_us=40)] == [
            60
        ]
        assert [fact.rows for fact in data_files.entries(connection, "flights", 1, lookback_start_us=39)] == [
            40,
            60,
        ]
    assert_frame_equal(data_files.read_rows(store, 1, "flights"), frame)
