"""A declaration means what it reports or is refused; its JSON and hash carry every fact of it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from holdfast.contract import (
    Boolean,
    Category,
    Column,
    Constant,
    Contract,
    Integer,
    Keep,
    Label,
    Mean,
    Median,
    Number,
    Reject,
    Text,
    Timestamp,
)
from holdfast.errors import InputError

EVERYTHING: tuple[Column, ...] = (
    Text("id", max_length=40, pattern="[A-Z0-9]+"),
    Timestamp("at", tz="America/New_York", naive="local"),
    Number("distance", unit="mi", low=0, high=6000, missing=Median(flag=True)),
    Number("delay", unit="min", missing=Mean()),
    Integer("seats", unit="seat", low=1, missing=Constant(150, flag=True)),
    Category("carrier", values=("UA", "AA"), unseen="reject", missing=Constant("UA")),
    Category("origin", missing=Keep(flag=True)),
    Boolean("night", missing=Constant(value=False)),
)


def everything(*columns: Column, **changes: Any) -> Contract:
    facts = {
        "key": "id",
        "event_time": "at",
        "label": Label("late", delay="12h"),
        "slices": ("origin",),
        **changes,
    }
    return Contract(*(columns or EVERYTHING), **facts)


def test_a_bound_beyond_double_precision_is_refused() -> None:
    for huge in (10**400, -(10**400), 10**5000):
        with pytest.raises(InputError, match=r"HF104.*a number of \d+ bits is not a finite number"):
            Number("v", unit="1", high=huge)
        with pytest.raises(InputError, match="HF104"):
            Number("v", unit="1", missing=Constant(huge))
    with pytest.raises(InputError, match="HF109"):
        Label("late", delay="999999999999999d")


def test_json_round_trip_keeps_every_fact() -> None:
    """R48: the hash at the endpoint is the hash of the model because the JSON holds everything."""
    contract = everything()
    again = Contract.from_json(contract.to_json())
    assert again == contract
    assert again.to_json() == contract.to_json()
    assert again.hash == contract.hash
    assert len(contract.hash) == 64
    assert again.label == Label("late", delay="12h")
    assert hash(again) == hash(contract)


@pytest.mark.parametrize(
    "changed",
    [
        everything(
            *EVERYTHING[:2],
            Number("distance", unit="km", low=0, high=6000, missing=Median(flag=True)),
            *EVERYTHING[3:],
        ),
        everything(
            *EVERYTHING[:2],
            Number("distance", unit="mi", low=0, high=6001, missing=Median(flag=True)),
            *EVERYTHING[3:],
        ),
        everything(
            *EVERYTHING[:2],
            Number("distance", unit="mi", low=0, high=6000, missing=Median()),
            *EVERYTHING[3:],
        ),
        everything(EVERYTHING[0], Timestamp("at", tz="UTC", naive="local"), *EVERYTHING[2:]),
        everything(EVERYTHING[0], Timestamp("at", tz="UTC", low="1971-01-01"), *EVERYTHING[2:]),
        everything(EVERYTHING[1], EVERYTHING[0], *EVERYTHING[2:]),
        everything(label=Label("late", delay="11h")),
        everything(label=None),
        everything(slices=("carrier",)),
        everything(key=("id", "at")),
    ],
    ids=["unit", "range", "flag", "zone", "first time", "order", "delay", "label", "slices", "key"],
)
def test_every_fact_is_in_the_hash(changed: Contract) -> None:
    """R22, R23: another unit or zone is another contract."""
    assert changed.hash != everything().hash
    assert changed != everything()


def test_equal_declarations_have_one_hash_however_they_are_written() -> None:
    first = Contract(
        Integer("n"), Timestamp("at", tz="UTC"), Number("x", unit="1", low=-0.0), key="n", event_time="at"
    )
    second = Contract(
        Integer("n", missing="reject"),
        Timestamp("at", "UTC"),
        Number("x", unit="1", low=0),
        key=["n"],
        event_time="at",
    )
    assert first.hash == second.hash
    assert (
        everything(label=Label("late", delay="12h")).hash
        == everything(label=Label("late", delay="720min")).hash
    )


def test_bounds_of_timestamps_are_one_however_they_are_written() -> None:
    """And a contract without such bounds is written as before there were any: versions keep their contract's hash."""
    oslo = "Europe/Oslo"
    midnight = datetime(2013, 1, 1, tzinfo=ZoneInfo(oslo))
    bounds = ("2013-01-01", date(2013, 1, 1), midnight, midnight.astimezone(UTC), "2012-12-31T23:00:00Z")
    columns = [Timestamp("at", tz=oslo, low=bound, high="2100-01-01") for bound in bounds]
    assert len({Contract(each, key="at", event_time="at").hash for each in columns}) == 1
    assert columns[0].low == "2012-12-31T23:00:00Z"
    made = Contract(columns[0], key="at", event_time="at")
    assert Contract.from_json(made.to_json()) == made
    assert '"low"' not in Contract(Timestamp("at", tz=oslo), key="at", event_time="at").to_json()


def test_a_contract_knows_its_parts() -> None:
    contract = everything()
    assert contract.names[-1] == "late"
    assert "late" not in {column.name for column in contract.request_columns}
    assert contract.column("distance") == EVERYTHING[2]
    with pytest.raises(InputError, match="no column 'altitude'"):
        contract.column("altitude")


