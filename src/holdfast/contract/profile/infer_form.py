"""The form in which a file writes its values, found in them: what `init` declares of a feed, for a person to correct.

Each value is read by the rules of a load, so that what is found here is loaded as it was found.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import polars as pl

from holdfast.contract.batch.csv_format import DATES, SEPARATORS, THOUSANDS, Csv, is_ambiguous
from holdfast.contract.batch.text_input import read_column
from holdfast.contract.schema.columns import Boolean, Column, Integer, Number, Timestamp
from holdfast.formatting import percent

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
    ("sí", "no"),
    ("wahr", "falsch"),
    ("vrai", "faux"),
    ("on", "off"),
)
"""The words of true and false that are known."""

_ENOUGH: Final = 0.99
"""The share of a column's values that must be of a type: a rare faulty value does not make a number a text."""
_EXPECTED_TWOS: Final = 10
"""How many twos a column of counts must be expected to have before one without any is taken for true and false."""
_NUMBER_LIKE: Final = "^[+-]?[0-9.,' \u2019\u00a0\u202f]+(?:[eE][+-]?[0-9]+)?$"
_UNIT: Final = re.compile(r"(.*\S)\s*\[([^\[\]]+)\]\s*\Z", re.DOTALL)
_PARENTHESES: Final = re.compile(r"\(([^()]*)\)")
_IN_WORDS: Final = re.compile(r"\bin ([^\s,()]+)\s*\Z", re.IGNORECASE)
_RATIO: Final = re.compile(r"/|\bper\b|\bpro\b", re.IGNORECASE)

_WORDS_OF_UNIT: Final = {
    "kg": "kg kgs kilogram kilograms", "mg": "mg", "lb": "lb lbs pounds", "oz": "oz", "km": "km kilometers kilometres",
    "cm": "cm", "mm": "mm", "mi": "mi miles", "ft": "ft feet", "mph": "mph", "km/h": "km/h kmh kph", "m/s": "m/s",
    "knot": "kt kts knot knots", "ms": "ms milliseconds", "s": "sec secs seconds", "min": "mins minutes", "h": "hr hrs hours",
    "day": "days", "week": "weeks", "°C": "°c celsius", "°F": "°f fahrenheit", "%": "% percent pct", "hPa": "hpa", "kPa": "kpa",
    "psi": "psi", "kW": "kw", "kWh": "kwh", "Hz": "hz", "kHz": "khz", "USD": "usd us$", "EUR": "eur €", "GBP": "gbp",
    "CHF": "chf",
}  # fmt: skip
# Not among them: what means something else as well, such as m, t, "min" (minimum), "in", "$" and "MB".
_UNIT_WORDS: Final[dict[str, str]] = {
    word: unit for unit, words in _WORDS_OF_UNIT.items() for word in words.split()
}


