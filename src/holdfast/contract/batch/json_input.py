"""Rows that come as JSON objects: each value keeps its JSON type, or its row has a fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, assert_never

import polars as pl

from holdfast.contract.batch.compiler import dtype
from holdfast.contract.batch.input_columns import read_timestamps, require_columns
from holdfast.contract.batch.text_input import TypedBatch
from holdfast.contract.schema.columns import (
    Boolean,
    Category,
    Column,
    Integer,
    Label,
    Number,
    Text,
    Timestamp,
    is_unicode,
)
from holdfast.contract.schema.contract import Contract

_LARGEST: Final = 1 << 63
_ReadColumn: TypeAlias = tuple[pl.Series, dict[str, pl.Series]]


class Repeated:
    """The value of a name that an object has twice: which one is meant is unknown."""


REPEATED: Final = Repeated()


def from_objects(contract: Contract, rows: Sequence[Mapping[str, object]]) -> TypedBatch:
    """Return `rows` in the dtypes of `contract`, without conversion between JSON types.

    A number is a JSON number, and an integer one without fraction or exponent; a text of digits is neither. A number
    that no double holds exactly, as 2**53 + 1, is the fault `not_exact`. Words are strings, booleans true and false,
    timestamps strings that `read_timestamp` reads. null and an absent name are missing. An object or array in place
    of a value is the fault `type`, and `REPEATED` the fault `repeated`.

    Raises
    ------
    InputError
        HF202 when a row has a name that the contract has not, or no row has a name that it has.

    Examples
    --------
    >>> from holdfast.contract import Contract, Integer, Number, Timestamp
    >>> pings = Contract(Integer("id"), Number("v", unit="1", missing="keep"), Timestamp("at", tz="UTC"),
    ...                  key="id", event_time="at")
    >>> at = "2013-01-01T00:00:00Z"
    >>> typed = from_objects(pings, [{"id": 1, "v": 2, "at": at}, {"id": "2", "v": 2**53 + 1, "at": at}])
    >>> typed.frame["v"].to_list(), list(typed.faults)
    ([2.0, None], ['id|type', 'v|not_exact'])
    """
    _check_names(contract, rows)
    faults: dict[str, pl.Series] = {}
    read: list[pl.Series] = []
    delivered: list[pl.Series] = []
    for column in contract.columns:
        values = [row.get(column.name) for row in rows]
        twice = [value is REPEATED for value in values]
        if any(twice):
            faults[f"{column.name}|repeated"] = pl.Series(twice, dtype=pl.Boolean)
        series, found = _read_column(column, [None if value is REPEATED else value for value in values])
        read.append(series.alias(column.name))
        delivered.append(
            pl.Series(column.name, [_delivered_text(value) for value in values], dtype=pl.String)
        )
        faults |= {
            f"{column.name}|{rule}": failed_rows for rule, failed_rows in found.items() if failed_rows.any()
        }
    return TypedBatch(pl.DataFrame(read), pl.DataFrame(delivered), faults, line_rule="json")


def _check_names(contract: Contract, rows: Sequence[Mapping[str, object]]) -> None:
    if not rows:
        return
    seen: set[str] = set()
    for row in rows:
        if not row.keys() <= seen:
            seen |= row.keys()
    found = sorted(_escape_surrogates(name) for name in seen)
    require_columns(contract.names, found, {}, state="no row was read")


def _read_column(column: Column, values: list[object]) -> _ReadColumn:
    match column:
        case Number():
            return _read_numbers(values)
        case Integer():
            return _read_integers(values)
        case Category() | Text():
            return _read_words(values)
        case Timestamp():
            texts, faults = _keep_fitting(
                values, pl.String(), lambda value: type(value) is str and is_unicode(value)
            )
            timestamps, unread = read_timestamps(column, texts)
            return timestamps, unread | {"type": faults["type"] | unread["type"]}
        case Boolean() | Label():
            return _keep_fitting(values, dtype(column), lambda value: type(value) is bool)
        case _:
            assert_never(column)


def _keep_fitting(values: list[object], kind: pl.DataType, fits: Callable[[object], bool]) -> _ReadColumn:
    """Return the values that fit, and the rows with one that does not."""
    fitting = [value is None or fits(value) for value in values]
    kept = values if all(fitting) else [v if ok else None for v, ok in zip(values, fitting, strict=True)]
    return pl.Series(kept, dtype=kind), {"type": ~pl.Series(fitting, dtype=pl.Boolean)}


def _read_numbers(values: list[object]) -> _ReadColumn:
    if all(type(value) is float or value is None for value in values):
        return pl.Series(values, dtype=pl.Float64), {}
    doubles = [_to_double(value) for value in values]
    inexact = [
        type(value) is int and double is not None and abs(double) != float("inf") and double != value
        for value, double in zip(values, doubles, strict=True)
    ]
    kept = [None if lost else double for double, lost in zip(doubles, inexact, strict=True)]
    wrong = [value is not None and double is None for value, double in zip(values, doubles, strict=True)]
    return pl.Series(kept, dtype=pl.Float64), {
        "type": pl.Series(wrong, dtype=pl.Boolean),
        "not_exact": pl.Series(inexact, dtype=pl.Boolean),
    }


def _to_double(value: object) -> float | None:
    if type(value) is float:
        return value
    if type(value) is not int:
        return None
    try:
        return float(value)
    except OverflowError:  # the batch check finds an infinity, as the row check does
        return float("inf")


def _read_integers(values: list[object]) -> _ReadColumn:
    found, faults = [], []
    for value in values:
        wide = type(value) is int and not -_LARGEST <= value < _LARGEST
        faults.append(wide)
        found.append(None if wide else value)
    series, wrong = _keep_fitting(found, pl.Int64(), lambda value: type(value) is int)
    return series, wrong | {"not_exact": pl.Series(faults, dtype=pl.Boolean)}


def _read_words(values: list[object]) -> _ReadColumn:
    broken = [type(value) is str and not is_unicode(value) for value in values]
    kept = [None if lone else value for value, lone in zip(values, broken, strict=True)]
    series, wrong = _keep_fitting(kept, pl.String(), lambda value: type(value) is str)
    return series, wrong | {"not_unicode": pl.Series(broken, dtype=pl.Boolean)}


def _delivered_text(value: object) -> str | None:
    """Return the value as it is written to the quarantine."""
    if value is None:
        return None
    if value is REPEATED:
        return "(twice)"
    return _escape_surrogates(
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, default=lambda _: "(twice)")
    )


def _escape_surrogates(text: str) -> str:
    return text if is_unicode(text) else text.encode("utf-8", "backslashreplace").decode()
