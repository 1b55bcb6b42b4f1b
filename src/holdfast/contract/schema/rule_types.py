"""What kind of value each part of a rule is, or why the parts do not fit: checked when a contract takes the rule.

Every number is a double and every instant and duration a count of microseconds, so that the batch and the row compute
with the same arithmetic (IEEE 754). What is not finite, a division by zero above all, is missing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeAlias, assert_never
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
from holdfast.contract.schema.rule_ast import Apply, Literal, Matches, Node, OneOf, Read, shown
from holdfast.contract.schema.timestamps import EARLIEST_US, LATEST_US, microseconds, read_moment
from holdfast.errors import InputError
from holdfast.records import duration

Columns: TypeAlias = Mapping[str, Column]


class Kind(StrEnum):
    """What an expression's value can be."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    DURATION = "duration"


@dataclass(frozen=True, slots=True)
class Typed:
    """A part of a rule that fits together.

    `largest` bounds the size of a number or duration: where it is finite no overflow can happen. `unit` and
    `semantic` are those of a column, None where it has none or arithmetic has made another of them.
    """

    node: Node
    kind: Kind
    parts: tuple[Typed, ...] = ()
    largest: float = 0.0
    unit: str | None = None
    semantic: str | None = None
    column: Column | None = field(default=None)

    @property
    def is_plain(self) -> bool:
        """Whether it is a column or constant, which no arithmetic has touched."""
        return isinstance(self.node, (Read, Literal))

    @property
    def can_overflow(self) -> bool:
        """Whether the value may be infinite or NaN, and is to be missing then."""
        return not math.isfinite(self.largest)


_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")


def check_rule(rule: Rule, columns: Columns) -> Typed:
    """The kinds of all parts of `rule` over `columns`; `InputError` HF101 when they do not fit."""
    try:
        typed = kind_of(rule.expression.node, columns)
    except _MisfitError as error:
        raise InputError("HF101", f"rule {rule.name!r}: {error}", state="nothing was declared") from error
    if typed.kind is not Kind.BOOLEAN:
        raise InputError(
            "HF101",
            f"rule {rule.name!r}: {shown(typed.node)} is a {typed.kind}, and a rule is true or false",
            state="nothing was declared",
            next_command="compare it with something",
        )
    if not rule.columns:
        raise InputError("HF101", f"rule {rule.name!r} reads no column", state="nothing was declared")
    return typed


def kind_of(node: Node, columns: Columns) -> Typed:
    """The kind of `node` and of its parts."""
    match node:
        case Read(name):
            if name not in columns:
                raise _MisfitError(f"there is no column {name!r}; the contract has {', '.join(columns)}")
            return _column(node, columns[name])
        case Literal(kind, value):
            largest = abs(float(value)) if kind in ("number", "duration") else 0.0
            return Typed(node, Kind(kind), largest=largest)
        case OneOf(operand, values):
            first = kind_of(operand, columns)
            literals = tuple(_as_kind(kind_of(value, columns), first.kind) for value in values)
            for each in literals:
                _same_kind(node, first, each)
            return Typed(node, Kind.BOOLEAN, (first, *literals))
        case Matches(operand):
            first = kind_of(operand, columns)
            _only(node, first, Kind.TEXT)
            return Typed(node, Kind.BOOLEAN, (first,))
        case Apply(operator, operands):
            return _applied(node, operator, tuple(kind_of(operand, columns) for operand in operands))
        case _:
            assert_never(node)


def _column(node: Node, column: Column) -> Typed:
    semantic = getattr(column, "semantic", None)
    match column:
        case Number():
            ends = [abs(end) for end in (column.low, column.high) if end is not None]
            largest = max(ends) if len(ends) == 2 else sys.float_info.max
            return Typed(node, Kind.NUMBER, (), largest, column.unit, semantic, column)
        case Integer():
            return Typed(node, Kind.NUMBER, (), float(EXACT), column.unit, semantic, column)
        case Category() | Text():
            return Typed(node, Kind.TEXT, semantic=semantic, column=column)
        case Timestamp():
            return Typed(node, Kind.INSTANT, largest=_EXTENT_US, semantic=semantic, column=column)
        case Boolean() | Label():
            return Typed(node, Kind.BOOLEAN, semantic=semantic, column=column)
        case _:
            assert_never(column)


_EXTENT_US: Final = float(max(abs(EARLIEST_US), abs(LATEST_US)))


def _applied(node: Node, operator: str, parts: tuple[Typed, ...]) -> Typed:
    if len(parts) == 2 and operator not in ("&", "|"):
        parts = _fit_literals(operator, *parts)
    match operator, parts:
        case "&" | "|" | "~", _:
            for part in parts:
                _only(node, part, Kind.BOOLEAN)
            return Typed(node, Kind.BOOLEAN, parts)
        case "is_missing", _:
            return Typed(node, Kind.BOOLEAN, parts)
        case "length", (part,):
            _only(node, part, Kind.TEXT)
            return Typed(node, Kind.NUMBER, parts, float(EXACT))
        case "abs" | "-", (part,):
            _only(node, part, Kind.NUMBER, Kind.DURATION)
            return replace(part, node=node, parts=parts, column=None)
        case _, (left, right) if operator in _COMPARISONS:
            _same_kind(node, left, right)
            _same_measure(node, left, right)
            if left.kind is Kind.BOOLEAN and operator not in ("==", "!="):
                raise _MisfitError(f"{shown(node)}: true and false have no order")
            return Typed(node, Kind.BOOLEAN, parts)
        case _, (left, right):
            return _arithmetic(node, operator, left, right)
        case _:
            raise _MisfitError(f"{shown(node)} is no expression")


