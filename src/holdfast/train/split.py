"""What is trained on and what is held out: always the past and the newest days, never a random draw (R72,
R74)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from holdfast.errors import InputError

if TYPE_CHECKING:
    import polars as pl

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows before `cut` to train on, rows from `cut` on to judge with. No row is in both."""

    train: pl.DataFrame
    holdout: pl.DataFrame
    cut: datetime


def time_split(frame: pl.DataFrame, event_time: str, holdout: timedelta) -> Split:
    """Hold out the newest `holdout` of `frame`.

    A holdout of whole days is cut at midnight in the column's own time zone, so that each held-out day is
    whole up to its newest row. Every training row is older than every held-out row.

    Raises `InputError` HF401 when either part would be empty, and HF101 when `holdout` is not positive or
    the column has no time zone.

    >>> from datetime import UTC
    >>> import polars as pl
    >>> hours = [datetime(2013, 1, day, hour, tzinfo=UTC) for day in (1, 2, 3) for hour in (6, 18)]
    >>> split = time_split(pl.DataFrame({"at": hours}), "at", timedelta(days=1))
    >>> split.train.height, split.holdout.height, split.cut.isoformat()
    (4, 2, '2013-01-03T00:00:00+00:00')
    """
    import polars as pl  # here, because a server reads declarations too

    if holdout <= timedelta(0):
        raise InputError("HF101", f"the holdout is {holdout}: it must be a positive span of time")
    dtype = frame.schema[event_time]
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise InputError(
            "HF101", f"the event time {event_time!r} is {dtype}: it must be a timestamp with a time zone"
        )
    newest = frame[event_time].max()
    if not isinstance(newest, datetime):
        raise InputError("HF401", "there are no labelled rows to split", state="nothing was trained")
    if holdout % _DAY:
        cut = newest - holdout + timedelta(microseconds=1)
    else:
        midnight = newest.replace(hour=0, minute=0, second=0, microsecond=0)
        cut = midnight - (
            holdout - _DAY
        )  # wall-clock days of the zone, so that a day of 23 or 25 hours is one day
    older = pl.col(event_time) < pl.lit(cut, dtype=dtype)
    split = Split(frame.filter(older), frame.filter(~older), cut)
    if split.train.is_empty():
        raise InputError(
            "HF401",
            f"every labelled row lies in the newest {holdout}: nothing is left to train on",
            state="nothing was trained",
            next_command="load older batches, or declare a shorter holdout",
        )
    return split
