"""Rows that come as JSON objects: each value keeps its JSON type, or its row has a fault."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, assert_never

import polars as pl

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.input_columns import read_timestamps, require_columns
from holdfast.contract.batch.text_input import TypedBatch
from holdfast.field_types import is_unicode

_LARGEST: Final = 1 << 63
_ReadColumn: TypeAlias = tuple[pl.Series, dict[str, pl.Series]]
_Read: TypeAlias = tuple[object, str]
"""A value as read, and the rule that it breaks; empty for none."""
_MISSING: Final[_Read] = (None, "")


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
    if rows:
        check_names(contract, names_of(rows))
    return read_objects(contract, rows)


def read_objects(contract: Contract, rows: Sequence[Mapping[str, object]]) -> TypedBatch:
    """As `from_objects`, of a part of a batch: `check_names` is for the whole."""
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


def names_of(rows: Iterable[Mapping[str, object]]) -> set[str]:
    """Return the names that any of `rows` has."""
    seen: set[str] = set()
    for row in rows:
        if not row.keys() <= seen:
            seen.update(row)  # `|=` with keys would copy all that were seen
    return seen


def check_names(contract: Contract, names: Iterable[str]) -> None:
    """Raise `InputError` HF202 if `names`, of all rows of a batch, are not the contract's."""
    found = sorted(_escape_surrogates(name) for name in names)
    require_columns(contract.delivered_names(found), found, {}, state="no row was read")


def _read_column(column: Column, values: list[object]) -> _ReadColumn:
    match column:
        case Number():
            return _read_values(values, pl.Float64(), _read_number)
        case Integer():
            return _read_values(values, pl.Int64(), _read_integer)
        case Category() | Text():
            return _read_values(values, pl.String(), _read_word)
        case Timestamp():
            texts, faults = _read_values(values, pl.String(), _read_word)
            timestamps, unread = read_timestamps(column, texts)
            for rows in faults.values():
                unread["type"] |= rows
            return timestamps, unread
        case Boolean() | Label():
            return _read_values(values, pl.Boolean(), _read_boolean)
        case _:
            assert_never(column)


def _read_values(values: list[object], kind: pl.DataType, read: Callable[[object], _Read]) -> _ReadColumn:
    found = [_MISSING if value is None else read(value) for value in values]
    broken = {rule for _, rule in found}
    return pl.Series([value for value, _ in found], dtype=kind), {
        rule: pl.Series([each == rule for _, each in found], dtype=pl.Boolean)
        for rule in ("type", "not_exact", "not_unicode")
        if rule in broken
    }


def _read_number(value: object) -> _Read:
    if type(value) is float:
        return value, ""
    if type(value) is not int:
        return None, "type"
    try:
        double = float(value)
    except OverflowError:  # the batch check finds an infinity, as the row check does
        return math.inf, ""
    return (double, "") if double == value else (None, "not_exact")


def _read_integer(value: object) -> _Read:
    if type(value) is not int:
        return None, "type"
    return (value, "") if -_LARGEST <= value < _LARGEST else (None, "not_exact")


def _read_word(value: object) -> _Read:
    if type(value) is not str:
        return None, "type"
    return (value, "") if is_unicode(value) else (None, "not_unicode")


def _read_boolean(value: object) -> _Read:
    return (value, "") if type(value) is bool else (None, "type")


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
