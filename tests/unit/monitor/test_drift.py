"""Fingerprints: gross faults that a feed's own past gives away, and none on its ordinary days (R20-R25, R32, R33)."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.contract import Boolean, Category, Contract, Integer, Keep, Label, Number, Text, Timestamp
from holdfast.contract.batch.compiler import dtypes
from holdfast.contract.profile.column_profile import NumberProfile, WordProfile
from holdfast.contract.profile.profile import Profile, profile_batch
from holdfast.monitor.chance import FEWEST_BATCHES
from holdfast.monitor.drift import check_profile
from holdfast.records import Level, Violation
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


def test_words_that_became_aliases_are_no_drift() -> None:
    """R25: earlier batches were counted before the alias was declared."""
    mapped = [
        Category("country", aliases={"FR": "DE"}) if each.name == "country" else each
        for each in ORDERS.request_columns
    ]
    contract = Contract(*mapped, key="id", event_time="at", label=ORDERS.label, slices=("country",))
    rows = orders(31).with_columns(pl.col("country").replace({"FR": "DE"}))
    assert ("missing_slice", "country=FR", "error") in reported(rows), "without the alias"
    assert check_profile(contract, profile_batch(contract, rows), PAST) == ()


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


SPARSE = Contract(
    Integer("id"),
    Number("cost", unit="USD"),
    Number("factor", unit="1"),
    Boolean("paid"),
    Category("name"),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
    label=Label("fraud", delay="1d", missing=Keep()),
)


def sparse(day: int, rows: int = 100, **changed: Any) -> pl.DataFrame:
    """A day of columns in which nearly nothing happens, and of names that never come again."""
    draw = np.random.default_rng(day)
    columns: dict[str, Any] = {
        "id": np.arange(rows) + day * rows,
        "cost": np.where(draw.random(rows) < 0.03, np.round(draw.lognormal(6, 1, rows), 2), 0.0),
        "factor": np.full(rows, 1.5),
        "paid": draw.random(rows) < 0.4,
        "name": [f"name {number}" for number in draw.integers(0, 10**6, rows)],
        "at": [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=day, minutes=n) for n in range(rows)],
        "fraud": draw.random(rows) < 0.02,
    }
    return pl.DataFrame(columns | changed, schema=dtypes(SPARSE))


SPARSE_PAST = [profile_batch(SPARSE, sparse(day)) for day in range(30)]


def found_in(rows: pl.DataFrame) -> set[tuple[str, str, str]]:
    found = check_profile(SPARSE, profile_batch(SPARSE, rows), SPARSE_PAST)
    return {(violation.check, violation.subject, str(violation.level)) for violation in found}


def test_no_finding_is_below_the_resolution_or_within_chance():
    """`benchmarks.drift_rates` counts it for 23 kinds of columns."""
    errors = [found_in(sparse(day, rows)) for day in range(30, 60) for rows in (20, 39, 100)]
    assert [found for found in errors if any(level == "error" for *_, level in found)] == []
    zeros = profile_batch(SPARSE, sparse(70)).columns["cost"]
    assert isinstance(zeros, NumberProfile)
    assert zeros.quantiles((0.25, 0.5)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"fraud": pl.lit(value=True)}, ("constant", "fraud", "error")),
        ({"paid": pl.lit(value=True)}, ("constant", "paid", "error")),
        ({"paid": pl.lit(value=False)}, ("constant", "paid", "error")),
        ({"fraud": pl.col("id") % 2 == 0}, ("mix", "fraud", "error")),
        ({"fraud": pl.col("id") % 8 == 0}, ("mix", "fraud", "warning")),
        ({"factor": pl.lit(15.0)}, ("shift", "factor", "error")),
        ({"cost": pl.lit(0.0)}, None),  # so few are not 0 that a day without any is ordinary
        ({"fraud": pl.lit(value=False)}, None),
        ({"name": pl.col("name").str.to_uppercase()}, None),
    ],
)
def test_one_value_and_another_share_of_true_are_reported(changed, expected):
    """R50: label and boolean features; `all 964 flights are not late` was loaded without a word."""
    found = found_in(sparse(71).with_columns(**changed))
    assert (expected in found) if expected else not found


def test_a_label_that_is_always_false_is_reported():
    assert ("constant", "returned", "error") in reported(
        orders(44).with_columns(returned=pl.lit(value=False))
    )


def test_decimals_that_no_batch_had_show_a_converted_unit():
    """R22: metres a second for miles an hour lie within the ordinary days of wind."""
    wind = Contract(
        Integer("id"),
        Number("wind", unit="mph", low=0, high=200),
        Timestamp("at", tz="UTC"),
        key="id",
        event_time="at",
    )

    def day(number: int) -> pl.DataFrame:
        draw = np.random.default_rng(number)
        knots = draw.poisson(draw.uniform(4, 15), 24).astype(np.float64)
        at = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=number, hours=hour) for hour in range(24)]
        rows = {"id": np.arange(24) + 24 * number, "wind": np.round(knots * 1.15078, 5), "at": at}
        return pl.DataFrame(rows, schema=dtypes(wind))

    past = [profile_batch(wind, day(number)) for number in range(20)]
    assert check_profile(wind, profile_batch(wind, day(20)), past) == ()
    converted = day(20).with_columns(wind=pl.col("wind") * 0.44704)
    (violation,) = check_profile(wind, profile_batch(wind, converted), past)
    assert (violation.check, violation.level) == ("shift", Level.ERROR)
    assert "more than 5 decimals" in violation.explanation
    rounded = day(20).with_columns(wind=(pl.col("wind") * 0.44704).round(2))
    (violation,) = check_profile(wind, profile_batch(wind, rounded), past)
    assert (violation.check, violation.level) == ("rounded", Level.ERROR)
    harmless = day(20).with_columns(wind=pl.col("wind").round(4))
    (violation,) = check_profile(wind, profile_batch(wind, harmless), past)
    assert (violation.check, violation.level) == ("rounded", Level.WARNING)
    older = [replace(each, columns={**each.columns, "wind": _undecimal(each)}) for each in past]
    assert check_profile(wind, profile_batch(wind, converted), older) == ()


def _undecimal(profile: Profile) -> NumberProfile:
    """The column's profile as an earlier version wrote it."""
    shape = profile.columns["wind"]
    assert isinstance(shape, NumberProfile)
    return replace(shape, decimals=())


