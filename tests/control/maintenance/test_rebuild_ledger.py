"""A ledger that is gone is made again from the files: every acknowledged row once, nothing that was backed out (R3, P3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.rebuild_ledger import rebuild
from holdfast.control.maintenance.repair import repair
from holdfast.control.maintenance.verify import verify
from holdfast.errors import IntegrityError
from holdfast.store import Store
from holdfast.store.backout import tombstones
from holdfast.store.catalog import batches
from holdfast.store.files import data_files
from tests.support import loader

Delivery = Callable[[int], Path]


@pytest.fixture
def store(tmp_path: Path, delivery: Delivery) -> Store:
    store = Store.open(tmp_path / "store")
    for day in range(3):
        ingest(store, loader.FEED, f"day-{day}", delivery(day), now_us=1)
    return store


def _ids(store: Store, table: str = "flights") -> list[str]:
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
    frame = data_files.read_rows(store, version, table, ["id"])
    return sorted(frame["id"].cast(pl.String).to_list()) if frame.width else []


def _lose_the_ledger(store: Store) -> None:
    store.ledger.close()
    for path in store.root.glob("ledger.db*"):
        path.unlink()


def test_an_empty_ledger_next_to_rows_is_refused(store: Store) -> None:
    """Else the first sweep would call every row an orphan."""
    _lose_the_ledger(store)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="is lost"):
            Store.open(store.root)
    assert len(list((store.root / "rows").iterdir())) == 6


def test_what_comes_back_is_every_row_once(store: Store, delivery: Delivery) -> None:
    rows, held = _ids(store), _ids(store, "flights__quarantine")
    _lose_the_ledger(store)
    done = rebuild(store.root, now_us=9)
    assert (done.batches, done.rows, done.files, done.contracts) == (3, 900, 6, 1)
    assert (done.not_rebuilt, done.set_aside) == ([], [])
    back = Store.open(store.root)
    assert _ids(back) == rows
    assert _ids(back, "flights__quarantine") == held
    assert verify(back).findings == ()
    states = [ingest(back, loader.FEED, f"day-{day}", delivery(day), now_us=10).state for day in range(3)]
    assert states == ["already_loaded"] * 3
    assert ingest(back, loader.FEED, "day-3", delivery(3), now_us=10).state == "loaded"


def test_half_a_load_and_rows_that_were_taken_out_stay_out(store: Store, delivery: Delivery) -> None:
    """One file of a load is lost, another load has a tombstone, and a dead loader left its files of a fourth."""
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
        by_table = {
            fact.path: fact for fact in data_files.entries(connection, "flights__quarantine", version)
        }
        tombstones.record(store.root, connection, [("flights", "day-1", 0)], backout=1, at_us=5)
    (store.root / min(by_table)).unlink()
    lost = next(
        f"{1000 * day + 7}" for day in range(3) if f"{1000 * day + 7}" not in _quarantined(store, by_table)
    )
    _lose_the_ledger(store)
    done = rebuild(store.root, now_us=9)
    day = int(lost) // 1000
    back = Store.open(store.root)
    assert done.backed_out == 1
    expected = {each for each in range(3) if each not in (1, day)}
    assert {int(each) // 1000 for each in _ids(back)} == expected
    if day != 1:
        assert any(f"day-{day}" in each for each in done.not_rebuilt)
    findings = verify(back).findings
    assert not findings, findings
    assert ingest(back, loader.FEED, "day-1", delivery(1), now_us=10).epoch == 1
    assert 1 in {int(each) // 1000 for each in _ids(back)}


def _quarantined(store: Store, by_table: dict[str, data_files.FileFacts]) -> set[str]:
    paths = [path for path in by_table if (store.root / path).exists()]
    return {str(pl.read_parquet(store.root / path)["id"][0]) for path in paths}


def test_a_load_that_the_ledger_forgot_is_found_and_made_known_again(
    store: Store, tmp_path: Path, delivery: Delivery
) -> None:
    """The ledger falls back to an older state, as with a lost write-ahead log: no sweep touches the rows it forgot."""
    store.ledger.close()
    shutil.copy(store.root / "ledger.db", tmp_path / "older.db")
    again = Store.open(store.root)
    ingest(again, loader.FEED, "day-3", delivery(3), now_us=2)
    rows = _ids(again)
    again.ledger.close()
    for path in again.root.glob("ledger.db*"):
        path.unlink()
    shutil.copy(tmp_path / "older.db", again.root / "ledger.db")
    back = Store.open(again.root)
    (found,) = verify(back).findings
    assert (found.code, found.subject) == ("HF309", "batch flights/day-3")
    assert len(_ids(back)) == len(rows) - 299
    done = repair(back, now_us=9)
    assert [each.subject for each in done.repairs] == ["batch flights/day-3"]
    assert done.verification.findings == ()
    assert _ids(back) == rows
    assert ingest(back, loader.FEED, "day-3", delivery(3), now_us=10).state == "already_loaded"
