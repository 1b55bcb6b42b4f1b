"""The online table, in which the server looks up aggregates by bisection of lists."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final

NO_VALUE: Final = math.nan
"""The result if nothing was known: the missing number of the feature graph."""


class OnlineTable:
    """Values by aggregate, entity and the time from which each was known; the reading half of `aggregate.py`'s rule.

    An aggregate is named by its `key`, so a version only sees values of its own definition. One thread may add while
    others look up: each list changes in a single step, so a look-up sees the table before or after a change.

    >>> table = OnlineTable()
    >>> table.add("delay.0a", "EWR", 1_000, 12.5)
    >>> [table.lookup("delay.0a", "EWR", at_us, 60) for at_us in (999, 1_000, 1_060, 1_061)]
    [nan, 12.5, 12.5, nan]
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], list[tuple[int, float]]] = {}

    def add(self, aggregate: str, entity: str, known_at_us: int, value: float) -> None:
        """Add a value; it replaces one of the same time.

        Parameters
        ----------
        aggregate, entity
            The key of the aggregate, and the value of its `by` column.
        known_at_us
            The time from which on the value is known, microseconds UTC.
        value
            A finite number; `ValueError` is raised otherwise, because an absent row means a missing value.
        """
        if not math.isfinite(value):
            raise ValueError(f"{aggregate} of {entity!r} at {known_at_us}: {value} is not finite")
        entries = self._entries.setdefault((aggregate, entity), [])
        if not entries or entries[-1][0] < known_at_us:
            entries.append((known_at_us, value))
            return
        place = bisect_right(entries, (known_at_us, math.inf))
        if place and entries[place - 1][0] == known_at_us:
            entries[place - 1] = (known_at_us, value)
        else:
            entries.insert(place, (known_at_us, value))

    def lookup(self, aggregate: str, entity: str | None, at_us: int, max_age_us: int) -> float:
        """Return the value known at a time; NaN if there is none.

        Parameters
        ----------
        aggregate, entity
            The key of the aggregate, and the value of its `by` column; None gives NaN.
        at_us
            The time, microseconds UTC.
        max_age_us
            The maximum age of the value, inclusive, in microseconds.
        """
        if entity is None:
            return NO_VALUE
        entries = self._entries.get((aggregate, entity))
        if not entries:
            return NO_VALUE
        place = bisect_right(entries, (at_us, math.inf))
        if not place:
            return NO_VALUE
        known_at_us, value = entries[place - 1]
        return value if at_us - known_at_us <= max_age_us else NO_VALUE

    def remove(self, aggregate: str, entity: str, known_at_us: int) -> None:
        """Remove one value whose rows were backed out; no effect if there is none."""
        entries = self._entries.get((aggregate, entity), [])
        kept = [entry for entry in entries if entry[0] != known_at_us]
        if len(kept) != len(entries):
            self._entries[aggregate, entity] = kept

    def trim(self, aggregate: str, before_us: int) -> None:
        """Remove the values of an aggregate known before `before_us`, so that the table does not grow with time.

        Look-ups at `before_us + max_age_us` or later are unaffected.
        """
        for key in [key for key in self._entries if key[0] == aggregate]:
            entries = self._entries[key]
            kept = entries[bisect_right(entries, (before_us - 1, math.inf)) :]
            if kept:
                self._entries[key] = kept
            else:
                del self._entries[key]

    def remove_aggregate(self, aggregate: str) -> None:
        """Remove every value of an aggregate that is no longer used."""
        for key in [key for key in self._entries if key[0] == aggregate]:
            del self._entries[key]

    def __len__(self) -> int:
        """Return the number of values."""
        return sum(len(entries) for entries in self._entries.values())
