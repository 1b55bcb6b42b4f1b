"""Units of measure: which are equal, which convert, and by what exact conversion (R21, R22).

The definitions are those of Pint (https://pint.readthedocs.io). They are loaded on first use, which takes a second; a
contract whose sources state its own units never loads them. A unit unknown to Pint, such as a currency or "seat",
equals only itself. A conversion is one multiplication, one addition and one division of doubles, for a column as for
a value.
"""

from __future__ import annotations

import functools
import math
import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast.contract.schema.columns import EXACT, Column, Integer

if TYPE_CHECKING:
    import numpy as np
    import pint
    from numpy.typing import NDArray

_WORD: Final = r"(?:[^\W\d_][\w]*|%|°[CF])"
_POWER: Final = r"(?:(?:\^|\*\*)-?[1-9])?"
_UNIT: Final = re.compile(rf"(?:1/)?{_WORD}{_POWER}(?:[ */]{_WORD}{_POWER}){{0,5}}")
"""The texts that are passed to Pint. Pint evaluates its input, and a sender's text may be 9**9**9."""

_LONGEST: Final = 48
_MOST_PARSED: Final = 2048
"""Pint keeps for ever what it has parsed, some 2 kB a unit, and a sender can write units without end."""

Measured = TypeVar("Measured", float, "NDArray[np.float64]")


@dataclass(frozen=True, slots=True)
class Conversion:
    """Convert one unit into another: `(value * numerator + addend) / denominator` in double precision.

    The three are whole numbers if the definitions allow, so that 32 degF is exactly 0 degC.
    """

    numerator: float
    addend: float
    denominator: float

    def apply(self, value: Measured) -> Measured:
        """Return a value, or a column of doubles, in the other unit."""
        return (value * self.numerator + self.addend) / self.denominator


SAME: Final = Conversion(1.0, 0.0, 1.0)


@functools.lru_cache(maxsize=1024)
def find_conversion(source: str, target: str) -> Conversion | None:
    """Return the conversion from `source` to `target`: `SAME` for equal units, None if there is none.

    A temperature is a point on its scale. Plain numbers, "1", "%", "ppm", convert into each other; angles, bits and
    counts into them do not. Logarithmic units do not convert, nor does a unit whose factor no double holds.

    >>> [find_conversion(*units).apply(value) for *units, value in (("km", "mi", 1.609344), ("degF", "degC", 32.0))]
    [1.0, 0.0]
    >>> find_conversion("mi", "mile") == SAME, find_conversion("USD", "EUR"), find_conversion("mi", "h")
    (True, None, None)
    """
    if source == target:
        return SAME
    try:
        try:
            return _convert(source, target)
        except KeyError:  # another thread let Pint forget a unit meanwhile
            return _convert(source, target)
    except (
        Exception
    ):  # a sender wrote the unit, and Pint's arithmetic on it may raise anything: such units do not convert
        return None


def _convert(source: str, target: str) -> Conversion | None:
    one, other = _parse_unit(source), _parse_unit(target)
    if one is None or other is None or _root_units(one) != _root_units(other):
        return None
    return _linear_conversion(one, other)


def is_same_unit(one: str, other: str) -> bool:
    """Return True if two words mean the same unit.

    >>> is_same_unit("min", "minutes"), is_same_unit("USD", "USD"), is_same_unit("USD", "usd")
    (True, True, False)
    """
    return find_conversion(one, other) == SAME


@functools.cache
def load_definitions() -> pint.UnitRegistry[Any]:
    """Load Pint's definitions with exact fractions. The first call takes about a second and 30 MB."""
    import pint  # here, because of that

    return pint.UnitRegistry(non_int_type=Fraction)


@functools.cache
def _own_entries() -> tuple[dict[str, dict[Any, Any]], dict[str, Any]]:
    """Return the entries of Pint's caches, and its units, before it has parsed any."""
    registry: Any = load_definitions()
    return {name: dict(each) for name, each in vars(registry._cache).items()}, dict(registry._units)


def _count_parsed() -> int:
    """Return how many entries Pint keeps of the units that it has parsed."""
    registry: Any = load_definitions()
    caches, units = _own_entries()
    kept = sum(len(each) for each in vars(registry._cache).values()) + len(registry._units.maps[0])
    return kept - sum(map(len, caches.values())) - len(units)


def _forget_parsed() -> None:
    """Let Pint begin again. It has no public way; another thread that parses keeps the caches that it has, or parses again."""
    registry: Any = load_definitions()
    caches, units = _own_entries()
    fresh = type(registry._cache)()
    vars(fresh).update({name: dict(each) for name, each in caches.items()})
    registry._cache = fresh
    registry._units.maps[0] = dict(units)


def is_loaded() -> bool:
    """Return True if the definitions are loaded, so that `find_conversion` of two different words is fast."""
    return load_definitions.cache_info().currsize > 0


def convert_value(column: Column, conversion: Conversion, value: object) -> object:
    """Return one value of `column` in the contract's unit. None, and what is no number, is returned as it is.

    Raises `InexactError` if a whole number would not stay whole.

    >>> convert_value(Integer("minutes", unit="min"), find_conversion("h", "min"), 2)
    120
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if isinstance(column, Integer):
        if not isinstance(value, int) or abs(value) > EXACT:
            return value
        whole = conversion.apply(float(value))
        if not whole.is_integer() or abs(whole) > EXACT:
            raise InexactError(column.name)
        return int(whole)
    try:
        return conversion.apply(float(value))
    except OverflowError:  # beyond double precision: the row check reports it
        return value


class InexactError(Exception):
    """A whole number has no exact counterpart in the contract's unit; the text is the column's name."""


def _parse_unit(unit: str) -> Any:
    if unit == "1":
        return load_definitions().Unit("dimensionless")
    if len(unit) > _LONGEST or not _UNIT.fullmatch(unit):
        return None
    if _count_parsed() > _MOST_PARSED:
        _forget_parsed()
    return load_definitions().parse_units(unit.replace("%", "percent").removeprefix("1/")) ** (
        -1 if unit.startswith("1/") else 1
    )


def _root_units(unit: Any) -> Any:
    return load_definitions().get_root_units(unit)[1]


def _linear_conversion(one: Any, other: Any) -> Conversion | None:
    # Logarithms have no exact zero, so this raises for them.
    zero, first, second = (
        Fraction(load_definitions().convert(Fraction(value), one, other)) for value in (0, 1, 2)
    )
    factor = first - zero
    if factor == 0 or second - first != factor:
        return None
    denominator = math.lcm(factor.denominator, zero.denominator)
    whole = (factor * denominator, zero * denominator, Fraction(denominator))
    if all(abs(part) <= EXACT for part in whole):
        shared = math.gcd(*(int(part) for part in whole))
        return Conversion(*(float(part / shared) for part in whole))
    rounded, offset = float(factor), float(zero)  # raises beyond the largest double
    # A factor below the smallest normal double has lost digits; below the smallest at all it would make every value 0.
    return Conversion(rounded, offset, 1.0) if abs(rounded) >= sys.float_info.min else None
