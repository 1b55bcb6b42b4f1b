"""Rows that come typed, as from a Parquet file: widened to the contract's dtypes if that is lossless."""

from __future__ import annotations

from typing import Final

import polars as pl

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.compiler import dtype
from holdfast.contract.batch.input_columns import convert_column, read_wall_clocks
from holdfast.contract.batch.text_input import TypedBatch
from holdfast.contract.schema.source_metadata import NO_FACTS, Facts, column_conversions

_FIRST_DAY: Final = -719_162
_LAST_DAY: Final = 2_932_896
"""1 January of the year 1 and 31 December 9999, in days since 1970: the days that a `datetime` can be."""
_TICKS_A_DAY: Final = {"ms": 86_400_000, "us": 86_400_000_000}
"""Nanoseconds of 64 bits end in 2262."""
_NARROW: Final = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)


def from_frame(contract: Contract, frame: pl.DataFrame, facts: Facts = NO_FACTS) -> TypedBatch:
    """Return `frame` with each column in the dtype of `contract`, if every value has one exact counterpart there.

    Integers of any width become Float64 or Int64, floats of any width Float64, and whole floats Int64; 0 and 1 become
    Boolean, categorical becomes text, and a column without values takes the column's dtype. A timestamp of any unit and
    zone is displayed in the column's zone (nanoseconds are truncated). A wall clock time, or a date as its midnight, is
    read if the column's `naive` is "local". A single value without a counterpart is the fault of its row: `type`,
    `not_exact`, `gap`, `fold` or `range`; a time outside the years 1 to 9999 has the fault `range`. A column of any other
    dtype is returned as it is, and `compile_batch` refuses it with HF202: text is not parsed here, and no number is rounded.

    `facts` is the column metadata of the source. Numbers in another unit than the contract's are converted to it; a whole
    number that would not stay whole is the fault `not_exact` of its row.

    Raises
    ------
    InputError
        HF202 when a column comes in a unit that does not convert, or with another semantic or window than the contract's.

    Examples
    --------
    >>> from holdfast.contract import Contract, Integer, Number, Timestamp
    >>> from datetime import UTC, datetime
    >>> contract = Contract(Integer("id"), Number("distance", unit="mi"), Timestamp("at", tz="UTC"),
    ...                     key="id", event_time="at")
    >>> rows = {"id": [1, 2], "distance": [1400, 2**53 + 1], "at": [datetime(2013, 1, 1, tzinfo=UTC)] * 2}
    >>> typed = from_frame(contract, pl.DataFrame(rows))
    >>> typed.frame["distance"].to_list(), list(typed.faults)
    ([1400.0, None], ['distance|not_exact'])
    """
    faults: dict[str, pl.Series] = {}
    widened: list[pl.Series] = []
    conversions = column_conversions(contract, facts)
    if len(contract.delivered_names(frame.columns)) < len(contract.names):
        frame = frame.with_columns(pl.lit(None, pl.Boolean).alias(contract.names[-1]))
    there = set(frame.columns)
    for column in contract.columns:
        if column.name not in there:
            continue
        delivered = frame.get_column(column.name)
        outside = _outside_years(delivered)
        if outside is None:
            values, found = _widen(column, delivered)
        else:
            values, found = _widen(column, _without(delivered, outside))
            found = {**found, "range": outside | found.get("range", outside)}
        if column.name in conversions:
            values, found = convert_column(column, conversions[column.name], values, found)
        if values is not delivered:
            widened.append(values.alias(column.name))
        faults |= {f"{column.name}|{rule}": rows for rule, rows in found.items() if rows.any()}
    return TypedBatch(frame.with_columns(widened) if widened else frame, as_delivered(frame), faults)


def as_delivered(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with text for each column of timestamps or dates of which one is outside the years 1 to 9999.

    No `datetime` can be such a one, and Polars panics when it shows one. The text is the number that was delivered.

    >>> as_delivered(pl.DataFrame({"at": pl.Series([0, 1 << 62]).cast(pl.Datetime("ms"))}))["at"].to_list()
    ['1970-01-01T00:00:00.000000', '4611686018427387904 ms since 1970']
    """
    texts = []
    for values in frame.get_columns():
        outside = _outside_years(values)
        if outside is not None:
            within = _without(values, outside)
            unit = "days"
            if isinstance(values.dtype, pl.Datetime):
                unit = values.dtype.time_unit
                within = within.dt.cast_time_unit("us")
            numbers = values.to_physical().cast(pl.String) + f" {unit} since 1970"
            texts.append(numbers.zip_with(outside, within.dt.to_string("iso:strict")).alias(values.name))
    return frame.with_columns(texts) if texts else frame


def _outside_years(values: pl.Series) -> pl.Series | None:
    """Return which timestamps or dates are outside the years 1 to 9999; None if none is."""
    match values.dtype:
        case pl.Date():
            ticks = 1
        case pl.Datetime(time_unit="ms" | "us" as unit):
            ticks = _TICKS_A_DAY[unit]
        case _:
            return None
    inside = values.to_physical().is_between(_FIRST_DAY * ticks, (_LAST_DAY + 1) * ticks - 1)
    outside = (~inside).fill_null(value=False)
    return outside if outside.any() else None


def _without(values: pl.Series, outside: pl.Series) -> pl.Series:
    return values.to_physical().set(outside, None).cast(values.dtype)


def _widen(column: Column, values: pl.Series) -> tuple[pl.Series, dict[str, pl.Series]]:
    kind = values.dtype
    match column:
        case _ if kind == pl.Null:
            return values.cast(dtype(column)), {}
        case Number() if kind in _NARROW or (kind.is_float() and kind != pl.Float64):
            return values.cast(pl.Float64), {}
        case Number() if kind in (pl.Int64, pl.UInt64):
            return _exact(values, pl.Float64())
        case Integer() if kind in _NARROW:
            return values.cast(pl.Int64), {}
        case Integer() if kind == pl.UInt64:
            return _exact(values, pl.Int64())
        case Integer() if kind.is_float():
            return _whole(values.cast(pl.Float64))
        case Boolean() | Label() if kind.is_numeric():
            true, false = values == 1, values == 0
            return true.set(~(true | false), None), {"type": (~(true | false)).fill_null(value=False)}
        case Category() | Text() if isinstance(kind, (pl.Categorical, pl.Enum)):
            return values.cast(pl.String), {}
        case _ if kind == dtype(column):
            return values, {}
        case Timestamp(tz=zone) if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
            return values.dt.cast_time_unit("us").dt.convert_time_zone(zone), {}
        case Timestamp(naive="local") if isinstance(kind, pl.Datetime):
            return read_wall_clocks(column, values.dt.cast_time_unit("us"))
        case Timestamp(naive="local") if kind == pl.Date:
            return read_wall_clocks(column, values.cast(pl.Datetime("us")))
        case _:
            return values, {}


def _whole(values: pl.Series) -> tuple[pl.Series, dict[str, pl.Series]]:
    found = values.cast(pl.Int64, strict=False)
    # 2**63 is a double, and no Int64: without the second condition it would be compared after it was rounded.
    inexact = values.is_not_null() & ~(found.cast(pl.Float64) == values).fill_null(value=False)
    inexact |= (values.abs() >= 2.0**63).fill_null(value=False)
    return found.set(inexact, None), {"not_exact": inexact}


def _exact(values: pl.Series, kind: pl.DataType) -> tuple[pl.Series, dict[str, pl.Series]]:
    found = values.cast(kind, strict=False)
    inexact = values.is_not_null() & ~found.cast(values.dtype, strict=False).eq_missing(values)
    return found.set(inexact, None), {"not_exact": inexact}
