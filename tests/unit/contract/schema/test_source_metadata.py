"""R20, R21: what a source reports of its columns is converted or refused, and never silently taken for something else."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Category, ColumnFacts, Contract, Integer, Number, Text, Timestamp
from holdfast.contract.batch.compiler import compile_batch
from holdfast.contract.batch.input_columns import convert_column
from holdfast.contract.batch.reasons import REASONS
from holdfast.contract.batch.text_input import from_text
from holdfast.contract.batch.typed_input import from_frame
from holdfast.contract.schema.units import SAME, InexactError, convert_value, find_conversion, is_same_unit
from holdfast.errors import InputError

FLIGHTS = Contract(
    Text("id"),
    Timestamp("at", tz="UTC"),
    Number("distance", unit="mi", low=0, high=6000, missing="keep"),
    Number("temp", unit="degF", low=-100, high=150, missing="keep"),
    Integer("minutes", unit="min", low=0, missing="keep"),
    Number("cost", unit="USD", semantic="price", missing="keep"),
    Category("place", semantic="postal_code", missing="keep"),
    key="id",
    event_time="at",
)
AT = datetime(2013, 1, 1, tzinfo=UTC)
ROW: dict[str, Any] = {
    "id": "a", "at": AT, "distance": 1609.344, "temp": 0.0, "minutes": 2, "cost": 5.0, "place": "10001",
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target", "value", "wanted"),
    [
        ("km", "mi", 1.609344, 1.0),
        ("mi", "km", 1.0, 1.609344),
        ("degF", "degC", 32.0, 0.0),
        ("degC", "degF", 100.0, 212.0),
        ("degC", "K", 0.0, 273.15),
        ("h", "min", 1.5, 90.0),
        ("knot", "mph", 1.0, 57875 / 50292),
        ("%", "1", 50.0, 0.5),
        ("1", "%", 0.5, 50.0),
        ("deg", "rad", 180.0, math.pi),
        ("km/h", "m/s", 3.6, 1.0),
        ("1/min", "1/s", 60.0, 1.0),
        ("kg*m/s^2", "N", 2.0, 2.0),
        ("°C", "degC", 7.0, 7.0),
    ],
)
def test_units_convert(source: str, target: str, value: float, wanted: float) -> None:
    found = find_conversion(source, target)
    assert found is not None
    assert found.apply(value) == wanted


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("USD", "EUR"), ("USD", "1"), ("EUR", "eur"), ("mi", "min"), ("seat", "1"), ("seat", "passenger"), ("byte", "1"),
        ("deg", "%"), ("rpm", "Hz"), ("dBm", "mW"), ("mi", "9**9**9**9"), ("", "mi"), ("m" * 100, "mi"), ("mi", "(mi)"),
        ("$", "USD"), ("m\0", "m"), ("__import__", "m"), ("count", "1"),
    ],
)  # fmt: skip
def test_what_is_not_the_same_thing_does_not_convert(one: str, other: str) -> None:
    """A word that is no known unit equals itself only; hostile text costs no time."""
    begun = time.process_time()
    assert find_conversion(one, other) is None
    assert find_conversion(other, one) is None
    assert find_conversion(one, one) == SAME
    assert time.process_time() - begun < 5
    assert not is_same_unit(one, other)


def test_other_words_for_one_unit_are_the_same_unit() -> None:
    for one, other in (("mi", "mile"), ("min", "minutes"), ("h", "hour"), ("degF", "°F"), ("%", "percent")):
        assert is_same_unit(one, other)


@given(
    st.lists(st.one_of(st.none(), st.floats(), st.sampled_from([-0.0, 5e-324, 1e308]))),
    st.sampled_from(["km", "ft"]),
)
def test_a_column_and_a_value_convert_to_the_same_bits(values: list[float | None], unit: str) -> None:
    column = FLIGHTS.column("distance")
    how = find_conversion(unit, "mi")
    assert how is not None
    found, _ = convert_column(column, how, pl.Series(values, dtype=pl.Float64), {})
    for one, value in zip(found.to_list(), values, strict=True):
        wanted = convert_value(column, how, value)
        assert one == wanted or (isinstance(wanted, float) and math.isnan(one) and math.isnan(wanted))


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-200, 200))))
def test_whole_numbers_stay_whole_or_are_at_fault(values: list[int | None]) -> None:
    column, how = FLIGHTS.column("minutes"), find_conversion("s", "min")
    assert how is not None
    found, faults = convert_column(column, how, pl.Series(values, dtype=pl.Int64), {})
    for one, lost, value in zip(found, faults["not_exact"], values, strict=True):
        try:
            wanted = convert_value(column, how, value)
        except InexactError:
            assert (one, lost) == (None, True)
        else:
            beyond = value is not None and abs(value) > 2**53
            assert (one, lost) == ((None, True) if beyond else (wanted, False))


FACTS = {
    "distance": ColumnFacts(unit="km"),
    "temp": ColumnFacts(unit="degC"),
    "minutes": ColumnFacts(unit="h"),
    "cost": ColumnFacts(unit="USD", semantic="price"),
    "place": ColumnFacts(semantic="postal_code"),
    "of_another_table": ColumnFacts(unit="parsec"),
}


def test_a_typed_delivery_is_converted_before_it_is_checked() -> None:
    typed = from_frame(FLIGHTS, pl.DataFrame([ROW, ROW | {"id": "b", "distance": 9656.0642}]), FACTS)
    verdict = compile_batch(FLIGHTS)(typed)
    assert verdict.valid.row(0)[2:5] == (1000.0, 32.0, 120)
    assert verdict.counts == {"distance|range": 1}
    assert verdict.quarantined["distance"].to_list() == [9656.0642]


def test_a_whole_number_that_would_not_stay_whole_is_the_fault_of_its_row() -> None:
    typed = from_frame(FLIGHTS, pl.DataFrame([ROW | {"minutes": 90}]), {"minutes": ColumnFacts(unit="s")})
    assert compile_batch(FLIGHTS)(typed).quarantined[REASONS].to_list() == [["minutes|not_exact"]]


def test_a_header_states_the_unit_of_its_column() -> None:
    header = ["id", "at", "distance [km]", "temp [degC]", "minutes[h]", "cost [USD]", "place"]
    values = ["a", "2013-01-01T00:00:00Z", "1609.344", "0", "2", "5", "10001"]
    typed = from_text(FLIGHTS, pl.DataFrame([values], schema=header, orient="row"))
    assert typed.frame.row(0)[2:5] == (1000.0, 32.0, 120)
    assert typed.original["distance"].to_list() == ["1609.344"]
    assert compile_batch(FLIGHTS)(typed).counts == {}


@pytest.mark.parametrize(
    ("facts", "reported"),
    [
        (
            {"distance": ColumnFacts(unit="USD")},
            "'distance' is declared in 'USD', which does not convert to .* 'mi'",
        ),
        (
            {"cost": ColumnFacts(unit="EUR")},
            "'cost' is declared in 'EUR', which does not convert to the contract's 'USD'",
        ),
        (
            {"cost": ColumnFacts(semantic="postal_code")},
            "'cost' is declared as 'postal_code'; the contract has 'price'",
        ),
        (
            {"place": ColumnFacts(semantic="price")},
            "'place' is declared as 'price'; the contract has 'postal_code'",
        ),
        (
            {"place": ColumnFacts(unit="km")},
            "'place' is declared in 'km'; the contract has Category, which has no unit",
        ),
        ({"at": ColumnFacts(unit="s")}, "'at' is declared in 's'; the contract has Timestamp"),
    ],
)
def test_what_cannot_cross_the_border_is_refused_with_both_sides(
    facts: dict[str, ColumnFacts], reported: str
) -> None:
    """The zip code that became a cost: a renamed column is refused, whatever its values look like."""
    with pytest.raises(InputError, match=rf"HF202: column {reported}.*no row was read"):
        from_frame(FLIGHTS, pl.DataFrame([ROW]), facts)


def test_every_misfit_of_a_delivery_is_named_at_once() -> None:
    facts = {"distance": ColumnFacts(unit="USD"), "cost": ColumnFacts(semantic="postal_code")}
    with pytest.raises(
        InputError, match=r"'distance' is declared in 'USD'.*; column 'cost' is declared as 'postal_code'"
    ):
        from_frame(FLIGHTS, pl.DataFrame([ROW]), facts)


@pytest.mark.parametrize(
    ("header", "facts", "reported"),
    [
        (
            "distance [km]",
            {"distance": ColumnFacts(unit="ft")},
            "distance is in 'km' by its header and in 'ft' by its",
        ),
        ("distance [USD]", {}, "'distance' is declared in 'USD'"),
        ("speed [km]", {}, "missing: distance.*not in the contract: speed"),
    ],
)
def test_a_header_that_contradicts_is_refused(
    header: str, facts: dict[str, ColumnFacts], reported: str
) -> None:
    names = ["id", "at", header, "temp", "minutes", "cost", "place"]
    with pytest.raises(InputError, match=f"HF202.*{reported}"):
        from_text(FLIGHTS, pl.DataFrame([["1"] * 7], schema=names, orient="row"), facts=facts)


def test_a_column_that_is_there_twice_is_refused() -> None:
    names = ["id", "at", "distance", "distance [km]", "temp", "minutes", "cost", "place"]
    with pytest.raises(InputError, match="distance is there twice"):
        from_text(FLIGHTS, pl.DataFrame([["1"] * 8], schema=names, orient="row"))
