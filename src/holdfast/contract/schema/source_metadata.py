"""Metadata that a source declares about its columns, compared with the contract before any value is read.

Most sources declare nothing, and the contract applies. A declared unit is converted or refused: a column in
kilometres becomes miles, a column in dollars does not. A declared semantic must match: a postal code is no price
(R20, R21). So must a declared window: a mean over 10 seconds is no mean over 5 minutes (R44).
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
from holdfast.records import duration


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """Facts that a source declares about one of its columns; None if not declared.

    Parameters
    ----------
    unit
        The unit of its numbers.
    semantic
        The meaning of its values, in the vocabulary of a column's `semantic`.
    window
        How much time each value is computed over, such as "5min".
    """

    unit: str | None = None
    semantic: str | None = None
    window: str | None = None

    @classmethod
    def of(cls, column: Column) -> ColumnFacts:
        """Return what `column` itself declares."""
        return cls(getattr(column, "unit", None), column.semantic, getattr(column, "window", None))

    def stated(self) -> dict[str, str]:
        """Return what is declared, by name."""
        pairs = (("unit", self.unit), ("semantic", self.semantic), ("window", self.window))
        return {name: text for name, text in pairs if text is not None}


Facts: TypeAlias = Mapping[str, ColumnFacts]
"""Declared metadata by column name."""

NO_FACTS: Final[Facts] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ColumnMismatch:
    """Why a column cannot be read: "<column>|unit", "<column>|semantic" or "<column>|window", and a description."""

    reason: str
    what: str


def column_metadata(contract: Contract) -> dict[str, dict[str, str]]:
    """Return the units, meanings and windows that `contract` states, by column, under the keys that are read from a source.

    >>> from holdfast.contract import Number, Timestamp
    >>> columns = Timestamp("at", tz="UTC"), Number("speed", unit="m/s", low=0, high=90)
    >>> column_metadata(Contract(*columns, key="at", event_time="at"))
    {'speed': {'unit': 'm/s'}}
    """
    stated = {column.name: ColumnFacts.of(column).stated() for column in contract.columns}
    return {name: facts for name, facts in stated.items() if facts}


def column_conversion(column: Column, facts: ColumnFacts) -> Conversion | ColumnMismatch | None:
    """Return the conversion that values of `column` need; None if they need none.

    A fact is compared with what the contract states; without a semantic or a window in the contract, any is accepted.

    >>> column_conversion(Number("distance", unit="mi"), ColumnFacts(unit="km")).apply(1.609344)
    1.0
    >>> column_conversion(Number("cost", unit="USD", semantic="price"), ColumnFacts(semantic="postal_code")).reason
    'cost|semantic'
    """
    name = column.name
    if facts.semantic is not None and column.semantic not in (None, facts.semantic):
        what = f"as {facts.semantic!r}; the contract has {column.semantic!r}"
        return ColumnMismatch(f"{name}|semantic", f"column {name!r} is declared {what}")
    window = getattr(column, "window", None)
    if facts.window is not None and window is not None and not _is_same_window(facts.window, window):
        what = f"over {facts.window!r}; the contract has values over {window!r}"
        return ColumnMismatch(f"{name}|window", f"column {name!r} is declared {what}")
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


def _is_same_window(declared: str, window: str) -> bool:
    try:
        return duration(declared) == duration(window)
    except InputError:
        return False


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
