"""Type check of a rule, done when a contract takes the rule.

Every number is a double, and every timestamp and duration a count of microseconds, so that batch and row compute with
the same arithmetic (IEEE 754). A value that is not finite, such as a division by zero, is missing.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeAlias, assert_never
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
from holdfast.contract.schema.expressions import Rule
from holdfast.contract.schema.rule_ast import Apply, ColumnRef, Literal, Matches, Node, OneOf, format_node
from holdfast.contract.schema.timestamps import EARLIEST_US, LATEST_US, read_timestamp
from holdfast.errors import InputError
from holdfast.formatting import with_article
from holdfast.records import duration, microseconds

Columns: TypeAlias = Mapping[str, Column]


class ValueType(StrEnum):
    """The type of an expression's value."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DURATION = "duration"


@dataclass(frozen=True, slots=True)
class TypedNode:
    """A node of a rule with its type.

    `largest` bounds the magnitude of a number or duration: if it is finite, no overflow can happen. `unit` and
    `semantic` are those of a column; None if the column has none or arithmetic has changed the meaning.
    """

    node: Node
    kind: ValueType
    parts: tuple[TypedNode, ...] = ()
    largest: float = 0.0
    unit: str | None = None
    semantic: str | None = None
    column: Column | None = None

    @property
    def is_plain(self) -> bool:
        """Return True if it is a column or constant without arithmetic."""
        return isinstance(self.node, (ColumnRef, Literal))

    @property
    def can_overflow(self) -> bool:
        """Return True if the value may be infinite or NaN, and is missing then."""
        return not math.isfinite(self.largest)


_COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
DYADIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "&": operator.and_,
    "|": operator.or_,
    **_COMPARISONS,
}
"""Python's function for each operator of two values or of two Polars expressions."""


def check_rule(rule: Rule, columns: Columns) -> TypedNode:
    """Return the types of all parts of `rule` over `columns`. Raises `InputError` HF104 if they do not fit."""
    try:
        typed = infer_types(rule.expression.node, columns)
    except _TypeMismatchError as error:
        raise InputError("HF104", f"rule {rule.name!r}: {error}", state="nothing was declared") from error
    if typed.kind is not ValueType.BOOLEAN:
        raise InputError(
            "HF104",
            f"rule {rule.name!r}: {format_node(typed.node)} is {with_article(typed.kind)}, and a rule is true or false",
            state="nothing was declared",
            next_command="compare it with something",
        )
    if not rule.columns:
        raise InputError("HF104", f"rule {rule.name!r} reads no column", state="nothing was declared")
    return typed


def infer_types(node: Node, columns: Columns) -> TypedNode:
    """Return the type of `node` and of its parts."""
    match node:
        case ColumnRef(name):
            if name not in columns:
                raise _TypeMismatchError(
                    f"there is no column {name!r}; the contract has {', '.join(columns)}"
                )
            return _column_type(node, columns[name])
        case Literal(kind, value):
            largest = abs(float(value)) if kind in ("number", "duration") else 0.0
            return TypedNode(node, ValueType(kind), largest=largest)
        case OneOf(operand, values):
            first = infer_types(operand, columns)
            literals = tuple(_convert_literal(infer_types(value, columns), first.kind) for value in values)
            for each in literals:
                _require_same_type(node, first, each)
                _require_word(node, first, each)
            return TypedNode(node, ValueType.BOOLEAN, (first, *literals))
        case Matches(operand):
            first = infer_types(operand, columns)
            _require_type(node, first, ValueType.TEXT)
            return TypedNode(node, ValueType.BOOLEAN, (first,))
        case Apply(name, operands):
            return _operator_type(node, name, tuple(infer_types(operand, columns) for operand in operands))
        case _:
            assert_never(node)


