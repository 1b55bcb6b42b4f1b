"""What an expression of a rule is made of: plain frozen data, its JSON, and how a person reads it.

`rules.py` builds it, `rule_kinds.py` checks it, `rule_rows.py` and `rule_frames.py` compile it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from holdfast.contract.schema.columns import EXACT, is_unicode
from holdfast.contract.schema.timestamps import EARLIEST, LATEST, microseconds
from holdfast.errors import InputError
from holdfast.records import check_name

Constant: TypeAlias = bool | int | float | str | datetime | timedelta
"""What an expression may be compared with or computed from; an instant is an aware `datetime`."""

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Read:
    """The value of a column."""

    column: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. `kind` is "boolean", "number", "text", "instant" or "duration"; the last two are in microseconds."""

    kind: str
    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator of `OPERATORS` on its operands."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Whether the operand equals one of the values."""

    operand: Node
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """Whether the pattern matches the whole operand."""

    operand: Node
    pattern: str


Node: TypeAlias = Read | Literal | Apply | OneOf | Matches

OPERATORS: Final[dict[str, str]] = {
    "+": "The sum of two numbers or two durations; an instant later by a duration.",
    "-": "The difference of two numbers or two durations, the duration between two instants, an instant earlier by a "
    "duration; before one number or duration, its negative.",
    "*": "The product of two numbers, or of a number and a duration.",
    "/": "The quotient of two numbers, a duration by a number, or how many times one duration goes into another "
    "(a number). Division by zero is missing.",
    "abs": "`.abs()`: the size of a number or duration without its sign.",
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
"""Every operator with its meaning; the reference page is generated from it. `is_in` and `matches` stand beside them."""


def literal(value: object) -> Literal:
    """The node of a constant; `InputError` HF101 when a rule cannot hold it."""
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
            raise wrong(f"{value!r} has no time zone, so it is no instant")
        case datetime() if EARLIEST <= value <= LATEST:
            return Literal("instant", microseconds(value))
        case timedelta():
            return Literal("duration", value // _MICROSECOND)
    raise wrong(
        f"{type(value).__name__} {str(value)[:60]!r} cannot stand in a rule: write a finite number (whole numbers up "
        f"to 2**53), a text that is not empty, True, False, an aware datetime, a timedelta, or col(...)"
    )


def depth(node: Node) -> int:
    """How many levels the expression has."""
    match node:
        case Apply(_, operands):
            return 1 + max(depth(operand) for operand in operands)
        case OneOf(operand) | Matches(operand):
            return 1 + depth(operand)
        case _:
            return 1


def shown(node: Node) -> str:
    """The expression as a person would write it."""
    match node:
        case Read(column):
            return column
        case Literal("duration", value):
            return str(timedelta(microseconds=int(value)))
        case Literal("instant", value):
            return f"instant {int(value)} us"
        case Literal(_, value):
            return repr(value)
        case Apply("abs" | "length" | "is_missing" as name, (operand,)):
            return f"{shown(operand)}.{name}()"
        case Apply(name, (operand,)):
            return f"{name}{shown(operand)}"
        case Apply(name, (left, right)):
            return f"({shown(left)} {name} {shown(right)})"
        case OneOf(operand, values):
            return f"{shown(operand)}.is_in([{', '.join(shown(value) for value in values)}])"
        case Matches(operand, pattern):
            return f"{shown(operand)}.matches({pattern!r})"
        case Apply():
            raise ValueError(node)


def to_json(node: Node) -> dict[str, Any]:
    """The expression as plain data."""
    match node:
        case Read(column):
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
    """The inverse of `to_json`; `KeyError`, `TypeError`, `ValueError` or HF101 when it is none."""
    if "column" in value:
        return Read(check_name(value["column"], "column"))
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
    raise ValueError(f"{operator!r} of {len(operands)} operands is no expression")


def _literal_from_json(value: Mapping[str, Any]) -> Literal:
    ((kind, plain),) = value.items()
    if kind in ("instant", "duration") and type(plain) is int:
        return Literal(kind, plain)
    found = literal(plain)
    if found.kind != kind:
        raise ValueError(f"{plain!r} is no {kind}")
    return found


def columns_of(node: Node) -> Iterator[str]:
    """The columns that the expression reads, in order, each as often as it stands there."""
    match node:
        case Read(column):
            yield column
        case Apply(_, operands):
            for operand in operands:
                yield from columns_of(operand)
        case OneOf(operand) | Matches(operand):
            yield from columns_of(operand)


def check_pattern(pattern: object) -> None:
    """Raise HF101 when it is not a regular expression of Python's `re`."""
    try:
        re.compile(pattern if isinstance(pattern, str) else "(")
    except re.error as error:
        raise wrong(f"{pattern!r} is not a regular expression: {error}") from error


def wrong(why: str) -> InputError:
    """The error of a declaration that cannot be."""
    return InputError("HF101", why, state="nothing was declared")