AT = Timestamp("at", tz="UTC")
WRONG = {
    "unit missing": lambda: Number("x", unit=""),
    "low above high": lambda: Number("x", unit="1", low=2, high=1),
    "infinite bound": lambda: Number("x", unit="1", high=float("inf")),
    "boolean bound": lambda: Number("x", unit="1", high=True),
    "constant out of range": lambda: Number("x", unit="1", low=0, missing=Constant(-1)),
    "constant of another type": lambda: Number("x", unit="1", missing=Constant("0")),
    "unknown policy": lambda: Number("x", unit="1", missing="guess"),
    "bound beyond 2**53": lambda: Integer("x", high=2**53 + 1),
    "float constant of an integer": lambda: Integer("x", missing=Constant(1.5)),
    "reject without values": lambda: Category("x", unseen="reject"),
    "no values": lambda: Category("x", values=()),
    "values as one text": lambda: Category("x", values="UA"),  # type: ignore[arg-type]  # what a user may type
    "value twice": lambda: Category("x", values=("UA", "UA")),
    "empty value": lambda: Category("x", values=("",)),
    "surrogate value": lambda: Category("x", values=("\ud800",)),
    "median of words": lambda: Category("x", missing="median"),
    "empty constant word": lambda: Text("x", missing=Constant("")),
    "no zone": lambda: Timestamp("x", tz=""),
    "no such zone": lambda: Timestamp("x", tz="America/Gotham"),
    "zone of the machine": lambda: Timestamp("x", tz="localtime"),
    "zone out of its directory": lambda: Timestamp("x", tz="../UTC"),
    "latest before earliest": lambda: Timestamp("x", tz="UTC", low="2013-01-02", high="2013-01-01"),
    "no such day": lambda: Timestamp("x", tz="UTC", low="2013-02-30"),
    "bound without an offset": lambda: Timestamp("x", tz="UTC", low="2013-01-01T12:00:00"),
    "bound within a second": lambda: Timestamp("x", tz="UTC", high="2013-01-01T12:00:00.5Z"),
    "bound as a number": lambda: Timestamp("x", tz="UTC", low=1_700_000_000),  # type: ignore[arg-type]  # what a user may type
    "made up timestamp": lambda: Timestamp("x", tz="UTC", missing="median"),
    "mean of booleans": lambda: Boolean("x", missing="mean"),
    "constant 1 of a boolean": lambda: Boolean("x", missing=Constant(1)),
    "length 0": lambda: Text("x", max_length=0),
    "broken pattern": lambda: Text("x", pattern="("),
    "negative delay": lambda: Label("x", delay="-1h"),
    "delay without unit": lambda: Label("x", delay="12"),
    "column name": lambda: Integer("Seats"),
    "name like a reason": lambda: Integer("_reasons"),
    "no key": lambda: Contract(Integer("n"), AT, key=(), event_time="at"),
    "unknown key": lambda: Contract(Integer("n"), AT, key="m", event_time="at"),
    "key twice": lambda: Contract(Integer("n"), AT, key=("n", "n"), event_time="at"),
    "number as key": lambda: Contract(Number("n", unit="1"), AT, key="n", event_time="at"),
    "key may be missing": lambda: Contract(Integer("n", missing="keep"), AT, key="n", event_time="at"),
    "label as key": lambda: Contract(AT, key="late", event_time="at", label=Label("late", "1h")),
    "event time no timestamp": lambda: Contract(Integer("n"), AT, key="n", event_time="n"),
    "event time may be missing": lambda: Contract(
        Integer("n"), Timestamp("at", tz="UTC", missing=Keep()), key="n", event_time="at"
    ),
    "name twice": lambda: Contract(Integer("n"), AT, Text("n"), key="n", event_time="at"),
    "label as column": lambda: Contract(Integer("n"), AT, Label("late", "1h"), key="n", event_time="at"),
    "number as slice": lambda: Contract(
        Integer("n"), AT, Number("x", unit="1"), key="n", event_time="at", slices="x"
    ),
}


@pytest.mark.parametrize("declare", WRONG.values(), ids=WRONG.keys())
def test_a_declaration_that_contradicts_itself_is_refused(declare: Any) -> None:
    with pytest.raises(InputError) as caught:
        declare()
    assert caught.value.code in ("HF104", "HF109", "HF113")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"format":2}',
        everything().to_json().replace("median", "mode"),
        everything().to_json()[:-1],
    ]
    + [
        everything().to_json().replace('"type":"text"', f'"type":{kind}') for kind in ('"blob"', "[]", "null")
    ],
)
def test_json_that_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Contract.from_json(text)
    assert caught.value.code == "HF108"


def test_json_is_plain_and_reports_the_units_of_its_durations() -> None:
    value = json.loads(everything().to_json())
    assert value["columns"][-1] == {
        "type": "label",
        "name": "late",
        "delay_seconds": 43200.0,
        "missing": {"policy": "reject"},
        "semantic": None,
    }
    assert everything().column("at").missing == Reject()


@pytest.mark.process
def test_a_server_checks_rows_without_polars() -> None:
    """Rows are checked on every request, frames only where data is loaded; Polars costs 35 MB."""
    program = (
        "import sys; from holdfast.contract import Contract; from holdfast.contract.row.compiler import compile_row; "
        f"assert compile_row(Contract.from_json({everything().to_json()!r}), request=True)({{}}); "
        "assert 'polars' not in sys.modules; "
        "import holdfast.contract as c; assert all(hasattr(c, name) for name in c.__all__)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