def test_a_number_and_a_category_that_both_moved_are_no_swap():
    """There is no past of numbers to compare the number with in a category."""
    moved = orders(45).with_columns(price=pl.col("price") * 1000, country=pl.lit("XX"))
    found = reported(moved)
    assert ("shift", "price", "error") in found
    assert "swap" not in {check for check, *_ in found}


# --- vocabularies of more words than are counted by name --------------------------------------------------------------

PORTS = Contract(Integer("id"), Category("dest"), Timestamp("at", tz="UTC"), key="id", event_time="at")


def ports(
    day: int, rows: int = 1_000, more: dict[str, float] | None = None, gone: tuple[str, ...] = ()
) -> Profile:
    """A day of 100 airports, of which the commonest has 9 %; `more` have their share of the rows besides, `gone` have none."""
    draw = np.random.default_rng(day)
    names = [name for name in (f"A{number:02}" for number in range(100)) if name not in gone]
    weights = np.array([1 / (3 + int(name[1:])) for name in names])
    more = more or {}
    shares = [*(weights / weights.sum() * (1 - sum(more.values()))), *more.values()]
    words = np.repeat([*names, *more], draw.multinomial(rows, shares))
    minutes = pl.int_range(rows, eager=True) * 60_000_000 + day * 86_400_000_000
    frame = pl.DataFrame({"id": range(rows), "dest": words, "at": minutes}).cast(dtypes(PORTS))
    return profile_batch(PORTS, frame)


