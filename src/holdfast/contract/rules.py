"""Rules that a whole row must keep: what one column's type, range and words cannot say.

    Rule("lands_after_it_leaves", col("arrived") - col("departed") >= timedelta(0))

An expression over a missing value is missing, and a rule is broken only where its expression is false. A rule is not
judged on a row in which a column that it reads is invalid by itself: that row has its reason already. Expressions are
data: they are written to the contract's JSON, and compiled to Polars (`rule_frames.py`) and to closures
(`rule_rows.py`) with one meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, TypeAlias

from holdfast.contract.columns import EXACT, is_unicode
from holdfast.contract.moments import EARLIEST, LATEST, microseconds
from holdfast.errors import InputError
from holdfast.records import canonical_json, check_name

Constant: TypeAlias = bool | int | float | str | datetime | timedelta
"""What an expression may be compared with or computed from; an instant is an aware `datetime`."""

_MICROSECOND: Final = timedelta(microseconds=1)
_DEEPEST: Final = 60
"""Levels of an expression: Python's own limit is far above, and nobody reads so deep."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """What `col` begins and operators continue; made of columns and constants, and nothing of a row.

    It has no truth value: Python's `and`, `or`, `not`, `in` and chained comparisons, which would silently use one,
    raise HF101 instead. Write `&`, `|`, `~`, `.is_in(...)` and `.between(low, high)`.
    """

    node: Node

    def __add__(self, other: Operand) -> Expression:
        return _apply("+", self, other)

    def __radd__(self, other: Operand) -> Expression:
        return _apply("+", other, self)

    def __sub__(self, other: Operand) -> Expression:
        return _apply("-", self, other)

    def __rsub__(self, other: Operand) -> Expression:
        return _apply("-", other, self)

    def __mul__(self, other: Operand) -> Expression:
        return _apply("*", self, other)

    def __rmul__(self, other: Operand) -> Expression:
        return _apply("*", other, self)

    def __truediv__(self, other: Operand) -> Expression:
        return _apply("/", self, other)

    def __rtruediv__(self, other: Operand) -> Expression:
        return _apply("/", other, self)

    def __neg__(self) -> Expression:
        return _apply("-", self)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]  # it builds, as in Polars; it does not tell
        return _apply("==", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]  # the same
        return _apply("!=", self, other)

    def __lt__(self, other: Operand) -> Expression:
        return _apply("<", self, other)

    def __le__(self, other: Operand) -> Expression:
        return _apply("<=", self, other)

    def __gt__(self, other: Operand) -> Expression:
        return _apply(">", self, other)

    def __ge__(self, other: Operand) -> Expression:
        return _apply(">=", self, other)

    def __and__(self, other: Operand) -> Expression:
        return _apply("&", self, other)

    def __rand__(self, other: Operand) -> Expression:
        return _apply("&", other, self)

    def __or__(self, other: Operand) -> Expression:
        return _apply("|", self, other)

    def __ror__(self, other: Operand) -> Expression:
        return _apply("|", other, self)

    def __invert__(self) -> Expression:
        return _apply("~", self)

    def __hash__(self) -> int:
        return hash(canonical_json(to_json(self.node)))

    def __bool__(self) -> NoReturn:
        raise InputError(
            "HF101",
            f"the expression {shown(self.node)} has no truth value of its own",
            state="nothing was declared",
            next_command="write & for and, | for or, ~ for not, .is_in(...) for in, .between(low, high) for a chain",
        )

    def __iter__(self) -> NoReturn:  # what `in` and unpacking would begin with
        self.__bool__()

    def __repr__(self) -> str:
        return shown(self.node)

    def abs(self) -> Expression:
        """The size of a number or duration without its sign."""
        return _apply("abs", self)

    def length(self) -> Expression:
        """The number of Unicode characters of a text or category."""
        return _apply("length", self)

    def is_missing(self) -> Expression:
        """Whether the value is missing; for words, whether it is empty."""
        return _apply("is_missing", self)

    def is_in(self, values: Iterable[Constant]) -> Expression:
        """Whether the value equals one of `values`, at least one constant, all of one kind."""
        if isinstance(values, (str, bytes)):
            raise _wrong(f"is_in({values!r}) needs several values; write ==, or a tuple of values")
        literals = tuple(literal(value) for value in values)
        if not literals:
            raise _wrong(f"{shown(self.node)}.is_in() needs at least one value")
        return Expression(OneOf(self.node, literals))

    def matches(self, pattern: str) -> Expression:
        """Whether a regular expression of Python's `re` matches the whole text or category."""
        _check_pattern(pattern)
        return Expression(Matches(self.node, pattern))

    def between(self, low: Operand, high: Operand) -> Expression:
        """Whether the value is at least `low` and at most `high`."""
        return (self >= low) & (self <= high)

    def implies(self, other: Operand) -> Expression:
        """`~self | other`: where this is true, `other` must be."""
        return ~self | other


