"""A request may write a whole number as 19.0 and a day as 2026-12-01: nothing is lost, and the log has the plain form (F17)."""

from __future__ import annotations

import json
import struct
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Contract, Integer, Text, Timestamp
from holdfast.serve.inference.request_schema import RequestSchema, as_whole
from holdfast.serve.protocol.datatypes import INTEGERS
from holdfast.serve.protocol.oip import InferRequest, RequestError, decode_request

SCHEMA = RequestSchema(
    Contract(
        Text("id"),
        Timestamp("day", tz="Europe/Oslo", naive="local"),
        Timestamp("at", tz="UTC"),
        Integer("months", unit="month", low=0),
        key="id",
        event_time="at",
    )
)
AT = "2026-12-01T12:00:00Z"


def tensor(name: str, datatype: str, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values}


def decoded(months: list[Any], *, datatype: str = "INT64", day: str = "2026-12-01") -> InferRequest:
    count = len(months)
    inputs = [
        tensor("id", "BYTES", [f"a{number}" for number in range(count)]),
        tensor("day", "BYTES", [day] * count),
        tensor("at", "BYTES", [AT] * count),
        tensor("months", datatype, months),
    ]
    return decode_request(json.dumps({"inputs": inputs}).encode(), None, SCHEMA.specs)


def reasons_of(request: InferRequest) -> str:
    with pytest.raises(RequestError) as found:
        SCHEMA.accept(request, Counter())
    return "; ".join([found.value.what, *found.value.reasons])


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("datatype", [*INTEGERS, "FP64"])
def test_a_whole_number_is_an_integer_in_every_datatype(datatype: str, count: int) -> None:
    request = decoded([19.0] * count, datatype=datatype)
    rows, _ = SCHEMA.accept(request, Counter())
    assert [(type(row["months"]), row["months"]) for row in rows] == [(int, 19)] * count
    assert [(type(row[3]), row[3]) for row in SCHEMA.received_rows(request)] == [(int, 19)] * count


def test_a_whole_number_of_a_tensor_in_bytes_is_an_integer() -> None:
    head = {
        "inputs": [
            tensor("id", "BYTES", ["a"]),
            tensor("day", "BYTES", [AT]),
            tensor("at", "BYTES", [AT]),
            {"name": "months", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
        ]
    }
    text = json.dumps(head).encode()
    request = decode_request(text + struct.pack("<d", 19.0), str(len(text)).encode(), SCHEMA.specs)
    assert SCHEMA.accept(request, Counter())[0][0]["months"] == 19


@pytest.mark.parametrize("value", [19.5, 1e300, 2.0**53 + 2, "19", True])
def test_what_is_no_whole_number_is_refused_and_named(value: object) -> None:
    text = reasons_of(decoded([value]))
    assert "months|" in text
    if value == 19.5:
        assert "19.5; it is a whole number" in text


@given(st.floats(allow_nan=True))
def test_no_number_changes_by_being_read_as_whole(value: float) -> None:
    found = as_whole(value)
    assert found is value or (type(found) is int and found == value and float(found + 1) != value)


def test_whole_numbers_are_converted_from_the_unit_of_the_request() -> None:
    hours = RequestSchema(
        Contract(
            Text("id"), Timestamp("at", tz="UTC"), Integer("wait", unit="min"), key="id", event_time="at"
        )
    )
    wait = tensor("wait", "FP64", [2.0]) | {"parameters": {"unit": "h"}}
    inputs = [tensor("id", "BYTES", ["a"]), tensor("at", "BYTES", [AT]), wait]
    request = decode_request(json.dumps({"inputs": inputs}).encode(), None, hours.specs)
    from holdfast.contract.schema.units import load_definitions

    load_definitions()
    assert hours.accept(request, Counter())[0][0]["wait"] == 120


@pytest.mark.parametrize("count", [1, 8])
def test_a_date_alone_is_the_midnight_of_the_zone(count: int) -> None:
    request = decoded([1] * count)
    rows, _ = SCHEMA.accept(request, Counter())
    assert {row["day"] for row in rows} == {"2026-12-01T00:00:00"}
    assert {row[1] for row in SCHEMA.received_rows(request)} == {"2026-12-01T00:00:00"}, (
        "as later readers read it"
    )


def test_other_dates_are_refused_with_what_is_accepted() -> None:
    for day in ("1.12.2026", "01/12/2026", "2026-13-01", "20261201"):
        text = reasons_of(decoded([1], day=day))
        assert f"'{day}" in text
        assert "or a date alone, as 2026-01-31" in text or "T00:00:00" in text
    inputs = [
        tensor("id", "BYTES", ["a"]),
        tensor("day", "BYTES", [AT]),
        tensor("at", "BYTES", ["2026-12-01"]),
    ]
    request = decode_request(
        json.dumps({"inputs": [*inputs, tensor("months", "INT64", [1])]}).encode(), None, SCHEMA.specs
    )
    assert (
        "at|type ('2026-12-01'; it is RFC 3339 with an offset, such as 2026-01-31T12:00:00Z)"
        in reasons_of(request)
    )


def test_a_wrong_datatype_names_those_that_are_accepted_and_an_example() -> None:
    for name, datatype, example in (
        ("months", "FP32", '"datatype": "INT64", "data": [19]'),
        ("day", "FP64", '"datatype": "BYTES", "data": ["2026-01-31T12:00:00Z"]'),
        ("id", "INT64", '"datatype": "BYTES", "data": ["text"]'),
    ):
        with pytest.raises(RequestError) as found:
            decode_request(json.dumps({"inputs": [tensor(name, datatype, [1])]}).encode(), None, SCHEMA.specs)
        assert example in found.value.what
        assert f"it accepts {SCHEMA.specs[name][0]}" in found.value.what


def test_the_key_of_a_label_is_read_as_that_of_a_request() -> None:
    keyed = RequestSchema(
        Contract(
            Integer("id"), Timestamp("day", tz="UTC", naive="local"), key=("id", "day"), event_time="day"
        )
    )
    assert keyed.read_key({"id": 19.0, "day": "2026-12-01"}) == {"id": 19, "day": "2026-12-01T00:00:00+00:00"}