@dataclass(frozen=True, slots=True)
class FileForm:
    """The form of a file, and its rows in the types of their values under the names that columns can have.

    `headers` has the name of each column whose header is no such name, and `units` those that stand in a header.
    `missing_texts` are the columns in which a text is missing only because it means that in others. `is_typed` is True if
    the file itself has types, as Parquet does. `file_rows` has the number of rows of each file that `frame` is made of.
    """

    frame: pl.DataFrame
    csv: Csv
    missing_words: tuple[str, ...]
    headers: dict[str, str]
    units: dict[str, str]
    missing_texts: tuple[str, ...] = ()
    is_typed: bool = False
    file_rows: tuple[int, ...] = ()


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

    Square brackets hold a unit as a source states it. A unit in words is taken if it can be no other: in parentheses, alone
    or in a list; after a comma; or after "in".

    >>> header_units({"Weight [kg]": "weight", "Speed (IAS, mph)": "speed", "Length, cm": "length", "Time in hours": "time"})
    {'weight': 'kg', 'speed': 'mph', 'length': 'cm', 'time': 'h'}
    >>> header_units({"Temp (min)": "a", "Range (km, mi)": "b", "Fuel per km (kg)": "c", "Bird(s)": "d", "Place": "e"})
    {}
    """
    found = {}
    for header, name in names.items():
        unit = _UNIT.match(header)
        if text := unit[2].strip() if unit else _unit_in_words(header):
            found[name] = text
    return found


def _unit_in_words(header: str) -> str | None:
    """Return the only unit in the words of a header; None without one, with several, and for a ratio."""
    outside, within = _PARENTHESES.sub(" ", header), _PARENTHESES.findall(header)
    if _RATIO.search(outside):
        return None
    parts = [part for group in within for part in re.split("[,;]", group)]
    parts += outside.split(",")[1:] + _IN_WORDS.findall(outside)
    found = {_UNIT_WORDS.get(part.strip().removeprefix("in ").strip().lower()) for part in parts} - {None}
    return found.pop() if len(found) == 1 else None


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
    plain, headers = texts.rename(names), {name: header for header, name in names.items()}
    open_questions: list[str] = []
    decimal, thousands, undecided = infer_signs(texts, separator, decimal)
    open_questions.extend(undecided)
    orders = tuple(dates)
    spoken = Csv()
    typed: dict[str, pl.Series] = {}
    missing: set[str] = set()
    texts_only: list[str] = []
    for column in plain.get_columns():
        values = column.set(column.is_in(["", *MISSING_WORDS]), None)
        words = label_words(values)
        if words is not None and not words[0][0].isdigit():
            spoken = with_words(spoken, words)
            typed[column.name] = read_column(Boolean(column.name), values, spoken)[0]
        elif (number := _number(values, Csv(separator, decimal, thousands))) is not None:
            typed[column.name] = as_flag(number)
        else:
            found, when = _timestamps(values, zone, orders)
            if len(found) > 1:
                open_questions.append(
                    f"the dates of {headers[column.name]!r} can be {' or '.join(found)}: --dates {found[0]}, or another of them"
                )
            if when is None:
                texts_only.append(column.name)
                continue
            orders = (*orders, *(order for order in found[:1] if order and order not in orders))
            typed[column.name] = when
        missing |= {word for word in MISSING_WORDS if (column == word).any()}
    missing_words = ("", *(word for word in MISSING_WORDS if word in missing))
    # A feed's missing words hold for all its columns: what they do to the texts is shown here, not found by a load.
    read = [
        typed.get(column.name, column.set(column.is_in(list(missing_words)), None)).alias(column.name)
        for column in plain.get_columns()
    ]
    form = FileForm(
        pl.DataFrame(read),
        Csv(separator, decimal, thousands, orders, spoken.true, spoken.false),
        missing_words,
        {header: name for header, name in names.items() if header != name},
        header_units(names),
        tuple(name for name in texts_only if plain[name].is_in(list(missing_words[1:])).any()),
    )
    return form, tuple(open_questions)


def infer_signs(frame: pl.DataFrame, separator: str, decimal: str = "") -> tuple[str, str, tuple[str, ...]]:
    """Return the decimal sign and the sign of thousands of a file's texts, and the questions that they leave open.

    The signs are those by which most columns are numbers, the plainest if several are. If one value is another number by
    others of them, that is a question. In a file that is separated by commas, a point alone is of decimals.

    Parameters
    ----------
    frame
        The columns of the file, all of them text.
    separator
        The separator of the file.
    decimal
        The decimal sign, if it is known.

    >>> infer_signs(pl.DataFrame({"km": ["1,5", "20"]}), ";"), infer_signs(pl.DataFrame({"eur": ["3.764,00", "9,50"]}), ";")
    ((',', '', ()), (',', '.', ()))
    >>> infer_signs(pl.DataFrame({"eur": ["1,234", "987"]}), ";")[2]
    ("'1,234' of 'eur' is 1.234 with --decimal , and 1234 with --decimal .",)
    """
    columns = [each for column in frame.get_columns() if len(each := _with_signs(column))]
    if not columns:
        return decimal or ".", "", ()
    # A sender that groups digits groups those of every number.
    long = {each.name for each in columns if frame[each.name].str.contains(r"^[+-]?[0-9]{4}").any()}
    found = {
        csv: tuple(None if csv.thousands and each.name in long else _number(each, csv) for each in columns)
        for csv in _forms(columns, separator, decimal)
    }
    most = max(sum(each is not None for each in read) for read in found.values())
    best = {csv: read for csv, read in found.items() if sum(each is not None for each in read) == most}
    chosen, numbers = next(iter(best.items()))
    questions: dict[str, str] = {}
    for csv, others in best.items():
        if decimal or csv.decimal == chosen.decimal or (separator == "," and csv.thousands == "."):
            continue
        for texts, one, other in zip(columns, numbers, others, strict=True):
            if (
                one is not None
                and other is not None
                and (differing := (one != other).fill_null(value=False)).any()
            ):
                row = int(differing.arg_max() or 0)
                readings = sorted(((chosen.decimal, one[row]), (csv.decimal, other[row])))
                listed = " and ".join(f"{value:.15g} with --decimal {sign}" for sign, value in readings)
                questions.setdefault(texts.name, f"{texts[row]!r} of {texts.name!r} is {listed}")
    for place, texts in enumerate(columns):
        if not decimal and numbers[place] is None and any(read[place] is not None for read in found.values()):
            questions[texts.name] = (
                f"{texts[0]!r} of {texts.name!r} is no number as the other columns write them; --decimal {chosen.decimal} "
                "leaves it a text"
            )
    return chosen.decimal, chosen.thousands, tuple(questions.values())


def _with_signs(column: pl.Series) -> pl.Series:
    """Return the values of a column that may be numbers and are written with a sign; empty if they are not."""
    values = column.filter(~column.is_in(["", *MISSING_WORDS]))
    signed = values.filter(~values.str.contains(r"^[+-]?[0-9]*$"))
    return signed if len(signed) and _is_mostly(values.str.contains(_NUMBER_LIKE)) else values.clear()


def _forms(columns: Sequence[pl.Series], separator: str, decimal: str) -> list[Csv]:
    """Return the forms of numbers that the texts can be of, the plainest first."""
    present = [
        sign for sign in THOUSANDS if any(each.str.contains(sign, literal=True).any() for each in columns)
    ]
    return [
        Csv(separator, point, thousands)
        for thousands in ("", *present)
        for point in ((decimal,) if decimal else (".", ","))
        if point != thousands
    ]


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


def with_words(csv: Csv, words: tuple[str, str]) -> Csv:
    """Return `csv` that also reads the `words` of true and false.

    >>> with_words(Csv(), ("ja", "nein")).true
    ('true', '1', '1.0', 'ja')
    """
    yes, no = words
    true = csv.true if yes in csv.true else (*csv.true, yes)
    return replace(csv, true=true, false=csv.false if no in csv.false else (*csv.false, no))


def as_flag(values: pl.Series) -> pl.Series:
    """Return a column of 0 and 1 as booleans, if it has enough of both that counts would have had a 2 among them.

    >>> as_flag(pl.Series([0, 1] * 50)).dtype, as_flag(pl.Series([0] * 99 + [1])).dtype, as_flag(pl.Series([0, 1, 2])).dtype
    (Boolean, Int64, Int64)
    """
    if not values.dtype.is_numeric() or not set(values.drop_nulls().unique()) <= {0, 1} or not values.count():
        return values
    zeros = float((values.drop_nulls() == 0).sum())
    rows = values.count()
    rate = -math.log(zeros / rows) if zeros else math.inf
    twos = rows * (1 - math.exp(-rate) * (1 + rate)) if zeros else float(rows)
    return values.cast(pl.Boolean) if twos >= _EXPECTED_TWOS else values


def type_texts(texts: pl.DataFrame, csv: Csv, missing_words: Sequence[str]) -> pl.DataFrame:
    """Return columns of text as the types of their values, by the rules of a load in the form `csv`; the rest stays text.

    >>> type_texts(pl.DataFrame({"eur": ["1.234,50"], "ok": ["ja"]}), Csv(";", ",", ".", (), ("ja",), ("nein",)), [""]).row(0)
    (1234.5, True)
    """
    read: list[pl.Series] = []
    for column in texts.get_columns():
        values = column.set(column.is_in(list(missing_words)), None)
        numbers = _number(values, csv)
        flags, faults = read_column(Boolean("column"), values, csv)
        found = (
            numbers if numbers is not None else flags if values.count() and not faults["type"].any() else None
        )
        if found is None:
            times = _in_orders(values, "UTC", ("", *csv.dates))
            found = max(times.values(), key=lambda each: each.count(), default=None)
        read.append((values if found is None else found).alias(column.name))
    return pl.DataFrame(read)


def _number(values: pl.Series, csv: Csv) -> pl.Series | None:
    # A header may be no name that a column can have.
    columns: tuple[Column, ...] = (Integer("column"), Number("column", unit="1"))
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
    column = Timestamp("column", tz=zone, naive="local")
    found: dict[str, pl.Series] = {}
    for order in orders:
        csv = Csv(dates=(order,) if order else ())
        read, faults = read_column(column, values, csv)
        if values.count() and faults["type"].sum() <= (1 - _ENOUGH) * values.count():
            _, strict = read_column(Timestamp("column", tz=zone), values, csv)
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
            return f"where {shown}, the label is {str(wanted).lower()} in {percent(share)} of {rows:,} rows"
    return ""
