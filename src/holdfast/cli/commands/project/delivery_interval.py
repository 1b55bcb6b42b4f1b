"""Suggest how often a feed delivers, by the files that a project begins with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from holdfast.records import duration

_DAYS: Final = {1: "6h", 7: "1d", 31: "3d", 92: "7d"}
"""Usual intervals of deliveries in days, with the grace of each: no file comes to the minute."""
_LONGEST: Final = ("366d", "14d")
_SLACK: Final = 1.1
"""The first event of a file varies, so a distance of files may be this much longer than their interval."""
_FEWEST_FILES: Final = 3
_STALE: Final = 3
"""A feed is stale whose newest event is older than so many of its intervals: it may deliver no more, or more rarely."""


@dataclass(frozen=True, slots=True)
class DeliveryInterval:
    """How often a feed probably delivers, the grace of that ("" for none), and how it is known, in words."""

    interval: str
    grace: str
    why: str


def suggest_interval(timestamps: pl.Series, file_rows: Sequence[int] = ()) -> DeliveryInterval:
    """Return how often a feed with these event times probably delivers.

    Parameters
    ----------
    timestamps
        The event times, file after file; null where a row has none.
    file_rows
        How many of them each file has. From three files on, the distance of their first events is the interval, unless
        the files overlap. Else it is the shortest usual one that no time without an event exceeds.

    >>> days = pl.Series([datetime(2026, 1, day) for day in range(1, 29)])
    >>> suggest_interval(days).interval, suggest_interval(days, [7, 7, 7, 7]).interval
    ('1d', '7d')
    """
    days = _days_between(timestamps, file_rows)
    if days is None:
        longest = timestamps.drop_nulls().unique().sort().diff().drop_nulls().max()
        silent = longest / timedelta(days=1) if isinstance(longest, timedelta) else 0.0
        interval = next((f"{size}d" for size in _DAYS if silent <= size), _LONGEST[0])
        return DeliveryInterval(interval, "", f"the longest time without an event is at most {interval} here")
    why = f"{len(file_rows)} files begin mostly {_in_words(days)} apart"
    if days * 24 * _SLACK < 23:
        return DeliveryInterval(f"{math.ceil(days * 24 / _SLACK)}h", "1h", why)
    found = next(((f"{size}d", grace) for size, grace in _DAYS.items() if days <= size * _SLACK), _LONGEST)
    return DeliveryInterval(*found, why)


def stale_days(timestamps: pl.Series, interval: str, now: datetime) -> int | None:
    """Return how many days old the newest event is, if that is longer than the feed may be silent; None if it is not.

    >>> stale_days(pl.Series([datetime(2026, 1, day) for day in (1, 2, 3)]), "1d", datetime(2026, 3, 1, tzinfo=UTC))
    57
    """
    newest = timestamps.max()
    if not isinstance(newest, datetime):
        return None
    age = now - (newest if newest.tzinfo else newest.replace(tzinfo=UTC))
    return age.days if age > _STALE * duration(interval) else None


def _days_between(timestamps: pl.Series, file_rows: Sequence[int]) -> float | None:
    """Return the median number of days between the first events of files; None if the files do not show it."""
    if len(file_rows) < _FEWEST_FILES or sum(file_rows) != timestamps.len():
        return None
    number = pl.Series("file", range(len(file_rows)), pl.Int64).repeat_by(pl.Series(file_rows)).explode()
    files = (
        pl.DataFrame({"file": number, "at": timestamps})
        .drop_nulls()
        .group_by("file")
        .agg(first=pl.col("at").min(), last=pl.col("at").max())
        .sort("first")
    )
    apart = files["first"].diff().drop_nulls().median()
    span = (files["last"] - files["first"]).median()
    if not isinstance(apart, timedelta) or not isinstance(span, timedelta) or not apart:
        return None
    return None if span > apart * _SLACK else apart / timedelta(days=1)


def _in_words(days: float) -> str:
    return f"{days:.3g} d" if days >= 1 else f"{days * 24:.3g} h"
