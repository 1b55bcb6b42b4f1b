"""Rules over a whole row, for conditions that involve more than one column.

    Rule("lands_after_it_leaves", col("arrived") - col("departed") >= timedelta(0))

An expression over a missing value is missing, and a rule is broken only if its expression is false. A rule is not
evaluated on a row in which a column that it reads is invalid: that row already has a reason. Expressions are data:
they are written to the contract's JSON, and compiled to Polars (`batch/rules.py`) and to closures (`row/rules.py`)
with the same meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

from holdfast.contract.schema.rule_ast import (
    Apply,
    ColumnRef,
    Constant,
    Matches,
    Node,
    OneOf,
    check_pattern,
    columns_of,
    declaration_error,
    format_node,
    from_json,
    make_literal,
    node_depth,
    to_json,
)
from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.records import canonical_json, check_column_name, check_name

_DEEPEST: Final = 60
"""The maximum number of levels of an expression; Python's own limit is far above."""


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A condition or value that `col` begins and operators extend; made of columns and constants only.

    It has no truth value: Python's `and`, `or`, `not`, `in` and chained comparisons, which would silently use one,
    raise HF104 instead. Write `&`, `|`, `~`, `.is_in(...)` and `.between(low, high)`.
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

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]  # it builds an expression, as in Polars
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
            "HF104",
            f"the expression {format_node(self.node)} has no truth value of its own",
            state="nothing was declared",
            next_command="write & for and, | for or, ~ for not, .is_in(...) for in, .between(low, high) for a chain",
        )

    def __iter__(self) -> NoReturn:  # what `in` and unpacking would begin with
        self.__bool__()

    def __repr__(self) -> str:
        return format_node(self.node)

    def abs(self) -> Expression:
        """Return the magnitude of a number or duration without its sign."""
        return _apply("abs", self)

    def length(self) -> Expression:
        """Return the number of Unicode characters of a text or category."""
        return _apply("length", self)

    def is_missing(self) -> Expression:
        """Return True if the value is missing; for words, if it is empty."""
        return _apply("is_missing", self)

    def is_in(self, values: Iterable[Constant]) -> Expression:
        """Return True if the value equals one of `values`: at least one constant, all of one type."""
        if isinstance(values, (str, bytes)):
            raise declaration_error(f"is_in({values!r}) needs several values; write ==, or a tuple of values")
        literals = tuple(make_literal(value) for value in values)
        if not literals:
            raise declaration_error(f"{format_node(self.node)}.is_in() needs at least one value")
        return Expression(OneOf(self.node, literals))

    def matches(self, pattern: str) -> Expression:
        """Return True if a regular expression of Python's `re` matches the whole text or category."""
        check_pattern(pattern)
        return Expression(Matches(self.node, pattern))

    def between(self, low: Operand, high: Operand) -> Expression:
        """Return True if the value is at least `low` and at most `high`."""
        return (self >= low) & (self <= high)

    def implies(self, other: Operand) -> Expression:
        """Return `~self | other`: if this is true, `other` must be."""
        return ~self | other


Operand: TypeAlias = Expression | Constant


def col(name: str) -> Expression:
    """Return the value of the column `name`, to build a rule from. A selection may also name `_batch` and `_source`.

    >>> from datetime import timedelta
    >>> col("arrived") - col("departed") >= timedelta(minutes=10)
    ((arrived - departed) >= 0:10:00)
    """
    if not isinstance(name, str):
        raise InputError("HF104", f"col({name!r}): a column is named by a text", state="nothing was done")
    return Expression(ColumnRef(check_column_name(name)))


@dataclass(frozen=True, slots=True, eq=False)
@checked("expression")
class Rule:
    """A condition on every row: broken, with the reason "<name>|rule", if `expression` is false.

    Parameters
    ----------
    name
        1 to 63 of a-z, 0-9, '_' and '-'; not the name of a column or of another rule.
    expression
        Built from `col`; true or false of a row. A row for which it is missing keeps the rule: a required value
        is stated by the column's missing policy, or by `.is_missing()`.

    Raises
    ------
    InputError
        HF104 if it is no expression; and, when a contract takes the rule, if a column does not exist or the
        types and units of the operands do not fit.

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
            raise declaration_error(
                f"rule {self.name!r}: {self.expression!r} is not an expression; build it from col(...), with "
                f"& | ~ instead of and, or, not"
            )
        if node_depth(self.expression.node) > _DEEPEST:
            raise declaration_error(
                f"rule {self.name!r} is nested more than {_DEEPEST} levels deep; make it several rules"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that the rule reads, each once, in order of first appearance."""
        return tuple(dict.fromkeys(columns_of(self.expression.node)))

    @property
    def reason(self) -> str:
        """Return the reason that a row gets if it breaks the rule."""
        return f"{self.name}|rule"

    def to_json(self) -> dict[str, Any]:
        """Return the rule as it is written in a contract's JSON."""
        return {"name": self.name, "must": to_json(self.expression.node)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rule:
        """Return the rule that `to_json` wrote. Raises `InputError` HF104 if the value is no rule."""
        try:
            return cls(value["name"], Expression(from_json(value["must"])))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise declaration_error(f"not the JSON of a rule: {error!r}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and canonical_json(self.to_json()) == canonical_json(other.to_json())

    def __hash__(self) -> int:
        return hash(canonical_json(self.to_json()))


def _apply(operator: str, *operands: object) -> Expression:
    return Expression(
        Apply(
            operator,
            tuple(each.node if isinstance(each, Expression) else make_literal(each) for each in operands),
        )
    )
