"""What a value that broke the contract was, and what the contract allows: for the caller of one row."""

from __future__ import annotations

from typing import Any, Final

from holdfast.contract.schema.columns import EXACT, Category, Column, Integer, Number

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
    >>> explain(Integer("price", unit="EUR", high=1_234_567), "range", 1_234_568)
    '1234568; it is at most 1234567 EUR'
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
        case _, ("type" | "not_exact" | "gap" | "fold" | "zone" | "range"):
            return shown
        case _:
            return ""


def _range(low: float | None, high: float | None) -> str:
    """Return the bounds in words, exactly: a caller may send them.

    >>> _range(0.1, 1e6), _range(-16_777_217, None)
    ('from 0.1 to 1000000', 'at least -16777217')
    """
    if low is not None and high is not None:
        return f"from {_exact(low)} to {_exact(high)}"
    return " ".join(
        f"{word} {_exact(end)}" for word, end in (("at least", low), ("at most", high)) if end is not None
    )


def _exact(number: float) -> str:
    return repr(int(number) if abs(number) <= EXACT and number == int(number) else number)


def limits(column: Column) -> dict[str, Any]:
    """Return what `column` allows, as JSON: low and high of a number, the known words of a category, bounded.

    >>> limits(Integer("seats", unit="1", low=1)), limits(Category("town", values=("oslo",)))
    ({'low': 1}, {'values': ['oslo']})
    """
    match column:
        case Number() | Integer():
            return {name: end for name in ("low", "high") if (end := getattr(column, name)) is not None}
        case Category() if column.values is not None and len(column.values) <= MOST_WORDS:
            return {"values": list(column.values)}
        case Category() if column.values is not None:
            return {"values": list(column.values[:MOST_WORDS]), "values_total": len(column.values)}
        case _:
            return {}