def words_reported(now: Profile, past: list[Profile]) -> list[tuple[str, str]]:
    found = check_profile(PORTS, now, past)
    return [(each.check, str(each.level)) for each in found if each.subject.startswith("dest")]


@pytest.mark.parametrize("rows", [200, 1_000, 20_000])
def test_a_new_word_with_five_percent_is_reported_among_more_words_than_are_counted(rows: int) -> None:
    """R25: with more than 64 words before, a new one may have been among those not counted, and none was reported."""
    past = [ports(day, rows) for day in range(20)]
    assert past[0].columns["dest"].other  # type: ignore[union-attr]
    found = check_profile(PORTS, ports(50, rows, more={"NEW\x1b[2J": 0.08}), past)
    assert [(each.check, str(each.level)) for each in found] == [("new_slice", "warning")]
    assert "'NEW\\x1b[2J' was" in found[0].explanation
    assert words_reported(ports(50, rows, more={"NEW": 0.3}), past) == [("new_slice", "error")]


@pytest.mark.parametrize("rows", [70, 200, 1_000, 20_000])
def test_clean_days_of_many_words_are_not_reported(rows: int) -> None:
    """A word that is counted by name on one day and not on another is neither new nor gone."""
    days = [ports(day, rows) for day in range(50)]
    found = [words_reported(days[place], days[place - 20 : place]) for place in range(20, 50)]
    assert found == [[]] * 30


def test_a_frequent_word_that_vanishes_is_reported_among_more_words_than_are_counted() -> None:
    past = [ports(day, 5_000) for day in range(20)]
    assert words_reported(ports(50, 5_000, gone=("A00",)), past) == [("missing_slice", "error")]


def test_a_word_that_is_merely_no_longer_counted_by_name_is_not_reported_as_missing() -> None:
    """The word at the end of those counted by name: 0.4 % of 20,000 rows are 80, which is no chance, and still not nothing."""
    past = [ports(day, 20_000) for day in range(20)]
    shape = past[0].columns["dest"]
    assert isinstance(shape, WordProfile)
    rarest = min(shape.counts, key=lambda word: shape.counts[word])
    pushed = {f"B{number}": 0.0095 for number in range(8)}
    found = words_reported(ports(50, 20_000, more=pushed), past)
    assert rarest not in ports(50, 20_000, more=pushed).columns["dest"].counts  # type: ignore[union-attr]
    assert ("missing_slice", "error") not in found


def test_a_jump_of_a_known_word_is_a_mixture() -> None:
    past = [ports(day, 5_000) for day in range(20)]
    assert words_reported(ports(50, 5_000, more={"A30": 0.3}), past) == [("mix", "warning")]


# --- shifts that can be real: a warning ------------------------------------------------------------------------------

VALUES = Contract(Integer("id"), Integer("value"), Timestamp("at", tz="UTC"), key="id", event_time="at")


def values(day: int, factor: float = 1.0, rows: int = 500) -> Profile:
    """A day of values from 10,000 on, with a long tail, as those of cars."""
    drawn = 10_000 + np.random.default_rng(day).gamma(2.0, 10_000, rows)
    frame = pl.DataFrame(
        {
            "id": np.arange(rows) + day * rows,
            "value": np.round(factor * drawn),
            "at": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day, minutes=n) for n in range(rows)],
        }
    )
    return profile_batch(VALUES, frame.cast(dtypes(VALUES)))


def shifts(now: Profile, past: list[Profile]) -> list[Violation]:
    return [each for each in check_profile(VALUES, now, past) if each.subject == "value"]


ORDINARY = [values(day) for day in range(20)]
JUMPED = [*ORDINARY[:14], values(14, 1.9), *ORDINARY[14:]]
RAISED = [*ORDINARY[:10], *(values(day, 1.9) for day in range(10, 20))]


