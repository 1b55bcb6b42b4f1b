"""Collected predictions are merged and expire: every row that stays is found as before."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from holdfast.control.maintenance import backup, compact_collected, vacuum, verify
from holdfast.control.maintenance.compact_collected import CompactCollected
from holdfast.errors import ConflictError, IntegrityError
from holdfast.store import Store
from holdfast.store.db import events, leases
from holdfast.store.files import staging
from holdfast.store.maintenance import file_checks, footer_scan, rebuild_history
from holdfast.store.telemetry import collected_files, collected_log
from holdfast.store.telemetry.collected_log import PREDICTIONS, SHADOWS, FileTable, Position
from tests.support.queries import read

DAY_US = 86_400_000_000
NOW_US = 100 * DAY_US
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
    done = compact_collected.compact_collected(store, now_us=NOW_US, **options)
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
    assert merged(store)["predictions"] == (9, 9), "the other one merged them"
    assert found(store) == before


def test_a_reader_finds_files_that_were_replaced_since_it_listed_them(store: Store) -> None:
    """A back-out reads for hours: what it listed stays for a day, in one of two places at any time."""
    before = found(store)
    listed = read(store, collected_log.files_of, "m")
    located = read(store, collected_log.locate, PREDICTIONS, list(before))
    expected = read(store, file_checks.expected_files)
    merged(store)

    def seen() -> tuple[int, dict[str, str]]:
        frames = [collected_log.read_file(store.root, each, ["prediction"]) for each in listed]
        frame, damaged = collected_log.read_inputs(store.root, located)
        assert not damaged
        return sum(len(each) for each in frames if isinstance(each, pl.DataFrame)), dict(
            frame.select("prediction", "inputs").iter_rows()
        )

    assert seen() == (36, before)
    assert [why for each in expected for why in file_checks.check_file(store.root, each)] == []
    vacuum.delete_replaced(store, now_us=NOW_US + DAY_US)
    assert seen() == (36, before)
    assert len(vacuum.plan_expiry(store, now_us=NOW_US + DAY_US + 1)["replaced"]) == 12
    vacuum.delete_replaced(store, now_us=NOW_US + DAY_US + 1)
    assert not list((store.root / "replaced").iterdir())
    assert found(store) == before
    gone = collected_log.read_file(store.root, listed[0], ["prediction"])
    assert isinstance(gone, collected_log.Damaged)


def test_a_backup_has_files_that_are_replaced_while_it_is_taken(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, keep = found(store), backup._keep_file

    def kept(*arguments: Any) -> bool:
        monkeypatch.setattr(backup, "_keep_file", keep)
        merged(store)
        return keep(*arguments)

    monkeypatch.setattr(backup, "_keep_file", kept)
    target = tmp_path.with_name("backups")
    taken = backup.backup(store, target, now_us=NOW_US)
    assert taken.files >= 18, "at the first attempt"
    backup.restore(target, tmp_path.with_name("restored"))
    with_all = Store.open(tmp_path.with_name("restored"))
    assert found(with_all) == before
    assert verify.verify(with_all, now_us=NOW_US).findings == ()
    with_all.ledger.close()


def collect_many(store: Store, segment: int, first: int, count: int) -> None:
    for part in range(first, first + count):
        collect(store, PREDICTIONS, segment, part)


def test_the_control_loop_merges_a_segment_that_still_grows(store: Store) -> None:
    """One server with few requests fills a segment for days, with a file each round."""
    collect_many(store, 3, 4, 140)
    count = len(read(store, collected_log.files_of, "m"))
    rows = sum(each.rows for each in read(store, collected_log.files_of, "m"))
    frontiers = read(store, collected_log.frontiers)
    loop = Loop(store)
    loop.run()
    left = read(store, collected_log.files_of, "m")
    assert (count, len(left)) == (152, 3), "one of each segment"
    assert sum(each.rows for each in left) == rows
    assert read(store, collected_log.frontiers) == frontiers
    names = [f"s1-3-{number}/0" for number in (1, 200, 432)]
    located = read(store, collected_log.locate, PREDICTIONS, names)
    frame, damaged = collected_log.read_inputs(store.root, located)
    assert (sorted(frame["prediction"].to_list()), damaged) == (sorted(names), ())


class Loop:
    """A control loop with nothing but the concern, and its lease."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_us = NOW_US
        self.concern = CompactCollected(lambda: self.now_us)
        with store.ledger.write() as connection:
            lease = leases.acquire(connection, "control-m", holder="t", duration_us=10**9, now_us=NOW_US)
        assert isinstance(lease, leases.Lease)
        self.lease = lease

    def run(self, rounds: int = 12) -> None:
        for _ in range(rounds):
            self.now_us += compact_collected.IDLE_US
            self.concern(self.store, "m", self.lease, now_us=self.now_us)
            self.concern.finish(60)


def test_the_loop_waits_for_no_merge_and_rests_after_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, begun, end = Loop(store), threading.Event(), threading.Event()
    really, merges = collected_files.merge, []

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert end.wait(60)
        merges.append(loop.now_us)
        loop.now_us += 1_000_000
        return really(*arguments)

    monkeypatch.setattr(collected_files, "merge", slow)
    loop.concern(store, "m", loop.lease, now_us=loop.now_us)
    assert begun.wait(60), "it has returned, and the merge has not ended"
    loop.concern(store, "m", loop.lease, now_us=loop.now_us)
    end.set()
    loop.concern.finish(60)
    assert len(merges) == 1
    for rested_us, count in ((3_999_999, 1), (4_000_000, 2)):
        loop.concern(store, "m", loop.lease, now_us=NOW_US + 1_000_000 + rested_us)
        loop.concern.finish(60)
        assert len(merges) == count


def test_the_loop_merges_nothing_under_a_lease_that_another_has(store: Store) -> None:
    before, loop = on_disk(store), Loop(store)
    with store.ledger.write() as connection:
        leases.release(connection, loop.lease)
        leases.acquire(connection, "control-m", holder="other", duration_us=10**9, now_us=NOW_US)
    loop.run(2)
    assert len(read(store, collected_log.files_of, "m")) == 12
    staging.sweep_dead_attempts(store)
    assert on_disk(store) == before


def test_the_loop_reports_a_damaged_file_once_and_merges_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    first = next(each for each in read(store, collected_files.all_of, PREDICTIONS) if each.segment == 1)
    (store.root / first.path).write_bytes(b"no Parquet")
    Loop(store).run()
    assert len(read(store, collected_log.files_of, "m")) == 4 + 1 + 4
    assert len(caplog.records) == 1
    assert "collected files of s1/1 were not merged" in caplog.text


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
