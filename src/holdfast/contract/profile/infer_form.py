"""The form in which a file writes its values, found in them: what `init` declares of a feed, for a person to correct.

Each value is read by the rules of a load, so that what is found here is loaded as it was found.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import polars as pl

from holdfast.contract.batch.csv_format import DATES, FALSE, SEPARATORS, TRUE, Csv, is_ambiguous
from holdfast.contract.batch.text_input import read_column
from holdfast.contract.schema.columns import Boolean, Column, Integer, Number, Timestamp

MISSING_WORDS: Final = ("NA", "N/A", "n/a", "null", "NULL", "None", "NaN", "nan", "-")
"""Texts that may mean a missing value where all other values of a column are numbers, timestamps or booleans."""

WORD_PAIRS: Final = (
    ("true", "false"),
    ("1", "0"),
    ("1.0", "0.0"),
    ("yes", "no"),
    ("y", "n"),
    ("t", "f"),
    ("ja", "nein"),
    ("ja", "nee"),
    ("oui", "non"),
    ("si", "no"),
)
"""The words of true and false that are known for a label."""

_ENOUGH: Final = 0.99
"""The share of a column's values that must be of a type: a rare faulty value does not make a number a text."""
_SIGNED: Final = {",": r"^[+-]?[0-9]*,?[0-9]+$", ".": r"^[+-]?[0-9]*\.?[0-9]+$"}
"""By decimal sign, the numbers that have no other sign."""
_UNIT: Final = re.compile(r"(.*\S)\s*\[([^\[\]]+)\]\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FileForm:
    """The form of a file, and its rows in the types of their values under the names that columns can have.

    `headers` has the name of each column whose header is no such name, and `units` those that stand in a header.
    `missing_texts` are the columns in which a text is missing only because it means that in others. `is_typed` is True if
    the file itself has types, as Parquet does.
    """

    frame: pl.DataFrame
    csv: Csv
    missing_words: tuple[str, ...]
    headers: dict[str, str]
    units: dict[str, str]
    missing_texts: tuple[str, ...] = ()
    is_typed: bool = False


def infer_separator(header: str) -> str:
    """Return the separator of a file by its first line: the one that occurs most outside of quotes.

    >>> infer_separator('Record No;"Cost, total";Date'), infer_separator("id,at")
    (';', ',')
    """
    plain = re.sub(r'"[^"]*"', "", header)
    return max(SEPARATORS, key=plain.count)


def column_names(headers: Iterable[str]) -> dict[str, str]:
    """Return a name that a column can have for each header, each once.

    >>> list(column_names(["Record No", "Damage?", "Größe", "speed", "Speed", "°C", "Weight [kg]"]).values())
    ['record_no', 'damage', 'grosse', 'speed', 'speed_2', 'c', 'weight']
    """
    found: dict[str, str] = {}
    for position, header in enumerate(headers, start=1):
        unit = _UNIT.match(header)
        plain = unicodedata.normalize("NFKD", (unit[1] if unit else header).replace("ß", "ss")).lower()
        ascii_only = plain.encode("ascii", "ignore").decode()
        name = re.sub(r"[^a-z0-9_-]+", "_", ascii_only).strip("_-")[:50] or f"column_{position}"
        number, free = 2, name
        while free in found.values():
            free, number = f"{name}_{number}", number + 1
        found[header] = free
    return found


def header_units(names: dict[str, str]) -> dict[str, str]:
    """Return the unit that stands in a header, by the column's name.

    >>> header_units({"Weight [kg]": "weight", "Place": "place"})
    {'weight': 'kg'}
    """
    return {name: unit[2].strip() for header, name in names.items() if (unit := _UNIT.match(header))}


def infer_form(
    texts: pl.DataFrame, *, separator: str, zone: str, dates: Sequence[str] = (), decimal: str = ""
) -> tuple[FileForm, tuple[str, ...]]:
    """Return the form of the rows `texts`, all of whose columns are text, and what the values leave open.

    Parameters
    ----------
    texts
        The rows as delivered, under the headers as delivered.
    separator
        The separator of the file.
    zone
        The zone of times that have none.
    dates
        The orders of dates that are known already; where none of them fits, others are inferred.
    decimal
        The decimal sign, ',' or '.'; if it is empty, it is inferred.
    """
    names = column_names(texts.columns)
    plain = texts.rename(names)
    open_questions: list[str] = []
    if not decimal:
        decimal, undecided = (".", ()) if separator == "," else infer_decimal(plain)
        if undecided:
            listed = " and ".join(repr(name) for name in undecided)
            open_questions.append(
                f"the commas of {listed} can be of decimals or of thousands: --decimal , or ."
            )
    orders = tuple(dates)
    typed: dict[str, pl.Series] = {}
    missing: set[str] = set()
    texts_only: list[str] = []
    for column in plain.get_columns():
        values = column.set(column.is_in(["", *MISSING_WORDS]), None)
        words = label_words(values)
        if words == WORD_PAIRS[0]:
            typed[column.name] = read_column(Boolean(column.name), values, Csv())[0]
        elif (number := _number(values, Csv(separator, decimal))) is not None:
            typed[column.name] = number
        else:
            found, when = _timestamps(values, zone, orders)
            if len(found) > 1:
                open_questions.append(
                    f"the dates of {column.name!r} can be {' or '.join(found)}: --dates {found[0]}, or another of them"
                )
            if when is not None:
                orders = (*orders, *(order for order in found[:1] if order and order not in orders))
                typed[column.name] = when
            elif words is None:
                texts_only.append(column.name)
                continue
        missing |= {word for word in MISSING_WORDS if (column == word).any()}
    missing_words = ("", *(word for word in MISSING_WORDS if word in missing))
    # A feed's missing words hold for all its columns: what they do to the texts is shown here, not found by a load.
    read = [
        typed.get(column.name, column.set(column.is_in(list(missing_words)), None)).alias(column.name)
        for column in plain.get_columns()
    ]
    form = FileForm(
        pl.DataFrame(read),
        Csv(separator, decimal, orders),
        missing_words,
        {header: name for header, name in names.items() if header != name},
        header_units(names),
        tuple(name for name in texts_only if plain[name].is_in(list(missing_words[1:])).any()),
    )
    return form, tuple(open_questions)


def infer_decimal(frame: pl.DataFrame) -> tuple[str, tuple[str, ...]]:
    """Return the decimal sign of a file's texts, and the columns that leave it open.

    A sign that three digits follow in every value may separate thousands. A point elsewhere decides against the comma.

    >>> infer_decimal(pl.DataFrame({"km": ["1,5", "20"]})), infer_decimal(pl.DataFrame({"km": ["1.5"], "eur": ["1,5"]}))
    ((',', ()), ('.', ()))
    >>> infer_decimal(pl.DataFrame({"eur": ["1,234", "987"]}))
    ('.', ('eur',))
    """
    found: dict[str, list[str]] = {",": [], ".": []}
    may_be_thousands: list[str] = []
    for column in frame.get_columns():
        values = column.filter(~column.is_in(["", *MISSING_WORDS]))
        for sign, pattern in _SIGNED.items():
            signed = values.filter(values.str.contains(sign, literal=True))
            if not len(signed) or not _is_mostly(values.str.contains(pattern)):
                continue
            if signed.str.contains(rf"^[+-]?[0-9]{{1,3}}[{sign}][0-9]{{3}}$").all():
                may_be_thousands += [column.name] if sign == "," else []
            else:
                found[sign].append(column.name)
    if found["."]:
        return ".", ()
    return (",", ()) if found[","] else (".", tuple(may_be_thousands))


def label_words(values: pl.Series) -> tuple[str, str] | None:
    """Return the words of true and false if `values`, texts, booleans or numbers, are no others; else None.

    >>> label_words(pl.Series(["Yes", "no", None])), label_words(pl.Series([1.0, 0.0])), label_words(pl.Series(["a", "b"]))
    (('yes', 'no'), ('1', '0'), None)
    """
    if values.dtype.is_numeric():
        return WORD_PAIRS[1] if set(values.drop_nulls().unique()) == {0, 1} else None
    if values.dtype == pl.Boolean:
        return WORD_PAIRS[0]
    if values.dtype != pl.String:
        return None
    known = set(values.drop_nulls().str.to_lowercase().unique())
    return next((pair for pair in WORD_PAIRS if known == set(pair)), None)


def as_label(values: pl.Series, words: tuple[str, str]) -> pl.Series:
    """Return a label as booleans, by its `words` of true and false; other values are null."""
    if values.dtype == pl.Boolean:
        return values
    if values.dtype.is_numeric():
        return values.cast(pl.Boolean)
    lower = values.str.to_lowercase()
    return (lower == words[0]).set(~lower.is_in(list(words)), None)


def csv_line(csv: Csv) -> str:
    """Return `csv` as Python, without what it has by default; empty if that is everything.

    >>> csv_line(Csv(separator=";", decimal=",", dates=("d.m.yyyy",)))
    'Csv(separator=";", decimal=",", dates=("d.m.yyyy",))'
    """
    given = []
    for field in fields(csv):
        value = getattr(csv, field.name)
        if value != field.default:
            text = json.dumps(value, ensure_ascii=False)
            if not isinstance(value, str):
                text = f"({text[1:-1]}{',' * (len(value) == 1)})"
            given.append(f"{field.name}={text}")
    return f"Csv({', '.join(given)})" if given else ""


def with_label(csv: Csv, words: tuple[str, str]) -> Csv:
    """Return `csv` that also reads the `words` of true and false."""
    yes, no = words
    if yes in TRUE and no in FALSE:
        return csv
    return replace(csv, true=(*TRUE, yes), false=(*FALSE, no))


def _number(values: pl.Series, csv: Csv) -> pl.Series | None:
    columns: tuple[Column, ...] = (Integer(values.name), Number(values.name, unit="1"))
    for column in columns:
        read, _ = read_column(column, values, csv)
        if _is_read(values, read) and (isinstance(column, Number) or read.count() == values.count()):
            return read.alias(values.name)
    return None


def _timestamps(values: pl.Series, zone: str, orders: tuple[str, ...]) -> tuple[list[str], pl.Series | None]:
    """Return the orders in which the dates can be read, "" for RFC 3339, and the timestamps by the first of them.

    The `orders` of other columns come first: one file is mostly of one form.
    """
    found = _in_orders(values, zone, orders)
    if not found:
        # A feed cannot read d/m/yyyy in one column and m/d/yyyy in another.
        found = _in_orders(
            values,
            zone,
            [order for order in ("", *DATES) if not any(is_ambiguous(order, each) for each in orders)],
        )
    best = max((each.count() for each in found.values()), default=0)
    found = {order: each for order, each in found.items() if each.count() == best}
    return list(found), next(iter(found.values()), None)


def _in_orders(values: pl.Series, zone: str, orders: Iterable[str]) -> dict[str, pl.Series]:
    """Return the timestamps by each order that fits; by "" alone if that does."""
    column = Timestamp(values.name, tz=zone, naive="local")
    found: dict[str, pl.Series] = {}
    for order in orders:
        csv = Csv(dates=(order,) if order else ())
        read, faults = read_column(column, values, csv)
        if values.count() and faults["type"].sum() <= (1 - _ENOUGH) * values.count():
            _, strict = read_column(Timestamp(values.name, tz=zone), values, csv)
            # Without a zone of their own the timestamps are those of a clock.
            found[order] = (read.dt.replace_time_zone(None) if strict["zone"].any() else read).alias(
                values.name
            )
            if not order:
                break
    return found


def _is_read(values: pl.Series, read: pl.Series) -> bool:
    return values.count() > 0 and read.count() >= _ENOUGH * values.count()


def _is_mostly(matches: pl.Series) -> bool:
    return len(matches) > 0 and float(matches.mean() or 0.0) >= _ENOUGH  # type: ignore[arg-type]


def late_columns(
    frame: pl.DataFrame, label: pl.Series, *, candidates: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yield the columns that look as if they were known only after the event, with the reason.

    One is nearly always at one value, missing included, where the label is false, and away from it nearly always where the
    label is true, or the other way about; or its name is of an outcome.
    """
    for name in candidates:
        if reason := _follows_label(frame[name], label):
            yield name, reason
        elif named := _OUTCOME.search(name):
            yield name, f"its name has {named[0].strip('_-')!r}"


_OUTCOME: Final = re.compile(
    r"(?:^|[_-])(?:actual|after|closed|completed|cost|costs|damage|final|outcome|paid|refund|repair|resolved|result|settled)(?:$|[_-])"
)
_FEW_ROWS: Final = 20
_PURE: Final = 0.98


def _follows_label(values: pl.Series, label: pl.Series) -> str:
    if values.dtype.is_temporal() or values.n_unique() < 2:
        return ""
    mode = values.mode().sort()[0] if values.null_count() * 2 < len(values) else None
    away = values.is_not_null() if mode is None else (values != mode).fill_null(value=True)
    known = label.is_not_null()
    away, label = away.filter(known), label.filter(known)
    rows = int(away.sum())
    if rows < _FEW_ROWS or len(label) - rows < _FEW_ROWS:
        return ""
    for wanted in (True, False):
        share = float((label.filter(away) == wanted).mean() or 0.0)  # type: ignore[arg-type]
        usual = float((label == wanted).mean() or 0.0)  # type: ignore[arg-type]
        if share >= _PURE and usual < _PURE - 0.1:
            shown = "it has a value" if mode is None else f"it is not {mode!r}"
            return f"where {shown}, the label is {str(wanted).lower()} in {share:.0%} of {rows:,} rows"
    return ""