_RESULTS: Final = {
    ("+", Kind.NUMBER, Kind.NUMBER): Kind.NUMBER,
    ("-", Kind.NUMBER, Kind.NUMBER): Kind.NUMBER,
    ("*", Kind.NUMBER, Kind.NUMBER): Kind.NUMBER,
    ("/", Kind.NUMBER, Kind.NUMBER): Kind.NUMBER,
    ("-", Kind.INSTANT, Kind.INSTANT): Kind.DURATION,
    ("+", Kind.INSTANT, Kind.DURATION): Kind.INSTANT,
    ("+", Kind.DURATION, Kind.INSTANT): Kind.INSTANT,
    ("-", Kind.INSTANT, Kind.DURATION): Kind.INSTANT,
    ("+", Kind.DURATION, Kind.DURATION): Kind.DURATION,
    ("-", Kind.DURATION, Kind.DURATION): Kind.DURATION,
    ("*", Kind.DURATION, Kind.NUMBER): Kind.DURATION,
    ("*", Kind.NUMBER, Kind.DURATION): Kind.DURATION,
    ("/", Kind.DURATION, Kind.NUMBER): Kind.DURATION,
    ("/", Kind.DURATION, Kind.DURATION): Kind.NUMBER,
}


def _arithmetic(node: Node, operator: str, left: Typed, right: Typed) -> Typed:
    result = _RESULTS.get((operator, left.kind, right.kind))
    if result is None:
        hint = ""
        if {left.kind, right.kind} == {Kind.NUMBER, Kind.DURATION}:
            hint = "; divide a duration by a timedelta to have a number"
        raise _MisfitError(f"{shown(node)}: {left.kind} {operator} {right.kind} means nothing{hint}")
    if operator in ("+", "-"):
        _same_measure(node, left, right)
        unit, largest = left.unit or right.unit, left.largest + right.largest
    else:
        unit = None
        largest = left.largest * right.largest if operator == "*" else math.inf
    return Typed(node, result, (left, right), largest, unit)


def _fit_literals(operator: str, left: Typed, right: Typed) -> tuple[Typed, Typed]:
    """A text beside an instant or a duration is read as one: "2013-01-01T00:00:00Z", "15min"."""
    if left.kind is Kind.INSTANT and operator in ("+", "-"):
        return left, _as_kind(right, Kind.DURATION) if _is_duration(right) else _as_kind(right, Kind.INSTANT)
    return _as_kind(left, right.kind), _as_kind(right, left.kind)


def _is_duration(typed: Typed) -> bool:
    return isinstance(typed.node, Literal) and typed.kind is Kind.TEXT and "T" not in str(typed.node.value)


def _as_kind(typed: Typed, wanted: Kind) -> Typed:
    node = typed.node
    if not isinstance(node, Literal) or typed.kind is not Kind.TEXT:
        return typed
    if wanted is Kind.DURATION:
        try:
            us = duration(str(node.value)) // timedelta(microseconds=1)
        except InputError as error:
            raise _MisfitError(error.what) from error
        return Typed(Literal("duration", us), Kind.DURATION, largest=abs(float(us)))
    if wanted is Kind.INSTANT:
        moment = read_moment(node.value, ZoneInfo("UTC"), local=False)
        if isinstance(moment, str):
            raise _MisfitError(
                f"{node.value!r} is no instant ({moment}); write one like '2013-01-01T05:00:00Z'"
            )
        return Typed(Literal("instant", microseconds(moment)), Kind.INSTANT)
    return typed


def _only(node: Node, part: Typed, *kinds: Kind) -> None:
    if part.kind not in kinds:
        wanted = " or ".join(kinds)
        raise _MisfitError(f"{shown(node)}: {shown(part.node)} is a {part.kind}; it must be a {wanted}")


def _same_kind(node: Node, left: Typed, right: Typed) -> None:
    if left.kind is not right.kind:
        hint = (
            "; divide a duration by a timedelta to have a number"
            if Kind.DURATION in (left.kind, right.kind)
            else ""
        )
        raise _MisfitError(
            f"{shown(node)}: {shown(left.node)} is a {left.kind} and {shown(right.node)} a {right.kind}{hint}"
        )


def _same_measure(node: Node, left: Typed, right: Typed) -> None:
    """Miles are not compared with minutes, nor a postal code with a price (R21)."""
    for what, one, other in (("unit", left.unit, right.unit), ("semantic", left.semantic, right.semantic)):
        if one is not None and other is not None and one != other:
            raise _MisfitError(
                f"{shown(node)}: the {what} of {shown(left.node)} is {one!r} and of {shown(right.node)} {other!r}; "
                f"multiply by the factor between them, which leaves the {what} behind"
            )


class _MisfitError(Exception):
    """Why the parts do not fit; `check_rule` says of which rule."""
