"""What chance alone makes of few rows: the smallest sizes that are compared, and how rare a coincidence must be."""

from __future__ import annotations

import math
from typing import Final

FEWEST_ROWS: Final = 20
"""The minimum number of values of a column in a batch."""

FEWEST_BATCHES: Final = 8
"""The minimum number of earlier batches with so many values; fewer do not show how much the feed varies."""

SURE: Final = 1e-6
"""A coincidence as rare as this is no chance."""


def surprise(count: int, rows: int, share: float) -> float:
    """Return a bound of the negative log probability that `count` of `rows`, or one farther away, have a value of `share`.

    `share` is that of all rows, 0 to 1; it counts as half a row at least, and as half a row less than all at most.

    >>> surprise(10, 1000, 0.01), surprise(50, 1000, 0.01) > 30
    (0.0, True)

    Source: H. Chernoff, Ann. Math. Stat. 23 (1952), doi 10.1214/aoms/1177729330.
    """
    share = min(1.0 - 0.5 / rows, max(0.5 / rows, share))
    parts = ((count, share), (rows - count, 1.0 - share))
    return sum(found * math.log(found / rows / expected) for found, expected in parts if found)


def most_difference(rows: int, others: int) -> float:
    """Return by how much two shares, of so many rows each, may differ by chance from the difference of their laws.

    A larger one, on either side, is as rare as `SURE`, whatever the laws are.

    >>> round(most_difference(300, 9728), 3), most_difference(20, 20) > 0.5
    (0.158, True)

    Source: W. Hoeffding, J. Amer. Statist. Assoc. 58 (1963), doi 10.1080/01621459.1963.10500830.
    """
    return math.sqrt(math.log(2.0 / SURE) / 2.0 * (1.0 / rows + 1.0 / others))


def is_absence_chance(share: float, rows: int, *, sure: float = SURE) -> bool:
    """Return True if chance may leave out, in so many rows, a value that has `share` of all rows.

    >>> is_absence_chance(0.02, 100), is_absence_chance(0.02, 1000)
    (True, False)
    """
    return rows * math.log1p(-min(0.999999, share)) >= math.log(sure)
