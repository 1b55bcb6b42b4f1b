"""Make an example of an inference request: a row that a version accepts, with values as the newest rows have them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from holdfast.contract import Column, Contract, Integer, Text
from holdfast.contract.row.compiler import compile_row
from holdfast.contract.row.synthetic_rows import synthetic_rows
from holdfast.control.http.open_inference import inference_request
from holdfast.declaration import Model
from holdfast.errors import HoldfastError, InputError
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.files import blobs, data_files
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from holdfast.train.artifact import read_metadata

_TEXT: Final = "example"
"""The key of the example where keys are texts."""
_NUMBER: Final = 999_999_999
"""The key of the example where keys are numbers: hardly that of a row, whose label would be joined with the prediction."""


def version_of_callers(store: Store, model: str) -> str:
    """Return the champion; the newest candidate while no version serves. Raises `NotFoundError` HF303 without one."""
    with store.ledger.read() as connection:
        plan = traffic_plans.newest(connection, model)
        return versions.newest(connection, model, role="candidate").version if plan is None else plan.champion


def example_request(store: Store, model: Model, version: str, *, now_us: int) -> str:
    """Return the body of a request with one row that the contract of `version` accepts, as JSON.

    The values are those of a newest row of the feed of the examples, the key is one of its own, and the event time is
    `now_us`, microseconds since 1970 UTC. What such a row cannot have is synthetic. It has
    no id: callers that send one and the same id are one unit of a rollout.

    Raises `InputError` HF502 if a rule of the contract accepts none of the rows, `IntegrityError` HF301 if the file of the
    version is damaged, `NotFoundError` HF303 if there is no such version.
    """
    with store.ledger.read() as connection:
        digest = versions.get(connection, version).digest
    contract = Contract.from_json(read_metadata(blobs.get(store.root, digest)).contract_json)
    check = compile_row(contract, request=True)
    for row in _candidates(store, model, contract, now_us):
        if not check(row):
            return inference_request(contract.request_columns, row, None)
    raise InputError(
        "HF502",
        f"no example row meets the rules of the contract of {version}",
        state="nothing was written",
        next_command="holdfast contract show, and fill in a row",
    )


def _candidates(store: Store, model: Model, contract: Contract, now_us: int) -> Iterator[dict[str, Any]]:
    """Yield rows, the most useful first: with and without an own key and the time of now."""
    at = datetime.fromtimestamp(now_us // 1_000_000, UTC).isoformat()
    known = _newest_row(store, model, contract)
    for base in [*([known] if known else []), *synthetic_rows(contract, 1)]:
        own_key = {name: _key_value(contract.column(name), base.get(name)) for name in contract.key}
        for changes in ({**own_key, contract.event_time: at}, {contract.event_time: at}, own_key, {}):
            yield {**base, **changes}


def _key_value(column: Column, value: object) -> object:
    match column:
        case Text():
            return _TEXT[: column.max_length]
        case Integer():
            return _NUMBER if column.high is None else column.high
        case _:
            return value


def _newest_row(store: Store, model: Model, contract: Contract) -> dict[str, Any] | None:
    """Return the fullest of the newest rows of the feed of the examples; None if there is none, or it cannot be read."""
    feed = model.examples
    names = [column.name for column in contract.request_columns if column.name in feed.contract.names]
    try:
        with store.ledger.read() as connection:
            files = data_files.entries(connection, feed.name, batches.current_version(connection))
        if not files:
            return None
        rows = data_files.read(store.root, files[-1:], names).tail(100).to_dicts()
    except HoldfastError:
        return None  # `verify` reports a damaged file
    return max(rows, key=lambda row: sum(value is not None for value in row.values()), default=None)
