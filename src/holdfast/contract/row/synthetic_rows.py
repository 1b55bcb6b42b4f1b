"""Synthetic rows that a contract accepts: requests for drills when there is no recorded traffic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.row.compiler import compile_row
from holdfast.records import DAY_US, EPOCH, microseconds, sha256_hex

_SPAN = 100.0


def synthetic_rows(contract: Contract, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return at most `count` distinct request rows of `contract`, as JSON values; the same `seed` gives the same rows.

    Each row is checked against the contract: rules between columns may leave fewer, or none.

    >>> from holdfast.contract import Number, Text, Timestamp
    >>> columns = (Text("id"), Number("miles", unit="mi", low=0, high=10), Timestamp("left", tz="UTC"))
    >>> [row["id"] for row in synthetic_rows(Contract(*columns, key="id", event_time="left"), 2)]
    ['s0', 's1']
    """
    check = compile_row(contract, request=True)
    made = (
        {column.name: _value(column, f"{seed}/{number}") for column in contract.request_columns}
        for number in range(count * 2)
    )
    return [row for row in made if not check(row)][:count]


def _value(column: Column, which: str) -> object:
    part = int(sha256_hex(f"{column.name}/{which}")[:12], 16) / 16**12
    match column:
        case Number():
            low, high = _range(column.low, column.high)
            return low + part * (high - low)
        case Integer():
            low, high = _range(column.low, column.high)
            return round(low + part * (high - low))
        case Category():
            known = column.values or ("synthetic",)
            return known[int(part * len(known))]
        case Boolean() | Label():
            return part < 0.5
        case Timestamp():
            return _timestamp(*column.bounds_us, part)
        case Text():
            return f"s{which.partition('/')[2]}"[: column.max_length]


def _timestamp(low_us: int, high_us: int, part: float) -> str:
    """Return a noon of January 2020; with bounds that exclude some of them, a timestamp within the bounds."""
    first_us = microseconds(datetime(2020, 1, 1, 12, tzinfo=UTC))
    if not low_us <= first_us < first_us + 28 * DAY_US <= high_us:
        first_us, days = low_us, min(28, (high_us - low_us) // DAY_US)
    else:
        days = 28
    return (EPOCH + timedelta(microseconds=first_us + int(part * days) * DAY_US)).isoformat()


def _range(low: float | None, high: float | None) -> tuple[float, float]:
    if low is None:
        return (0.0, _SPAN) if high is None else (high - _SPAN, high)
    return low, low + _SPAN if high is None else high
