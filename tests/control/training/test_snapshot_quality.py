"""The quality of a snapshot is one recorded number, and a bound of the model refuses to train below it (R38)."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.control.training.snapshots import assess, kept_quality, refuse_poor
from holdfast.errors import RefusedError
from holdfast.records import BatchId, Level, Violation
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.feeds import violations
from holdfast.tables.snapshot_quality import LoadQuality, SnapshotQuality, assess_quality
from tests.support import backout_world
from tests.support.backout_world import ALONE, NOW_US, ROWS
from tests.support.queries import read, write


def snapshot_of(store: Store, tmp_path: Path) -> str:
    """A snapshot of two loads, each with one of twelve rows in quarantine; the second met no expectation."""
    for hour in (1, 4):
        backout_world.load(store, tmp_path, ALONE, hour)
    with store.ledger.write() as connection:
        found = [Violation("volume", "", Level.WARNING, "few rows")]
        violations.add(connection, BatchId("alone", "h4"), 0, found, now_us=NOW_US)
    return write(store, snapshots.create, store.root, ["alone"], contract_hash="c", now_us=NOW_US).snapshot


def test_it_is_computed_from_the_loads_of_the_snapshot_and_kept(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    name = snapshot_of(store, tmp_path)
    assert read(store, kept_quality, name) is None
    found = assess(store, name, now_us=NOW_US)
    assert found == SnapshotQuality(1.0, (ROWS - 1) / ROWS, 0.5)
    assert read(store, kept_quality, name) == found
    backout_world.load(store, tmp_path, ALONE, 9)  # not of this snapshot
    assert assess(store, name, now_us=NOW_US + 1) == found


def test_training_on_less_than_the_declared_quality_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    name = snapshot_of(store, tmp_path)
    refuse_poor(store, name, None, now_us=NOW_US)
    refuse_poor(store, name, 0.45, now_us=NOW_US)
    with pytest.raises(RefusedError, match=r"HF411.*quality 45.8 %.*needs 46.0 %"):
        refuse_poor(store, name, 0.46, now_us=NOW_US)


@pytest.mark.parametrize(
    ("loads", "score"),
    [
        ([], 1.0),
        ([LoadQuality(100, 100, None, True)], 1.0),
        ([LoadQuality(50, 50, 100, True)], 0.5),
        ([LoadQuality(120, 120, 100, True)], 1.0),  # more rows than declared make up for no others
        ([LoadQuality(120, 120, 100, True), LoadQuality(80, 80, 100, True)], 0.9),
        ([LoadQuality(100, 0, None, True)], 0.0),
    ],
)
def test_rows_that_did_not_come_or_were_not_valid_lower_it(loads: list[LoadQuality], score: float) -> None:
    assert assess_quality(loads).score == pytest.approx(score)
