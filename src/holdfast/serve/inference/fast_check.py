"""Prove quickly that all values of a column are valid, so that many rows need no check of their own.

It errs only towards doubt. False sends the rows to the contract's row check, which alone decides and names reasons. A
property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, TypeAlias

from holdfast.contract import Boolean, Category, Column, Integer, Label, Number, Text, Timestamp

FastCheck: TypeAlias = Callable[[Sequence[Any]], bool]
_EXACT = 2**53


def compile_fast_check(column: Column, *, in_key: bool) -> FastCheck | None:
    """Return a check that every value is present and valid; None for a timestamp, which must be parsed.

    >>> quick = compile_fast_check(Number("distance", unit="mi", low=0), in_key=False)
    >>> quick([1.5, 2.0]), quick([1.5, -1.0]), quick([1.5, float("nan")]), quick([1.5, None])
    (True, False, False, False)
    """
    match column:
        case Number() | Integer():
            kind, edge = (float, inf) if isinstance(column, Number) else (int, _EXACT)
            low = -edge if column.low is None else column.low
            return _within(kind, low, edge if column.high is None else column.high)
        case Category():
            return _categories(_known_words(column, in_key), in_key)
        case Boolean() | Label():
            return lambda values: set(map(type, values)) == {bool}
        case Text():
            return _texts(column)
        case Timestamp():
            return None


def _within(kind: type, low: float, high: float) -> FastCheck:
    def check(values: Sequence[Any]) -> bool:
        # A NaN or an infinity makes the sum one; so may an overflow, which only costs the longer way.
        return (
            set(map(type, values)) == {kind}
            and low <= min(values)
            and max(values) <= high
            and abs(sum(values)) < inf
        )

    return check


def _known_words(column: Category, in_key: bool) -> frozenset[str] | None:
    """Return the valid words with their aliases; None if any word may be valid."""
    if column.values is None or column.unseen == "other":
        return None
    words = {word for word in column.values if not (in_key and "\0" in word)}
    return frozenset(words | {alias for alias, word in column.aliases.items() if word in words})


def _categories(known: frozenset[str] | None, in_key: bool) -> FastCheck:
    def check(values: Sequence[Any]) -> bool:
        if set(map(type, values)) != {str}:
            return False
        if known is not None:
            return known.issuperset(values)
        joined = "".join(values)
        return "" not in values and joined.isascii() and not (in_key and "\0" in joined)

    return check


def _texts(column: Text) -> FastCheck:
    longest = column.max_length

    def check(values: Sequence[Any]) -> bool:
        if column.pattern is not None or set(map(type, values)) != {str} or "" in values:
            return False
        joined = "".join(values)
        return joined.isascii() and "\0" not in joined and max(map(len, values)) <= longest

    return check
