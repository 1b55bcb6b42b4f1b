"""A declared form of CSV is read as it is declared, and nothing else is."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.csv_format import DATES, THOUSANDS, Csv
from holdfast.contract.batch.input_columns import renamed_columns
from holdfast.contract.batch.text_input import TypedBatch, from_text
from holdfast.errors import InputError
from tests.support.profile import examples

CONTRACT = Contract(
    Text("id"),
    Timestamp("at", tz="UTC", naive="local"),
    Number("kg", unit="kg", missing="keep"),
    Integer("n", missing="keep"),
    key="id",
    event_time="at",
    label=Label("late", delay="1d", missing="keep"),
)
GERMAN = Csv(separator=";", decimal=",", dates=("d.m.yyyy",), true=("Ja",), false=("nein",))

GROUPED = Csv(separator=";", decimal=",", thousands=".")


def _read(csv: Csv, **values: str) -> TypedBatch:
    row = {"id": "a", "at": "2026-01-01T00:00:00Z", "kg": "", "n": "", "late": ""} | values
    return from_text(CONTRACT, pl.DataFrame({name: [value] for name, value in row.items()}), csv=csv)


@pytest.mark.parametrize(
    ("csv", "column", "text", "expected"),
    [
        (GERMAN, "kg", "1,5", 1.5),
        (GERMAN, "kg", "-,5e3", -500.0),
        (GERMAN, "kg", "1.5", "kg|type"),
        (GERMAN, "kg", "1.234,5", "kg|type"),
        (GERMAN, "kg", "1,2,3", "kg|type"),
        (GERMAN, "n", "3,0", 3),
        (GERMAN, "n", "3.0", "n|type"),
        (GERMAN, "late", "JA", True),
        (GERMAN, "late", "Nein", False),
        (GERMAN, "late", "true", "late|type"),
        (GERMAN, "at", "31.1.2026", datetime(2026, 1, 31, tzinfo=UTC)),
        (GERMAN, "at", "01.02.2026 07:30", datetime(2026, 2, 1, 7, 30, tzinfo=UTC)),
        (GERMAN, "at", "1.2.2026T07:30:01.5+01:00", datetime(2026, 2, 1, 6, 30, 1, 500_000, tzinfo=UTC)),
        (GERMAN, "at", "2026-02-01T00:00:00Z", datetime(2026, 2, 1, tzinfo=UTC)),
        (GERMAN, "at", "2026-02-01", "at|type"),
        (GERMAN, "at", "31.2.2026", "at|type"),
        (GERMAN, "at", "1.2.26", "at|type"),
        (GERMAN, "at", "1.2.2026 24:00", "at|type"),
        (GERMAN, "at", "1.2.2026 7:30", "at|type"),
        (GERMAN, "at", "1.2.2026\n", "at|type"),
        (Csv(dates=("yyyy-mm-dd",)), "at", "2026-02-01", datetime(2026, 2, 1, tzinfo=UTC)),
        (Csv(dates=("yyyy-mm-dd",)), "at", "2026-02-01 07:30", datetime(2026, 2, 1, 7, 30, tzinfo=UTC)),
        (Csv(dates=("yyyy-mm-dd",)), "at", "2026-2-1", "at|type"),
        (Csv(), "at", "2026-02-01", "at|type"),
        (GROUPED, "kg", "1.234.567,5", 1_234_567.5),
        (GROUPED, "kg", "-1.234", -1234.0),
        (GROUPED, "kg", "1234,5", 1234.5),
        (GROUPED, "kg", "0.123", "kg|type"),
        (GROUPED, "kg", "1.23", "kg|type"),
        (GROUPED, "kg", "1.2345", "kg|type"),
        (GROUPED, "kg", "1234.567", "kg|type"),
        (GROUPED, "kg", "1,234.5", "kg|type"),
        (GROUPED, "n", "1.234,00", 1234),
        (Csv(thousands=","), "n", "1,234", 1234),
        (Csv(thousands="\u202f"), "kg", "1\u202f234.5", 1234.5),
        (Csv(), "kg", "1,234.5", "kg|type"),
        (Csv(), "n", "3.00", 3),
        (Csv(), "n", "3.5", "n|type"),
        (Csv(), "n", "9" * 20 + ".0", "n|not_exact"),
        (Csv(), "late", "1.0", True),
        (Csv(), "late", "0.0", False),
        (Csv(), "late", "yes", "late|type"),
    ],
)
def test_a_value_is_read_in_the_declared_form_or_its_row_has_a_fault(
    csv: Csv, column: str, text: str, expected: object
) -> None:
    typed = _read(csv, **{column: text})
    if isinstance(expected, str):
        assert (list(typed.faults), typed.frame[column].to_list()) == ([expected], [None])
    else:
        assert (dict(typed.faults), typed.frame[column].to_list()) == ({}, [expected])


_WRITTEN = {
    "yyyy-mm-dd": "{0:%Y}-{0:%m}-{0:%d}",
    "yyyy/mm/dd": "{0:%Y}/{0:%m}/{0:%d}",
    "yyyymmdd": "{0:%Y}{0:%m}{0:%d}",
    "d.m.yyyy": "{0.day}.{0.month}.{0:%Y}",
    "d/m/yyyy": "{0.day}/{0.month}/{0:%Y}",
    "m/d/yyyy": "{0.month}/{0.day}/{0:%Y}",
    "d-m-yyyy": "{0.day}-{0.month}-{0:%Y}",
    "m-d-yyyy": "{0.month}-{0.day}-{0:%Y}",
}


@examples(100)
@given(
    st.sampled_from(sorted(DATES)),
    st.dates(date(1900, 1, 2), date(2099, 12, 30)),
    st.one_of(st.none(), st.times()),
    st.sampled_from(["", "Z", "+05:30", "-03:00"]),
)
def test_every_date_is_read_back(order: str, day: date, clock: time | None, offset: str) -> None:
    text = _WRITTEN[order].format(day)
    wall = datetime.combine(day, clock or time())
    if clock is not None:
        text += f" {clock:%H:%M:%S}.{clock.microsecond:06}{offset}"
        sign = -1 if offset.startswith("-") else 1
        if len(offset) > 1:
            wall -= sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[4:]))
    assert _read(Csv(dates=(order,)), at=text).frame["at"].to_list() == [wall.replace(tzinfo=UTC)]


@pytest.mark.parametrize(
    "form",
    [
        {"separator": ":"},
        {"decimal": ";"},
        {"dates": "d.m.yyyy"},
        {"dates": ("dd.mm.yy",)},
        {"dates": ("d/m/yyyy", "m/d/yyyy")},
        {"true": ("ja",), "false": ("JA",)},
        {"true": ("",)},
        {"false": ()},
    ],
)
def test_a_form_that_cannot_be_or_reads_one_text_in_two_ways_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"HF106.*csv: "):
        Csv(**form)


def test_two_columns_cannot_be_delivered_as_one() -> None:
    headers = {"Weight [g]": "kg", "Time": "at"}
    assert renamed_columns(CONTRACT, ["Weight [g]", "Time", "n"], headers) == {
        "Weight [g]": "kg [g]",
        "Time": "at",
    }
    with pytest.raises(InputError, match=r"HF202.*twice: Time as at"):
        renamed_columns(CONTRACT, ["Time", "at"], headers)


def test_a_named_header_may_state_another_unit() -> None:
    """`Weight [g]` is read in grams where the declaration names `Weight`, or `Weight [lb]`."""
    for header in ("Weight", "Weight [lb]"):
        headers = {header: "kg", "Time": "at"}
        assert renamed_columns(CONTRACT, ["Weight [g]", "Time"], headers)["Weight [g]"] == "kg [g]"
        assert "Time [g]" not in renamed_columns(CONTRACT, ["Weight [g]", "Time [g]"], headers), "no number"
        assert "Weight [g]" not in renamed_columns(CONTRACT, [header, "Weight [g]"], headers), (
            "another column"
        )


@given(st.integers(-(10**15), 10**15), st.sampled_from(list(THOUSANDS)), st.sampled_from([".", ","]))
@examples(200)
def test_grouped_digits_are_the_number(number: int, thousands: str, decimal: str) -> None:
    if thousands == decimal:
        return
    csv = Csv(separator=";", decimal=decimal, thousands=thousands)
    text = f"{number:,}".replace(",", thousands)
    assert _read(csv, n=text).frame["n"].to_list() == [number]
    assert _read(csv, kg=f"{text}{decimal}25").frame["kg"].to_list() == [float(f"{number}.25")]


@pytest.mark.parametrize("thousands", [",", "x", "..", 3])
def test_a_sign_of_thousands_that_cannot_be_is_refused(thousands: str) -> None:
    with pytest.raises(InputError, match=r"HF1(?:06|13).*thousands"):
        Csv(separator=";", decimal=",", thousands=thousands)
