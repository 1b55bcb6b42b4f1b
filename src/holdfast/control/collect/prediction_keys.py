"""Find the business key of predictions: a caller knows its application's number, the log knows both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from holdfast.contract import Category, Column, Contract, Timestamp
from holdfast.contract.batch.compiler import dtype
from holdfast.contract.schema.timestamps import read_timestamp
from holdfast.control.collect.log_summary import contract_of
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.feedback import full_id, names_row
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.store import Store
from holdfast.store.telemetry import collected_log
from holdfast.store.telemetry.collected_log import PREDICTIONS


def keys_of(store: Store, contract: Contract, predictions: pl.Series) -> pl.DataFrame:
    """Return `prediction_id` and the key columns of `contract` for those of `predictions` that were collected.

    A prediction id without a row is that of a request of one row, and of no other. Raises `IntegrityError` HF301 if a file
    that may hold one of them, or the file of a version, is damaged: fewer keys would be fewer labels without a sign.
    """
    names = predictions.unique().sort().to_list()
    with store.ledger.read() as connection:
        located = collected_log.locate(connection, PREDICTIONS, sought_for(names))
    found, damaged = collected_log.read_inputs(store.root, located)
    if damaged:
        raise IntegrityError(
            "HF301",
            f"the predictions in {damaged[0].path} cannot be read: {damaged[0].explanation}",
            state="nothing was read",
            next_command="holdfast verify",
        )
    keys = key_rows(store, contract, found)
    ids = predictions_of(names, found["prediction"])
    return ids.join(keys, on="prediction", how="inner").drop("prediction")


_IDS: Final = {PREDICTION_ID: pl.String(), "prediction": pl.String()}


def sought_for(names: Sequence[str]) -> list[str]:
    """Return the ids with rows that show which predictions `names` are: see `predictions_of`."""
    rows = {full_id(name) for name in names} | {second_row(name) for name in names if not names_row(name)}
    return sorted(rows)


def second_row(name: str) -> str:
    """Return the second row of a request by its id without a row: it exists if the request had several."""
    return f"{name}/1"


def predictions_of(names: Sequence[str], found: pl.Series) -> pl.DataFrame:
    """Return `prediction_id`, one of `names`, and `prediction`, the id with its row among `found`.

    A name without a row is left out if its request had several, so all rows of its request must be in `found`.
    """
    known = set(found)
    rows = [
        (name, full_id(name))
        for name in names
        if full_id(name) in known and (names_row(name) or second_row(name) not in known)
    ]
    return pl.DataFrame(rows, schema=_IDS, orient="row")


def key_rows(store: Store, contract: Contract, found: pl.DataFrame) -> pl.DataFrame:
    """Return `prediction` and the key columns of `contract` for the rows of `found` whose version receives the key.

    Parameters
    ----------
    store
        The store, for the contracts of the versions.
    contract
        The contract of the labelled rows.
    found
        Columns `prediction`, `version` and `inputs`, as the log keeps them.

    Raises
    ------
    IntegrityError
        HF301 or HF303 if the file of a version cannot be read: its rows may have the key.
    """
    columns = [contract.column(name) for name in contract.key]
    contracts = {version: contract_of(store, version) for version in found["version"].unique()}
    places_of = {
        version: _places([column.name for column in received.request_columns], contract.key)
        for version, received in contracts.items()
    }
    rows: list[tuple[Any, ...]] = []
    for prediction, version, inputs in found.iter_rows():
        places = places_of[version]
        if places is not None:
            values, received = json.loads(inputs), contracts[version]
            key = (received.word(column.name, values[at]) for column, at in zip(columns, places, strict=True))
            rows.append((prediction, *map(read_key_value, columns, key)))
    schema = {"prediction": pl.String()} | {column.name: dtype(column) for column in columns}
    return pl.DataFrame(rows, schema=schema, orient="row").drop_nulls()


def of_readable_versions(store: Store, found: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `found` whose version can be read. Other checks report a version that cannot."""
    readable = [version for version in found["version"].unique() if _is_readable(store, version)]
    return found.filter(pl.col("version").is_in(readable))


def _is_readable(store: Store, version: str) -> bool:
    try:
        contract_of(store, version)
    except (IntegrityError, NotFoundError):
        return False
    return True


def _places(known: Sequence[str], key: Sequence[str]) -> list[int] | None:
    return [known.index(name) for name in key] if set(key) <= set(known) else None


def read_key_value(column: Column, value: object) -> object:
    """Return a key value as the tables have it, an alias as its word; None if it is none."""
    if isinstance(column, Timestamp):
        found = read_timestamp(value, ZoneInfo(column.tz), local=column.naive == "local")
        return None if isinstance(found, str) else found
    if isinstance(column, Category) and isinstance(value, str):
        return column.aliases.get(value, value)
    return value
