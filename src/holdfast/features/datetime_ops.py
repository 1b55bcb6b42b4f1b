"""The date and time part of the graph: local hour, weekday and month of timestamps.

The years are divided into equal spans, each with at most one clock change. A division finds the span of a timestamp,
and one comparison with the change in that span its offset from UTC. Hour, weekday and month are then one division,
one remainder and one look-up for all features.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v17 as op
from spox import Var

from holdfast.features.fitted import DatetimePart
from holdfast.features.numeric_ops import constant
from holdfast.features.timezone_tables import END_SECOND, Zone

_SECOND_US: Final = 1_000_000
_HOUR_US: Final = 3_600 * _SECOND_US
_DAY_US: Final = 24 * _HOUR_US
_END_US: Final = END_SECOND * _SECOND_US

_MONDAY: Final = date(
    1969, 12, 29
)  # local times are counted from here: never negative, and day 0 is a Monday
_MONDAY_US: Final = (date(1970, 1, 1) - _MONDAY) // timedelta(days=1) * _DAY_US

_CYCLE_DAYS: Final = 4 * 365 + 1  # the calendar repeats after it from March 1900 to February 2100
_LONGEST_SPAN_SECONDS: Final = 64 * 86_400

_UNIT: Final = {DatetimePart.HOUR: _HOUR_US, DatetimePart.WEEKDAY: _DAY_US, DatetimePart.MONTH: _DAY_US}
_PART_VALUES: Final[dict[DatetimePart, Sequence[int]]] = {
    DatetimePart.HOUR: range(24),
    DatetimePart.WEEKDAY: range(7),
    DatetimePart.MONTH: [(_MONDAY + timedelta(days=day)).month for day in range(_CYCLE_DAYS)],
}
"""The values of each part, unit after unit from the Monday on, before it repeats."""


def datetime_parts(at_us: Var, zone: Zone, parts: Sequence[DatetimePart]) -> Var:
    """Return `parts` of timestamps int64 (N,), as float32 (parts, N); NaN outside 1970 to 2099."""
    # A remainder and not Clip, Max or Min: in ONNX Runtime 1.31, those treat int64 values from 2**31 on as negative.
    wrapped = op.mod(at_us, constant(_END_US, np.int64))
    local = op.add(wrapped, _offset(wrapped, zone))
    units = op.div(local, _column([_UNIT[part] for part in parts]))
    within = op.mod(units, _column([len(_PART_VALUES[part]) for part in parts]))
    table = np.zeros((len(parts), max(len(_PART_VALUES[part]) for part in parts)), np.float32)
    for row, part in enumerate(parts):
        table[row, : len(_PART_VALUES[part])] = _PART_VALUES[part]
    part_values = op.gather_elements(constant(table, np.float32), within, axis=1)
    return op.where(op.equal(wrapped, at_us), part_values, constant(np.nan, np.float32))


def _offset(wrapped: Var, zone: Zone) -> Var:
    """Return the microseconds from a timestamp to the local time since the Monday."""
    if len(zone.starts_seconds) == 1:
        return constant(zone.offsets_seconds[0] * _SECOND_US + _MONDAY_US, np.int64)
    span_seconds, before, change, after = _spans(zone)
    span = op.div(wrapped, constant(span_seconds * _SECOND_US, np.int64))
    changed = op.greater_or_equal(wrapped, op.gather(constant(change * _SECOND_US, np.int64), span, axis=0))
    early = op.gather(constant(before * _SECOND_US + _MONDAY_US, np.int64), span, axis=0)
    late = op.gather(constant(after * _SECOND_US + _MONDAY_US, np.int64), span, axis=0)
    return op.where(changed, late, early)


def _spans(zone: Zone) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the length of a span, and for each span its first offset, the change within it and the offset after that."""
    starts, offsets = np.array(zone.starts_seconds), np.array(zone.offsets_seconds)
    length = _LONGEST_SPAN_SECONDS
    while np.bincount(starts[1:] // length).max() > 1:
        length //= 2
    begins = np.arange(0, END_SECOND, length)
    at_begin = np.searchsorted(starts, begins, side="right") - 1
    at_end = np.searchsorted(starts, begins + length - 1, side="right") - 1
    return length, offsets[at_begin], np.where(at_end > at_begin, starts[at_end], END_SECOND), offsets[at_end]


def _column(values: Sequence[int]) -> Var:
    return constant(np.array(values)[:, None], np.int64)
