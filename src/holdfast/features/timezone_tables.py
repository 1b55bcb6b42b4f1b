"""The clock changes of a time zone as numbers, so that a graph computes the same local time on every machine.

`zoneinfo` reads them from the IANA database of the training machine, and the graph contains them. So a server with an
older database, or none, computes the same hours (R23).
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from holdfast.records import EPOCH

FIRST_SECOND: Final = 0
"""1970-01-01 UTC; before it zones are a patchwork of local mean times."""

END_SECOND: Final = 4_102_444_800
"""2100-01-01 UTC, exclusive; beyond it the rules are guesses, and the four-year cycle of the calendar ends."""

_STEP_SECONDS: Final = (
    86_400  # no zone has changed its clocks twice within a day since 1970; a pair a week apart is the closest
)


class Zone(msgspec.Struct, frozen=True):
    """From each second `starts_seconds[i]` (since 1970, UTC) on, clocks are `offsets_seconds[i]` ahead of UTC.

    The first start is `FIRST_SECOND`; the last offset holds up to `END_SECOND`.
    """

    name: str
    starts_seconds: tuple[int, ...]
    offsets_seconds: tuple[int, ...]


@lru_cache(maxsize=64)
def load_zone(name: str) -> Zone:
    """Return the zone of an IANA name, from this machine's database.

    >>> new_york = load_zone("America/New_York")
    >>> [start for start in new_york.starts_seconds if 1_356_998_400 <= start < 1_388_534_400]  # in 2013
    [1362898800, 1383458400]
    """
    zone = ZoneInfo(name)
    offset = _offset(zone, FIRST_SECOND)
    starts, offsets = [FIRST_SECOND], [offset]
    for begin in range(FIRST_SECOND, END_SECOND, _STEP_SECONDS):
        end = min(begin + _STEP_SECONDS, END_SECOND - 1)
        if _offset(zone, end) != offset:
            start = _change_after(zone, begin, end)
            offset = _offset(zone, end)
            starts.append(start)
            offsets.append(offset)
    return Zone(name, tuple(starts), tuple(offsets))


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = (EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
    assert offset is not None  # a ZoneInfo always has one
    return round(offset.total_seconds())


def _change_after(zone: ZoneInfo, before: int, after: int) -> int:
    """Return the first second of the new offset, by bisection of an interval with one change."""
    old = _offset(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(zone, middle) == old:
            before = middle
        else:
            after = middle
    return after
