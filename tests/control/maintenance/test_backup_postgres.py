"""A backup of a ledger on PostgreSQL comes back on PostgreSQL and on SQLite, and numbers go on where they were (P18)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.backup import backup, restore
from holdfast.control.maintenance.rebuild_ledger import rebuild
from holdfast.control.maintenance.verify import verify
from holdfast.errors import InputError
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db import events, schema
from holdfast.store.db.ledger import sqlite_url
from holdfast.store.files import data_files
from holdfast.store.maintenance import backup as backups
from tests.support import loader

Delivery = Callable[[int], Path]
NUMBERED = {
    table.name: column
    for table in schema.METADATA.sorted_tables
    for column in table.primary_key.columns
    if column.autoincrement is True
}


def _digest(store: Store) -> str:
    with store.ledger.read() as connection:
        return backups.ledger_digest(connection)


@pytest.fixture
def database(postgres_server: Any, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes an empty database; its URL."""

    def make(name: str) -> str:
        unique = f"{request.node.name}_{name}".replace("[", "_").replace("]", "").lower()[-60:]
        postgres_server.execute(f'CREATE DATABASE "{unique}"')
        return str(postgres_server.url(unique, "postgresql+psycopg"))

    return make


@pytest.fixture
def store(tmp_path: Path, delivery: Delivery, database: Callable[[str], str]) -> Store:
    store = Store.open(tmp_path / "store", database("first"))
    for day in range(3):
        ingest(store, loader.FEED, f"day-{day}", delivery(day), now_us=1, aggregates=[loader.AGGREGATE])
    return store


def _ids(store: Store) -> list[str]:
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
    return sorted(map(str, data_files.read_rows(store, version, "flights", ["id"])["id"].to_list()))


def _newest_numbers(store: Store) -> dict[str, int]:
    with store.ledger.read() as connection:
        return {
            table: int(connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one())
            for table, column in NUMBERED.items()
        }


@pytest.mark.parametrize("onto", ["postgresql", "sqlite"])
def test_it_comes_back_and_numbers_go_on(
    onto: str,
    store: Store,
    tmp_path: Path,
    delivery: Delivery,
    database: Callable[[str], str],
) -> None:
    rows, digest, numbers = _ids(store), _digest(store), _newest_numbers(store)
    taken = backup(store, tmp_path / "kept", now_us=10)
    url = database("second") if onto == "postgresql" else sqlite_url(tmp_path / "back" / "ledger.db")
    restored = restore(tmp_path / "kept", tmp_path / "back", ledger_url=url if onto == "postgresql" else None)
    assert (restored.rows, restored.ledger_rows) == (900, taken.ledger_rows)
    back = Store.open(tmp_path / "back", url)
    assert _digest(back) == digest
    assert _ids(back) == rows
    done = ingest(back, loader.FEED, "day-3", delivery(3), now_us=11, aggregates=[loader.AGGREGATE])
    assert (done.state, done.table_version) == ("loaded", numbers["table_versions"] + 1)
    with back.ledger.write() as connection:
        events.append(connection, at_us=12, kind="a.b", subject="c", explanation="d")
    assert _newest_numbers(back)["events"] > numbers["events"]
    assert verify(back).findings == ()


def test_a_database_that_is_not_empty_is_not_restored_into(
    store: Store, tmp_path: Path, delivery: Delivery, database: Callable[[str], str]
) -> None:
    backup(store, tmp_path / "kept", now_us=10)
    url = database("second")
    other = Store.open(tmp_path / "other", url)
    ingest(other, loader.FEED, "day-9", delivery(9), now_us=1)
    digest = _digest(other)
    with pytest.raises(InputError, match=r"HF306.*not empty"):
        restore(tmp_path / "kept", tmp_path / "back", ledger_url=url)
    assert not (tmp_path / "back").exists()
    assert _digest(other) == digest


def test_a_lost_database_is_made_again_in_an_empty_one(
    store: Store, delivery: Delivery, database: Callable[[str], str]
) -> None:
    """The numbers of the new database go on after those that the rebuild gave."""
    rows = _ids(store)
    store.ledger.close()
    url = database("second")
    done = rebuild(store.root, now_us=9, ledger_url=url)
    assert (done.batches, done.rows, done.not_rebuilt) == (3, 900, [])
    back = Store.open(store.root, url)
    assert _ids(back) == rows
    assert ingest(back, loader.FEED, "day-3", delivery(3), now_us=10).state == "loaded"
    assert ingest(back, loader.FEED, "day-1", delivery(1), now_us=10).state == "already_loaded"
    assert verify(back).findings == ()
