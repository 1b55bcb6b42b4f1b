"""Statements that are put together once say what SQLAlchemy's own would: rows, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from holdfast.store import Store, schema
from holdfast.store.prepared import Prepared

pytestmark = pytest.mark.usefixtures("each_ledger")

NEW = Prepared(insert(schema.contracts))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


def row(digit: str, **other: object) -> dict[str, object]:
    return {"contract_hash": digit * 64, "contract": "{}", "first_us": 1, **other}


def kept(store: Store) -> list[str]:
    with store.ledger.read() as connection:
        return list(connection.execute(select(schema.contracts.c.contract_hash)).scalars())


def test_rows_are_put_in_one_go(store: Store) -> None:
    with store.ledger.write() as connection:
        NEW.put(connection, row("a"), row("b"))
    assert sorted(kept(store)) == ["a" * 64, "b" * 64]


@pytest.mark.parametrize("wrong", [row("a"), row("c", contract=None)])
def test_what_the_ledger_refuses_is_an_error_that_callers_know(
    store: Store, wrong: dict[str, object]
) -> None:
    """Callers tell a lost race from a broken disk by the error's class, whoever raised it."""
    with store.ledger.write() as connection:
        NEW.put(connection, row("a"))
    with pytest.raises(IntegrityError), store.ledger.write() as connection:
        NEW.put(connection, row("b"), wrong)
    assert kept(store) == ["a" * 64]
