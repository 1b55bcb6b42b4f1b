"""Rules compiled for one row: closures that compute what `batch/rules.py` computes for a batch."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, assert_never
from zoneinfo import ZoneInfo

from holdfast.contract.schema.columns import Category, Column, Timestamp
from holdfast.contract.schema.expressions import Rule
from holdfast.contract.schema.rule_ast import Apply, ColumnRef, Literal, Matches, OneOf
from holdfast.contract.schema.rule_types import DYADIC, TypedNode, ValueType, check_rule
from holdfast.contract.schema.timestamps import read_timestamp
from holdfast.records import microseconds

Row: TypeAlias = Mapping[str, object]
Value: TypeAlias = Callable[[Row], object]
"""From a row to a value: float, str, bool, int (a timestamp without arithmetic), or None for missing."""


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
            whole = re.compile(pattern).fullmatch
            return _lift_unary(lambda text: whole(text) is not None, _compile_node(typed.parts[0]))
        case Apply(name, _):
            return _compile_operator(name, typed)
        case _:
            assert_never(node)


def _compile_column(name: str, typed: TypedNode) -> Value:
    value = operator.methodcaller("get", name)
    match typed.kind:
        case ValueType.NUMBER:
            return _lift_unary(float, value)
        case ValueType.TEXT:
            aliases = typed.column.aliases if isinstance(typed.column, Category) else {}
            return lambda row: aliases.get(word := row.get(name), word) or None  # type: ignore[call-overload]  # valid: a word
        case ValueType.BOOLEAN:
            return value
        case ValueType.TIMESTAMP:
            assert isinstance(typed.column, Timestamp)
            return _lift_unary(_timestamp_reader(typed.column), value)
        case ValueType.DURATION:
            raise AssertionError(typed)  # no column is a duration
        case _:
            assert_never(typed.kind)


def _timestamp_reader(column: Timestamp) -> Callable[[object], int]:
    zone, local = ZoneInfo(column.tz), column.naive == "local"

    def read(value: object) -> int:
        timestamp = read_timestamp(value, zone, local=local)
        assert not isinstance(timestamp, str)
        return microseconds(timestamp)

    return read


def _compile_one_of(typed: TypedNode) -> Value:
    operand, *_ = typed.parts
    as_double = operand.kind is ValueType.TIMESTAMP and not operand.is_plain
    values = (part.node.value for part in typed.parts[1:] if isinstance(part.node, Literal))
    known = frozenset(float(each) if as_double else each for each in values)
    return _lift_unary(known.__contains__, _compile_node(operand))


def _compile_operator(name: str, typed: TypedNode) -> Value:
    match name, typed.parts:
        case "is_missing", (part,):
            operand = _compile_node(part)
            return lambda row: operand(row) is None
        case _, (part,):
            return _lift_unary(_UNARY[name], _compile_node(part))
        case "&" | "|", (left, right):
            return _compile_logic(_compile_node(left), _compile_node(right), decisive=name == "|")
        case _, (left, right):
            return _compile_dyadic(name, typed, left, right)
        case _:
            raise AssertionError(typed)


_UNARY: Final[dict[str, Callable[[Any], object]]] = {
    "~": operator.not_,
    "length": lambda text: float(len(text)),
    "abs": abs,
    "-": operator.neg,
}


def _lift_unary(work: Callable[[Any], object], operand: Value) -> Value:
    def unary(row: Row) -> object:
        found = operand(row)
        return None if found is None else work(found)

    return unary


def _compile_dyadic(name: str, typed: TypedNode, left: TypedNode, right: TypedNode) -> Value:
    work = DYADIC[name]
    one, other = _compile_node(left), _compile_node(right)
    if not (left.is_plain and right.is_plain):  # timestamps are integers until arithmetic converts one
        one, other = _as_double(one, left), _as_double(other, right)
    if typed.kind is ValueType.DURATION and left.kind is right.kind is ValueType.TIMESTAMP:
        return _lift_unary(float, _lift_dyadic(work, one, other))
    return _lift_dyadic(_finite(work) if typed.can_overflow else work, one, other)


def _as_double(value: Value, typed: TypedNode) -> Value:
    return _lift_unary(float, value) if typed.kind is ValueType.TIMESTAMP and typed.is_plain else value


def _lift_dyadic(work: Callable[[Any, Any], object], one: Value, other: Value) -> Value:
    def pair(row: Row) -> object:
        left, right = one(row), other(row)
        return None if left is None or right is None else work(left, right)

    return pair


def _finite(work: Callable[[Any, Any], Any]) -> Callable[[float, float], float | None]:
    def finite(left: float, right: float) -> float | None:
        try:
            result: float = work(left, right)
        except ZeroDivisionError:
            return None
        return result if math.isfinite(result) else None

    return finite


def _compile_logic(one: Value, other: Value, *, decisive: bool) -> Value:
    """Return "or" if true is `decisive`, "and" if false is: the result as soon as one side has it."""

    def either(row: Row) -> object:
        left = one(row)
        if left is decisive:
            return decisive
        right = other(row)
        if right is decisive:
            return decisive
        return None if left is None or right is None else not decisive

    return either
