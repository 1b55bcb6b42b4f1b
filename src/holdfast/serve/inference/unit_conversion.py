"""Convert requests that state their units to the contract's units, or reject them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from holdfast.contract import Column, ColumnFacts
from holdfast.contract.schema.source_metadata import (
    ColumnMismatch,
    column_conversion,
)
from holdfast.contract.schema.units import InexactError, convert_value, is_loaded, load_definitions
from holdfast.errors import UnavailableError
from holdfast.serve.protocol.oip import RequestError

_LOADING: Final = threading.Lock()


def convert_units(
    columns: Mapping[str, Column], values: dict[str, list[Any]], facts: Mapping[str, ColumnFacts]
) -> dict[str, list[Any]]:
    """Return `values` in the units of `columns`, as a new mapping: another contract may have other units.

    Raises
    ------
    RequestError
        HF502 when a column cannot be converted, or is something else by its semantic.
    UnavailableError
        HF503 while the definitions of units are read, which takes a second once per process, in a thread.
    """
    known = [name for name in facts if name in columns]
    if not is_loaded() and any(_has_other_unit(columns[name], facts[name]) for name in known):
        _load_in_thread()
    found = dict(values)
    for name in known:
        column = columns[name]
        how = column_conversion(column, facts[name])
        if isinstance(how, ColumnMismatch):
            raise RequestError("HF502", how.what, [how.reason])
        if how is not None:
            try:
                found[name] = [convert_value(column, how, value) for value in values[name]]
            except InexactError as error:
                what = f"input {name!r} has a number that is not an integer in the contract's unit"
                raise RequestError("HF502", what, [f"{name}|not_exact"]) from error
    return found


def _has_other_unit(column: Column, facts: ColumnFacts) -> bool:
    return facts.unit is not None and facts.unit != getattr(column, "unit", facts.unit)


def _load_in_thread() -> None:
    if _LOADING.acquire(blocking=False):
        threading.Thread(target=_load, name="units", daemon=True).start()
    raise UnavailableError(
        "HF503", "the definitions of units are being read; send the request again in a second"
    )


def _load() -> None:
    try:
        load_definitions()
    finally:
        _LOADING.release()
