"""R45, R47: the batch and the row report the same about the same row. Hostile values, thousands of rows."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.contract import (
    Boolean,
    Category,
    Constant,
    Contract,
    Integer,
    Keep,
    Label,
    Number,
    Text,
    Timestamp,
)
from holdfast.contract.batch.compiler import compile_batch, dtype
from holdfast.contract.batch.reasons import REASONS
from holdfast.contract.batch.text_input import from_text
from holdfast.contract.row.compiler import compile_row
from holdfast.contract.schema.timestamps import read_timestamp
from holdfast.records import microseconds
from tests.support.profile import examples

NEW_YORK = "America/New_York"
ZONES = [
    UTC,
    ZoneInfo(NEW_YORK),
    ZoneInfo("Asia/Kathmandu"),
    ZoneInfo("Pacific/Apia"),
    timezone(timedelta(minutes=-1)),
]

WIDE = Contract(
    Text("id", max_length=8),
    Timestamp("at", tz=NEW_YORK),
    Number("bounded", unit="mi", low=0, high=6000),
    Number("floor", unit="degF", low=-40.5, missing="median"),
    Number("free", unit="1", missing="keep"),
    Integer("count", low=-5, high=5),
    Integer("big", missing=Constant(0)),
    Category("carrier", values=("UA", "Ω", "a\0b", "🛫"), unseen="reject"),
    Category("origin", missing=Keep()),
    Category("city", values=("EWR",), unseen="other"),
    Text("tail", max_length=4, pattern=r"(?!X)[A-Z🛫]\w*$", missing="keep"),
    Boolean("night"),
    Boolean("holiday", missing="keep"),
    Timestamp("seen", tz="UTC", missing="keep", low="1971-01-01", high="2100-01-01"),
    key=("id", "at", "city"),
    event_time="at",
    label=Label("late", delay="12h"),
)

DOUBLES = st.one_of(
    st.none(),
    st.sampled_from(
        [0.0, -0.0, 6000.0, math.nextafter(6000, 7000), -5e-324, math.nan, math.inf, -math.inf, 1e308, -40.5]
    ),
    st.floats(),
)
LONGS = st.one_of(
    st.none(),
    st.sampled_from([-5, 5, 6, 2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 2**63 - 1, -(2**63)]),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-7, 7),
)
WORDS = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "",
            "UA",
            "Ω",
            "a\0b",
            "🛫",
            "\0",
            "EWR",
            "NA",
            "A\n",
            "X1",
            "ABCDE",
            "A\u0301",
            "🛫🛫🛫🛫",
            "\ufeffUA",
        ]
    ),
    st.text(st.characters(codec="utf-8"), max_size=10),
)
TIMESTAMPS = st.one_of(
    st.none(),
    st.datetimes(
        timezones=st.sampled_from([UTC, ZoneInfo(NEW_YORK), timezone(timedelta(hours=5, minutes=45))])
    ).filter(lambda timestamp: not isinstance(read_timestamp(timestamp, UTC, local=False), str)),
)
BY_TYPE = {
    pl.Float64: DOUBLES,
    pl.Int64: LONGS,
    pl.String: WORDS,
    pl.Boolean: st.sampled_from([True, False, None]),
}


def values_of(kind: pl.DataType) -> st.SearchStrategy[Any]:
    return TIMESTAMPS if isinstance(kind, pl.Datetime) else BY_TYPE[type(kind)]


SCHEMA = {column.name: dtype(column) for column in WIDE.columns}
ROWS = st.lists(
    st.fixed_dictionaries({name: values_of(kind) for name, kind in SCHEMA.items()}), min_size=1, max_size=12
)
check_batch, check_row = compile_batch(WIDE), compile_row(WIDE, request=False)


@examples(50)
@given(ROWS)
def test_batch_and_row_give_the_same_reasons(rows: list[dict[str, Any]]) -> None:
    verdict = check_batch(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    by_row = [check_row(row) for row in rows]
    seen: set[tuple[object, object]] = set()
    expected: list[list[str]] = []
    valid = []
    for row, reasons in zip(rows, by_row, strict=True):
        key = (row["id"], row["at"], row["city"])
        if reasons:
            expected.append(list(reasons))
        elif key in seen:
            expected.append(["id+at+city|duplicate"])
        else:
            seen.add(key)
            valid.append(row)
    assert verdict.quarantined[REASONS].to_list() == expected
    assert verdict.valid.height == len(valid)
    assert verdict.valid.schema == SCHEMA
    assert sum(verdict.counts.values()) == sum(len(reasons) for reasons in expected)
    # What is valid stays so when it is read back: the check changes no meaning.
    assert [check_row(row) for row in verdict.valid.iter_rows(named=True)] == [()] * len(valid)


ZONED = Contract(Integer("n"), Timestamp("at", tz=NEW_YORK), key="n", event_time="at")
LOCAL = Contract(Integer("n"), Timestamp("at", tz=NEW_YORK, naive="local"), key="n", event_time="at")

EDGES = [
    *"""
