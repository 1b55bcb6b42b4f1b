"""Rules compiled to Polars: what `rule_rows.py` computes for one row, for a whole batch."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, assert_never

import numpy as np
import polars as pl

from holdfast.contract.schema.columns import Category, Column, Integer, Text
from holdfast.contract.schema.expressions import Rule
from holdfast.contract.schema.missing import Reject
from holdfast.contract.schema.rule_ast import Apply, Literal, Matches, OneOf, Read
from holdfast.contract.schema.rule_types import Kind, Typed, check_rule

_OPERATIONS: Final[dict[str, Callable[[Any, Any], pl.Expr]]] = {
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
    "&": operator.and_,
    "|": operator.or_,
}

_FEW: Final = 12


def compile_rule_for_frame(rule: Rule, columns: Mapping[str, Column]) -> pl.Expr:
    """A boolean expression over a frame of the contract's dtypes: null where the rule is missing.

    It says nothing of a row in which a column of the rule is invalid by itself.

    >>> from holdfast.contract import Number, col
    >>> near = Rule("near", col("distance") / col("hours") < 600)
    >>> columns = {name: Number(name, unit="1", missing="keep") for name in ("distance", "hours")}
    >>> frame = pl.DataFrame({"distance": [500.0, 700.0, None], "hours": [1.0, 1.0, 1.0]})
    >>> frame.select(compile_rule_for_frame(near, columns)).to_series().to_list()
    [True, False, None]
    """
    return _value(check_rule(rule, columns))


def _value(typed: Typed) -> pl.Expr:
    node = typed.node
    match node:
        case Read(name):
            return _read(name, typed)
        case Literal(_, value):
            return _literal(typed, value)
        case OneOf(_, _):
            return _one_of(typed)
        case Matches(_, pattern):
            return _matches(_value(typed.parts[0]), pattern)
        case Apply(name, _):
            return _applied(name, typed)
        case _:
            assert_never(node)


def _read(name: str, typed: Typed) -> pl.Expr:
    value, column = pl.col(name), typed.column
    if isinstance(column, (Category, Text)) and not isinstance(column.missing, Reject):
        return pl.when(value != "").then(value)  # where missing is allowed the empty word is
    return value.to_physical() if typed.kind is Kind.INSTANT else value


def _literal(typed: Typed, value: object) -> pl.Expr:
    match typed.kind:
        case Kind.NUMBER if isinstance(value, int):
            return pl.lit(value, pl.Int64)
        case Kind.NUMBER | Kind.DURATION:
            return pl.lit(value, pl.Float64)
        case Kind.INSTANT:
            return pl.lit(value, pl.Int64)
        case Kind.TEXT | Kind.BOOLEAN:
            return pl.lit(value)
        case _:
            assert_never(typed.kind)


def _one_of(typed: Typed) -> pl.Expr:
    operand, *rest = typed.parts
    if operand.kind in _WORDS or _is_raw_instant(operand):
        value, values = _value(operand), [_literal_value(part) for part in rest]
    else:
        value, values = _double(operand), [float(_literal_value(part)) for part in rest]
    if len(values) <= _FEW:
        return pl.any_horizontal(value == each for each in values)
    return value.is_in(values)


def _literal_value(typed: Typed) -> Any:
    assert isinstance(typed.node, Literal)
    return typed.node.value


def _matches(value: pl.Expr, pattern: str) -> pl.Expr:
    # Python's `re`, because Polars' expressions differ (no look-around, another $), and both back ends must agree.
    whole = re.compile(pattern).fullmatch

    def matches(texts: pl.Series) -> pl.Series:
        distinct = texts.unique().drop_nulls().to_list()
        fitting = [text for text in distinct if whole(text)]
        return texts.is_in(fitting)

    return value.map_batches(matches, return_dtype=pl.Boolean())


def _applied(name: str, typed: Typed) -> pl.Expr:
    match name, typed.parts:
        case "is_missing", (part,):
            return _value(part).is_null()
        case "~", (part,):
            return ~_value(part)
        case "length", (part,):
            return _value(part).str.len_chars().cast(pl.Float64)
        case "abs", (part,):
            return _double(part).abs()
        case "-", (part,):
            return -_double(part)
        case _, (left, right):
            return _binary(name, typed, left, right)
        case _:
            raise AssertionError(typed)


def _binary(name: str, typed: Typed, left: Typed, right: Typed) -> pl.Expr:
    work = _OPERATIONS[name]
    if left.is_plain and right.is_plain and left.kind is right.kind is Kind.INSTANT:
        result = work(_value(left), _value(right))  # whole microseconds: exact
        return result if typed.kind is Kind.BOOLEAN else result.cast(pl.Float64)
    if typed.kind is Kind.BOOLEAN and (left.kind in _WORDS or (_is_whole(left) and _is_whole(right))):
        return work(_value(left), _value(right))
    one, other = _double(left), _double(right)
    result = _quotient(one, other) if name == "/" else work(one, other)
    return pl.when(result.is_finite()).then(result) if typed.can_overflow else result


def _quotient(dividend: pl.Expr, divisor: pl.Expr) -> pl.Expr:
    # By NumPy, because Polars divides by a constant as it multiplies by its reciprocal, which rounds twice.
    def divide(pair: Sequence[pl.Series]) -> pl.Series:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            return pl.Series(
                np.true_divide(*(part.to_numpy() for part in pair))
            )  # of a null NaN, and so missing

    return pl.map_batches([dividend, divisor], divide, return_dtype=pl.Float64())


_WORDS: Final = (Kind.TEXT, Kind.BOOLEAN)


def _is_whole(typed: Typed) -> bool:
    return isinstance(typed.column, Integer) or (
        isinstance(typed.node, Literal) and typed.kind is Kind.NUMBER and isinstance(typed.node.value, int)
    )


def _double(typed: Typed) -> pl.Expr:
    """The value as a double, which everything but words and instants untouched by arithmetic is computed in."""
    if isinstance(typed.node, Literal):
        return pl.lit(float(typed.node.value), pl.Float64)
    value = _value(typed)
    return value.cast(pl.Float64) if isinstance(typed.column, Integer) or _is_raw_instant(typed) else value


def _is_raw_instant(typed: Typed) -> bool:
    return typed.kind is Kind.INSTANT and typed.is_plain
