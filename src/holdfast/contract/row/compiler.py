"""The contract compiled for one row: plain closures, a few hundred nanoseconds a column.

The batch check in `batch/compiler.py` states the same rules as Polars expressions; a property test compares both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, assert_never
from zoneinfo import ZoneInfo

from holdfast.contract.row.rules import compile_rule_for_row
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
from holdfast.contract.schema.contract import Contract
from holdfast.contract.schema.missing import Reject
from holdfast.contract.schema.timestamps import read_timestamp
from holdfast.field_types import is_unicode
from holdfast.records import microseconds

ValueCheck: TypeAlias = Callable[[object], str | None]
"""From a value to the reason why it is invalid, or None."""

EXTRA: Final = "*|extra"
"""The reason of a row with a key that the contract does not know. The key is omitted, because reasons become metric
labels.
"""


def list_reasons(contract: Contract) -> tuple[str, ...]:
    """Return every reason why a request of `contract` may be refused.

    >>> from holdfast.contract import Contract, Number, Text, Timestamp
    >>> contract = Contract(Number("distance", unit="mi"), Timestamp("at", tz="UTC"), Text("id"), key="id", event_time="at")
    >>> [reason for reason in list_reasons(contract) if reason.startswith("distance")]
    ['distance|missing', 'distance|type', 'distance|not_finite', 'distance|not_exact', 'distance|range']
    """
    found = [EXTRA]
    for column in contract.request_columns:
        rules = ["missing"] if isinstance(column.missing, Reject) else []
        match column:
            case Number():
                rules += ["type", "not_finite", "not_exact", "range"]
            case Integer():
                rules += ["type", "not_exact", "range"]
            case Category():
                rules += ["type", "not_unicode", "nul", "too_long", "unseen"]
            case Text():
                rules += ["type", "not_unicode", "nul", "too_long", "pattern"]
            case Timestamp():
                rules += ["type", "zone", "gap", "fold", "range"]
            case Boolean() | Label():
                rules += ["type"]
            case _:
                assert_never(column)
        found += [f"{column.name}|{rule}" for rule in rules]
    return (*found, *(rule.reason for rule in contract.rules))


def compile_row(contract: Contract, *, request: bool) -> Callable[[Mapping[str, object]], tuple[str, ...]]:
    """Return a function from a row to the reasons why it breaks `contract`; an empty tuple for a valid row.

    Parameters
    ----------
    request
        True for a request, which brings no label; False for a whole row.

    Returns
    -------
    A pure function. Values are float or int (Number), int (Integer), str (Category, Text), aware datetime
    or RFC 3339 text (Timestamp), bool (Boolean, Label); None or an absent key is missing. An alias of a category is checked
    as its word. Each column has at most
    one reason, "name|rule", the first in the order type, missing, others. Columns come in the order of the
    contract, then its rules in theirs; a rule is evaluated if the columns that it reads are valid. A rule that
    reads the label is not evaluated on a request.

    Examples
    --------
    >>> from holdfast.contract import Contract, Number, Text, Timestamp
    >>> contract = Contract(Text("id"), Number("distance", unit="mi", high=6000), Timestamp("at", tz="UTC"),
    ...                     key="id", event_time="at")
    >>> check = compile_row(contract, request=True)
    >>> check({"id": "UA1", "distance": float("nan"), "at": "2013-01-01T05:15:00"})
    ('distance|not_finite', 'at|zone')
    """
    columns = contract.request_columns if request else contract.columns
    checks = tuple((column.name, _compile(column, column.name in contract.key)) for column in columns)
    names = frozenset(column.name for column in columns)
    rules = _rules(contract, columns)

    def check(row: Mapping[str, object]) -> tuple[str, ...]:
        reasons = [reason for name, rule in checks if (reason := rule(row.get(name))) is not None]
        if rules:
            invalid = {reason.partition("|")[0] for reason in reasons} if reasons else ()
            for reason, read, kept in rules:
                if kept(row) is False if not invalid else read.isdisjoint(invalid) and kept(row) is False:
                    reasons.append(reason)
        if not row.keys() <= names:
            reasons.append(EXTRA)
        return tuple(reasons)

    return check


def compile_rules(
    contract: Contract, *, request: bool
) -> Callable[[Mapping[str, object]], tuple[str, ...]] | None:
    """Return the part of `compile_row` that evaluates rules, for a row whose columns are valid; None without rules."""
    rules = _rules(contract, contract.request_columns if request else contract.columns)
    if not rules:
        return None
    return lambda row: tuple([reason for reason, _, kept in rules if kept(row) is False])


def _rules(
    contract: Contract, columns: tuple[Column, ...]
) -> tuple[tuple[str, frozenset[str], Callable[[Mapping[str, object]], object]], ...]:
    """Return the reason, the columns and the compiled expression of each rule that reads only `columns`."""
    by_name = {column.name: column for column in columns}
    return tuple(
        (rule.reason, frozenset(rule.columns), compile_rule_for_row(rule, by_name))
        for rule in contract.rules
        if by_name.keys() >= set(rule.columns)
    )


def _compile(column: Column, in_key: bool) -> ValueCheck:
    missing = f"{column.name}|missing" if isinstance(column.missing, Reject) else None
    match column:
        case Number():
            return _number(column, missing)
        case Integer():
            return _integer(column, missing)
        case Category():
            return _category(column, missing, nul_allowed=not in_key)
        case Timestamp():
            return _timestamp(column, missing)
        case Boolean() | Label():
            return _boolean(column.name, missing)
        case Text():
            return _text(column, missing)
        case _:
            assert_never(column)


def _number(column: Number, missing: str | None) -> ValueCheck:
    wrong_type, not_finite, not_exact, out_of_range = (
        f"{column.name}|{rule}" for rule in ("type", "not_finite", "not_exact", "range")
    )
    low = -sys.float_info.max if column.low is None else column.low
    high = sys.float_info.max if column.high is None else column.high

    def check(value: object) -> str | None:
        if type(value) is float and low <= value <= high:
            return None
        if value is None:
            return missing
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return wrong_type
        try:
            number = float(value)
        except OverflowError:
            return not_finite
        if not -sys.float_info.max <= number <= sys.float_info.max:  # infinities and NaN
            return not_finite
        if number != value:  # an integer between two doubles
            return not_exact
        return None if low <= number <= high else out_of_range

    return check


def _integer(column: Integer, missing: str | None) -> ValueCheck:
    wrong_type, not_exact, out_of_range = (f"{column.name}|{rule}" for rule in ("type", "not_exact", "range"))
    low = -EXACT if column.low is None else column.low
    high = EXACT if column.high is None else column.high

    def check(value: object) -> str | None:
        if type(value) is int and low <= value <= high:
            return None
        if value is None:
            return missing
        if isinstance(value, bool) or not isinstance(value, int):
            return wrong_type
        if not -EXACT <= value <= EXACT:
            return not_exact
        return None if low <= value <= high else out_of_range

    return check


def _category(column: Category, missing: str | None, *, nul_allowed: bool) -> ValueCheck:
    check, aliases = _words(column, missing, nul_allowed=nul_allowed), column.aliases
    if not aliases:
        return check
    return lambda value: check(aliases.get(value, value) if isinstance(value, str) else value)


def _words(column: Category, missing: str | None, *, nul_allowed: bool) -> ValueCheck:
    wrong_type, not_unicode, nul, too_long, unseen = (
        f"{column.name}|{rule}" for rule in ("type", "not_unicode", "nul", "too_long", "unseen")
    )
    longest = column.longest
    known = frozenset(column.values or ())
    closed = column.unseen == "reject"

    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return missing if value is None else wrong_type
        if not value:
            return missing
        if value in known and (nul_allowed or "\0" not in value):
            return None
        if not is_unicode(value):
            return not_unicode
        if not nul_allowed and "\0" in value:
            return nul
        if len(value) > longest:
            return too_long
        return unseen if closed else None

    return check


def _text(column: Text, missing: str | None) -> ValueCheck:
    wrong_type, not_unicode, nul, too_long, mismatch = (
        f"{column.name}|{rule}" for rule in ("type", "not_unicode", "nul", "too_long", "pattern")
    )
    longest = column.max_length
    matches = None if column.pattern is None else re.compile(column.pattern).fullmatch

    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return missing if value is None else wrong_type
        if not value:
            return missing
        if not is_unicode(value):
            return not_unicode
        if "\0" in value:
            return nul
        if len(value) > longest:
            return too_long
        return None if matches is None or matches(value) else mismatch

    return check


def _timestamp(column: Timestamp, missing: str | None) -> ValueCheck:
    zone = ZoneInfo(column.tz)
    local = column.naive == "local"
    bounded = column.low is not None or column.high is not None
    low, high = column.bounds_us

    def check(value: object) -> str | None:
        if value is None:
            return missing
        timestamp = read_timestamp(value, zone, local=local)
        if isinstance(timestamp, str):
            return f"{column.name}|{timestamp}"
        return f"{column.name}|range" if bounded and not low <= microseconds(timestamp) <= high else None

    return check


def _boolean(name: str, missing: str | None) -> ValueCheck:
    wrong_type = f"{name}|type"

    def check(value: object) -> str | None:
        if value is True or value is False:
            return None
        return missing if value is None else wrong_type

    return check
