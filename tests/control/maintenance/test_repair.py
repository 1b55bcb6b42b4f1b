"""`verify --repair` repairs what can be proved, shows the proof, and leaves the rest as HF305 (P3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.backup import backup
from holdfast.control.maintenance.repair import Repaired, repair
from holdfast.control.maintenance.verify import verify
from holdfast.store import Store
from holdfast.store.catalog import batches, delta, delta_log, snapshots
from holdfast.store.db import events, leases
from holdfast.store.feeds import contracts
from holdfast.store.files import data_files
from holdfast.store.maintenance import derived_checks
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, frame
from holdfast.store.serving.prediction_log import read as read_log
from tests.support import loader
from tests.support.queries import read, write

Delivery = Callable[[int], Path]


@pytest.fixture
def store(tmp_path: Path, delivery: Delivery) -> Store:
    store = Store.open(tmp_path / "store")
    for day in range(2):
        ingest(store, loader.FEED, f"day-{day}", delivery(day), now_us=1)
    return store


def _rows(store: Store) -> list[tuple[object, ...]]:
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
    return data_files.read_rows(store, version, "flights").rows()


def _subjects(done: Repaired) -> list[str]:
    assert all(each.action and each.proof for each in done.repairs)
    return [each.subject for each in done.repairs]


def _flip(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:60] + bytes([data[60] ^ 4]) + data[61:])


def test_lost_bytes_come_back_from_a_link_or_a_backup_and_else_do_not(store: Store, tmp_path: Path) -> None:
    rows, kept = _rows(store), tmp_path / "kept"
    backup(store, kept, now_us=2)
    snapshot = write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=2)
    published = delta.export(store, snapshot.snapshot, now_us=2)["flights"]
    linked = sorted(path.name for path in published.glob("*.parquet"))
    _flip(store.root / "rows" / linked[0])
    done = repair(store, now_us=3)
    assert _subjects(done) == [f"rows/{linked[0]}"]
    assert done.verification.findings == ()
    (held,) = [path for path in sorted((store.root / "rows").iterdir()) if path.name not in linked][:1]
    held.unlink()
    alone = repair(store, now_us=4)
    assert alone.repairs == ()
    assert {(each.code, each.subject) for each in alone.verification.findings} == {
        ("HF305", f"rows/{held.name}")
    }
    again = repair(store, now_us=5, sources=[kept])
    assert _subjects(again) == [f"rows/{held.name}"]
    assert again.verification.findings == ()
    assert _rows(store) == rows
    with store.ledger.read() as connection:
        assert len(events.newest(connection, kind="store.repaired")) == 2


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE file_row_groups SET rows = rows - 1 WHERE batch = 'day-0'",
        "UPDATE batches SET rows_loaded = 1, rows_received = 2 WHERE batch = 'day-1'",
        "UPDATE batches SET event_time_max_us = 5 WHERE batch = 'day-1'",
        "UPDATE files SET rows = 1",
        "UPDATE leases SET duration_us = 0",
    ],
)
def test_wrong_facts_of_the_ledger_are_set_right_by_the_files(store: Store, change: str) -> None:
    with store.ledger.write() as connection:
        leases.acquire(connection, "control", holder="a", duration_us=100, now_us=1)
    with store.ledger.write() as connection:
        connection.exec_driver_sql(change)
    assert verify(store).findings
    done = repair(store, now_us=3)
    assert done.repairs
    assert done.verification.findings == ()


def test_a_digest_that_no_file_has_is_not_guessed(store: Store) -> None:
    """File and ledger contradict each other, and nothing reports which of the two is right."""
    with store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE files SET sha256 = 'x' WHERE table_name = 'flights'")
    done = repair(store, now_us=3)
    assert done.repairs == ()
    assert {each.code for each in done.verification.findings} == {"HF305"}


def test_exported_tables_and_contracts_are_made_again(store: Store) -> None:
    snapshot = write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=2)
    published = delta.export(store, snapshot.snapshot, now_us=2)["flights"]
    commit = next((published / "_delta_log").glob("*.json"))
    commit.write_bytes(b"")
    contracts.copy_path(store.root, loader.CONTRACT.hash).unlink()
    done = repair(store, now_us=3)
    assert sorted(_subjects(done)) == [
        f"contract {loader.CONTRACT.hash[:12]}",
        "exported/flights",
    ]
    assert done.verification.findings == ()
    assert commit.stat().st_size > 0


def test_a_changed_bit_of_any_byte_of_an_exports_checksum_file_is_found(store: Store) -> None:
    """The name of the snapshot, and the words of the format, are no less than the checksums."""
    snapshot = write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=2)
    path = delta.export(store, snapshot.snapshot, now_us=2)["flights"] / delta_log.CHECKSUM_FILE
    data = path.read_bytes()
    assert not read(store, _export_findings, store.root)
    missed = []
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 7]) + data[place + 1 :])
        if not read(store, _export_findings, store.root):
            missed.append(data[max(0, place - 20) : place + 1])
    assert missed == []


def _export_findings(connection: Connection, root: Path) -> list[str]:
    return [reason for _, reason in derived_checks.exported_tables(connection, root)]


def test_the_torn_end_of_a_log_is_truncated_once_its_server_is_gone(store: Store) -> None:
    directory = store.root / "log" / "s1"
    writer = LogWriter(directory, "s1", "m")
    record = PredictionRecord(
        writer.next_id(), 1, 1, b"u", "champion", "v1", "", None, "ok", 9, [0.5], [[1.0]]
    )
    writer.write([frame(record)])
    writer.close()
    segment = directory / "00000001.log"
    whole = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(frame(record)[:-3])
    assert [each.subject for each in verify(store).findings] == ["log/s1/00000001.log"]
    done = repair(store, now_us=3)
    assert _subjects(done) == ["log/s1/00000001.log"]
    assert done.verification.findings == ()
    assert (segment.stat().st_size, len(read_log(segment)[0])) == (whole, 1)
