"""Expectations of a whole delivery: its size, its hours, its traffic, and how many rows may be invalid.

`measurements.py` measures a delivery and `admission.py` judges it by what is declared here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.records import Level, duration

_LEVELS: Final = (Level.CRITICAL, Level.ERROR, Level.WARNING)


@dataclass(frozen=True, slots=True)
@checked()
class Limits:
    """The limit of a count for each level: a whole number is a count, a fraction a share of the whole.

    A count that reaches a limit has its level; a count of 0 has none. Raises `InputError` HF107 on a limit below 0, a
    fraction above 1, or when a worse level has a smaller limit of the same kind.

    >>> Limits(warning=0.01, error=0.05, critical=500).reached(60, 1000)
    (<Level.ERROR: 'error'>, 50.0)
    >>> Limits(error=1).reached(0, 1000) is None
    True
    """

    warning: int | float | None = None
    error: int | float | None = None
    critical: int | float | None = None

    def __post_init__(self) -> None:
        for level in _LEVELS:
            limit = self._of(level)
            if limit is not None and not _is_limit(limit):
                raise InputError(
                    "HF106",
                    f"the limit {level}={limit!r} is neither a count of 0 or more nor a share of 0.0 to 1.0",
                )
        stated = [limit for limit in (self.warning, self.error, self.critical) if limit is not None]
        for kind in (int, float):
            same = [limit for limit in stated if type(limit) is kind]
            if same != sorted(same):
                raise _refused(f"{self} has a worse level that is reached earlier")

    def reached(self, count: float, of: float) -> tuple[Level, float] | None:
        """Return the worst level that `count` of `of` reaches, with its limit as a count; None if it reaches none."""
        for level in _LEVELS:
            limit = self._of(level)
            if limit is not None and count > 0:
                bound = limit * of if isinstance(limit, float) else float(limit)
                if count >= bound:
                    return level, bound
        return None

    def _of(self, level: Level) -> int | float | None:
        match level:
            case Level.WARNING:
                return self.warning
            case Level.ERROR:
                return self.error
            case Level.CRITICAL:
                return self.critical


@dataclass(frozen=True, slots=True)
@checked()
class Volume:
    """The number of rows that a batch has (R37).

    Parameters
    ----------
    at_least, at_most
        Bounds of the rows delivered, valid or not; a batch outside them has `level`.
    deviation
        Limits of the distance from the median of the batches before, as a share of it.
    min_z_score
        A batch reaches a level of `deviation` only when it is also further away than this many robust standard deviations
        (1.4826 times the median absolute deviation): a feed that always varies raises no alarm by varying.
    weekdays
        Compare with batches of the same weekday, by the zone of the event time, as soon as there are `history` of them.
    history
        Number of batches before anything is compared, at least 4.
    """

    at_least: int | None = None
    at_most: int | None = None
    deviation: Limits | None = None
    min_z_score: float = 5.0
    weekdays: bool = False
    history: int = 8
    level: Level = Level.ERROR

    def __post_init__(self) -> None:
        for name, bound in (("at_least", self.at_least), ("at_most", self.at_most)):
            if bound is not None and bound < 0:
                raise _refused(f"volume: {name} is a number of rows, not {bound}")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise _refused(f"volume: at_least {self.at_least} is above at_most {self.at_most}")
        if self.history < 4 or self.min_z_score < 0:
            raise _refused("volume: history is at least 4 and deviations at least 0")


@dataclass(frozen=True, slots=True)
@checked()
class Completeness:
    """The longest time without an event that a batch may have (R18).

    Parameters
    ----------
    max_gap
        The longest time without an event, such as "2h".
    by
        A column each value of which has events of its own, as each airport has its own weather. None: all rows together.
        A row in which it is missing is of none.
    quiet_hours
        Hours of the day, in the zone of the event time, that do not count: (0, 6) is midnight to six.
    daily
        True if a batch is one calendar day in the zone of the event time. The times from its beginning to the first event
        and from the last event to its end then count too, and rows of another day are limited by `other_days`.
    level
        The level of a time without an event that is too long.
    other_days
        Limits of the rows of another day than most rows; used with `daily`.
    """

    max_gap: timedelta | str
    by: str | None = None
    quiet_hours: tuple[int, int] | None = None
    daily: bool = False
    level: Level = Level.ERROR
    other_days: Limits = field(default_factory=lambda: Limits(error=1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_gap", duration(self.max_gap, "max_gap"))
        if self.max_gap_us <= 0:
            raise _refused("completeness: the longest time without an event must be positive")
        if self.quiet_hours is not None and not 0 <= self.quiet_hours[0] < self.quiet_hours[1] <= 24:
            raise InputError(
                "HF106", f"completeness: quiet hours are such as (0, 6), not {self.quiet_hours!r}"
            )

    @property
    def max_gap_us(self) -> int:
        """`max_gap` in microseconds."""
        return duration(self.max_gap) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
@checked()
class Granularity:
    """The most common time between two events of the same value of `by`, or of all rows (R44).

    A row in which `by` is missing is of no value.
    """

    step: timedelta | str
    by: str | None = None
    level: Level = Level.CRITICAL

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", duration(self.step, "step"))
        if self.step_us <= 0:
            raise _refused("granularity: the step must be positive")

    @property
    def step_us(self) -> int:
        """`step` in microseconds."""
        return duration(self.step) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
@checked()
class Reference:
    """A foreign key: values of `column` are in column `key` of the loaded rows of the feed named `feed`.

    A row whose value is not there is quarantined with the reason "<column>|reference"; `invalid_rows` limits their number.
    A missing value refers to nothing. `lookback` bounds how long before the first event of the batch the other feed's
    events may be; None looks through all its rows, however many.
    """

    column: str
    feed: str
    key: str
    lookback: timedelta | str | None = None

    def __post_init__(self) -> None:
        if self.lookback is not None:
            object.__setattr__(self, "lookback", duration(self.lookback, "lookback"))
            if duration(self.lookback) <= timedelta(0):
                raise _refused(f"reference by {self.column!r}: the lookback must be positive")


@dataclass(frozen=True, slots=True)
@checked()
class Composition:
    """Bounds of the share that each value of `column` has of a batch (R43), such as `at_most={"bot": 0.2}`."""

    column: str
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    level: Level = Level.ERROR

    def __post_init__(self) -> None:
        for value, share in (*self.at_most.items(), *self.at_least.items()):
            if not 0 <= share <= 1:
                raise _refused(f"composition: the share of {value!r} is {share!r}, not 0 to 1")


@dataclass(frozen=True, slots=True)
@checked()
class TopValueShare:
    """Limits of the rows that have the most frequent value of `column` (R43), such as those of one client."""

    column: str
    limits: Limits


@dataclass(frozen=True, slots=True)
@checked()
class Expectations:
    """What a feed is expected to deliver. An expectation that is None is not checked and costs nothing.

    Parameters
    ----------
    invalid_rows
        Limits of the rows that break the contract: the discard budget of a batch (R28). They hold for the batch, and for
        each slice of the contract that has at least 30 rows.
    rows
        The size of a batch.
    interval, grace
        The time between batches, such as "1d". A feed with no load for longer than `interval` and `grace`, by our own clock,
        is overdue. More than both in event time, between the last event before a batch and its first event, is a gap in
        which batches are missing (R18).
    missing_batches
        Limits of the number of batches that such a gap lacks.
    completeness
        The longest time without an event.
    sequence
        An integer column that counts without a gap, in a batch and on from the batch before.
    sequence_gaps
        Limits of the numbers that are missing in `sequence`.
    granularity
        The time between the events of an entity.
    references
        Columns whose values are keys of other feeds.
    composition, top_value_share
        The traffic that a batch is made of.
    early_labels
        "refuse" refuses a batch with a label before it is due (event time plus the label's delay): it was predicted, or it
        leaked.
    max_future
        The longest time that the newest event may be after the load, at level "error"; None does not check.
    duplicates
        Which batches are refused as duplicates: "rows" finds the rows of an earlier batch in any order and notation;
        "stale" also finds rows that differ from those of an earlier batch only in their key and event time.
    duplicate_keys
        Limits of the rows whose key a loaded row of the feed has already, as a count or a share of all rows delivered.
        Such rows are quarantined with the reason "<key>|loaded", and what is loaded stays. A batch without another valid
        row is refused as a duplicate. Keys are looked up in the batches whose event times overlap this one's; `holdfast
        verify` finds a key that comes again at another time. A batch that overlaps no other costs nothing. Use None for a
        feed whose keys come again on purpose, as updates do, and for one whose batches all have the same span.
    unseen_words
        Limits of the rows that have one word of a category that its `values` do not list, as a count or a share of the valid
        rows, from five rows on. It needs no earlier batch. A category with unseen="reject" has no such row, and of one without
        `values` every word is listed: `drift` reports its new words.
    unseen_slices
        The same for a category that is a slice of the contract: a model predicts for a slice that it never met.
    drift
        True to compare the distribution of each column with that of the batches before.

    Raises `InputError` HF107 when a part is contradictory.
    """

    invalid_rows: Limits | None = None
    rows: Volume | None = None
    interval: timedelta | str | None = None
    grace: timedelta | str = timedelta(0)
    missing_batches: Limits = field(default_factory=lambda: Limits(error=1))
    completeness: Completeness | None = None
    sequence: str | None = None
    sequence_gaps: Limits = field(default_factory=lambda: Limits(error=1))
    granularity: Granularity | None = None
    references: tuple[Reference, ...] = ()
    composition: tuple[Composition, ...] = ()
    top_value_share: tuple[TopValueShare, ...] = ()
    early_labels: Literal["allow", "refuse"] = "allow"
    max_future: timedelta | str | None = None
    duplicates: Literal["rows", "stale"] = "rows"
    duplicate_keys: Limits | None = field(default_factory=lambda: Limits(warning=1))
    unseen_words: Limits | None = field(default_factory=lambda: Limits(warning=0.05))
    unseen_slices: Limits | None = field(default_factory=lambda: Limits(warning=0.05, error=0.2))
    drift: bool = False

    def __post_init__(self) -> None:
        for name in ("interval", "max_future"):
            span = getattr(self, name)
            object.__setattr__(self, name, None if span is None else duration(span, name))
        object.__setattr__(self, "grace", duration(self.grace, "grace"))
        for name, span in (("grace", self.grace), ("max_future", self.max_future)):
            if span is not None and duration(span) < timedelta(0):
                raise _refused(f"expectations: {name} is at least 0, not {span}")
        if self.interval is not None and duration(self.interval) <= timedelta(0):
            raise _refused("expectations: the interval must be positive")

    @property
    def interval_us(self) -> int | None:
        """`interval` in microseconds."""
        return None if self.interval is None else duration(self.interval) // timedelta(microseconds=1)

    @property
    def grace_us(self) -> int:
        """`grace` in microseconds."""
        return duration(self.grace) // timedelta(microseconds=1)

    @property
    def max_future_us(self) -> int | None:
        """`max_future` in microseconds."""
        return None if self.max_future is None else duration(self.max_future) // timedelta(microseconds=1)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that the expectations name, each once."""
        named = [
            *(reference.column for reference in self.references),
            *(each.column for each in self.composition),
            *(each.column for each in self.top_value_share),
            self.sequence,
            None if self.completeness is None else self.completeness.by,
            None if self.granularity is None else self.granularity.by,
        ]
        return tuple(dict.fromkeys(name for name in named if name is not None))


def _refused(reason: str) -> InputError:
    return InputError("HF106", reason)


def _is_limit(limit: object) -> bool:
    if isinstance(limit, bool) or not isinstance(limit, (int, float)):
        return False
    return 0 <= limit <= (1.0 if isinstance(limit, float) else math.inf)
