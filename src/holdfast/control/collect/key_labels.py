"""Labels that callers sent by the business key of a row: as rows of a label feed, and until they are loaded as such.

Until a batch of the label feed has them, predictions are labelled from the ledger's own rows; then from the feed alone, so that
a back-out of the batch withdraws them.
"""

from __future__ import annotations

import json
from typing import Any, Final

import polars as pl

from holdfast.contract import Contract
from holdfast.contract.batch.compiler import dtype
from holdfast.control.collect.prediction_keys import read_key_value
from holdfast.declaration import Model
from holdfast.feeds import Feed
from holdfast.store.catalog import batches
from holdfast.store.db.ledger import Transaction
from holdfast.store.telemetry import key_labels
from holdfast.tables.labels import KNOWN_AT

PREFIX: Final = "feedback-keys-"
"""How the id of a batch of such labels begins; the number of its last label follows."""


def feed_of(model: Model) -> Feed | None:
    """Return the label feed that such labels are loaded into: one of the row's key with no other column; None without one."""
    key = model.examples.contract.key
    for feed in model.label_feeds:
        if feed.label_key == key and set(feed.contract.names) == {*feed.contract.key, model.label}:
            return feed
    return None


def loaded_until(connection: Transaction, feed: Feed | None) -> int:
    """Return the number of the last label that a batch of `feed` has or had; 0 if there is none."""
    names = [] if feed is None else batches.ids(connection, feed.name, PREFIX)
    numbers = (name.removeprefix(PREFIX) for name in names)
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def read(
    connection: Transaction,
    model: Model,
    after: int,
    until: int | None = None,
    *,
    since_us: int | None = None,
) -> pl.DataFrame:
    """Return the labels after number `after`: the key of the row, the label, and `KNOWN_AT`.

    Only those up to number `until`, and those that were received after `since_us`, microseconds UTC; None for all.

    A label whose key has other columns than the contract of the rows is left out.
    """
    contract = model.examples.contract
    rows = [
        (*key, found.value == 1.0, found.received_at_us)
        for found in key_labels.since(connection, model.name, after, until=until, since_us=since_us)
        if (key := _key_of(contract, found.key_json)) is not None
    ]
    schema = {name: dtype(contract.column(name)) for name in contract.key}
    return pl.DataFrame(rows, schema=schema | {model.label: pl.Boolean(), KNOWN_AT: pl.Int64()}, orient="row")


def _key_of(contract: Contract, key_json: str) -> tuple[Any, ...] | None:
    found = json.loads(key_json)
    if found.keys() != set(contract.key):
        return None
    values = tuple(read_key_value(contract.column(name), found[name]) for name in contract.key)
    return None if None in values else values
