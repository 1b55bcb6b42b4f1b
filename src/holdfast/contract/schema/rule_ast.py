"""The syntax tree of a rule's expression: frozen data, its JSON, and its text.

`expressions.py` builds it, `rule_types.py` checks it, `row/rules.py` and `batch/rules.py` compile it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from holdfast.contract.schema.columns import EXACT
from holdfast.contract.schema.timestamps import EARLIEST, LATEST
from holdfast.errors import InputError
from holdfast.field_types import is_unicode
from holdfast.formatting import with_article
from holdfast.records import check_column_name, microseconds

Constant: TypeAlias = bool | int | float | str | datetime | timedelta
"""Constants of an expression; a timestamp is an aware `datetime`."""

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """The value of a column."""

    column: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. `kind` is "boolean", "number", "text", "timestamp" or "duration"; the last two are in microseconds."""

    kind: str
    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator of `OPERATORS` on its operands."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    """True if the operand equals one of the values."""

    operand: Node
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """True if the pattern matches the whole operand."""

    operand: Node
    pattern: str


Node: TypeAlias = ColumnRef | Literal | Apply | OneOf | Matches

OPERATORS: Final[dict[str, str]] = {
    "+": "The sum of two numbers or two durations; a timestamp later by a duration.",
    "-": "The difference of two numbers or two durations, the duration between two timestamps, a timestamp earlier by a "
    "duration; before one number or duration, its negative.",
    "*": "The product of two numbers, or of a number and a duration.",
    "/": "The quotient of two numbers, a duration by a number, or how many times one duration goes into another "
    "(a number). Division by zero is missing.",
    "abs": "`.abs()`: the magnitude of a number or duration without its sign.",
    "length": "`.length()`: the number of Unicode characters of a text or category.",
    "==": "Equal. Both sides are of one kind; 0.0 and -0.0 are equal.",
    "!=": "Not equal.",
    "<": "Less, earlier, shorter, or before in the order of Unicode code points.",
    "<=": "Less or equal.",
    ">": "Greater.",
    ">=": "Greater or equal.",
    "&": "Both are true. False as soon as one is false, even if the other is missing.",
    "|": "At least one is true. True as soon as one is true, even if the other is missing.",
    "~": "Not; of a missing value, missing.",
    "is_missing": "`.is_missing()`: whether the value is missing; never missing itself.",
}
"""Every operator with its meaning; the reference page is generated from it. `is_in` and `matches` are separate nodes."""


def make_literal(value: object) -> Literal:
    """Return the node of a constant. Raises `InputError` HF104 if a rule cannot hold it."""
    match value:
        case bool():
            return Literal("boolean", value)
        case int() if abs(value) <= EXACT:
            return Literal("number", value)
        case float() if math.isfinite(value):
            return Literal("number", value + 0.0)  # -0.0 hashes like 0.0
        case str() if value and is_unicode(value):
            return Literal("text", value)
        case datetime() if value.tzinfo is None:
            raise declaration_error(f"{value!r} has no time zone, so it is no timestamp")
        case datetime() if EARLIEST <= value <= LATEST:
            return Literal("timestamp", microseconds(value))
        case timedelta():
            return Literal("duration", value // _MICROSECOND)
    raise declaration_error(
        f"{type(value).__name__} {str(value)[:60]!r} cannot be part of a rule: write a finite number (whole numbers up "
        f"to 2**53), a text that is not empty, True, False, an aware datetime, a timedelta, or col(...)"
    )


def node_depth(node: Node) -> int:
    """Return the number of levels of the expression."""
    match node:
        case Apply(_, operands):
            return 1 + max(node_depth(operand) for operand in operands)
        case OneOf(operand) | Matches(operand):
            return 1 + node_depth(operand)
        case _:
            return 1


def format_node(node: Node) -> str:
    """Return the expression as text, as it would be written in Python."""
    match node:
        case ColumnRef(column):
            return column
        case Literal("duration", value):
            return str(timedelta(microseconds=int(value)))
        case Literal("timestamp", value):
            return f"timestamp {int(value)} us"
        case Literal(_, value):
            return repr(value)
        case Apply("abs" | "length" | "is_missing" as name, (operand,)):
            return f"{format_node(operand)}.{name}()"
        case Apply(name, (operand,)):
            return f"{name}{format_node(operand)}"
        case Apply(name, (left, right)):
            return f"({format_node(left)} {name} {format_node(right)})"
        case OneOf(operand, values):
            return f"{format_node(operand)}.is_in([{', '.join(format_node(value) for value in values)}])"
        case Matches(operand, pattern):
            return f"{format_node(operand)}.matches({pattern!r})"
        case Apply():
            raise ValueError(node)


def to_json(node: Node) -> dict[str, Any]:
    """Return the expression as plain data."""
    match node:
        case ColumnRef(column):
            return {"column": column}
        case Literal(kind, value):
            return {kind: value}
        case Apply(operator, operands):
            return {"operator": operator, "of": [to_json(operand) for operand in operands]}
        case OneOf(operand, values):
            return {
                "operator": "is_in",
                "of": [to_json(operand)],
                "values": [to_json(value) for value in values],
            }
        case Matches(operand, pattern):
            return {"operator": "matches", "of": [to_json(operand)], "pattern": pattern}


def from_json(value: Mapping[str, Any]) -> Node:
    """Return the expression that `to_json` wrote.

    Raises `KeyError`, `TypeError`, `ValueError` or HF104 if it is invalid.
    """
    if "column" in value:
        return ColumnRef(check_column_name(value["column"]))
    if "operator" not in value:
        return _literal_from_json(value)
    operator, operands = value["operator"], tuple(from_json(operand) for operand in value["of"])
    match operator, operands:
        case "is_in", (operand,) if value["values"]:
            return OneOf(operand, tuple(_literal_from_json(each) for each in value["values"]))
        case "matches", (operand,):
            check_pattern(value["pattern"])
            return Matches(operand, value["pattern"])
        case (("abs" | "length" | "is_missing" | "~" | "-"), (_,)):
            return Apply(operator, operands)
        case str(), (_, _) if operator in OPERATORS and operator not in ("abs", "length", "is_missing", "~"):
            return Apply(operator, operands)
    raise ValueError(f"{operator!r} of {len(operands)} operands is not an expression")


def _literal_from_json(value: Mapping[str, Any]) -> Literal:
    ((kind, plain),) = value.items()
    if kind in ("timestamp", "duration") and type(plain) is int:
        return Literal(kind, plain)
    found = make_literal(plain)
    if found.kind != kind:
        raise ValueError(f"{plain!r} is not {with_article(kind)}")
    return found


def columns_of(node: Node) -> Iterator[str]:
    """Yield the columns that the expression reads, in order, with repetitions."""
    match node:
        case ColumnRef(column):
            yield column
        case Apply(_, operands):
            for operand in operands:
                yield from columns_of(operand)
        case OneOf(operand) | Matches(operand):
            yield from columns_of(operand)


def check_pattern(pattern: object) -> None:
    """Raise HF104 if `pattern` is not a regular expression of Python's `re`."""
    try:
        re.compile(pattern if isinstance(pattern, str) else "(")
    except re.error as error:
        raise declaration_error(f"{pattern!r} is not a regular expression: {error}") from error


def declaration_error(why: str) -> InputError:
    """Return the error of an impossible declaration."""
    return InputError("HF104", why, state="nothing was declared")
