"""Recognise a CSV file that is written in another form than its feed declares: separator, decimal sign, order of dates.

Nothing is read in the other form: it is named, so that the sender or the declaration can be corrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import polars as pl

from holdfast.contract import Column, Contract, Integer, Number, Timestamp
from holdfast.contract.batch.csv_format import DATES, THOUSANDS, Csv
from holdfast.contract.batch.reasons import REASONS
from holdfast.contract.batch.text_input import read_column
from holdfast.feeds.measurements import quoted
from holdfast.records import Level, Violation

CHECK: Final = "form"
"""The check of a violation whose file is written in another form."""

_LEAST_COLUMNS: Final = 2
_LEAST_SHARE: Final = 0.5
"""The share of the rows whose value cannot be read, from which on another form is looked for: fewer are single faults."""
_ROWS_LOOKED_AT: Final = 10_000
_LOOKED_AT: Final = 50


def find_separator(known_columns: Mapping[str, int], declared: str, required: int) -> str | None:
    """Return the separator that a file has in place of the declared one; None if the declared one fits best.

    Parameters
    ----------
    known_columns
        By separator, how many of the feed's columns the header has when it is split there.
    declared
        The separator that the feed declares.
    required
        How many columns a delivery of the feed has.

    >>> find_separator({",": 13, ";": 0, "|": 0}, ";", 13), find_separator({",": 1, ";": 12}, ";", 13)
    (',', None)
    """
    best = max(known_columns, key=lambda each: known_columns[each], default=declared)
    found = known_columns.get(best, 0)
    is_other = best != declared and found > known_columns.get(declared, 0)
    return best if is_other and found >= max(_LEAST_COLUMNS, _LEAST_SHARE * required) else None


def foreign_forms(
    contract: Contract, csv: Csv, rows: int, quarantined: pl.DataFrame, reasons: Mapping[str, int]
) -> tuple[Violation, ...]:
    """Return a warning for each column whose values are written in another form than `csv`.

    Parameters
    ----------
    contract, csv
        What the feed declares.
    rows
        The number of delivered rows.
    quarantined
        The rows that break the contract, as delivered, with their reasons.
    reasons
        How many rows have each reason.

    Guarantee: a form is named only if it reads each value that was looked at, and at least half of the rows had a value
    that the declared form does not read.
    """
    found: list[Violation] = []
    for column in contract.columns:
        reason = f"{column.name}|type"
        count = reasons.get(reason, 0)
        if count < _LEAST_SHARE * rows or column.name not in quarantined.columns:
            continue
        some = quarantined.select(column.name, REASONS).head(_ROWS_LOOKED_AT)
        values = some.filter(pl.col(REASONS).list.contains(reason))[column.name]
        if values.dtype != pl.String or not len(texts := values.drop_nulls().unique(maintain_order=True)):
            continue
        texts = texts.head(_LOOKED_AT)
        if forms := _forms_of(column, csv, texts):
            words = (
                f"{count:,} of {rows:,} values of {column.name}, such as {quoted(texts[0])}, are written with {forms}; "
                f"the feed declares {_declared(column, csv)}: correct the file, or csv= of the feed if the sender has changed"
            )
            found.append(Violation(CHECK, column.name, Level.WARNING, words, count))
    return tuple(found)


def _forms_of(column: Column, csv: Csv, texts: pl.Series) -> str:
    """Return in words the form that reads all of `texts`; empty if none does."""
    match column:
        case Number() | Integer():
            forms = [form for form in _number_forms(csv, texts) if _reads(column, texts, form)]
            return " or ".join(map(_number_words, forms))
        case Timestamp():
            orders = [order for order in DATES if _reads(column, texts, Csv(csv.separator, dates=(order,)))]
            return f"dates={' or '.join(repr((order,)) for order in orders)}" if orders else ""
        case _:
            return ""


def _number_forms(csv: Csv, texts: pl.Series) -> Iterator[Csv]:
    """Yield the other forms that numbers can have, those without groups first."""
    signs = [sign for sign in THOUSANDS if texts.str.contains(sign, literal=True).any()]
    for thousands in ("", *signs):
        for decimal in (".", ","):
            if decimal != thousands and (decimal, thousands) != (csv.decimal, csv.thousands):
                yield Csv(csv.separator, decimal, thousands)


def _number_words(form: Csv) -> str:
    return f"decimal={form.decimal!r}" + (f", thousands={form.thousands!r}" if form.thousands else "")


def _declared(column: Column, csv: Csv) -> str:
    return f"dates={csv.dates!r}" if isinstance(column, Timestamp) else _number_words(csv)


def _reads(column: Column, texts: pl.Series, csv: Csv) -> bool:
    _, faults = read_column(column, texts, csv)
    return not any(rows.any() for rows in faults.values())
