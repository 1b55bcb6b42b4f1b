"""A contract is suggested from rows with its evidence, holds for them, and reports what rows cannot show (R92)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast.contract import Contract, Timestamp
from holdfast.contract.batch.compiler import compile_batch
from holdfast.contract.batch.typed_input import from_frame
from holdfast.contract.profile.infer_contract import suggest_contract
from holdfast.contract.schema.source_metadata import ColumnFacts
from tests.support.profile import examples

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame(
    {
        "row_id": range(1, 61),
        "at": [START + timedelta(minutes=10 * row) for row in range(60)],
        "town": [("oslo", "bergen", "oslo", None)[row % 4] for row in range(60)],
        "km": [float(row) for row in range(60)],
        "celsius": [row / 10 - 3.0 for row in range(60)],
        "night": [row % 3 == 0 for row in range(60)],
        "note": [f"parcel number {row}" for row in range(60)],
        "late": [row % 5 == 0 for row in range(60)],
    }
)


def test_each_column_has_its_line_and_its_evidence() -> None:
    found = suggest_contract(
        ROWS, zone="UTC", facts={"km": ColumnFacts(unit="km", semantic="distance")}, label="late"
    )
    assert [each.line for each in found.columns] == [
        'Integer("row_id", unit="1", low=0)',
        'Timestamp("at", tz="UTC", low="1971-01-01T00:00:00Z", high="2200-01-01T00:00:00Z")',
        'Category("town", unseen="other", missing=Keep())',
        'Number("km", unit="km", low=0, high=100, semantic="distance")',
        'Number("celsius", unit="1", low=-10, high=10)',
        'Boolean("night")',
        'Text("note", max_length=64)',
    ]
    assert found.columns[2].why == "2 words, 15 missing: oslo 67 %, bergen 33 %"
    assert (found.key, found.event_time) == (("row_id",), "at")
    assert found.notes == (
        "row_id identifies 60 rows; so do at, note",
        (
            "100 % of the steps from one event time to the next are 10min: "
            'Expectations(granularity=Granularity("10min")) would check this'
        ),
        'row_id counts up by one: Expectations(sequence="row_id") would detect a gap',
    )
    assert found.unknown == (
        "at: the zone it is read in",
        "celsius: the unit",
        "late: how long after the event it is known",
    )


def test_an_event_time_outside_of_the_usual_years_gets_no_bound() -> None:
    old = ROWS.with_columns(at=pl.col("at").dt.offset_by("-60y"), seen=pl.col("at"))
    found = suggest_contract(old, zone="UTC", event_time="at", label="late")
    lines = {each.column.name: each.line for each in found.columns}
    assert lines["at"] == 'Timestamp("at", tz="UTC", high="2200-01-01T00:00:00Z")'
    assert lines["seen"] == 'Timestamp("seen", tz="UTC")'


def test_what_is_declared_of_times_stays() -> None:
    """Rows in the store are in UTC, whatever clock their deliveries are read by."""
    declared = Timestamp("at", tz="Europe/Oslo", naive="local")
    found = suggest_contract(ROWS, zone="UTC", times={"at": declared}, label="late")
    assert found.columns[1].line == 'Timestamp("at", tz="Europe/Oslo", naive="local")'
    assert not any("zone" in question for question in found.unknown)
    naive = ROWS.with_columns(at=pl.col("at").dt.replace_time_zone(None))
    strict = suggest_contract(
        naive, zone="UTC", times={"at": Timestamp("at", tz="Europe/Oslo")}, label="late"
    )
    assert strict.columns[1].line == found.columns[1].line


def test_the_text_is_python_that_makes_the_contract() -> None:
    found = suggest_contract(ROWS, zone="UTC", label="late")
    made: dict[str, Any] = {}
    exec(found.python(), {name: getattr(holdfast, name) for name in holdfast.__all__}, made)
    assert isinstance(made["contract"], Contract)
    assert found.contract is not None
    assert made["contract"].hash == found.contract.hash


def test_words_of_the_data_stay_in_their_comment() -> None:
    """A suggestion is pasted and run: no word of a stranger's file may become a line of it."""
    words = ["a\nimport os", "b\u2028import os"] * 4
    text = suggest_contract(
        pl.DataFrame({"id": range(8), "w": words, "at": [START] * 8}), zone="UTC"
    ).python()
    assert all(line.startswith(("contract", "    ", ")")) for line in text.splitlines())


def test_two_columns_together_may_be_the_key_and_what_is_wanting_is_reported() -> None:
    pairs = pl.DataFrame({"a": [1, 1, 2], "b": ["x", "y", "x"], "at": [START] * 3})
    assert suggest_contract(pairs, zone="UTC").key == ("a", "b")
    same = pl.DataFrame({"a": [1, 1], "at": [None, START]})
    found = suggest_contract(same, zone="UTC")
    assert (found.key, found.event_time, found.contract) == ((), None, None)
    assert "no column, and no two, identify the rows" in found.python()
    assert "no column has a timestamp in every row" in found.python()


@examples(60)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e300, 1e300)),
            st.one_of(st.none(), st.integers(-(2**52), 2**52)),
            st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_rows_pass_the_contract_that_was_suggested_from_them(
    values: list[tuple[float | None, int | None, str | None]],
) -> None:
    frame = pl.DataFrame(values, schema={"n": pl.Float64, "i": pl.Int64, "t": pl.String}, orient="row")
    times = [START + timedelta(seconds=row) for row in range(frame.height)]
    frame = frame.with_columns(
        pl.Series("id", [f"r{row}" for row in range(frame.height)]), pl.Series("at", times)
    )
    found = suggest_contract(frame, zone="UTC", key=["id"])
    assert found.contract is not None
    assert compile_batch(found.contract)(from_frame(found.contract, frame)).counts == {}
