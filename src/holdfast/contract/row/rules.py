"""Rules compiled for one row: closures that compute what `rule_frames.py` computes for a batch."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, assert_never
from zoneinfo import ZoneInfo

from holdfast.contract.schema.columns import Column, Timestamp
from holdfast.contract.schema.expressions import Rule
from holdfast.contract.schema.rule_ast import Apply, Literal, Matches, OneOf, Read
from holdfast.contract.schema.rule_types import Kind, Typed, check_rule
from holdfast.contract.schema.timestamps import microseconds, read_moment

Row: TypeAlias = Mapping[str, object]
Value: TypeAlias = Callable[[Row], object]
"""From a row to a value: float, str, bool, int (an instant that no arithmetic has touched), or None for missing."""

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
    """A pure function of a row whose columns of the rule are valid: True, False, or None where the rule is missing.

    >>> from holdfast.contract import Number, col
    >>> near = Rule("near", col("distance") / col("hours") < 600)
    >>> columns = {name: Number(name, unit="1", missing="keep") for name in ("distance", "hours")}
    >>> near_enough = compile_rule_for_row(near, columns)
    >>> [near_enough({"distance": miles, "hours": 1}) for miles in (500, 700, None)]
    [True, False, None]
    """
    return _value(check_rule(rule, columns))


def _value(typed: Typed) -> Value:
    node = typed.node
    match node:
        case Read(name):
            return _read(name, typed)
        case Literal(kind, value):
            constant = float(value) if kind in ("number", "duration") else value
            return lambda _: constant
        case OneOf(_, _):
            return _one_of(typed)
        case Matches(_, pattern):
            return _matches(_value(typed.parts[0]), pattern)
        case Apply(name, _):
            return _applied(name, typed)
        case _:
            assert_never(node)


def _read(name: str, typed: Typed) -> Value:
    def number(row: Row) -> object:
        value = row.get(name)
        return None if value is None else float(value)  # type: ignore[arg-type]  # the column was checked before

    match typed.kind:
        case Kind.NUMBER:
            return number
        case Kind.TEXT:
            return lambda row: row.get(name) or None
        case Kind.BOOLEAN:
            return lambda row: row.get(name)
        case Kind.INSTANT:
            assert isinstance(typed.column, Timestamp)
            return _instant(name, typed.column)
        case Kind.DURATION:
            raise AssertionError(typed)  # no column is a duration
        case _:
            assert_never(typed.kind)


def _instant(name: str, column: Timestamp) -> Value:
    zone, local = ZoneInfo(column.tz), column.naive == "local"

    def instant(row: Row) -> object:
        value = row.get(name)
        if value is None:
            return None
        moment = read_moment(value, zone, local=local)
        assert not isinstance(moment, str)
        return microseconds(moment)

    return instant


def _one_of(typed: Typed) -> Value:
    operand, *_ = typed.parts
    value = _value(operand)
    as_double = operand.kind is Kind.INSTANT and not operand.is_plain
    values = (part.node.value for part in typed.parts[1:] if isinstance(part.node, Literal))
    known = frozenset(float(each) if as_double else each for each in values)

    def one_of(row: Row) -> object:
        found = value(row)
        return None if found is None else found in known

    return one_of


def _matches(value: Value, pattern: str) -> Value:
    whole = re.compile(pattern).fullmatch

    def matches(row: Row) -> object:
        text = value(row)
        return whole(text) is not None if isinstance(text, str) else None

    return matches


def _applied(name: str, typed: Typed) -> Value:
    match name, typed.parts:
        case "is_missing", (part,):
            operand = _value(part)
            return lambda row: operand(row) is None
        case "~", (part,):
            return _unary(operator.not_, _value(part))
        case "length", (part,):
            return _unary(_length, _value(part))
        case "abs", (part,):
            return _unary(abs, _value(part))
        case "-", (part,):
            return _unary(operator.neg, _value(part))
        case "&", (left, right):
            return _both(_value(left), _value(right))
        case "|", (left, right):
            return _either(_value(left), _value(right))
        case _, (left, right):
            return _binary(name, typed, left, right)
        case _:
            raise AssertionError(typed)


def _length(text: object) -> object:
    assert isinstance(text, str)
    return float(len(text))


def _unary(work: Callable[..., object], operand: Value) -> Value:
    def unary(row: Row) -> object:
        found = operand(row)
        return None if found is None else work(found)

    return unary


def _binary(name: str, typed: Typed, left: Typed, right: Typed) -> Value:
    work = _OPERATIONS[name]
    one, other = _value(left), _value(right)
    if not (left.is_plain and right.is_plain):  # instants are whole numbers until arithmetic touches one
        one, other = _rounded(one, left), _rounded(other, right)
    if typed.kind is not Kind.BOOLEAN and left.kind is Kind.INSTANT and right.kind is Kind.INSTANT:
        return _unary(float, _pair(work, one, other))
    return _finite(work, one, other) if typed.can_overflow else _pair(work, one, other)


def _rounded(value: Value, typed: Typed) -> Value:
    return _unary(float, value) if typed.kind is Kind.INSTANT and typed.is_plain else value


def _pair(work: Callable[..., object], one: Value, other: Value) -> Value:
    def pair(row: Row) -> object:
        left, right = one(row), other(row)
        return None if left is None or right is None else work(left, right)

    return pair


def _finite(work: Callable[..., object], one: Value, other: Value) -> Value:
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


def _both(one: Value, other: Value) -> Value:
    def both(row: Row) -> object:
        left = one(row)
        if left is False:
            return False
        right = other(row)
        if right is False:
            return False
        return None if left is None or right is None else True

    return both


def _either(one: Value, other: Value) -> Value:
    def either(row: Row) -> object:
        left = one(row)
        if left is True:
            return True
        right = other(row)
        if right is True:
            return True
        return None if left is None or right is None else False

    return either
