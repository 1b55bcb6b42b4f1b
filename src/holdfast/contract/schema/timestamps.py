"""Timestamps: which texts and `datetime` values name a point in time.

A text is read by RFC 3339 (https://www.rfc-editor.org/rfc/rfc3339), section 5.6: a date, 'T' or a space, a time with
seconds, an optional fraction, an offset. Digits beyond the microsecond are truncated. Leap seconds (":60") are not
read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from holdfast.records import microseconds

EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
"""The earliest and latest timestamps of a row: a day inside what `datetime` can represent in every zone."""
LATEST: Final = datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC)
LOCAL_YEARS: Final = (1900, 2099)
"""The years in which a wall clock without an offset is read. Zone rules are unreliable before and guesses after."""

DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
FRACTION: Final = r"\.[0-9]{1,9}"
OFFSET: Final = r"[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TEXT: Final = re.compile(f"{DATE}[Tt ]{TIME}(?:{FRACTION})?({OFFSET})?")

_KNOWN_ZONES: Final = (timezone, ZoneInfo)

EARLIEST_US: Final = microseconds(EARLIEST)
LATEST_US: Final = microseconds(LATEST)


def read_timestamp(value: object, zone: tzinfo, *, local: bool) -> datetime | str:
    """Return the timestamp that `value` names, or the reason why it names none.

    Parameters
    ----------
    value
        A `datetime`, or a text of RFC 3339.
    zone
        The column's zone.
    local
        Whether a value without an offset is the wall clock of `zone`; otherwise it is the reason `zone`.

    Returns
    -------
    An aware `datetime`, or one of "type", "zone", "gap", "fold", "range".

    Examples
    --------
    >>> new_york = ZoneInfo("America/New_York")
    >>> read_timestamp("2013-03-10 02:30:00", new_york, local=True)
    'gap'
    >>> read_timestamp("2013-03-10T02:30:00-05:00", new_york, local=False).astimezone(UTC).isoformat()
    '2013-03-10T07:30:00+00:00'
    """
    if isinstance(value, str):
        found = _TEXT.fullmatch(value)
        if found is None:
            return "type"
        try:
            timestamp = datetime.fromisoformat(value.upper())
        except ValueError:  # 30 February, year 0
            return "type"
        naive, skipped = found[1] is None, False
    elif isinstance(value, datetime):
        timestamp = value
        early, late = _offsets_around_change(timestamp)
        naive, skipped = early is None, early is not None and late is not None and early < late
    else:
        return "type"
    if naive:
        return _read_local(timestamp.replace(tzinfo=None), zone) if local else "zone"
    if not 1 < timestamp.year < 9999 and not EARLIEST <= timestamp <= LATEST:
        return "range"
    return "gap" if skipped else timestamp


def _read_local(wall: datetime, zone: tzinfo) -> datetime | str:
    if not LOCAL_YEARS[0] <= wall.year <= LOCAL_YEARS[1]:
        return "range"
    early, late = _offsets_around_change(wall.replace(tzinfo=zone))
    assert early is not None
    assert late is not None
    if early == late:
        return wall.replace(tzinfo=zone)
    return "gap" if early < late else "fold"


def _offsets_around_change(timestamp: datetime) -> tuple[timedelta | None, timedelta | None]:
    """Return the offsets before and after a clock change at that wall time; equal if there is no change.

    The clock is put forward over a gap and back over a fold (PEP 495), so the first is smaller in a gap.
    """
    zone = timestamp.tzinfo
    if isinstance(zone, _KNOWN_ZONES):
        fixed = zone.utcoffset(None)  # of a zone that never changes its clocks, and of no other
        if fixed is not None:
            return fixed, fixed
    first = timestamp.utcoffset()
    if first is None:
        return None, None
    second = timestamp.replace(fold=1 - timestamp.fold).utcoffset()
    return (second, first) if timestamp.fold else (first, second)