def _column_type(node: Node, column: Column) -> TypedNode:
    largest, unit = 0.0, None
    match column:
        case Number(low=low, high=high):
            kind, unit = ValueType.NUMBER, column.unit
            largest = sys.float_info.max if low is None or high is None else max(abs(low), abs(high))
        case Integer():
            kind, unit, largest = ValueType.NUMBER, column.unit, float(EXACT)
        case Category() | Text():
            kind = ValueType.TEXT
        case Timestamp():
            kind, largest = ValueType.TIMESTAMP, _MAX_TIMESTAMP_US
        case Boolean() | Label():
            kind = ValueType.BOOLEAN
        case _:
            assert_never(column)
    return TypedNode(node, kind, (), largest, unit, column.semantic, column)


_DURATION_HINT: Final = "; divide a duration by a timedelta to have a number"
_MAX_TIMESTAMP_US: Final = float(max(abs(EARLIEST_US), abs(LATEST_US)))


def _operator_type(node: Node, name: str, parts: tuple[TypedNode, ...]) -> TypedNode:
    if len(parts) == 2 and name not in ("&", "|"):
        parts = _convert_literals(name, *parts)
    match name, parts:
        case "&" | "|" | "~", _:
            for part in parts:
                _require_type(node, part, ValueType.BOOLEAN)
            return TypedNode(node, ValueType.BOOLEAN, parts)
        case "is_missing", _:
            return TypedNode(node, ValueType.BOOLEAN, parts)
        case "length", (part,):
            _require_type(node, part, ValueType.TEXT)
            return TypedNode(node, ValueType.NUMBER, parts, float(EXACT))
        case "abs" | "-", (part,):
            _require_type(node, part, ValueType.NUMBER, ValueType.DURATION)
            return replace(part, node=node, parts=parts, column=None)
        case _, (left, right) if name in _COMPARISONS:
            _require_same_type(node, left, right)
            _require_same_unit(node, left, right)
            _require_word(node, left, right)
            _require_word(node, right, left)
            if left.kind is ValueType.BOOLEAN and name not in ("==", "!="):
                raise _TypeMismatchError(f"{format_node(node)}: true and false have no order")
            return TypedNode(node, ValueType.BOOLEAN, parts)
        case _, (left, right):
            return _arithmetic_type(node, name, left, right)
        case _:
            raise _TypeMismatchError(f"{format_node(node)} is not an expression")


_RESULTS: Final = {
    ("+", ValueType.NUMBER, ValueType.NUMBER): ValueType.NUMBER,
    ("-", ValueType.NUMBER, ValueType.NUMBER): ValueType.NUMBER,
    ("*", ValueType.NUMBER, ValueType.NUMBER): ValueType.NUMBER,
    ("/", ValueType.NUMBER, ValueType.NUMBER): ValueType.NUMBER,
    ("-", ValueType.TIMESTAMP, ValueType.TIMESTAMP): ValueType.DURATION,
    ("+", ValueType.TIMESTAMP, ValueType.DURATION): ValueType.TIMESTAMP,
    ("+", ValueType.DURATION, ValueType.TIMESTAMP): ValueType.TIMESTAMP,
    ("-", ValueType.TIMESTAMP, ValueType.DURATION): ValueType.TIMESTAMP,
    ("+", ValueType.DURATION, ValueType.DURATION): ValueType.DURATION,
    ("-", ValueType.DURATION, ValueType.DURATION): ValueType.DURATION,
    ("*", ValueType.DURATION, ValueType.NUMBER): ValueType.DURATION,
    ("*", ValueType.NUMBER, ValueType.DURATION): ValueType.DURATION,
    ("/", ValueType.DURATION, ValueType.NUMBER): ValueType.DURATION,
    ("/", ValueType.DURATION, ValueType.DURATION): ValueType.NUMBER,
}


