"""Rules compiled for one row: closures that compute what `batch/rules.py` computes for a batch."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, assert_never
from zoneinfo import ZoneInfo

from holdfast.contract.schema.columns import Column, Timestamp
from holdfast.contract.schema.expressions import Rule
from holdfast.contract.schema.rule_ast import Apply, ColumnRef, Literal, Matches, OneOf
from holdfast.contract.schema.rule_types import TypedNode, ValueType, check_rule
from holdfast.contract.schema.timestamps import microseconds, read_timestamp

Row: TypeAlias = Mapping[str, object]
Value: TypeAlias = Callable[[Row], object]
"""From a row to a value: float, str, bool, int (a timestamp without arithmetic), or None for missing."""

_OPERATIONS: Final[dict[str, Callable[[Any, Any], object]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compile_rule_for_row(rule: Rule, columns: Mapping[str, Column]) -> Callable[[Row], object]:
    """Return a pure function of a row: True, False, or None if the rule is missing.

    The columns that the rule reads must be valid.

    >>> from holdfast.contract import Number, col
    >>> near = Rule("near", col("distance") / col("hours") < 600)
    >>> columns = {name: Number(name, unit="1", missing="keep") for name in ("distance", "hours")}
    >>> near_enough = compile_rule_for_row(near, columns)
    >>> [near_enough({"distance": miles, "hours": 1}) for miles in (500, 700, None)]
    [True, False, None]
    """
    return _compile_node(check_rule(rule, columns))


def _compile_node(typed: TypedNode) -> Value:
    node = typed.node
    match node:
        case ColumnRef(name):
            return _compile_column(name, typed)
        case Literal(kind, value):
            constant = float(value) if kind in ("number", "duration") else value
            return lambda _: constant
        case OneOf(_, _):
            return _compile_one_of(typed)
        case Matches(_, pattern):
            return _compile_matches(_compile_node(typed.parts[0]), pattern)
        case Apply(name, _):
            return _compile_operator(name, typed)
        case _:
            assert_never(node)


def _compile_column(name: str, typed: TypedNode) -> Value:
    def number(row: Row) -> object:
        value = row.get(name)
        return None if value is None else float(value)  # type: ignore[arg-type]  # the column was checked before

    match typed.kind:
        case ValueType.NUMBER:
            return number
        case ValueType.TEXT:
            return lambda row: row.get(name) or None
        case ValueType.BOOLEAN:
            return lambda row: row.get(name)
        case ValueType.TIMESTAMP:
            assert isinstance(typed.column, Timestamp)
            return _compile_timestamp(name, typed.column)
        case ValueType.DURATION:
            raise AssertionError(typed)  # no column is a duration
        case _:
            assert_never(typed.kind)


def _compile_timestamp(name: str, column: Timestamp) -> Value:
    zone, local = ZoneInfo(column.tz), column.naive == "local"

    def timestamp(row: Row) -> object:
        value = row.get(name)
        if value is None:
            return None
        timestamp = read_timestamp(value, zone, local=local)
        assert not isinstance(timestamp, str)
        return microseconds(timestamp)

    return timestamp


def _compile_one_of(typed: TypedNode) -> Value:
    operand, *_ = typed.parts
    value = _compile_node(operand)
    as_double = operand.kind is ValueType.TIMESTAMP and not operand.is_plain
    values = (part.node.value for part in typed.parts[1:] if isinstance(part.node, Literal))
    known = frozenset(float(each) if as_double else each for each in values)

    def one_of(row: Row) -> object:
        found = value(row)
        return None if found is None else found in known

    return one_of


def _compile_matches(value: Value, pattern: str) -> Value:
    whole = re.compile(pattern).fullmatch

    def matches(row: Row) -> object:
        text = value(row)
        return whole(text) is not None if isinstance(text, str) else None

    return matches


def _compile_operator(name: str, typed: TypedNode) -> Value:
    match name, typed.parts:
        case "is_missing", (part,):
            operand = _compile_node(part)
            return lambda row: operand(row) is None
        case "~", (part,):
            return _lift_unary(operator.not_, _compile_node(part))
        case "length", (part,):
            return _lift_unary(_length, _compile_node(part))
        case "abs", (part,):
            return _lift_unary(abs, _compile_node(part))
        case "-", (part,):
            return _lift_unary(operator.neg, _compile_node(part))
        case "&", (left, right):
            return _compile_and(_compile_node(left), _compile_node(right))
        case "|", (left, right):
            return _compile_or(_compile_node(left), _compile_node(right))
        case _, (left, right):
            return _compile_dyadic(name, typed, left, right)
        case _:
            raise AssertionError(typed)


def _length(text: object) -> object:
    assert isinstance(text, str)
    return float(len(text))


def _lift_unary(work: Callable[..., object], operand: Value) -> Value:
    def unary(row: Row) -> object:
        found = operand(row)
        return None if found is None else work(found)

    return unary


def _compile_dyadic(name: str, typed: TypedNode, left: TypedNode, right: TypedNode) -> Value:
    work = _OPERATIONS[name]
    one, other = _compile_node(left), _compile_node(right)
    if not (left.is_plain and right.is_plain):  # timestamps are integers until arithmetic converts one
        one, other = _as_double(one, left), _as_double(other, right)
    if (
        typed.kind is not ValueType.BOOLEAN
        and left.kind is ValueType.TIMESTAMP
        and right.kind is ValueType.TIMESTAMP
    ):
        return _lift_unary(float, _lift_dyadic(work, one, other))
    return _lift_finite(work, one, other) if typed.can_overflow else _lift_dyadic(work, one, other)


def _as_double(value: Value, typed: TypedNode) -> Value:
    return _lift_unary(float, value) if typed.kind is ValueType.TIMESTAMP and typed.is_plain else value


def _lift_dyadic(work: Callable[..., object], one: Value, other: Value) -> Value:
    def pair(row: Row) -> object:
        left, right = one(row), other(row)
        return None if left is None or right is None else work(left, right)

    return pair


def _lift_finite(work: Callable[..., object], one: Value, other: Value) -> Value:
    def finite(row: Row) -> object:
        left, right = one(row), other(row)
        if left is None or right is None:
            return None
        try:
            result = work(left, right)
        except ZeroDivisionError:
            return None
        assert isinstance(result, float)
        return result if math.isfinite(result) else None

    return finite


def _compile_and(one: Value, other: Value) -> Value:
    def both(row: Row) -> object:
        left = one(row)
        if left is False:
            return False
        right = other(row)
        if right is False:
            return False
        return None if left is None or right is None else True

    return both


def _compile_or(one: Value, other: Value) -> Value:
    def either(row: Row) -> object:
        left = one(row)
        if left is True:
            return True
        right = other(row)
        if right is True:
            return True
        return None if left is None or right is None else False

    return either
