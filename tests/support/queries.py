"""Read and write the ledger of a test in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from holdfast.store import Store
from holdfast.store.db.ledger import Transaction

P = ParamSpec("P")
T = TypeVar("T")


def read(
    store: Store, query: Callable[Concatenate[Transaction, P], T], *given: P.args, **named: P.kwargs
) -> T:
    """Return what `query` finds in the ledger of `store`."""
    with store.ledger.read() as connection:
        return query(connection, *given, **named)


def write(
    store: Store, change: Callable[Concatenate[Transaction, P], T], *given: P.args, **named: P.kwargs
) -> T:
    """Return what `change` returns, in a transaction of its own."""
    with store.ledger.write() as connection:
        return change(connection, *given, **named)
