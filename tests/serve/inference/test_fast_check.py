"""The quick proof never reports more than the row check: where it is sure, no row has a reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Boolean, Category, Contract, Integer, Number, Rule, Text, Timestamp, col
from holdfast.contract.row.compiler import compile_row
from holdfast.serve.inference.request_schema import RequestSchema, as_whole
from holdfast.serve.protocol.oip import InferRequest, RequestError
from tests.support.profile import examples

CONTRACT = Contract(
    Text("id", max_length=4),
    Text("note", pattern="[a-z]+", missing="keep"),
    Category("carrier", values=("AA", "UA"), unseen="reject"),
    Category("origin", missing="keep"),
    Number("distance", unit="mi", low=0, high=6000),
    Number("free", unit="1", missing="keep"),
    Integer("seats", low=1, high=900),
    Integer("any", missing="keep"),
    Boolean("flag", missing="keep"),
    Timestamp("at", tz="America/New_York"),
    Timestamp("seen", tz="UTC", low="1971-01-01", high="2200-01-01"),
    Timestamp("wall", tz="America/New_York", naive="local", missing="keep"),
    key="id",
    event_time="at",
)
CHECK = compile_row(CONTRACT, request=True)
GOOD: dict[str, list[Any]] = {
    "id": ["a", "b\n", "é"],
    "note": ["abc"],
    "carrier": ["AA", "UA"],
    "origin": ["x", "\0", "\U0001f6eb"],
    "distance": [0.0, 6000.0, 12, 1e-300],
    "free": [1e308, -1e308, 0.5, 3],
    "seats": [1, 900],
    "any": [2**53, -(2**53)],
    "flag": [True, False],
    "at": ["2013-03-10T02:30:00-05:00", "1970-01-01T00:00:00Z"],
    "seen": ["1971-01-01T00:00:00Z", "2199-12-31T23:59:59.999999-00:00", "2200-01-01T00:00:00Z"],
    "wall": ["2013-06-01 02:30:00", "2013-06-01T02:30:00Z"],
}
BAD = [
    None, "", "a\0", "\ud83d", "toolong", -1.0, 6000.1, float("nan"), float("inf"), -float("inf"), 0, 901, 1.5, 2**53 + 1,
    10**400, True, "ZZ", "UPPER", "2013-03-10T02:30:00", "2013-03-10 02:30:00", "2013-11-03 01:30:00",
    "9999-12-31T23:59:59-23:00", "1970-12-31T23:59:59.999999Z", "2200-01-01T00:00:00.000001Z",
    "x", [], {}, [1],
]  # fmt: skip


@examples(200)
@given(st.data())
def test_sure_means_valid(data: st.DataObject) -> None:
    rows = data.draw(st.integers(4, 7))
    columns = {
        name: data.draw(st.lists(st.sampled_from(good), min_size=rows, max_size=rows))
        for name, good in GOOD.items()
    }
    for _ in range(data.draw(st.integers(0, 2))):
        name = data.draw(st.sampled_from(sorted(columns)))
        columns[name][data.draw(st.integers(0, rows - 1))] = data.draw(st.sampled_from(BAD))
    reasons = [
        CHECK(plain({name: values[place] for name, values in columns.items()})) for place in range(rows)
    ]
    request = InferRequest(
        None, None, False, rows, {name: list(values) for name, values in columns.items()}, False
    )
    counted: Counter[str] = Counter()
    schema = RequestSchema(CONTRACT)
    if any(reasons):
        with pytest.raises(RequestError):
            schema.accept(request, counted)
        assert sum(counted.values()) == sum(map(len, reasons))
    else:
        made, event_times = schema.accept(request, counted)
        alone = [schema.accept(one(columns, place), counted)[1][0] for place in range(rows)]
        assert event_times == alone
        assert [row["at"] for row in made] == event_times


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: as_whole(row[name]) for name in ("seats", "any")}


def one(columns: dict[str, list[Any]], place: int) -> InferRequest:
    return InferRequest(
        None, None, False, 1, {name: [values[place]] for name, values in columns.items()}, False
    )


def test_an_ordinary_request_is_proved() -> None:
    """Otherwise the proof would be for nothing."""
    columns = {name: values[:1] * 4 for name, values in GOOD.items() if name != "note"}
    assert not RequestSchema(CONTRACT)._is_surely_valid(columns, {})
    plain = Contract(Text("id"), Number("x", unit="1"), Timestamp("at", tz="UTC"), key="id", event_time="at")
    assert RequestSchema(plain)._is_surely_valid(
        {"id": ["a"] * 4, "x": [1.0] * 4, "at": ["2013-03-10T02:30:00Z"] * 4}, {}
    )


def test_rules_are_judged_of_rows_whose_columns_are_proved() -> None:
    """The proof is of columns, each by itself; what they are to each other is judged all the same."""
    contract = Contract(
        *CONTRACT.request_columns,
        key="id",
        event_time="at",
        rules=[Rule("roomy", col("distance") < col("seats") * 10.0)],
    )
    good = {name: values[:1] * 4 for name, values in GOOD.items()} | {"note": ["abc"] * 4, "seats": [900] * 4}
    schema, counted = RequestSchema(contract), Counter[str]()
    schema.accept(InferRequest(None, None, False, 4, dict(good), False), counted)
    broken = good | {"distance": [0.0, 10.0, 6000.0, 10.0], "seats": [900, 1, 600, 2]}
    with pytest.raises(RequestError) as caught:
        schema.accept(InferRequest(None, None, False, 4, broken, False), counted)
    assert caught.value.reasons == ["row 1: roomy|rule", "row 2: roomy|rule"]
    assert counted == {"roomy|rule": 2}