2013-03-10 02:30:00|2013-03-10T01:59:59|2013-03-10T03:00:00|2013-11-03 01:30:00|2013-11-03 00:59:59.999999
2013-11-03 02:00:00|2013-03-10T02:30:00-05:00|2013-02-30T00:00:00Z|2013-01-01t05:00:00z|2013-01-01
2013-01-01T24:00:00Z|2013-06-30T23:59:60Z|2013-01-01T05:00:00.123456789+05:45|2013-01-01T05:00:00.Z
2013-01-01T05:00:00+24:00|2013-01-01T05:00:00-00:00|0000-01-01T00:00:00Z|0001-01-01T00:00:00Z
0001-01-02T00:00:00Z|0001-01-02T00:00:00+00:01|9999-12-31T00:00:00Z|9999-12-30T23:59:59.999999Z
9999-12-30T23:59:59.999999-00:01|1899-12-31 12:00:00|1900-01-01 00:00:00|2099-12-31 23:59:59
2100-01-01 00:00:00|1883-11-18T12:00:00Z| 2013-01-01T05:00:00Z|２０13-01-01T05:00:00Z
1357016400|2013-01-01T05:00:00.5Z|nan|\0|🛫|2013-01-01  05:00:00|2013-01-01T05:00Z|2013-01-01T05:00:00 Z
""".strip()
    .replace("\n", "|")
    .split("|"),
    "2013-01-01T05:00:00Z\n",
]


def walls(first: int, last: int) -> st.SearchStrategy[datetime]:
    """Wall clock times without a zone: what a careless feed sends."""
    return st.datetimes(timezones=st.just(UTC)).map(
        lambda timestamp: timestamp.replace(
            year=first + timestamp.year % (last - first), day=1 + timestamp.day % 28, tzinfo=None
        )
    )


def near_a_change(wall: datetime) -> str:
    """A time in the small hours of a month in which New York changes its clocks."""
    return wall.replace(
        month=(3, 4, 10, 11)[wall.month % 4], day=1 + wall.day % 14, hour=wall.hour % 4
    ).isoformat()


CLOCK = st.one_of(
    st.sampled_from(EDGES),
    walls(1890, 2110).map(lambda timestamp: timestamp.isoformat(" ")),
    walls(1967, 2037).map(near_a_change),
    st.datetimes(timezones=st.sampled_from(ZONES)).map(datetime.isoformat),
    st.text(st.characters(codec="utf-8"), max_size=12),
)


def read_both(contract: Contract, texts: list[str]) -> tuple[list[list[str]], list[list[str]], pl.DataFrame]:
    frame = pl.DataFrame(
        {"n": [str(n) for n in range(len(texts))], "at": texts}, schema={"n": pl.String, "at": pl.String}
    )
    verdict = compile_batch(contract)(from_text(contract, frame))
    by_row = compile_row(contract, request=False)
    missing = ("", "NA")
    wanted = [list(by_row({"n": n, "at": None if text in missing else text})) for n, text in enumerate(texts)]
    reported: list[list[str]] = [[] for _ in texts]
    for n, reasons in verdict.quarantined.select("n", REASONS).iter_rows():
        reported[int(n)] = reasons
    return reported, wanted, verdict.valid


@pytest.mark.parametrize("contract", [ZONED, LOCAL], ids=["zoned", "local"])
@pytest.mark.parametrize("text", EDGES)
def test_the_edges_of_time_read_the_same_from_text_and_row(contract: Contract, text: str) -> None:
    reported, wanted, _ = read_both(contract, [text])
    assert reported == wanted


@examples(50)
@given(st.lists(CLOCK, min_size=1, max_size=12))
@example(EDGES)
def test_timestamps_as_text_read_the_same_from_batch_and_row(texts: list[str]) -> None:
    """R23: one rule for offsets, gaps and folds, and the same timestamp from both back ends."""
    for contract in (ZONED, LOCAL):
        reported, wanted, valid = read_both(contract, texts)
        assert reported == wanted
        zone, local = ZoneInfo(NEW_YORK), contract is LOCAL
        timestamps = [
            microseconds(timestamp)
            for text in texts
            if isinstance(timestamp := read_timestamp(text, zone, local=local), datetime)
        ]
        assert valid["at"].dt.epoch("us").to_list() == timestamps
