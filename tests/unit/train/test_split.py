"""The newest days are held out, never a random draw (R72, R74), and no label is used before it is due (R55)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.train import time_split
from tests.support.profile import examples

ZONE = ZoneInfo("America/New_York")
START = datetime(2013, 3, 1, tzinfo=ZONE)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def frame(minutes: list[int]) -> pl.DataFrame:
    timestamps = [(START + timedelta(minutes=m)).astimezone(ZoneInfo("UTC")) for m in minutes]
    column = pl.Series("at", timestamps, dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone(
        "America/New_York"
    )
    return pl.DataFrame({"at": column, "row": range(len(minutes))})


def micros(rows: pl.DataFrame) -> list[int]:
    return sorted(rows["at"].dt.epoch("us"))


def timestamp(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


@given(
    st.lists(st.integers(0, 60 * 24 * 30), min_size=2, max_size=60),
    st.sampled_from([timedelta(hours=5), timedelta(days=1), timedelta(days=3)]),
)
@examples(60)
def test_every_training_row_is_older_and_no_row_is_lost(minutes: list[int], holdout: timedelta) -> None:
    rows = frame(
        [0, *(24 * 60 * 7 + minute for minute in minutes)]
    )  # one row is always older than the holdout
    split = time_split(rows, "at", holdout)
    minutes = [0, *minutes]
    assert sorted([*split.train["row"], *split.holdout["row"]]) == list(range(len(minutes)))
    assert split.embargoed == 0
    assert micros(split.train)[-1] < split.split_at_us <= micros(split.holdout)[0]


def test_whole_days_begin_at_local_midnight_also_when_the_clock_was_moved() -> None:
    """10 March 2013 has 23 hours in New York."""
    hours = frame([60 * h for h in range(24 * 9 + 23 + 10)])  # to 11 March, 10 in the morning
    split = time_split(hours, "at", timedelta(days=2))
    assert timestamp(split.split_at_us) == datetime(2013, 3, 10, 5, tzinfo=UTC)


@given(
    st.sampled_from(sorted(name for name in available_timezones() if "/" in name)),
    st.integers(-(2**29), 2**31).map(lambda seconds: EPOCH + timedelta(seconds=seconds)),
    st.integers(1, 40),
)
@example("America/Sao_Paulo", datetime(2018, 11, 5, 12, tzinfo=UTC), 2)  # the clock goes from 24:00 to 01:00
@example("Asia/Beirut", datetime(2019, 4, 1, 12, tzinfo=UTC), 2)
@example("America/Havana", datetime(2018, 11, 5, 12, tzinfo=UTC), 2)  # 00:00 to 01:00 comes twice
@example(
    "America/St_Johns", datetime(2010, 11, 7, 12, tzinfo=UTC), 1
)  # from 00:01 back to 23:01 of the day before
@example("America/Toronto", datetime(1919, 3, 31, 12, tzinfo=UTC), 1)  # from 23:30 to 00:30
@example("Pacific/Apia", datetime(2012, 1, 2, 12, tzinfo=UTC), 4)  # the day has no hour at all
@examples(60)
def test_a_held_out_day_is_whole_in_every_zone(name: str, newest: datetime, days: int) -> None:
    """The split is the first time of a day, whatever the clocks did there."""
    zone = ZoneInfo(name)
    timestamps = [newest - HOUR * number for number in range(24 * (days + 3))]
    column = pl.Series("at", timestamps, dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone(name)
    split = time_split(pl.DataFrame({"at": column}), "at", timedelta(days=days))
    day = newest.astimezone(zone).date() - timedelta(days=days - 1)
    snapshot = timestamp(split.split_at_us)
    assert (
        (snapshot - timedelta(microseconds=1)).astimezone(zone).date()
        < day
        <= snapshot.astimezone(zone).date()
    )
    assert split.train.height + split.holdout.height == len(timestamps)
    assert micros(split.train)[-1] < split.split_at_us <= micros(split.holdout)[0]


@given(st.integers(0, 30), st.sampled_from([timedelta(hours=5), timedelta(days=2)]))
@examples(30)
def test_no_label_that_was_unknown_at_the_split_is_trained_on(delay_hours: int, holdout: timedelta) -> None:
    """R55, R65: what became known during the held-out days is in neither part."""
    rows = frame([60 * h for h in range(24 * 9)])
    delay = HOUR * delay_hours
    split, free = time_split(rows, "at", holdout, delay=delay), time_split(rows, "at", holdout)
    assert split.split_at_us == free.split_at_us
    assert split.holdout.equals(free.holdout)
    assert split.embargoed == delay_hours == free.train.height - split.train.height
    assert timestamp(micros(split.train)[-1]) + delay < timestamp(split.split_at_us)


def test_unusable_splits_report_why() -> None:
    rows = frame([0, 60, 120])
    with pytest.raises(InputError, match="no row is left to train on"):
        time_split(rows, "at", timedelta(days=14))
    with pytest.raises(InputError, match="no labelled rows"):
        time_split(rows.clear(), "at", timedelta(days=1))
    with pytest.raises(InputError, match="must be positive"):
        time_split(rows, "at", timedelta(0))
    with pytest.raises(InputError, match="no row is left to train on"):
        time_split(rows, "at", HOUR, delay=2 * HOUR)
    with pytest.raises(InputError, match="must not be negative"):
        time_split(rows, "at", HOUR, delay=-HOUR)
    with pytest.raises(InputError, match="time zone"):
        time_split(rows.with_columns(pl.col("at").dt.replace_time_zone(None)), "at", timedelta(days=1))
