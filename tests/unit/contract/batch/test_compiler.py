"""The batch check: strict about columns, first valid key wins, bad rows keep what was delivered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Category, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.compiler import compile_batch, dtype
from holdfast.contract.batch.reasons import REASONS, _has_nul
from holdfast.contract.batch.text_input import from_text
from holdfast.contract.batch.typed_input import from_frame
from holdfast.contract.row.compiler import compile_row
from holdfast.errors import InputError
from tests.support.profile import examples

CONTRACT = Contract(
    Category("carrier", values=("UA", "AA"), unseen="reject"),
    Integer("flight", low=1),
    Timestamp("at", tz="America/New_York"),
    Number("distance", unit="mi", low=0, high=6000, missing="median"),
    key=("carrier", "flight", "at"),
    event_time="at",
    label=Label("late", delay="12h", missing="keep"),
)
SCHEMA = {column.name: dtype(column) for column in CONTRACT.columns}
check = compile_batch(CONTRACT)
NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def batch(*rows: tuple[Any, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_a_good_batch_comes_back_in_the_order_of_the_contract() -> None:
    rows = batch(("UA", 1, NOON, 10.0, True), ("AA", 1, NOON, None, None))
    verdict = check(rows.select(reversed(rows.columns)))
    assert verdict.valid.equals(rows)
    assert verdict.valid.schema == SCHEMA
    assert verdict.counts == {}
    assert verdict.quarantined.is_empty()
    assert verdict.quarantined.schema[REASONS] == pl.List(pl.String)


def test_an_empty_batch_is_no_error() -> None:
    verdict = check(batch())
    assert verdict.valid.is_empty()
    assert verdict.valid.schema == SCHEMA
    assert verdict.quarantined.schema == {**SCHEMA, REASONS: pl.List(pl.String)}


def test_bad_rows_keep_their_values_and_all_their_reasons() -> None:
    verdict = check(
        batch(("XX", 0, NOON, -1.0, True), ("UA", 1, NOON, 10.0, True), ("UA", 2, NOON, float("nan"), True))
    )
    assert verdict.valid["flight"].to_list() == [1]
    assert verdict.quarantined[REASONS].to_list() == [
        ["carrier|unseen", "flight|range", "distance|range"],
        ["distance|not_finite"],
    ]
    assert verdict.quarantined["carrier"].to_list() == ["XX", "UA"]
    assert verdict.counts == {
        "carrier|unseen": 1,
        "flight|range": 1,
        "distance|not_finite": 1,
        "distance|range": 1,
    }


def test_the_first_valid_row_of_a_key_is_kept_and_later_ones_are_not() -> None:
    rows = batch(
        ("UA", 1, NOON, -1.0, True),  # damaged: does not take the key
        ("UA", 1, NOON, 10.0, True),
        ("UA", 1, NOON, 10.0, True),
        ("AA", 1, NOON, 10.0, True),
        ("UA", 1, NOON, 11.0, False),
    )
    verdict = check(rows)
    assert verdict.valid.equals(rows[[1, 3]])
    assert verdict.quarantined[REASONS].to_list() == [
        ["distance|range"],
        ["carrier+flight+at|duplicate"],
        ["carrier+flight+at|duplicate"],
    ]


def test_keys_are_distinguished_by_value_not_by_hash_order() -> None:
    swapped = Contract(Text("a"), Text("b"), Timestamp("at", tz="UTC"), key=("a", "b"), event_time="at")
    frame = pl.DataFrame({"a": ["x", "y", "x"], "b": ["y", "x", "x"], "at": [NOON] * 3}).cast(
        {"at": pl.Datetime("us", "UTC")}
    )
    assert compile_batch(swapped)(frame).valid.height == 3


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (lambda frame: frame.drop("late", "at"), "missing: at, late"),
        (lambda frame: frame.with_columns(gate=pl.lit("A1")), "not in the contract: gate"),
        (lambda frame: frame.cast({"distance": pl.Int64}), "distance is Int64, not Float64"),
        (lambda frame: frame.cast({"flight": pl.String}), "flight is String, not Int64"),
        (lambda frame: frame.cast({"late": pl.Int8}), "late is Int8, not Boolean"),
        (
            lambda frame: frame.with_columns(pl.col("at").dt.replace_time_zone(None)),
            "time_zone='America/New_York'",
        ),
        (
            lambda frame: frame.with_columns(pl.col("at").dt.convert_time_zone("UTC")),
            "time_zone='America/New_York'",
        ),
        (lambda frame: frame.with_columns(pl.col("at").dt.cast_time_unit("ns")), "time_unit='us'"),
    ],
)
def test_other_columns_stop_the_batch_and_are_named(change: Any, reported: str) -> None:
    """R41, R42: nothing is coerced in silence; a naive column is refused like any other type (R23)."""
    with pytest.raises(InputError) as caught:
        check(change(batch(("UA", 1, NOON, 10.0, True))))
    assert caught.value.code == "HF202"
    assert reported in caught.value.what


def test_more_rules_than_bits_of_one_mask() -> None:
    names = [f"x{n}" for n in range(60)]
    wide = Contract(
        Integer("n"),
        Timestamp("at", tz="UTC"),
        *(Number(name, unit="1", low=0) for name in names),
        key="n",
        event_time="at",
    )
    rows: list[dict[str, Any]] = [
        {"n": row, "at": NOON}
        | {name: -1.0 if (row + place) % 3 == 0 else 1.0 for place, name in enumerate(names)}
        for row in range(4)
    ]
    rows[3] |= dict.fromkeys(names, 1.0)
    frame = pl.DataFrame(rows, schema={column.name: dtype(column) for column in wide.columns})
    verdict = compile_batch(wide)(frame)
    assert verdict.valid["n"].to_list() == [3]
    by_row = compile_row(wide, request=False)
    assert verdict.quarantined[REASONS].to_list() == [list(by_row(row)) for row in rows[:3]]


def test_a_timestamp_that_no_datetime_can_hold_is_out_of_range() -> None:
    far = pl.Series("at", [2**62, 0, -(2**62)]).cast(pl.Datetime("us", "UTC"))
    plain = Contract(Integer("n"), Timestamp("at", tz="UTC"), key="n", event_time="at")
    verdict = compile_batch(plain)(pl.DataFrame({"n": [1, 2, 3], "at": far}))
    assert verdict.counts == {"at|range": 2}
    assert verdict.valid["n"].to_list() == [2]


def test_empty_words_become_null_in_the_valid_rows() -> None:
    words = Contract(
        Integer("n"),
        Timestamp("at", tz="UTC"),
        Category("origin", missing="keep"),
        Text("tail"),
        key="n",
        event_time="at",
    )
    frame = pl.DataFrame(
        {"n": [1, 2], "at": [NOON] * 2, "origin": ["", "EWR"], "tail": ["N1", ""]},
        schema={column.name: dtype(column) for column in words.columns},
    )
    verdict = compile_batch(words)(frame)
    assert verdict.valid["origin"].to_list() == [None]
    assert verdict.quarantined[REASONS].to_list() == [["tail|missing"]]


def test_text_is_read_and_what_cannot_be_read_is_quarantined_as_it_came() -> None:
    texts = {
        "carrier": ["UA", "AA", "UA", "NA", "UA", "UA"],
        "flight": ["1", "2.5", "99999999999999999999", "4", " 5", "+6"],
        "at": [
            f"2013-01-01{rest}"
            for rest in ("T07:00:00-05:00", " 07:00", "T12:00:00", "x", "T12:00:00Z", "T12:00:00.5Z")
        ],
        "distance": ["1e3", "1_0", "nan", "1e999", "٣", ""],
        "late": ["TRUE", "0", "yes", "NA", "", "false"],
    }
    verdict = check(from_text(CONTRACT, pl.DataFrame(texts), missing_words=("", "NA")))
    assert verdict.valid["flight"].to_list() == [1, 6]
    assert verdict.valid["distance"].to_list() == [1000.0, None]
    assert verdict.valid["late"].to_list() == [True, False]
    assert verdict.valid["at"].dt.epoch("us").to_list() == [1357041600000000, 1357041600500000]
    assert verdict.quarantined[REASONS].to_list() == [
        ["flight|type", "at|type", "distance|type"],
        ["flight|not_exact", "at|zone", "distance|not_finite", "late|type"],
        ["carrier|missing", "at|type", "distance|not_finite"],
        ["flight|type", "distance|type"],
    ]
    assert verdict.quarantined["at"].to_list() == texts["at"][1:5]
    with pytest.raises(InputError, match="not text: flight"):
        from_text(CONTRACT, pl.DataFrame(texts).cast({"late": pl.String}).with_columns(flight=1))


def test_a_typed_file_is_widened_only_where_nothing_is_lost() -> None:
    local = Contract(
        Category("carrier"),
        Integer("flight"),
        Timestamp("at", tz="America/New_York", naive="local"),
        Number("distance", unit="mi"),
        key="flight",
        event_time="at",
    )
    walls = pl.Series(
        ["2013-01-01 07:00", "2013-03-10 02:30", "2013-11-03 01:30", "1850-01-01 00:00", "2013-01-01 07:00"]
    )
    frame = pl.DataFrame(
        {
            "carrier": ["UA"] * 5,
            "flight": [1, 2, 3, 4, 5],
            "at": walls.str.to_datetime(time_unit="ns"),
            "distance": [1, 2, 3, 4, 2**53 + 1],
        },
        schema={
            "carrier": pl.Categorical(),
            "flight": pl.UInt16,
            "at": pl.Datetime("ns"),
            "distance": pl.Int64,
        },
    )
    verdict = compile_batch(local)(from_frame(local, frame))
    assert verdict.valid["at"].dt.epoch("us").to_list() == [1357041600000000]
    assert verdict.quarantined[REASONS].to_list() == [
        ["at|gap"],
        ["at|fold"],
        ["at|range"],
        ["distance|not_exact"],
    ]
    assert verdict.quarantined["distance"].to_list() == [2, 3, 4, 2**53 + 1]
    with pytest.raises(InputError, match="carrier is Int64"):
        compile_batch(local)(from_frame(local, frame.with_columns(carrier=pl.lit(1, pl.Int64))))


@examples(100)
@given(
    st.lists(
        st.one_of(
            st.none(), st.text(st.characters(codec="utf-8"), max_size=14), st.sampled_from(["", "\0", "a\0"])
        )
    ),
    st.integers(0, 3),
)
def test_a_nul_is_found_in_short_and_long_texts_wherever_the_column_begins(
    texts: list[str | None], skipped: int
) -> None:
    series = pl.Series(texts, dtype=pl.String).slice(skipped)
    found = pl.DataFrame({"text": series}).select(_has_nul(pl.col("text"))).to_series()
    assert [bool(flag) for flag in found] == ["\0" in (text or "") for text in texts[skipped:]]
