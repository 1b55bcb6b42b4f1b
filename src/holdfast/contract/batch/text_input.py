"""Rows that come as text, as from a CSV file: read into the contract's types, or given a reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, TypeAlias, assert_never

import polars as pl

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.csv_format import Csv, number_pattern
from holdfast.contract.batch.input_columns import convert_column, list_names, read_timestamps, require_columns
from holdfast.contract.schema.columns import EXACT
from holdfast.contract.schema.source_metadata import NO_FACTS, ColumnFacts, Facts, column_conversions
from holdfast.errors import InputError

MISSING_WORDS: Final = ("",)
"""Texts that mean a missing value in every column, unless a feed declares others: "NA" may be Namibia."""

PLAIN: Final = Csv()
"""The form of CSV that a feed has unless it declares another."""

_NUMBER: Final = r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|(?i:inf|infinity|nan))$"
_INTEGER: Final = r"^[+-]?[0-9]+(?:\.0*)?$"

_DIGITS: Final = re.compile(r"[+-]?[0-9]+")
"""A whole number, as an integer of JSON is written."""

_HEADER: Final = re.compile(r"([a-z0-9_-]+)\s*\[([^\[\]]+)\]")

Faults: TypeAlias = Mapping[str, pl.Series]
"""From a reason, "column|rule", to the rows that have it."""


@dataclass(frozen=True, slots=True)
class TypedBatch:
    """A batch as `compile_batch` takes it: the typed frame, the delivered rows and the unreadable values.

    The typed frame has null for each fault. `lines` could not be split into columns, because they broke the rule
    `line_rule`; they are in neither frame.
    """

    frame: pl.DataFrame
    original: pl.DataFrame
    faults: Faults
    lines: tuple[str, ...] = ()
    line_rule: str = "fields"


def from_text(
    contract: Contract,
    frame: pl.DataFrame,
    *,
    missing_words: tuple[str, ...] = MISSING_WORDS,
    csv: Csv = PLAIN,
    facts: Facts = NO_FACTS,
) -> TypedBatch:
    """Read a frame of text columns into the types of `contract`.

    Numbers are decimal, with a point and an optional exponent, or as `csv` declares them; "inf", "nan" and a number beyond
    double precision are read, and then found not finite. Integers have digits, and no decimals but zeros. Booleans are
    true, false, 1, 0, 1.0 and 0.0 in any case. Timestamps are read by the rules of `read_timestamp`. A whole number
    that no double holds exactly, as 2**53 + 1, is the fault `not_exact`. Nothing is trimmed, rounded or guessed: any other
    text is a fault of its row.

    Parameters
    ----------
    contract
        The contract of the feed.
    frame
        The delivered rows; every column is text.
    missing_words
        The texts that mean a missing value.
    csv
        The form in which numbers, booleans and timestamps are written.
    facts
        Column metadata of the source. A unit may also be in a header, as in `distance [km]`. Numbers in another unit
        than the contract's are converted to it; a whole number that would not stay whole is the fault `not_exact`
        of its row. The rows as delivered keep their numbers, under the contract's names.

    Raises
    ------
    InputError
        HF202 if a column other than a label that comes later is missing, is not in the contract, or is not text; if its
        unit does not convert, if it has two units, or if it has another semantic or window than the contract's.

    Examples
    --------
    >>> from holdfast.contract import Contract, Number, Text, Timestamp
    >>> contract = Contract(
    ...     Text("id"), Number("distance", unit="mi", missing="keep"), Timestamp("at", tz="UTC"),
    ...     key="id", event_time="at",
    ... )
    >>> rows = {"id": ["a", "b"], "distance": ["NA", "far"], "at": ["2013-01-01T05:00:00Z"] * 2}
    >>> typed = from_text(contract, pl.DataFrame(rows), missing_words=("", "NA"))
    >>> list(typed.faults), typed.frame["distance"].to_list()
    (['distance|type'], [None, None])
    """
    renamed, facts = plain_headers(contract, frame.columns, facts)
    frame = frame.rename(renamed)
    not_text = [name for name in contract.names if frame.schema.get(name, pl.String) != pl.String]
    required = contract.delivered_names(frame.columns)
    require_columns(required, frame.columns, {"not text": not_text}, state="no row was read")
    if len(required) < len(contract.names):
        frame = frame.with_columns(pl.lit(None, pl.String).alias(contract.names[-1]))
    conversions = column_conversions(contract, facts) if facts else {}
    faults: dict[str, pl.Series] = {}
    read: list[pl.Series] = []
    for column in contract.columns:
        texts = frame[column.name]
        texts = texts.set(texts.is_in(list(missing_words)), None)
        values, found = read_column(column, texts, csv)
        if column.name in conversions:
            values, found = convert_column(column, conversions[column.name], values, found)
        read.append(values.alias(column.name))
        faults |= {f"{column.name}|{rule}": rows for rule, rows in found.items() if rows.any()}
    return TypedBatch(pl.DataFrame(read), frame, faults)


def plain_headers(
    contract: Contract, headers: Sequence[str], facts: Facts
) -> tuple[dict[str, str], dict[str, ColumnFacts]]:
    """Return the plain name of each header that states a unit, as `distance [km]`, and `facts` by plain names with the units.

    Raises `InputError` HF202 if a column is there twice, or has another unit in `facts`.
    """
    known = dict(facts)
    renamed: dict[str, str] = {}
    wrong: list[str] = []
    plain, declared_names = set(headers), set(contract.names)
    for header in headers:
        found = _HEADER.fullmatch(header)
        if found is None or header in declared_names:
            continue
        name, unit = found[1], found[2].strip()
        declared = known.pop(header, None) or known.get(name, ColumnFacts())
        if declared.unit not in (None, unit):
            wrong.append(f"{name} is in {unit!r} by its header and in {declared.unit!r} by its source")
        if name in plain:
            wrong.append(f"{name} is there twice")
        plain.add(name)
        renamed[header], known[name] = name, replace(declared, unit=unit)
    if wrong:
        raise InputError(
            "HF202",
            list_names(wrong),
            state="no row was read",
            next_command="correct the header of the source",
        )
    return renamed, known


def read_column(column: Column, texts: pl.Series, csv: Csv) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return `texts` in the type of `column`, written in the form `csv`, and the faulty rows by rule; null stays null."""
    match column:
        case Number():
            pointed = _with_point(texts, csv)
            values = pointed.set(~pointed.str.contains(_NUMBER), None).cast(pl.Float64, strict=False)
            faults = {"type": _is_lost(texts, values)}
            inexact = _inexact(pointed, values)
            return (
                (values, faults)
                if inexact is None
                else (values.set(inexact, None), faults | {"not_exact": inexact})
            )
        case Integer():
            return _read_integers(texts, _with_point(texts, csv))
        case Category() | Text():
            return texts, {}
        case Timestamp():
            return read_timestamps(column, texts, csv.dates)
        case Boolean() | Label():
            lower = texts.str.to_lowercase()
            true = lower.is_in([word.lower() for word in csv.true])
            false = lower.is_in([word.lower() for word in csv.false])
            return true.set(~(true | false), None), {"type": (~(true | false)).fill_null(value=False)}
        case _:
            assert_never(column)


