"""A whole number that no double holds has one verdict, however it came (B15)."""

from __future__ import annotations

import json
from decimal import Decimal
from io import BytesIO
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.contract import Contract, Integer, Number, Timestamp
from holdfast.contract.batch.csv_format import Csv
from holdfast.contract.batch.text_input import TypedBatch, from_text
from holdfast.contract.row.compiler import compile_row
from holdfast.store.sources import Bundle, File, Kind, parse

CONTRACT = Contract(
    Integer("id"),
    Number("v", unit="1", missing="keep"),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
)
AT = "2026-01-01T00:00:00Z"
EXACT = [2**53, -(2**53), 2**53 + 2, 2**60, 10**22]
INEXACT = [2**53 + 1, -(2**53) - 1, 2**62 + 1, 10**18 + 1, 10**23]


def _csv(value: int) -> TypedBatch:
    return parse(_bundle("d.csv", Kind.CSV, f"id,v,at\n1,{value},{AT}\n".encode()), CONTRACT)


def _json_lines(value: int) -> TypedBatch:
    line = json.dumps({"id": 1, "v": value, "at": AT})
    return parse(_bundle("d.jsonl", Kind.JSON_LINES, f"{line}\n".encode()), CONTRACT)


def _parquet(value: object, kind: Any) -> TypedBatch:
    at = pa.array([0], pa.timestamp("us", "UTC"))
    sink = BytesIO()
    pq.write_table(pa.table({"id": [1], "v": pa.array([value], kind), "at": at}), sink)
    return parse(_bundle("d.parquet", Kind.PARQUET, sink.getvalue()), CONTRACT)


def _bundle(name: str, kind: Kind, data: bytes) -> Bundle:
    return Bundle(name, (File(name, kind, data),), alone=True)


def _faults(value: int) -> dict[str, list[str]]:
    batches = {"csv": _csv(value), "json": _json_lines(value)}
    batches["decimal"] = _parquet(Decimal(value), pa.decimal128(30, 0))
    if abs(value) < 2**63:
        batches["int64"] = _parquet(value, pa.int64())
    found = {way: list(batch.faults) for way, batch in batches.items()}
    row = {"id": 1, "v": value, "at": AT}
    found["request"] = list(compile_row(CONTRACT, request=True)(row))
    return found


@pytest.mark.parametrize("value", INEXACT)
def test_one_that_would_be_rounded_is_a_fault_on_every_way(value: int) -> None:
    found_by_way = _faults(value)
    assert found_by_way == {way: ["v|not_exact"] for way in found_by_way}


@pytest.mark.parametrize("value", EXACT)
def test_one_that_a_double_holds_is_read_on_every_way(value: int) -> None:
    found_by_way = _faults(value)
    assert found_by_way == {way: [] for way in found_by_way}


@pytest.mark.parametrize(
    ("text", "csv"),
    [
        ("9,007,199,254,740,993", Csv(thousands=",")),
        ("9.007.199.254.740.993", Csv(thousands=".", decimal=",")),
        ("+9007199254740993", Csv()),
        ("0" * 5000 + "9007199254740993", Csv()),
    ],
)
def test_the_form_of_a_number_makes_no_difference(text: str, csv: Csv) -> None:
    read = from_text(CONTRACT, pl.DataFrame({"id": ["1", "2"], "v": [text, "2"], "at": [AT, AT]}), csv=csv)
    assert read.faults["v|not_exact"].to_list() == [True, False]
    assert read.frame["v"].to_list() == [None, 2.0]


@pytest.mark.parametrize("text", ["9007199254740993.0", "9007199254740993e0", "0.1", "1e300"])
def test_a_fraction_or_an_exponent_names_the_nearest_double_as_in_json(text: str) -> None:
    read = from_text(CONTRACT, pl.DataFrame({"id": ["1"], "v": [text], "at": [AT]}))
    assert not read.faults
    assert read.frame["v"].to_list() == [json.loads(text)]
