"""Values of Parquet files are read exactly, whatever type carries them, or their rows have a fault."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.compiler import compile_batch
from holdfast.errors import InputError
from holdfast.store.sources import Bundle, File, Kind, Rows, parse
from holdfast.store.sources.canonical_order import canonical
from holdfast.store.sources.delivery import reading
from holdfast.store.sources.infer_types import look
from holdfast.store.sources.parser import columns
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
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def _delivery(options: dict[str, Any] | None = None, **values: pa.Array) -> Bundle:
    rows = len(next(iter(values.values())))
    whole = {
        "id": pa.array([f"{number}" for number in range(rows)]),
        "at": pa.array([DAY] * rows, pa.timestamp("us", "UTC")),
    } | {name: pa.nulls(rows) for name in ("kg", "n", "late")}
    file = BytesIO()
    pq.write_table(pa.table(whole | values), file, **(options or {}))
    return Bundle("d.parquet", (File("d.parquet", Kind.PARQUET, file.getvalue()),), alone=True)


def _read(name: str, values: pa.Array, options: dict[str, Any] | None = None) -> tuple[list[Any], list[str]]:
    typed = parse(_delivery(options, **{name: values}), CONTRACT)
    compile_batch(CONTRACT)(typed)
    return typed.frame[name].to_list(), list(typed.faults)


_FAR_TIMES = [
    *[(pa.timestamp(unit, zone), sign << 62) for unit in ("ms", "us") for zone in ("UTC", None) for sign in (1, -1)],
    (pa.timestamp("ms", "UTC"), 253_402_300_800_000),  # the first millisecond of the year 10000
    (pa.timestamp("us"), -62_135_596_800_000_001),  # the last microsecond before the year 1
    (pa.date32(), (1 << 31) - 1),
    (pa.date32(), -(1 << 31)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "number"), _FAR_TIMES, ids=str)
def test_a_time_that_no_datetime_can_be_is_a_fault_of_its_row(kind: pa.DataType, number: int) -> None:
    whole_number = pa.int32() if pa.types.is_date(kind) else pa.int64()
    delivery = _delivery(
        at=pa.array([number, 1 if pa.types.is_date(kind) else None], whole_number).cast(kind)
    )
    typed = parse(delivery, CONTRACT)
    verdict = compile_batch(CONTRACT)(typed)
    assert verdict.counts["at|range"] >= 1
    assert typed.faults["at|range"].to_list()[0]
    unit = "days" if pa.types.is_date(kind) else kind.unit
    assert typed.original["at"].to_list()[0] == f"{number} {unit} since 1970"
    assert look(delivery)[0]["at"].to_list()[0] == f"{number} {unit} since 1970"
    assert list(columns(delivery, CONTRACT)) == ["id", "at", "kg", "n", "late"]


@pytest.mark.parametrize(
    "error", [ArithmeticError, pl.exceptions.PanicException], ids=lambda kind: kind.__name__
)
def test_what_a_library_raises_at_bytes_is_a_refusal_of_the_file(error: type[BaseException]) -> None:
    delivery = _delivery(kg=pa.array([1.0]))
    reported = r"HF201.*is not a readable Parquet file \(it has no form\)"
    with pytest.raises(InputError, match=reported), reading(delivery, delivery.files[0]):
        raise error("it has no form")


def test_metadata_that_are_no_utf8_are_no_panic() -> None:
    field = pa.field("kg", pa.float64(), metadata={b"unit": b"\xff"})
    rows = Rows("query", pa.table([pa.array([1.5])], schema=pa.schema([field])), ())
    assert look(rows)[0]["kg"].to_list() == [1.5]
    assert columns(rows, CONTRACT) == {"kg": "number"}
    assert canonical(rows.table)[0].num_rows == 1


@pytest.mark.parametrize("year", [1000, 1500, 1900, 2026, 2262, 2263, 2500, 2600, 9998])
def test_timestamps_of_int96_are_those_that_were_written(year: int) -> None:
    at = datetime(year, 6, 1, 12, tzinfo=UTC).replace(tzinfo=None)  # INT96 has no zone
    delivery = _delivery({"use_deprecated_int96_timestamps": True}, at=pa.array([at], pa.timestamp("us")))
    assert parse(delivery, CONTRACT).original["at"].to_list() == [at]
    assert look(delivery)[0]["at"].to_list() == [at]
    verdict = compile_batch(CONTRACT)(parse(delivery, CONTRACT))
    assert verdict.counts == ({} if 1900 <= year <= 2099 else {"at|range": 1})


ZONES = [
    "+05:30",
    "-03:30",
    "+05:45",
    "+12:45",
    "-14:00",
    "+14:00",
    "+00:00",
    "UTC",
    "Zulu",
    "EST",
    "Asia/Kolkata",
]


@pytest.mark.parametrize("zone", ZONES)
def test_a_timestamp_is_a_point_in_time_whatever_its_zone_is_called(zone: str) -> None:
    at = pa.array([int(DAY.timestamp() * 1e6)], pa.int64()).cast(pa.timestamp("us", zone))
    assert _read("at", at) == ([DAY], [])
    delivery = _delivery(at=at)
    assert columns(delivery, CONTRACT)["at"] == "time"
    assert look(delivery)[0]["at"].to_list() == [DAY]


@pytest.mark.parametrize(
    ("name", "values", "expected", "faults"),
    [
        ("late", pa.array([0, 1, None], pa.int64()), [False, True, None], []),
        ("late", pa.array([0, 1, 2], pa.uint8()), [False, True, None], ["late|type"]),
        ("late", pa.array([0.0, 1.0, 0.5]), [False, True, None], ["late|type"]),
        ("n", pa.array([3.0, None, -7.0]), [3, None, -7], []),
        ("n", pa.array([3.5, float("nan"), 2.0**63]), [None] * 3, ["n|not_exact"]),
        ("n", pa.array([Decimal("3.00"), Decimal("3.10")], pa.decimal128(20, 2)), [3, None], ["n|not_exact"]),
        ("kg", pa.array([Decimal("0.10"), None], pa.decimal128(38, 18)), [0.1, None], []),
        ("kg", pa.array([Decimal("12345678901234567.89")], pa.decimal128(19, 2)), [None], ["kg|not_exact"]),
        ("kg", pa.array([np.float16(1.5)], pa.float16()), [1.5], []),
        ("at", pa.array([date(2026, 1, 1)], pa.date32()), [DAY], []),
        ("at", pa.array([date(2026, 1, 1)], pa.date64()), [DAY], []),
    ],
)
def test_a_value_of_another_type_is_read_if_it_has_an_exact_counterpart(
    name: str, values: pa.Array, expected: list[Any], faults: list[str]
) -> None:
    assert _read(name, values) == (expected, faults)


@examples(60)
@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20)
    )
)
def test_a_decimal_is_the_double_that_is_written_the_same(written: list[Decimal]) -> None:
    found, _ = _read("kg", pa.array([*written, None], pa.decimal128(38, 6)))
    exact = [float(each) if Decimal(repr(float(each))) == each else None for each in written]
    assert found == [*exact, None]


def test_a_decimal_that_is_in_another_unit_is_converted() -> None:
    field = pa.field("kg", pa.decimal128(10, 2), metadata={"unit": "g"})
    delivery = _delivery(kg=pa.array([Decimal("1500.00")], field.type))
    table = pq.read_table(BytesIO(delivery.files[0].data))
    table = table.set_column(table.schema.get_field_index("kg"), field, table["kg"])
    file = BytesIO()
    pq.write_table(table, file)
    delivery = Bundle("d.parquet", (File("d.parquet", Kind.PARQUET, file.getvalue()),), alone=True)
    assert parse(delivery, CONTRACT).frame["kg"].to_list() == [1.5]


def test_a_unit_in_a_header_is_read_as_in_csv() -> None:
    contract = Contract(
        Integer("id", unit="1"),
        Number("weight", unit="kg"),
        Timestamp("at", tz="UTC"),
        key="id",
        event_time="at",
    )
    table = pa.table({"id": [1, 2], "Mass [g]": [1500.0, 20.0], "at": [DAY, DAY]})
    file = BytesIO()
    pq.write_table(table, file)
    delivery = Bundle("d.parquet", (File("d.parquet", Kind.PARQUET, file.getvalue()),), alone=True)
    typed = parse(delivery, contract, headers={"Mass [g]": "weight"})
    assert typed.frame["weight"].to_list() == [1.5, 0.02]
    assert not compile_batch(contract)(typed).counts


def test_metadata_that_are_no_text_do_no_harm() -> None:
    """Polars ends in a panic at them; found by the soak of hostile files."""
    table = pa.table(
        {"id": ["a"], "at": pa.array([DAY], pa.timestamp("us", "UTC")), "kg": [1.5], "n": [1], "late": [True]}
    )
    fields = [
        field.with_metadata({b"\xff": b"\xfe", b"unit": b"\xff"} if field.name == "id" else {})
        for field in table.schema
    ]
    file = BytesIO()
    pq.write_table(table.cast(pa.schema(fields)), file)
    delivery = Bundle("d.parquet", (File("d.parquet", Kind.PARQUET, file.getvalue()),), alone=True)
    assert columns(delivery, CONTRACT)["kg"] == "number"
    assert look(delivery)[0].height == 1


@pytest.mark.parametrize("counts", [(0,), (0, 3), (3, 0, 2)])
def test_row_groups_without_rows_are_read(counts: tuple[int, ...]) -> None:
    """PyArrow gives their columns the place 0 in the file, where no page is."""
    days = [
        pa.table(
            {
                "id": pa.array([f"{group}-{number}" for number in range(count)], pa.string()),
                "at": pa.array([DAY] * count, pa.timestamp("us", "UTC")),
                "kg": pa.array([1.0] * count, pa.float64()),
                "n": pa.array([1] * count, pa.int64()),
                "late": pa.array([True] * count, pa.bool_()),
            }
        )
        for group, count in enumerate(counts)
    ]
    file = BytesIO()
    with pq.ParquetWriter(file, days[0].schema) as writer:
        for day in days:
            writer.write_table(day)
    delivery = Bundle("d.parquet", (File("d.parquet", Kind.PARQUET, file.getvalue()),), alone=True)
    assert parse(delivery, CONTRACT).frame.height == sum(counts)
