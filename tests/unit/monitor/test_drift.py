"""Fingerprints: gross faults that a feed's own past gives away, and none on its ordinary days (R20-R25, R32, R33)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.contract import Category, Contract, Integer, Keep, Label, Number, Text, Timestamp
from holdfast.contract.batch.compiler import dtypes
from holdfast.contract.profile.profile import profile_batch
from holdfast.monitor.drift import FEWEST_BATCHES, check_profile
from holdfast.records import Level
from tests.soak import drift as drift_soak

ORDERS = Contract(
    Integer("id"),
    Number("price", unit="USD", missing=Keep()),
    Number("weight", unit="kg", low=0, high=1000),
    Integer("stars", low=1, high=5),
    Category("country"),
    Text("note", missing=Keep()),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
    label=Label("returned", delay="1d", missing=Keep()),
    slices=("country",),
)


def orders(day: int, rows: int = 200, **changed: Any) -> pl.DataFrame:
    """A day of orders: the same laws each day, drawn with the day as the seed."""
    draw = np.random.default_rng(day)
    returned = draw.random(rows) < 0.3
    columns: dict[str, Any] = {
        "id": np.arange(rows) + day * rows,
        "price": np.where(returned, 3.0, 1.0) * draw.lognormal(3, 0.5, rows),
        "weight": draw.gamma(4, 2, rows),
        "stars": draw.choice(5, rows, p=(0.05, 0.05, 0.1, 0.3, 0.5)) + 1,
        "country": draw.choice(["DE", "FR", "PL"], rows, p=(0.6, 0.3, 0.1)).tolist(),
        "note": ["x" * n for n in draw.integers(1, 50, rows)],
        "at": [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=day, minutes=n) for n in range(rows)],
        "returned": returned,
    }
    return pl.DataFrame(columns | changed, schema=dtypes(ORDERS))


PAST = [profile_batch(ORDERS, orders(day)) for day in range(30)]


def reported(rows: pl.DataFrame, past: int = 30) -> list[tuple[str, str, str]]:
    found = check_profile(ORDERS, profile_batch(ORDERS, rows), PAST[:past])
    return [(violation.check, violation.subject, str(violation.level)) for violation in found]


def test_ordinary_batches_break_nothing():
    assert [reported(orders(day)) for day in range(30, 130) if reported(orders(day))] == []


def test_too_little_history_and_too_few_rows_report_nothing():
    broken = orders(31).with_columns(price=pl.col("price") * -1)
    assert reported(broken, past=FEWEST_BATCHES - 1) == []
    assert reported(broken.head(19)) == []
    assert reported(broken, past=FEWEST_BATCHES) != []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"price": -pl.col("price")}, ("shift", "price", "error")),
        ({"price": pl.col("price") * 1000}, ("shift", "price", "error")),
        ({"weight": pl.col("weight") / 0.45359237}, ("shift", "weight", "error")),
        ({"price": pl.lit(None, pl.Float64)}, ("missing", "price", "error")),
        ({"stars": pl.lit(5, pl.Int64)}, ("constant", "stars", "error")),
        ({"note": pl.lit("n/a")}, ("constant", "note", "error")),
        ({"country": pl.lit("DE")}, ("missing_slice", "country=FR", "error")),
        ({"country": pl.col("country").str.to_lowercase()}, ("new_slice", "country", "error")),
        ({"returned": ~pl.col("returned")}, ("label", "returned", "error")),
    ],
)
def test_a_fault_is_named(changed, expected):
    assert expected in reported(orders(40).with_columns(**changed))


def test_a_new_slice_is_reported_at_once_and_a_rare_new_word_elsewhere_is_not():
    """R33."""
    new = orders(41).with_columns(
        country=pl.when(pl.int_range(pl.len()) < 2).then(pl.lit("IT")).otherwise("country")
    )
    assert reported(new) == [("new_slice", "country", "warning")]


def test_integers_of_few_values_are_judged_as_a_mixture():
    rows = orders(42).with_columns(stars=pl.when(pl.int_range(pl.len()) % 5 > 0).then(1).otherwise("stars"))
    assert ("mix", "stars", "error") in reported(rows)


def test_a_column_that_climbs_is_not_reported_to_be_far():
    meter = Contract(
        Number("reading", unit="kWh"), Timestamp("at", tz="UTC"), Integer("id"), key="id", event_time="at"
    )

    def day(number: int) -> pl.DataFrame:
        readings = number * 100.0 + np.arange(100.0)
        return pl.DataFrame({"reading": readings}).with_columns(
            at=pl.lit(datetime(2013, 1, 1, tzinfo=UTC)).cast(pl.Datetime("us", "UTC")),
            id=pl.int_range(pl.len()),
        )

    past = [profile_batch(meter, day(number)) for number in range(20)]
    assert check_profile(meter, profile_batch(meter, day(20)), past) == ()


def test_a_column_with_other_bounds_has_no_past():
    narrow = Contract(
        *(
            Number("weight", unit="kg", low=0, high=500) if column.name == "weight" else column
            for column in ORDERS.request_columns
        ),
        key="id",
        event_time="at",
        label=ORDERS.label,
    )
    rows = orders(43).with_columns(weight=pl.col("weight") / 0.45359237, price=-pl.col("price"))
    found = check_profile(narrow, profile_batch(narrow, rows), PAST)
    assert [violation.subject for violation in found] == ["price"]


@pytest.fixture(scope="module")
def spring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("days")
    drift_soak.split_days(directory, date(2013, 2, 1), date(2013, 3, 18))
    return directory


@pytest.mark.simulated
@pytest.mark.parametrize("feed", ["flights", "departures", "weather"])
def test_the_real_feeds_of_a_blizzard_have_no_error_and_planted_faults_are_named(feed, spring):
    """The whole year is `tests/soak/drift.py`: no error on 1,094 daily batches."""
    declared = drift_soak.feeds()[feed]
    missed = []
    for number, day in enumerate(drift_soak.days_of(declared, spring)):
        usual = check_profile(declared.contract, day.profile, day.past)
        assert [found for found in usual if found.level is not Level.WARNING] == []
        if number == 45:
            for fault in (fault for fault in drift_soak.FAULTS if fault.feed == feed):
                violations = drift_soak.found(fault, declared, day)
                if not drift_soak.named(fault, violations):
                    missed.append(fault.name)
    # In March an inverted sign leaves New York as cold as a day before, and a share of humidity is no other.
    assert missed == []


@pytest.mark.simulated
def test_what_is_reported_of_miles_read_as_kilometres(spring):
    declared = drift_soak.feeds()["flights"]
    day = list(drift_soak.days_of(declared, spring))[-1]
    fault = next(fault for fault in drift_soak.FAULTS if fault.name == "flights.distance in kilometres")
    (violation,) = drift_soak.found(fault, declared, day)
    assert "miles read as kilometres?" in violation.explanation
    assert "ratio 1.6" in violation.explanation
    fault = next(fault for fault in drift_soak.FAULTS if fault.name == "flights.scheduled_departure in UTC")
    (violation,) = drift_soak.found(fault, declared, day)
    assert violation.observed == 5.0
    assert "5 hours later" in violation.explanation
