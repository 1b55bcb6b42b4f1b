"""Which slices of its version's contract a prediction is in, from its logged inputs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from holdfast.contract import Contract
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.feedback import Prediction
from holdfast.monitor.slice_quality import slice_value
from holdfast.store import Store
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.train.artifact import read_metadata

_inputs: Final = msgspec.json.Decoder(list[Any]).decode


def slices_of(store: Store, predictions: Iterable[Prediction]) -> dict[str, dict[str, str]]:
    """Return the value of each slice of the contract, by prediction id and column.

    A prediction without inputs, or of a version whose file cannot be read, is in no slice: its label counts all the same.
    """
    found = {}
    for each in predictions:
        places = _known_places(store, each.version) if each.inputs else ()
        if places:
            row = _inputs(each.inputs)
            found[each.prediction_id] = {
                column: slice_value(row[at]) for column, at in places if at < len(row)
            }
    return found


def _known_places(store: Store, version: str) -> tuple[tuple[str, int], ...]:
    try:
        return _places(store, version)
    except (IntegrityError, NotFoundError):
        return ()


@lru_cache(maxsize=64)
def _places(store: Store, version: str) -> tuple[tuple[str, int], ...]:
    """Return the columns of the slices and their places in the inputs of `version`. Raises if its file cannot be read."""
    # Cached without end: a version never changes.
    with store.ledger.read() as connection:
        about = read_metadata(blobs.get(store.root, versions.get(connection, version).digest))
    contract = Contract.from_json(about.contract_json)
    names = [column.name for column in contract.request_columns]
    return tuple((name, names.index(name)) for name in contract.slices if name in names)
