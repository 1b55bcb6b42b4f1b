"""Metadata that a source declares about its columns, compared with the contract before any value is read.

Most sources declare nothing, and the contract applies. A declared unit is converted or refused: a column in
kilometres becomes miles, a column in dollars does not. A declared semantic must match: a postal code is no price
(R20, R21).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from holdfast.contract.schema.columns import Column, Integer, Number
from holdfast.contract.schema.contract import Contract
from holdfast.contract.schema.units import SAME, Conversion, find_conversion
from holdfast.errors import InputError


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """Facts that a source declares about one of its columns; None if not declared.

    Parameters
    ----------
    unit
        The unit of its numbers.
    semantic
        The meaning of its values, in the vocabulary of a column's `semantic`.
    """

    unit: str | None = None
    semantic: str | None = None


Facts: TypeAlias = Mapping[str, ColumnFacts]
"""Declared metadata by column name."""

NO_FACTS: Final[Facts] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ColumnMismatch:
    """The reason why a column cannot be read: "<column>|unit" or "<column>|semantic", and a description."""

    reason: str
    what: str


def column_metadata(contract: Contract) -> dict[str, dict[str, str]]:
    """Return the units and meanings that `contract` states, by column, under the keys that are read from a source.

    >>> from holdfast.contract import Number, Timestamp
    >>> columns = Timestamp("at", tz="UTC"), Number("speed", unit="m/s", low=0, high=90)
    >>> column_metadata(Contract(*columns, key="at", event_time="at"))
    {'speed': {'unit': 'm/s'}}
    """
    stated = {
        column.name: {"unit": getattr(column, "unit", None), "semantic": column.semantic}
        for column in contract.columns
    }
    found = {
        name: {key: str(value) for key, value in each.items() if value is not None}
        for name, each in stated.items()
    }
    return {name: each for name, each in found.items() if each}


def column_conversion(column: Column, facts: ColumnFacts) -> Conversion | ColumnMismatch | None:
    """Return the conversion that values of `column` need; None if they need none.

    A fact is compared with what the contract states; without a semantic in the contract, any is accepted.

    >>> column_conversion(Number("distance", unit="mi"), ColumnFacts(unit="km")).apply(1.609344)
    1.0
    >>> column_conversion(Number("cost", unit="USD", semantic="price"), ColumnFacts(semantic="postal_code")).reason
    'cost|semantic'
    """
    name = column.name
    if facts.semantic is not None and column.semantic not in (None, facts.semantic):
        what = f"as {facts.semantic!r}; the contract has {column.semantic!r}"
        return ColumnMismatch(f"{name}|semantic", f"column {name!r} is declared {what}")
    if facts.unit is None:
        return None
    what = f"column {name!r} is declared in {facts.unit!r}"
    if not isinstance(column, (Number, Integer)):
        kind = type(column).__name__
        return ColumnMismatch(f"{name}|unit", f"{what}; the contract has {kind}, which has no unit")
    found = find_conversion(facts.unit, column.unit)
    if found is None:
        why = f"{what}, which does not convert to the contract's {column.unit!r}"
        return ColumnMismatch(f"{name}|unit", why)
    return None if found == SAME else found


def column_conversions(contract: Contract, facts: Facts) -> dict[str, Conversion]:
    """Return the conversions of a delivery, by column.

    Raises
    ------
    InputError
        HF202 if a column's unit or semantic does not fit; the message names each such column and both sides.
    """
    found = {
        column.name: column_conversion(column, facts[column.name])
        for column in contract.columns
        if column.name in facts
    }
    misfits = [each.what for each in found.values() if isinstance(each, ColumnMismatch)]
    if misfits:
        raise InputError(
            "HF202",
            "; ".join(misfits),
            state="no row was read",
            next_command="correct the source, its column metadata, or the contract",
        )
    return {name: each for name, each in found.items() if isinstance(each, Conversion)}