@pytest.mark.parametrize("past", [ORDINARY, JUMPED, RAISED], ids=["ordinary", "one jump", "at another level"])
@pytest.mark.parametrize("factor", [0.75, 0.6, 0.5, 0.4, 0.3, 1.6])
def test_a_shift_that_can_be_real_is_a_warning_also_after_an_accepted_jump(
    past: list[Profile], factor: float
) -> None:
    usual = 1.9 if past is RAISED else 1.0
    found = shifts(values(30, usual * factor), past)
    assert [each.check for each in found] == ["shift"]
    if past is not ORDINARY:
        assert found[0].level is Level.WARNING
    assert shifts(values(31, usual), past) == []


def test_values_outside_everything_seen_are_a_warning() -> None:
    """Of a batch at its ordinary place: its lowest rows alone are in another unit."""
    past = [
        values(day, 1.0 + 0.4 * (day % 3)) for day in range(20)
    ]  # so far apart that no quantile is unusual
    rows = np.where(np.arange(500) % 10 == 0, 50, 10_000 + np.random.default_rng(3).gamma(2.0, 10_000, 500))
    at = [datetime(2026, 2, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(500)]
    frame = pl.DataFrame({"id": np.arange(500), "value": np.round(rows), "at": at}).cast(dtypes(VALUES))
    (found,) = shifts(profile_batch(VALUES, frame), past)
    assert (found.check, found.level) == ("shift", Level.WARNING)
    assert "5 % of its values are at most" in found.explanation
    assert "the lowest of 10,000 values in 20 batches before was" in found.explanation


def returns(day: int, share: float, rows: int = 300) -> Profile:
    drawn = np.random.default_rng(1000 + day).random(rows) < share
    return profile_batch(ORDERS, orders(day, rows, returned=drawn))


@pytest.mark.parametrize("past", [1, 3, FEWEST_BATCHES - 1])
def test_inverted_labels_are_a_warning_from_the_first_batch_on(past: int) -> None:
    """A second file with all labels inverted, 88 % against 11 %, was loaded without a word."""
    known = [returns(day, 0.11, 1000) for day in range(past)]
    (found,) = check_profile(ORDERS, returns(30, 0.88), known)
    assert (found.check, found.subject, str(found.level)) == ("mix", "returned", "warning")
    assert "labels inverted" in found.explanation
    assert check_profile(ORDERS, returns(30, 0.55), known) == (), "a change that a feed may have"
    assert check_profile(ORDERS, returns(30, 0.88), []) == (), "nothing to compare with"


@pytest.mark.parametrize("rows", [20, 60, 300, 2000])
def test_labels_whose_law_differs_by_half_are_no_warning(rows: int) -> None:
    """The bound holds at the edge of what it allows: laws of 0.25 and 0.75."""
    found = [
        check_profile(ORDERS, returns(day, 0.75, rows), [returns(day + 100, 0.25, rows)]) for day in range(50)
    ]
    assert not any(found)


def test_estimates_are_values_that_the_column_can_have() -> None:
    """A profile keeps bins: a median of whole numbers is one, and an interval is not the end of its class."""
    contract = Contract(Integer("length", unit="h"), Timestamp("at", tz="UTC"), key="at", event_time="at")

    def batch(day: int, least: int, seconds: int) -> Profile:
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
        rows = {
            "length": [least + n * 7 % 9 + n % 2 for n in range(200)],
            "at": [start + timedelta(seconds=seconds * n) for n in range(200)],
        }
        return profile_batch(contract, pl.DataFrame(rows, schema=dtypes(contract)))

    past = [batch(day, 12 + day % 2, 47) for day in range(8)]
    found = {each.check: each.explanation for each in check_profile(contract, batch(9, 60, 523), past)}
    assert "is about 523 s, and about 47 s in each of 8 batches before" in found["grain"]
    numbers = re.findall(
        r"[0-9.]+", found["shift"].split("ratio")[0] + found["shift"].split(";")[1].split("(")[0]
    )
    assert numbers
    assert all(number.isdigit() for number in numbers), found["shift"]
    assert found["shift"].startswith("length: median about ")