Operand: TypeAlias = Expression | Constant


def col(name: str) -> Expression:
    """The value of the column `name`, to build a rule from.

    >>> col("arrived") - col("departed") >= timedelta(minutes=10)
    ((arrived - departed) >= 0:10:00)
    """
    return Expression(Read(check_name(name, "column")))


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """What every row must keep: broken, with the reason "<name>|rule", where `expression` is false.

    Parameters
    ----------
    name
        1 to 63 of a-z, 0-9, '_' and '-'; not the name of a column or of another rule.
    expression
        Built from `col`; true or false of a row. Where it is missing the rule is kept: what must be there is for
        the columns' missing policy to say, or for `.is_missing()`.

    Raises
    ------
    InputError
        HF101 when it is no expression; and, when a contract takes the rule, when a column does not exist or the
        kinds and units of the operands do not fit.

    Examples
    --------
    >>> rule = Rule("flown_or_cancelled", col("cancelled") | ~col("air_time").is_missing())
    >>> Rule.from_json(rule.to_json()) == rule, rule.columns
    (True, ('cancelled', 'air_time'))
    """

    name: str
    expression: Expression

    def __post_init__(self) -> None:
        check_name(self.name, "rule")
        if not isinstance(self.expression, Expression):
            raise _wrong(
                f"rule {self.name!r}: {self.expression!r} is no expression; build it from col(...), which "
                f"Python's and, or, not and chained comparisons do not keep"
            )
        if depth(self.expression.node) > _DEEPEST:
            raise _wrong(
                f"rule {self.name!r} is nested more than {_DEEPEST} levels deep; make it several rules"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rule reads, each once, in the order of their first appearance."""
        return tuple(dict.fromkeys(_columns(self.expression.node)))

    @property
    def reason(self) -> str:
        """What a row that breaks it is told."""
        return f"{self.name}|rule"

    def to_json(self) -> dict[str, Any]:
        """The rule as it stands in a contract's JSON."""
        return {"name": self.name, "must": to_json(self.expression.node)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rule:
        """The inverse of `to_json`; `InputError` HF101 when the value is no rule."""
        try:
            return cls(value["name"], Expression(from_json(value["must"])))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise _wrong(f"this is not the JSON of a rule: {error!r}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and canonical_json(self.to_json()) == canonical_json(other.to_json())

    def __hash__(self) -> int:
        return hash(canonical_json(self.to_json()))


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
            raise _wrong(f"{value!r} has no time zone, so it is no instant")
        case datetime() if EARLIEST <= value <= LATEST:
            return Literal("instant", microseconds(value))
        case timedelta():
            return Literal("duration", value // _MICROSECOND)
    raise _wrong(
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
            _check_pattern(value["pattern"])
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


def _apply(operator: str, *operands: object) -> Expression:
    return Expression(
        Apply(
            operator, tuple(each.node if isinstance(each, Expression) else literal(each) for each in operands)
        )
    )


def _columns(node: Node) -> Iterator[str]:
    match node:
        case Read(column):
            yield column
        case Apply(_, operands):
            for operand in operands:
                yield from _columns(operand)
        case OneOf(operand) | Matches(operand):
            yield from _columns(operand)


def _check_pattern(pattern: object) -> None:
    try:
        re.compile(pattern if isinstance(pattern, str) else "(")
    except re.error as error:
        raise _wrong(f"{pattern!r} is not a regular expression: {error}") from error


def _wrong(why: str) -> InputError:
    return InputError("HF101", why, state="nothing was declared")