def _with_point(texts: pl.Series, csv: Csv) -> pl.Series:
    """Return numbers with a decimal point and without groups; null where a sign stands that is not of the form."""
    if csv.thousands:
        grouped = texts.str.contains(number_pattern(csv))
        plain = texts.set(~grouped & texts.str.contains(csv.thousands, literal=True), None)
        texts = plain.str.replace_all(csv.thousands, "", literal=True)
    if csv.decimal == ".":
        return texts
    pointed = texts.set(texts.str.contains(".", literal=True), None)
    return pointed.str.replace(csv.decimal, ".", literal=True)


def _inexact(pointed: pl.Series, values: pl.Series) -> pl.Series | None:
    """Return the rows whose whole number no double holds; None without any.

    As in JSON, a number with a fraction or an exponent names the nearest double.
    """
    large = ((values.abs() >= EXACT) & values.is_finite()).fill_null(value=False)
    if not large.any():
        return None
    lost = [
        place
        for place in large.arg_true()
        if _DIGITS.fullmatch(pointed[place]) and Decimal(pointed[place]) != Decimal(values[place])
    ]
    rows = pl.repeat(value=False, n=len(values), dtype=pl.Boolean, eager=True)
    return rows.scatter(lost, values=True) if lost else None


def _is_lost(texts: pl.Series, values: pl.Series) -> pl.Series:
    return texts.is_not_null() & values.is_null()


def _read_integers(texts: pl.Series, pointed: pl.Series) -> tuple[pl.Series, dict[str, pl.Series]]:
    digits = pointed.str.contains(_INTEGER).fill_null(value=False)
    whole = pointed.str.replace(r"\.0*$", "") if pointed.str.contains(".", literal=True).any() else pointed
    values = whole.set(~digits, None).cast(pl.Int64, strict=False)
    lost = _is_lost(texts, values)
    # More digits than 64 bits hold is still an integer: the same reason as a row with such an int.
    return values, {"type": lost & ~digits, "not_exact": lost & digits}
