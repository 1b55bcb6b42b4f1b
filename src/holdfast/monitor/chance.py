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


def is_absence_chance(share: float, rows: int, *, sure: float = SURE) -> bool:
    """Return True if chance may leave out, in so many rows, a value that has `share` of all rows.

    >>> is_absence_chance(0.02, 100), is_absence_chance(0.02, 1000)
    (True, False)
    """
    return rows * math.log1p(-min(0.999999, share)) >= math.log(sure)
