"""Units of measure: which ones are the same, which convert, and how, exactly (R21, R22).

The definitions are those of Pint (https://pint.readthedocs.io), read on first use because that takes a second: a
contract whose sources state its own units never needs them. A unit that Pint does not know, such as a currency or
"seat", is a word that equals only itself. A conversion is one multiplication, one addition and one division of
doubles, the same for a column and for a value.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast.contract.schema.columns import EXACT

if TYPE_CHECKING:
    import numpy as np
    import pint
    from numpy.typing import NDArray

_WORD: Final = r"(?:[^\W\d_][\w]*|%|°[CF])"
_POWER: Final = r"(?:(?:\^|\*\*)-?[1-9])?"
_UNIT: Final = re.compile(rf"(?:1/)?{_WORD}{_POWER}(?:[ */]{_WORD}{_POWER}){{0,5}}")
"""What is shown to Pint at all: it computes whatever it is given, and a sender's text may ask for 9**9**9."""

_LONGEST: Final = 48

Measured = TypeVar("Measured", float, "NDArray[np.float64]")


@dataclass(frozen=True, slots=True)
class Conversion:
    """From one unit to another: `(value * numerator + addend) / denominator` in double precision.

    The three are whole numbers wherever the definitions allow, so that 32 degF is 0 degC and not nearly.
    """

    numerator: float
    addend: float
    denominator: float

    def apply(self, value: Measured) -> Measured:
        """The value, or each of a column of doubles, in the other unit."""
        return (value * self.numerator + self.addend) / self.denominator


SAME: Final = Conversion(1.0, 0.0, 1.0)


@functools.lru_cache(maxsize=1024)
def conversion(source: str, target: str) -> Conversion | None:
    """How a number in `source` becomes one in `target`; `SAME` when they are one unit, None when there is no way.

    A temperature is a point on its scale. Plain numbers, "1", "%", "ppm", convert into each other; angles, bits and
    counts into them do not. Logarithmic units do not convert.

    >>> conversion("km", "mi").apply(1.609344), conversion("degF", "degC").apply(32.0), conversion("h", "min").apply(1.5)
    (1.0, 0.0, 90.0)
    >>> conversion("mi", "mile") == SAME, conversion("USD", "EUR"), conversion("mi", "h")
    (True, None, None)
    """
    if source == target:
        return SAME
    one, other = _known(source), _known(target)
    if one is None or other is None or _root(one) != _root(other):
        return None
    return _linear(one, other)


def same_unit(one: str, other: str) -> bool:
    """Whether two words mean one unit.

    >>> same_unit("min", "minutes"), same_unit("USD", "USD"), same_unit("USD", "usd")
    (True, True, False)
    """
    return conversion(one, other) == SAME


@functools.cache
def definitions() -> pint.UnitRegistry[Any]:
    """Pint's definitions, with exact fractions; the first call takes about a second and 30 MB."""
    import pint  # here, because of that

    return pint.UnitRegistry(non_int_type=Fraction)


def are_read() -> bool:
    """Whether `conversion` of two different words is quick now."""
    return definitions.cache_info().currsize > 0


def _known(unit: str) -> Any:
    if unit == "1":
        return definitions().Unit("dimensionless")
    if len(unit) > _LONGEST or not _UNIT.fullmatch(unit):
        return None
    import pint

    try:
        return definitions().parse_units(unit.replace("%", "percent").removeprefix("1/")) ** (
            -1 if unit.startswith("1/") else 1
        )
    except (pint.PintError, ValueError, TypeError, AssertionError):  # what Pint does not know, or cannot read
        return None


def _root(unit: Any) -> Any:
    return definitions().get_root_units(unit)[1]


def _linear(one: Any, other: Any) -> Conversion | None:
    import pint

    try:
        zero, first, second = (
            Fraction(definitions().convert(Fraction(value), one, other)) for value in (0, 1, 2)
        )
    except (pint.PintError, ValueError, TypeError, OverflowError):  # logarithms have no exact zero
        return None
    factor = first - zero
    if factor == 0 or second - first != factor:
        return None
    denominator = math.lcm(factor.denominator, zero.denominator)
    whole = (factor * denominator, zero * denominator, Fraction(denominator))
    if all(abs(part) <= EXACT for part in whole):
        shared = math.gcd(*(int(part) for part in whole))
        return Conversion(*(float(part / shared) for part in whole))
    return Conversion(float(factor), float(zero), 1.0)
