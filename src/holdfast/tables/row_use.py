"""State what a version did with the rows of a load: trained on them, was evaluated on them, or used none.

A version is made from a snapshot, and uses only some of its rows: labels of the newest are not due yet, and the days before
are held out. So a load can be in the snapshot of a version that never saw a row of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from holdfast.tables.snapshots import LoadKey


class RowUse(StrEnum):
    """The use of rows by a version."""

    TRAINED = "trained"  # some are training rows, or that is not known
    EVALUATED = "evaluated"  # none is a training row, and some were held out for its gates
    UNUSED = "unused"  # none is a training row or held out


def use_of_loads(loads: Iterable[LoadKey], untrained: Mapping[LoadKey, int]) -> RowUse:
    """Return what a version did with the rows of `loads`, which its snapshot holds.

    `untrained` has, for each load that no training row is from, the number of its held-out rows.

    >>> use_of_loads([("trips", "d1", 0), ("trips", "d2", 0)], {("trips", "d2", 0): 0}).value
    'trained'
    >>> use_of_loads([("trips", "d2", 0)], {("trips", "d2", 0): 0}).value
    'unused'
    """
    held_out = 0
    for load in loads:
        if load not in untrained:
            return RowUse.TRAINED
        held_out += untrained[load]
    return RowUse.EVALUATED if held_out else RowUse.UNUSED
