"""verify finds every kind of damage to every kind of file, and nothing where nothing is wrong (P3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import text

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.verify import verify
from holdfast.feeds import Expectations
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.db import events, leases
from holdfast.store.files import data_files
from tests.support import loader
from tests.support.queries import write


@pytest.fixture
def store(tmp_path: Path, delivery: Callable[[int], Path]) -> Store:
    store = Store.open(tmp_path / "store")
    for day in range(2):
        ingest(store, loader.FEED, f"day-{day}", delivery(day), now_us=1)
    write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=1)
    write(store, leases.acquire, "control", holder="a", duration_us=100, now_us=1)
    return store


def test_a_store_in_order_has_no_finding(store: Store) -> None:
    reported: list[tuple[int, int]] = []
    outcome = verify(store, now_us=5, progress=lambda done, of: reported.append((done, of)))
    assert (outcome.files, outcome.rows, outcome.swept, outcome.findings, outcome.clean) == (
        4,
        600,
        0,
        (),
        True,
    )
    assert reported == [(done, 4) for done in range(1, 5)]
    assert outcome.as_dict()["findings"] == ()


@pytest.mark.parametrize("damage", ["emptied", "halved", "flipped", "missing", "swapped", "grown"])
def test_every_damage_to_a_file_is_found(store: Store, damage: str) -> None:
    first, second, *_ = sorted(
        (store.root / data_files.ROWS_DIRECTORY).iterdir(), key=lambda path: path.stat().st_size
    )
    content = first.read_bytes()
    match damage:
        case "emptied":
            first.write_bytes(b"")
        case "halved":
            first.write_bytes(content[: len(content) // 2])
        case "flipped":
            first.write_bytes(content[:60] + bytes([content[60] ^ 4]) + content[61:])
        case "missing":
            first.unlink()
        case "swapped":
            other = second.read_bytes()
            second.write_bytes(content)
            first.write_bytes(other)
        case "grown":
            first.write_bytes(content + b"\0")
    found = verify(store, now_us=5).findings
    assert {finding.code for finding in found} == {"HF301"}
    assert f"rows/{first.name}" in {finding.subject for finding in found}
    assert all(finding.explanation and finding.next_command for finding in found)
    with store.ledger.read() as connection:
        (reported,) = events.newest(connection, kind="store.verified")
    assert found[0].subject in reported.explanation


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (
            "UPDATE file_row_groups SET rows = rows - 1 WHERE feed = 'flights' AND batch = 'day-0'",
            "batch flights/day-0",
        ),
        (
            "UPDATE batches SET rows_loaded = 1, rows_received = 2 WHERE batch = 'day-1'",
            "batch flights/day-1",
        ),
        ("UPDATE snapshot_tables SET rows = 1", "snapshot"),
        ("UPDATE leases SET duration_us = 0", "lease control"),
        ("UPDATE files SET sha256 = 'x'", "rows/"),
        pytest.param(
            "PRAGMA foreign_keys = OFF; DELETE FROM table_versions WHERE table_version = 1",
            "ledger",
            marks=pytest.mark.sqlite,
        ),
    ],
)
def test_every_contradiction_in_the_ledger_is_found(store: Store, change: str, subject: str) -> None:
    with store.ledger.engine.connect() as connection:
        for statement in change.split(";"):
            connection.exec_driver_sql(statement)
            if statement.startswith("PRAGMA"):
                connection.rollback()
                connection.connection.driver_connection.execute(statement)  # type: ignore[union-attr] # it is sqlite3's
        connection.execute(text("SELECT 1"))
        connection.commit()
    assert any(finding.subject.startswith(subject) for finding in verify(store).findings)


def test_a_key_in_two_batches_is_found(store: Store, delivery: Callable[[int], Path]) -> None:
    """The rows of a day come again, in other bytes and with other values: no digest shows it, only the keys do."""
    again = delivery(1)
    pl.read_parquet(again).head(20).with_columns(delay=pl.lit(3.5)).write_parquet(again)
    unasked = replace(loader.FEED, expects=Expectations(duplicate_keys=None))
    ingest(store, unasked, "day-1-again", again, now_us=1)
    (found,) = verify(store, now_us=5).findings
    assert (found.code, found.subject) == ("HF206", "feed flights")
    assert found.explanation.startswith(
        "19 rows have a key that another batch has too, such as id '1000' in batches day-1, day-1-again"
    )


def test_orphans_are_swept_and_are_no_finding(store: Store) -> None:
    (store.root / data_files.ROWS_DIRECTORY / "0123-00000.parquet").write_bytes(b"half a file")
    assert (verify(store, now_us=5).swept, verify(store).swept) == (1, 0)
    with store.ledger.read() as connection:
        (reported,) = events.newest(connection, kind="store.verified")
    assert reported.explanation == "1 orphan swept"
