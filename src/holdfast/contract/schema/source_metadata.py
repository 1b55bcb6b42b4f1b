"""The border: what a source says of its columns is held against what the contract says, before any value is read.

Most sources say nothing, and are taken at the contract's word. What says something is converted or refused: a column in
kilometres becomes miles, a column in dollars does not, and a postal code is no price however its column is called (R20,
R21).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from holdfast.contract.schema.columns import EXACT, Column, Integer, Number
from holdfast.contract.schema.contract import Contract
from holdfast.contract.schema.units import SAME, Conversion, conversion
from holdfast.errors import InputError


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """What a source says of one of its columns; None is nothing.

    Parameters
    ----------
    unit
        The unit that its numbers are in.
    semantic
        What its values are, in the word that `semantic` of a column would be.
    """

    unit: str | None = None
    semantic: str | None = None


Facts: TypeAlias = Mapping[str, ColumnFacts]
"""By column what its source says of it."""

NO_FACTS: Final[Facts] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a column cannot cross: `reason` as of a row, "<column>|unit" or "<column>|semantic", and what it is in words."""

    reason: str
    what: str


def crossing(column: Column, facts: ColumnFacts) -> Conversion | Misfit | None:
    """What becomes of the values of `column` that come with `facts`; None when they stay as they are.

    A fact is compared with what the contract states; where the contract states no semantic, any is let through.

    >>> crossing(Number("distance", unit="mi"), ColumnFacts(unit="km")).apply(1.609344)
    1.0
    >>> crossing(Number("cost", unit="USD", semantic="price"), ColumnFacts(semantic="postal_code")).reason
    'cost|semantic'
    """
    name = column.name
    if facts.semantic is not None and column.semantic not in (None, facts.semantic):
        return Misfit(
            f"{name}|semantic",
            f"column {name!r} comes as {facts.semantic!r}, and is {column.semantic!r} in the contract",
        )
    if facts.unit is None:
        return None
    if not isinstance(column, (Number, Integer)):
        return Misfit(
            f"{name}|unit",
            f"column {name!r} comes in {facts.unit!r}, and is a {type(column).__name__}, without unit",
        )
    found = conversion(facts.unit, column.unit)
    if found is None:
        return Misfit(
            f"{name}|unit",
            f"column {name!r} comes in {facts.unit!r}, which does not convert to the contract's {column.unit!r}",
        )
    return None if found == SAME else found


def crossings(contract: Contract, facts: Facts) -> dict[str, Conversion]:
    """The conversions of a whole delivery, by column.

    Raises
    ------
    InputError
        HF202 when a column cannot cross; the message names every such column, and both sides of each.
    """
    found = {
        column.name: crossing(column, facts[column.name])
        for column in contract.columns
        if column.name in facts
    }
    misfits = [each.what for each in found.values() if isinstance(each, Misfit)]
    if misfits:
        raise InputError(
            "HF202",
            "; ".join(misfits),
            state="no row was read",
            next_command="correct the source, or what it says of its columns, or the contract",
        )
    return {name: each for name, each in found.items() if isinstance(each, Conversion)}


def convert_value(column: Column, how: Conversion, value: object) -> object:
    """One value of `column` in the contract's unit; None is missing, and what is no number is left for the row check.

    Raises `Inexact` when a whole number would not stay whole.

    >>> convert_value(Integer("minutes", unit="min"), conversion("h", "min"), 2)
    120
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if isinstance(column, Integer):
        if not isinstance(value, int) or abs(value) > EXACT:
            return value
        whole = how.apply(float(value))
        if not whole.is_integer() or abs(whole) > EXACT:
            raise InexactError(column.name)
        return int(whole)
    try:
        return how.apply(float(value))
    except OverflowError:  # beyond double precision, which the row check says
        return value


class InexactError(Exception):
    """A whole number that is none in the contract's unit; the text is the column's name."""
