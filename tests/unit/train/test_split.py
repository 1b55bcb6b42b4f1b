"""The newest days are held out, never a random draw (R72, R74)."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.train import time_split

ZONE = ZoneInfo("America/New_York")
START = datetime(2013, 3, 1, tzinfo=ZONE)


def frame(minutes: list[int]) -> pl.DataFrame:
    instants = [(START + timedelta(minutes=m)).astimezone(ZoneInfo("UTC")) for m in minutes]
    column = pl.Series("at", instants, dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone(
        "America/New_York"
    )
    return pl.DataFrame({"at": column, "row": range(len(minutes))})


@given(
    st.lists(st.integers(0, 60 * 24 * 30), min_size=2, max_size=60),
    st.sampled_from([timedelta(hours=5), timedelta(days=1), timedelta(days=3)]),
)
@settings(max_examples=60, deadline=None)
def test_every_training_row_is_older_and_no_row_is_lost(minutes: list[int], holdout: timedelta) -> None:
    rows = frame(
        [0, *(24 * 60 * 7 + minute for minute in minutes)]
    )  # one row is always older than the holdout
    split = time_split(rows, "at", holdout)
    minutes = [0, *minutes]
    assert sorted([*split.train["row"], *split.holdout["row"]]) == list(range(len(minutes)))
    assert split.train["at"].max() < split.cut <= split.holdout["at"].min()


def test_whole_days_begin_at_local_midnight_also_when_the_clock_was_moved() -> None:
    """10 March 2013 has 23 hours in New York."""
    hours = frame([60 * h for h in range(24 * 9 + 23 + 10)])  # to 11 March, 10 in the morning
    split = time_split(hours, "at", timedelta(days=2))
    assert split.cut == datetime(2013, 3, 10, tzinfo=ZONE)
    assert split.cut.astimezone(ZONE).hour == 0


def test_unusable_splits_say_why() -> None:
    rows = frame([0, 60, 120])
    with pytest.raises(InputError, match="nothing is left to train on"):
        time_split(rows, "at", timedelta(days=14))
    with pytest.raises(InputError, match="no labelled rows"):
        time_split(rows.clear(), "at", timedelta(days=1))
    with pytest.raises(InputError, match="positive span"):
        time_split(rows, "at", timedelta(0))
    with pytest.raises(InputError, match="time zone"):
        time_split(rows.with_columns(pl.col("at").dt.replace_time_zone(None)), "at", timedelta(days=1))
