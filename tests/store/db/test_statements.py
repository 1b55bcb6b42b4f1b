"""Statements that are put together once do what SQLAlchemy's own would: rows, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.db.statements import Prepared

pytestmark = pytest.mark.usefixtures("each_ledger")

NEW = Prepared(insert(schema.contracts))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


def row(digit: str, **other: object) -> dict[str, object]:
    return {"contract_hash": digit * 64, "contract_json": "{}", "first_used_at_us": 1, **other}


def kept(store: Store) -> list[str]:
    with store.ledger.read() as connection:
        return list(connection.execute(select(schema.contracts.c.contract_hash)).scalars())


def test_rows_are_put_in_one_go(store: Store) -> None:
    with store.ledger.write() as connection:
        NEW.put(connection, row("a"), row("b"))
    assert sorted(kept(store)) == ["a" * 64, "b" * 64]


@pytest.mark.parametrize("wrong", [row("a"), row("c", contract_json=None)])
def test_what_the_ledger_refuses_is_an_error_that_callers_know(
    store: Store, wrong: dict[str, object]
) -> None:
    """Callers distinguish a lost race from a broken disk by the error's class, wherever it was raised."""
    with store.ledger.write() as connection:
        NEW.put(connection, row("a"))
    with pytest.raises(IntegrityError), store.ledger.write() as connection:
        NEW.put(connection, row("b"), wrong)
    assert kept(store) == ["a" * 64]


OF = Prepared(
    select(schema.contracts.c.contract_hash, schema.contracts.c.first_used_at_us)
    .where(schema.contracts.c.first_used_at_us >= bindparam("since"))
    .order_by(schema.contracts.c.contract_hash)
)


def test_rows_name_their_columns_and_a_value_is_the_only_one(store: Store) -> None:
    with store.ledger.write() as connection:
        NEW.put(connection, row("a"), row("b", first_used_at_us=5))
        found = OF.rows(connection, {"since": 1})
        assert [(each.contract_hash[0], each.first_used_at_us) for each in found] == [("a", 1), ("b", 5)]
        assert OF.value(connection, {"since": 5}) == "b" * 64
        assert OF.value(connection, {"since": 6}) is None
        with pytest.raises(ValueError, match="2 rows"):
            OF.value(connection, {"since": 1})


def test_what_is_read_first_begins_the_one_state_that_a_reader_sees(store: Store) -> None:
    with store.ledger.read() as reading:
        assert not OF.rows(reading, {"since": 0})
        with store.ledger.write() as writing:
            NEW.put(writing, row("a"))
        assert not OF.rows(reading, {"since": 0})
    assert kept(store) == ["a" * 64]


def test_a_statement_that_fails_is_an_error_that_callers_know(store: Store) -> None:
    """Readers recognise a lost database by the error's class, wherever it was raised."""
    with store.ledger.write() as connection:
        connection.exec_driver_sql("ALTER TABLE contracts RENAME TO hidden")
    with store.ledger.read() as connection, pytest.raises(DBAPIError):
        OF.rows(connection, {"since": 0})


LATER = Prepared(
    update(schema.contracts)
    .where(schema.contracts.c.first_used_at_us >= bindparam("since"))
    .values(first_used_at_us=9)
)


def test_a_change_reports_how_many_rows_it_changed(store: Store) -> None:
    with store.ledger.write() as connection:
        NEW.put(connection, row("a"), row("b", first_used_at_us=5))
        assert [LATER.change(connection, {"since": since}) for since in (2, 1, 10)] == [1, 2, 0]
