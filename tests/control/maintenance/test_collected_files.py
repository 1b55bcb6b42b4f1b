"""Collected predictions are merged and expire: every row that stays is found as before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from holdfast.control.maintenance import compact, vacuum
from holdfast.errors import ConflictError, IntegrityError
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.files import staging
from holdfast.store.maintenance import footer_scan, rebuild_history
from holdfast.store.telemetry import collected_files, collected_log
from holdfast.store.telemetry.collected_log import PREDICTIONS, SHADOWS, FileTable, Position
from tests.support.queries import read

DAY_US = 86_400_000_000
PER_FILE = 3


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three segments of one server with four files each; the newest still grows."""
    store = Store.open(tmp_path)
    for segment in (1, 2, 3):
        for part in range(4):
            collect(store, PREDICTIONS, segment, part)
            if part < 2:
                collect(store, SHADOWS, segment, part)
    return store


def collect(store: Store, table: FileTable, segment: int, part: int) -> None:
    numbers = range(part * PER_FILE + 1, (part + 1) * PER_FILE + 1)
    frame = pl.DataFrame(
        {
            "prediction": [f"s1-{segment}-{number}/0" for number in numbers],
            "at_us": [segment * DAY_US + number for number in numbers],
            "version": ["v1"] * PER_FILE,
            "inputs": ['{"town": "oslo"}'] * PER_FILE,
        }
    )
    missing = [
        pl.lit(None, kind).alias(name) for name, kind in table.schema.items() if name not in frame.columns
    ]
    frame = frame.with_columns(missing).select(list(table.schema))
    bounds = (numbers[0], numbers[-1]) if table is PREDICTIONS else None
    with staging.staged(store.root) as stage:
        file = collected_log.write(
            stage, table, frame, model="m", server="s1", segment=segment, numbers=bounds
        )
        stage.sync()
        with store.ledger.write() as connection:
            if table is PREDICTIONS:
                found = collected_log.positions(connection, "s1").get(segment, Position("s1", segment, 0))
                collected_log.advance(connection, found, found.collected_bytes + 9, predictions=3, feedback=0)
            collected_log.register(connection, table, file)


def merged(store: Store, **options: Any) -> dict[str, tuple[int, int]]:
    done = compact.compact_collected(store, wait=lambda _: None, **options)
    return {each.table: (each.files_before, each.files_after) for each in done}


def found(store: Store) -> dict[str, str]:
    names = [f"s1-{segment}-{number}/0" for segment in (1, 2, 3) for number in range(1, 13)]
    located = read(store, collected_log.locate, PREDICTIONS, names)
    frame, damaged = collected_log.read_inputs(store.root, located)
    assert not damaged
    return dict(frame.select("prediction", "inputs").iter_rows())


def on_disk(store: Store) -> int:
    return len(list((store.root / "rows").glob("*.parquet")))


def test_the_files_of_each_ended_segment_become_one(store: Store) -> None:
    before, frontiers = found(store), read(store, collected_log.frontiers)
    assert len(before) == 36
    assert merged(store) == {"predictions": (12, 6), "shadows": (6, 4)}
    assert on_disk(store) == 10
    assert found(store) == before
    assert read(store, collected_log.frontiers) == frontiers
    assert sum(each.rows for each in read(store, collected_log.files_of, "m")) == 36
    assert merged(store) == {"predictions": (6, 6), "shadows": (4, 4)}


def test_a_merged_file_has_a_bounded_number_of_rows(store: Store) -> None:
    before = found(store)
    assert merged(store, target_rows=6)["predictions"] == (12, 8)
    assert merged(store, target_rows=6)["predictions"] == (8, 8)
    assert found(store) == before


def test_a_damaged_file_and_another_compaction_lose_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = found(store)
    first = next(each for each in read(store, collected_files.all_of, PREDICTIONS) if each.segment == 1)
    whole = (store.root / first.path).read_bytes()
    (store.root / first.path).write_bytes(whole[:50])
    with pytest.raises(IntegrityError):
        merged(store)
    (store.root / first.path).write_bytes(whole)
    assert found(store) == before
    assert on_disk(store) == 18 - 3 - 1 - 1, "the other segments, and the shadows, were merged"
    really = collected_files.merge

    def raced(*arguments: Any) -> Any:
        monkeypatch.setattr(collected_files, "merge", really)
        merged(store)
        return really(*arguments)

    monkeypatch.setattr(collected_files, "merge", raced)
    with pytest.raises((ConflictError, IntegrityError)):
        merged(store)
    assert found(store) == before


def test_what_a_killed_compaction_left_is_not_rebuilt_twice(store: Store, tmp_path: Path) -> None:
    """The ledger is lost before the files are deleted that were replaced."""
    kept = {path: path.read_bytes() for path in (store.root / "rows").glob("*.parquet")}
    merged(store)
    for path, data in kept.items():
        path.write_bytes(data)
    scanned = [footer_scan.scan(store.root, path) for path in footer_scan.on_disk(store.root)]
    other = Store.open(tmp_path / "rebuilt")
    with other.ledger.write() as connection:
        put = rebuild_history.put_predictions(connection, store.root, scanned)
        rows = sum(each.rows for each in collected_log.files_of(connection, "m"))
    assert rows == 36
    assert len(put) < 12


def test_predictions_older_than_declared_expire(store: Store) -> None:
    now_us = 3 * DAY_US
    assert not any(vacuum.plan_expiry(store, now_us=now_us).values()), "they are kept long by default"
    shown = vacuum.plan_expiry(store, now_us=now_us, keep=timedelta(hours=36))
    assert [len(shown[kind]) for kind in ("predictions", "shadows")] == [4, 2]
    vacuum.expire(store, shown, now_us=now_us)
    assert {name.split("-")[1] for name in found(store)} == {"2", "3"}
    assert on_disk(store) == 12
    assert "4 files" in read(store, events.newest, kind="predictions.expired")[1].explanation
    with pytest.raises(ConflictError):
        vacuum.expire(store, shown, now_us=now_us)
