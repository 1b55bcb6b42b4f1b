"""A tensor is held to its datatype, in JSON as in binary."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from holdfast.contract import Category, Constant, Integer, Number, Text, Timestamp
from holdfast.serve.protocol.datatypes import INTEGERS
from holdfast.serve.protocol.metadata import input_spec, model_metadata
from holdfast.serve.protocol.oip import RequestError, decode_request

SPECS = {
    "size": input_spec(Number("size", unit="1")).datatypes,
    "at": input_spec(Timestamp("at", tz="UTC")).datatypes,
}


def decoded(
    datatype: str, values: list[Any], *, name: str = "size", shape: list[int] | None = None
) -> list[Any]:
    tensor = {"name": name, "shape": shape or [len(values)], "datatype": datatype, "data": values}
    return decode_request(json.dumps({"inputs": [tensor]}).encode(), None, SPECS).columns[name]


def refusal(datatype: str, values: list[Any], *, name: str = "size") -> tuple[list[str], str]:
    with pytest.raises(RequestError) as found:
        decoded(datatype, values, name=name)
    return found.value.reasons, found.value.what


@pytest.mark.parametrize("datatype", INTEGERS)
def test_every_integer_type_holds_its_bounds_and_nothing_beyond(datatype: str) -> None:
    kind = np.iinfo(datatype.lower())
    low, high = int(kind.min), int(kind.max)
    assert decoded(datatype, [low, high, None]) == [low, high, None]
    for beyond in (low - 1, high + 1):
        reasons, text = refusal(datatype, [0, beyond])
        assert reasons == ["size|datatype"]
        assert text.endswith(f"{datatype} holds whole numbers from {low} to {high}, and value 1 is {beyond}")
    for other in (2.5, True, "3", [1]):
        assert refusal(datatype, [other])[0] == ["size|type"]


def test_single_precision_holds_what_does_not_round_to_infinity() -> None:
    largest = float(np.finfo(np.float32).max)
    assert decoded("FP32", [largest, -largest, 1, None]) == [largest, -largest, 1, None]
    assert decoded("FP32", [3.4028235677973362e38]) == [3.4028235677973362e38]
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(3.4028235677973366e38))
    for beyond in (3.4028235677973366e38, -1e39, 10**60):
        assert refusal("FP32", [0.0, beyond])[0] == ["size|datatype"]
    assert "1e+39" in refusal("FP32", [1e39])[1]
    assert refusal("FP32", [True])[0] == ["size|type"]


def test_a_value_that_does_not_fit_is_shown_bounded() -> None:
    assert "an integer of 1661 bits" in refusal("INT8", [10**500])[1]
    assert len(refusal("INT8", ["x" * 10_000])[1]) < 200


def test_a_column_tensor_of_shape_rows_and_one_is_held_to_its_datatype_too() -> None:
    with pytest.raises(RequestError, match="value 1 is 300"):
        decoded("INT8", [[1], [300]], shape=[2, 1])


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (1_700_000_000, "in seconds it is 2023-11-14T22:13:20+00:00"),
        (1_700_000_000_000, "in milliseconds it is 2023-11-14T22:13:20+00:00"),
        (-1_000_000_000, "in seconds it is 1938-04-24T22:13:20+00:00"),
        (0, "send microseconds"),
        (1_700_000_000_000_000_000, "are they nanoseconds?"),
    ],
)
def test_a_timestamp_in_another_scale_is_refused_and_not_read_as_1970(value: int, meant: str) -> None:
    """R21: Unix seconds were answered as a time of January 1970."""
    reasons, text = refusal("INT64", [1_700_000_000_000_000, value], name="at")
    assert reasons == ["at|range"]
    assert meant in text
    assert decoded("INT64", [1_700_000_000_000_000], name="at") == ["2023-11-14T22:13:20+00:00"]


def test_metadata_states_what_each_input_allows() -> None:
    columns = [
        Number("km", unit="km", low=0, missing="keep"),
        Integer("seats", high=9, missing=Constant(1)),
        Category("town"),
        Category("carrier", values=("AA", "UA"), unseen="reject"),
        Text("note", max_length=5, pattern="[a-z]*"),
        Timestamp("at", tz="Europe/Oslo", naive="local", low="2013-01-01", high="2099-12-31"),
    ]
    words = {
        "town": tuple(f"t{number:02}" for number in range(30)),
        "carrier": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    }
    document = json.loads(model_metadata("m", ["1"], [input_spec(each) for each in columns], {}, words))
    found = {each["name"]: each["parameters"] for each in document["inputs"]}
    assert found["km"]["accepts"][0] == "FP64"
    assert (found["km"]["unit"], found["km"]["low"], found["km"]["missing"]) == ("km", 0, "keep")
    assert (found["seats"]["high"], found["seats"]["missing"], found["seats"]["missing_value"]) == (
        9,
        "constant",
        1,
    )
    assert (found["town"]["values"], found["town"]["values_total"]) == ([f"t{n:02}" for n in range(20)], 30)
    assert (found["town"]["unseen"], found["carrier"]["unseen"]) == ("other", "reject")
    assert found["carrier"]["values"] == ["AA", "UA"]
    assert "values_total" not in found["carrier"]
    assert (found["note"]["max_length"], found["note"]["pattern"], found["note"]["missing"]) == (
        5,
        "[a-z]*",
        "reject",
    )
    assert found["at"] == {
        "accepts": ["BYTES", "INT64"],
        "INT64": "microseconds since 1970 UTC",
        "tz": "Europe/Oslo",
        "naive": "local",
        "low": "2012-12-31T23:00:00Z",
        "high": "2099-12-30T23:00:00Z",
        "form": "RFC 3339 with an offset, such as 2026-01-31T12:00:00+01:00; or without one, by the clock of Europe/Oslo, as "
        "2026-01-31T12:00:00; or a date alone, as 2026-01-31",
        "missing": "reject",
    }