def _arithmetic_type(node: Node, name: str, left: TypedNode, right: TypedNode) -> TypedNode:
    result = _RESULTS.get((name, left.kind, right.kind))
    if result is None:
        hint = _DURATION_HINT if {left.kind, right.kind} == {ValueType.NUMBER, ValueType.DURATION} else ""
        raise _TypeMismatchError(f"{format_node(node)}: {left.kind} {name} {right.kind} is undefined{hint}")
    if name in ("+", "-"):
        _require_same_unit(node, left, right)
        unit, largest = left.unit or right.unit, left.largest + right.largest
    else:
        unit = None
        largest = left.largest * right.largest if name == "*" else math.inf
    return TypedNode(node, result, (left, right), largest, unit)


def _convert_literals(name: str, left: TypedNode, right: TypedNode) -> tuple[TypedNode, TypedNode]:
    """Parse a text that is compared with a timestamp or a duration: "2013-01-01T00:00:00Z", "15min"."""
    if left.kind is ValueType.TIMESTAMP and name in ("+", "-"):
        return left, _convert_literal(right, ValueType.DURATION) if _is_duration(right) else _convert_literal(
            right, ValueType.TIMESTAMP
        )
    return _convert_literal(left, right.kind), _convert_literal(right, left.kind)


def _is_duration(typed: TypedNode) -> bool:
    return (
        isinstance(typed.node, Literal) and typed.kind is ValueType.TEXT and "T" not in str(typed.node.value)
    )


def _convert_literal(typed: TypedNode, wanted: ValueType) -> TypedNode:
    node = typed.node
    if not isinstance(node, Literal) or typed.kind is not ValueType.TEXT:
        return typed
    if wanted is ValueType.DURATION:
        try:
            us = duration(str(node.value)) // timedelta(microseconds=1)
        except InputError as error:
            raise _TypeMismatchError(error.what) from error
        return TypedNode(Literal("duration", us), ValueType.DURATION, largest=abs(float(us)))
    if wanted is ValueType.TIMESTAMP:
        timestamp = read_timestamp(node.value, ZoneInfo("UTC"), local=False)
        if isinstance(timestamp, str):
            raise _TypeMismatchError(
                f"{node.value!r} is no timestamp ({timestamp}); write one like '2013-01-01T05:00:00Z'"
            )
        return TypedNode(Literal("timestamp", microseconds(timestamp)), ValueType.TIMESTAMP)
    return typed


def _require_type(node: Node, part: TypedNode, *kinds: ValueType) -> None:
    if part.kind not in kinds:
        wanted = " or ".join(map(with_article, kinds))
        raise _TypeMismatchError(
            f"{format_node(node)}: {format_node(part.node)} is {with_article(part.kind)}; it must be {wanted}"
        )


def _require_same_type(node: Node, left: TypedNode, right: TypedNode) -> None:
    if left.kind is not right.kind:
        hint = _DURATION_HINT if ValueType.DURATION in (left.kind, right.kind) else ""
        raise _TypeMismatchError(
            f"{format_node(node)}: {format_node(left.node)} is {with_article(left.kind)} and "
            f"{format_node(right.node)} {with_article(right.kind)}{hint}"
        )


def _require_same_unit(node: Node, left: TypedNode, right: TypedNode) -> None:
    """Refuse to compare miles with minutes, or a postal code with a price (R21)."""
    for what, one, other in (("unit", left.unit, right.unit), ("semantic", left.semantic, right.semantic)):
        if one is not None and other is not None and one != other:
            raise _TypeMismatchError(
                f"{format_node(node)}: the {what} of {format_node(left.node)} is {one!r} "
                f"and of {format_node(right.node)} {other!r}; "
                f"multiply by the factor between them, which drops the {what}"
            )


def _require_word(node: Node, column: TypedNode, literal: TypedNode) -> None:
    """Refuse to compare a category with an alias: it is read as its word, so that nothing would equal it."""
    if isinstance(column.column, Category) and isinstance(literal.node, Literal):
        word = column.column.aliases.get(str(literal.node.value))
        if word is not None:
            raise _TypeMismatchError(
                f"{format_node(node)}: {literal.node.value!r} is an alias; compare with its word, {word!r}"
            )


class _TypeMismatchError(Exception):
    """The parts of a rule do not fit; `check_rule` adds the rule's name."""
