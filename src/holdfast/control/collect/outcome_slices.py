"""Which slices of its version's contract a prediction is in, from its logged inputs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from holdfast.contract import Contract
from holdfast.control.collect.log_summary import contract_of
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.feedback import Prediction
from holdfast.monitor.slice_quality import slice_value
from holdfast.store import Store

_inputs: Final = msgspec.json.Decoder(list[Any]).decode


def slices_of(store: Store, predictions: Iterable[Prediction]) -> dict[str, dict[str, str]]:
    """Return the value of each slice of the contract, by prediction id and column.

    A prediction without inputs, or of a version whose file cannot be read, is in no slice: its label counts all the same.
    """
    found = {}
    for each in predictions:
        contract = _known_contract(store, each.version) if each.inputs else None
        if contract is not None and contract.slices:
            row = _inputs(each.inputs)
            found[each.prediction_id] = {
                name: slice_value(contract.word(name, row[at]))
                for name, at in _places(contract)
                if at < len(row)
            }
    return found


def _known_contract(store: Store, version: str) -> Contract | None:
    try:
        return contract_of(store, version)
    except (IntegrityError, NotFoundError):
        return None


@lru_cache(maxsize=64)
def _places(contract: Contract) -> tuple[tuple[str, int], ...]:
    """Return the columns of the slices and their places in logged inputs."""
    names = [column.name for column in contract.request_columns]
    return tuple((name, names.index(name)) for name in contract.slices if name in names)
