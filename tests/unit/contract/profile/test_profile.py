"""Profiles: what a batch looks like, in numbers that add up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Boolean, Category, Contract, Integer, Keep, Label, Number, Text, Timestamp
from holdfast.contract.batch.compiler import dtypes
from holdfast.contract.profile.column_profile import (
    BooleanProfile,
    NumberProfile,
    TimestampProfile,
    WordProfile,
    add,
    bin_edges,
    profile_numbers,
)
from holdfast.contract.profile.profile import MOST_WORDS, Profile, merge_compatible, profile_batch
from holdfast.errors import InputError
from tests.support.profile import examples

NEW_YORK = ZoneInfo("America/New_York")

CONTRACT = Contract(
    Integer("id"),
    Integer("stars", low=1, high=5, missing=Keep()),
    Number("fare", unit="USD", missing=Keep()),
    Number("distance", unit="mi", low=0, high=6000, missing=Keep()),
    Category("carrier", missing=Keep()),
    Text("note", max_length=40, missing=Keep()),
    Boolean("paid", missing=Keep()),
    Timestamp("at", tz="America/New_York"),
    key="id",
    event_time="at",
    label=Label("late", delay="1h", missing=Keep()),
)


def merge(profiles: list[Profile]) -> Profile:
    merged, incompatible = merge_compatible(profiles)
    assert not incompatible
    return merged


def frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dtypes(CONTRACT), orient="row")


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**53),
        st.none() | st.integers(1, 5),
        st.none() | st.floats(-1e300, 1e300),  # a sum that overflows saturates at the largest double
        st.none() | st.floats(0, 6000),
        st.none() | st.sampled_from(["AA", "UA", "B6", "🛫", "\0"]),
        st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
        st.none() | st.booleans(),
        st.datetimes(
            datetime.fromisoformat("0001-01-03"), datetime.fromisoformat("9998-01-01"), timezones=st.just(UTC)
        ),  # as far as a clock of New York can be read
        st.none() | st.booleans(),
    ),
    max_size=30,
)


def close(one: Profile, other: Profile) -> bool:
    """Equal, but for the rounding of sums and the times between the last row of a part and the first of the next."""

    def exact(profile: Profile) -> dict[str, object]:
        return {
            name: replace(shape, total=0.0, squares=0.0)
            if isinstance(shape, NumberProfile)
            else replace(shape, spacings=())
            if isinstance(shape, TimestampProfile)
            else shape
            for name, shape in profile.columns.items()
        }

    sums = [
        (getattr(shape, name), getattr(other.columns[column], name))
        for column, shape in one.columns.items()
        if isinstance(shape, NumberProfile)
        for name in ("total", "squares")
    ]
    largest = max(abs(value) for pair in sums for value in pair)
    return (one.rows, one.values, exact(one)) == (other.rows, other.values, exact(other)) and all(
        mine == pytest.approx(theirs, rel=1e-9, abs=1e-9 * largest) for mine, theirs in sums
    )


@examples(25)
@given(ROWS, st.integers(0, 30), st.integers(0, 30))
def test_the_profile_of_parts_adds_up_to_the_profile_of_the_whole(rows, first, second):
    """R36: additive, in any grouping."""
    low, high = sorted((min(first, len(rows)), min(second, len(rows))))
    a, b, c = (profile_batch(CONTRACT, frame(part)) for part in (rows[:low], rows[low:high], rows[high:]))
    whole = profile_batch(CONTRACT, frame(rows))
    assert close(merge([a, b, c]), whole)
    assert close(merge([merge([a, b]), c]), merge([a, merge([b, c])]))
    assert Profile.from_json(whole.to_json()) == whole


def test_many_rows_and_few_are_counted_alike():
    """Few rows are counted in another way than many, for speed: both must find the same."""
    start = datetime(2013, 3, 9, 20, tzinfo=NEW_YORK).astimezone(UTC)
    rows = [
        (
            n,
            n % 5 + 1,
            n * 1.5 - 900,
            float(n),
            ["AA", "UA", None][n % 3],
            "é" * (n % 40 + 1),
            n % 2 == 0,
            start + timedelta(minutes=n * 7),
            None,
        )
        for n in range(3000)
    ]
    whole = profile_batch(CONTRACT, frame(rows))
    parts = [profile_batch(CONTRACT, frame(rows[low : low + 100])) for low in range(0, 3000, 100)]
    merged = merge(parts)
    # The steps between the parts belong to none.
    at, pieces = whole.columns["at"], merged.columns["at"]
    assert isinstance(at, TimestampProfile)
    assert isinstance(pieces, TimestampProfile)
    assert (at.hours, at.weekdays, at.low_us, at.high_us) == (
        pieces.hours,
        pieces.weekdays,
        pieces.low_us,
        pieces.high_us,
    )
    assert sum(at.spacings) == sum(pieces.spacings) + 29
    assert at.spacing_seconds == 600
    for name in ("carrier", "note", "paid", "stars", "distance"):
        assert whole.columns[name] == merged.columns[name]


def test_hours_are_those_of_the_columns_zone_across_a_change_of_clocks():
    """R23: 02:00 to 03:00 of 10 March 2013 does not exist in New York."""
    start = datetime(2013, 3, 10, 5, 30, tzinfo=UTC)  # 00:30 EST
    rows = [(n, 1, 1.0, 1.0, "AA", "x", True, start + timedelta(hours=n), True) for n in range(4)]
    at = profile_batch(CONTRACT, frame(rows)).columns["at"]
    assert isinstance(at, TimestampProfile)
    assert [hour for hour, count in enumerate(at.hours) if count] == [0, 1, 3, 4]
    assert at.weekdays == (0, 0, 0, 0, 0, 0, 4)
    assert at.spacing_seconds == 3600


def test_words_beyond_the_cap_are_counted_together():
    words = pl.Series("carrier", [f"w{n:03}" for n in range(MOST_WORDS + 10)] + ["w000", "x" * 65])
    contract = Contract(Category("carrier"), Timestamp("at", tz="UTC"), key="carrier", event_time="at")
    rows = pl.DataFrame({"carrier": words}).with_columns(
        pl.lit(datetime(2013, 1, 1, tzinfo=UTC)).cast(pl.Datetime("us", "UTC")).alias("at")
    )
    shape = profile_batch(contract, rows).columns["carrier"]
    assert isinstance(shape, WordProfile)
    assert (len(shape.counts), shape.counts["w000"], shape.other) == (MOST_WORDS, 2, 11)
    assert shape.rows == rows.height


def test_no_row_gives_an_empty_profile_that_still_adds_up():
    empty = profile_batch(CONTRACT, frame([]))
    one = profile_batch(
        CONTRACT, frame([(1, 3, -2.0, 7.0, "AA", "x", True, datetime(2013, 1, 1, tzinfo=UTC), True)])
    )
    assert merge([empty, one]) == one == merge([one, empty])
    assert empty.label_share is None
    assert one.label_share == 1.0
    assert one.slices("stars") == {"3": 1}
    assert one.slices("paid") == {"true": 1}
    assert one.slices("carrier") == {"AA": 1}
    assert one.slices("fare") is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_lies_in_its_bin(value):
    shape = profile_numbers(np.array([value]), 0, None)
    (place,) = shape.bins
    low, high = bin_edges(place, None)
    assert low <= value <= high
    assert high - low <= 0.13 * max(abs(low), abs(high)) or abs(value) < 1e-300


def test_a_quantile_is_near_the_true_one():
    values = np.random.default_rng(3).lognormal(5, 1, 10_000)
    shape = profile_numbers(values, 0, None)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert shape.quantiles((share,))[0] == pytest.approx(np.quantile(values, share), rel=0.03)
    assert shape.deviation == pytest.approx(values.std())


def test_the_largest_numbers_do_not_overflow_into_what_json_cannot_hold():
    rows = frame([(1, 1, 1.7e308, 1.0, "A", "x", True, datetime(2013, 1, 1, tzinfo=UTC), True)] * 2)
    profile = profile_batch(CONTRACT, rows)
    assert Profile.from_json(merge([profile, profile]).to_json()).columns["fare"].rows == 4


def test_the_sums_of_a_column_are_parted_by_the_label():
    at = datetime(2013, 1, 1, tzinfo=UTC)
    rows = [(1, 1, 5.0, 1.0, "A", "x", True, at, True), (2, 1, None, 1.0, "A", "x", True, at, True)]
    rows += [(3, 1, 1.0, 1.0, "A", "x", True, at, False), (4, 1, 9.0, 1.0, "A", "x", True, at, None)]
    parts = merge([profile_batch(CONTRACT, frame(part)) for part in (rows[:1], rows[1:])]).by_label["fare"]
    assert (parts.true_count, parts.false_count, parts.difference) == (1, 1, 4.0)
    assert profile_batch(CONTRACT, frame(rows[:2])).by_label["fare"].difference is None


def test_shapes_over_other_bins_do_not_add_up():
    with pytest.raises(ValueError, match="same bins"):
        add([profile_numbers(np.ones(1), 0, scale) for scale in (None, (0.0, 2.0))])
    with pytest.raises(ValueError, match="one kind"):
        add([profile_numbers(np.ones(1), 0, None), BooleanProfile(1, 0, 0)])
    with pytest.raises(ValueError, match="no profile"):
        merge([])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format":9}', '{"format":1,"rows":1,"columns":{"a":{}}}'])
def test_what_is_no_profile_is_refused(text):
    with pytest.raises(InputError):
        Profile.from_json(text)
