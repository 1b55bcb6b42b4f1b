"""What a value that broke the contract was, and what the contract allows: for the callers of one row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from holdfast.contract.schema.columns import (
    EXACT,
    Boolean,
    Category,
    Column,
    Integer,
    Label,
    Number,
    Text,
    Timestamp,
)
from holdfast.contract.schema.missing import Constant, as_policy

LONGEST_VALUE: Final = 60
"""Characters of a value that are shown."""
MOST_WORDS: Final = 20
"""Words of a category that are named."""


def explain(column: Column, rule: str, value: object) -> str:
    """Return the value and what `column` allows instead, both bounded; empty for a rule that explains itself.

    >>> explain(Number("car_value", unit="USD", low=0, high=50_000), "range", 60_000.0)
    '60000.0; it is from 0 to 50000 USD'
    >>> explain(Category("town", values=("bergen", "oslo"), unseen="reject"), "unseen", "Oslo")
    "'Oslo'; the known words are bergen, oslo"
    >>> explain(Integer("id"), "type", "95959")
    "'95959'; it is a whole number"
    >>> explain(Integer("price", unit="EUR", high=1_234_567), "range", 1_234_568)
    '1234568; it is at most 1234567 EUR'
    >>> explain(Timestamp("at", tz="UTC"), "zone", "2026-01-31T12:00:00")
    "'2026-01-31T12:00:00'; it is RFC 3339 with an offset, such as 2026-01-31T12:00:00Z"
    """
    shown = repr(value[:LONGEST_VALUE] if isinstance(value, str) else value)
    shown = shown if len(shown) <= LONGEST_VALUE else f"{shown[: LONGEST_VALUE - 3]}..."
    match column, rule:
        case ((Number() | Integer()), "range"):
            unit = "" if column.unit == "1" else f" {column.unit}"
            return f"{shown}; it is {_range(column.low, column.high)}{unit}"
        case Category(), "unseen":
            known = column.values or ()
            more = f" and {len(known) - MOST_WORDS:,} more" if len(known) > MOST_WORDS else ""
            words = ", ".join(word[:LONGEST_VALUE] for word in known[:MOST_WORDS])
            return f"{shown}; the known words are {words}{more}"
        case Timestamp(), "range" if column.low is not None or column.high is not None:
            ends = (None if end is None else str(end) for end in (column.low, column.high))
            return f"{shown}; it is {_span(*ends)}"
        case Timestamp(), ("type" | "zone" | "gap" | "fold"):
            return f"{shown}; it is {timestamp_form(column)}"
        case ((Boolean() | Label()), "type"):
            return f"{shown}; it is true or false"
        case Text(), "too_long":
            return f"{shown}; it has at most {column.max_length:,} characters"
        case Category(), "too_long":
            return f"{shown}; it has at most {column.longest:,} characters"
        case Text(), "pattern":
            return f"{shown}; it matches {(column.pattern or '')[:LONGEST_VALUE]}"
        case Integer(), "type":
            return f"{shown}; it is a whole number"
        case Number(), "type":
            return f"{shown}; it is a number"
        case ((Text() | Category()), "type"):
            return f"{shown}; it is text"
        case Integer(), "not_exact":
            return f"{shown}; it is from -{EXACT} to {EXACT}"
        case _, ("type" | "not_exact" | "range"):
            return shown
        case _:
            return ""


def _range(low: float | None, high: float | None) -> str:
    """Return the bounds in words, exactly: a caller may send them.

    >>> _range(0.1, 1e6), _range(-16_777_217, None)
    ('from 0.1 to 1000000', 'at least -16777217')
    """
    return _span(*(None if end is None else _exact(end) for end in (low, high)))


def _span(low: str | None, high: str | None) -> str:
    if low is not None and high is not None:
        return f"from {low} to {high}"
    return " ".join(
        f"{word} {end}" for word, end in (("at least", low), ("at most", high)) if end is not None
    )


def timestamp_form(column: Timestamp) -> str:
    """Return in which form a request has the timestamps of `column`.

    >>> timestamp_form(Timestamp("at", tz="Europe/Oslo", naive="local"))
    'RFC 3339 with an offset, such as 2026-01-31T12:00:00+01:00; or without one, by the clock of Europe/Oslo, as \
2026-01-31T12:00:00; or a date alone, as 2026-01-31'
    """
    noon = datetime(2026, 1, 31, 12, tzinfo=ZoneInfo(column.tz)).isoformat().replace("+00:00", "Z")
    local = (
        f"; or without one, by the clock of {column.tz}, as 2026-01-31T12:00:00; or a date alone, as 2026-01-31"
        if column.naive == "local"
        else ""
    )
    return f"RFC 3339 with an offset, such as {noon}{local}"


def _exact(number: float) -> str:
    return repr(int(number) if abs(number) <= EXACT and number == int(number) else number)


def describe(column: Column) -> dict[str, Any]:
    """Return what `column` allows, as JSON: its unit, window and bounds, its form, its known words, and its missing policy.

    >>> describe(Integer("seats", low=1, missing=Constant(2)))
    {'unit': '1', 'low': 1, 'missing': 'constant', 'missing_value': 2}
    >>> describe(Category("town", values=("oslo",)))
    {'values': ['oslo'], 'unseen': 'other', 'missing': 'reject'}
    """
    names: tuple[str, ...] = (
        "unit",
        "semantic",
        "window",
        "tz",
        "naive",
        "low",
        "high",
        "max_length",
        "pattern",
    )
    found = {name: fact for name in names if (fact := getattr(column, name, None)) is not None}
    match column:
        case Timestamp():
            found["form"] = timestamp_form(column)
        case Category():
            found |= known_words(column.values) | {"unseen": column.unseen} | _aliases(column)
    policy = as_policy(column.missing)
    found["missing"] = type(policy).__name__.lower()
    if isinstance(policy, Constant):
        found["missing_value"] = policy.value
    return found


def _aliases(column: Category) -> dict[str, Any]:
    """Return the first aliases with their words, and how many there are if those are not all; nothing without any."""
    if not column.aliases:
        return {}
    total = {} if len(column.aliases) <= MOST_WORDS else {"aliases_total": len(column.aliases)}
    return {"aliases": dict(list(column.aliases.items())[:MOST_WORDS])} | total


def known_words(words: Sequence[str] | None) -> dict[str, Any]:
    """Return the first of the known words, and how many there are if those are not all; nothing for None."""
    if words is None:
        return {}
    total = {} if len(words) <= MOST_WORDS else {"values_total": len(words)}
    return {"values": list(words[:MOST_WORDS])} | total
