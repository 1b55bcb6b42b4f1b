"""The time split: train on the past and hold out the newest days, never a random draw (R72, R74)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Final

from holdfast.errors import InputError
from holdfast.records import microseconds

if TYPE_CHECKING:
    import polars as pl

_DAY: Final = timedelta(days=1)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to train on, and held-out rows from `split_at_us` (microseconds UTC) on. No row is in both.

    `embargoed` counts the rows between the two, which are in neither.
    """

    train: pl.DataFrame
    holdout: pl.DataFrame
    split_at_us: int
    embargoed: int


def time_split(
    frame: pl.DataFrame,
    event_time: str,
    holdout: timedelta,
    *,
    delay: timedelta = timedelta(0),
    label_known_at: str | None = None,
) -> Split:
    """Hold out the newest `holdout` of `frame`, and train on what was known when it began.

    A holdout of whole days begins at the start of a day in the column's own time zone, which is midnight if there is
    a midnight. A row is trained on if its event lies more than `delay` before the split: the label of a later one was
    not known by then, so training on it would leak labels into the evaluation (R55, R65).

    Parameters
    ----------
    frame
        Labelled rows, in any order.
    event_time
        The column of `frame` with the time of a row's event; a timestamp with a time zone.
    holdout
        The duration that is held out; positive.
    delay
        The duration from an event until its label is known; not negative.
    label_known_at
        The column with the time at which each label became known, microseconds since 1970 UTC. A row is then trained on only if
        that time is before the split too. None if only `delay` is known.

    Raises `InputError` HF401 if either part would be empty, and HF111 if `holdout` is not positive, `delay` is
    negative or the column has no time zone.

    >>> import polars as pl
    >>> hours = [datetime(2013, 1, day, hour, tzinfo=UTC) for day in (1, 2, 3) for hour in (6, 18)]
    >>> split = time_split(pl.DataFrame({"at": hours}), "at", timedelta(days=1), delay=timedelta(hours=12))
    >>> split.train.height, split.embargoed, split.holdout.height
    (3, 1, 2)
    >>> datetime.fromtimestamp(split.split_at_us / 1e6, UTC).isoformat()
    '2013-01-03T00:00:00+00:00'
    """
    import polars as pl  # imported here: a server reads declarations too

    if holdout <= timedelta(0) or delay < timedelta(0):
        raise InputError(
            "HF111",
            f"the holdout is {holdout}, which must be positive, and the delay {delay}, which must not be negative",
        )
    dtype = frame.schema[event_time]
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise InputError(
            "HF111", f"the event time {event_time!r} is {dtype}: it must be a timestamp with a time zone"
        )
    newest = frame[event_time].max()
    if not isinstance(newest, datetime):
        raise InputError("HF401", "there are no labelled rows to split", state="nothing was trained")
    assert newest.tzinfo is not None
    split_at_us = (
        microseconds(newest) - holdout // _MICROSECOND + 1
        if holdout % _DAY
        # Days of the zone's calendar, so that a day of 23 or 25 hours is one day.
        else _day_start_us(newest.date() - (holdout - _DAY), newest.tzinfo)
    )
    # Timestamps are compared as numbers: the wall clock time of the split need not exist.
    at_us = pl.col(event_time).dt.epoch("us")
    train = frame.filter(at_us < split_at_us - delay // _MICROSECOND)
    if label_known_at is not None:
        train = train.filter(pl.col(label_known_at) < split_at_us)
    held_out = frame.filter(at_us >= split_at_us)
    if train.is_empty():
        raise InputError(
            "HF401",
            f"no labelled row is older than the newest {holdout} and the label's delay of {delay} before it: "
            "no row is left to train on",
            state="nothing was trained",
            next_command="load older batches, or declare a shorter holdout",
        )
    return Split(train, held_out, split_at_us, frame.height - train.height - held_out.height)


def _day_start_us(day: date, zone: tzinfo) -> int:
    """Return the first microsecond (UTC) at which the calendar of `zone` shows `day` or a later one."""
    midnight = datetime.combine(day, time(), zone).astimezone(UTC)
    if _is_day_start(midnight, day, zone):
        return microseconds(midnight)
    # The clock was put forward over midnight, but not from midnight: search for the change. No clock is more
    # than a day from UTC.
    before = datetime.combine(day, time(), UTC) - _DAY
    after = before + 2 * _DAY
    while after - before > _MICROSECOND:
        middle = before + (after - before) // 2
        if middle.astimezone(zone).date() < day:
            before = middle
        else:
            after = middle
    return microseconds(after)


def _is_day_start(timestamp: datetime, day: date, zone: tzinfo) -> bool:
    earlier = timestamp - _MICROSECOND
    return earlier.astimezone(zone).date() < day <= timestamp.astimezone(zone).date()
