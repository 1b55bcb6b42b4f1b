"""A contract suggested from rows, for a person to correct; never applied automatically."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from datetime import timedelta
from itertools import combinations
from typing import Final, Literal

import polars as pl

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.schema.columns import EXACT
from holdfast.contract.schema.missing import Keep, Reject
from holdfast.contract.schema.source_metadata import NO_FACTS, ColumnFacts
from holdfast.formatting import counted

FEW_WORDS: Final = 200
"""A text column with at most this many distinct values, and fewer than half its rows, is suggested as a category."""
_MANY_WORDS: Final = 1_000
_ROWS_A_WORD: Final = 20
"""So is one with at most so many values that are in so many rows each, on average."""

_NO_METADATA: Final = ColumnFacts()
_NO_TIMES: Final[Mapping[str, Timestamp]] = {}
_NAMED_WORDS: Final = 5
_MOST_KEYS: Final = 8
_ROOM: Final = 0.5
"""The distance of a bound from the values seen, as a part of their span."""
_FIRST_TIME: Final = "1971-01-01T00:00:00Z"
_LAST_TIME: Final = "2200-01-01T00:00:00Z"
"""Bounds of an event time. Before them are seconds and milliseconds read as microseconds, after them placeholders (9999)."""
_STEPS: Final = (
    (86_400_000_000, "d"),
    (3_600_000_000, "h"),
    (60_000_000, "min"),
    (1_000_000, "s"),
    (1_000, "ms"),
)


@dataclass(frozen=True, slots=True)
class SuggestedColumn:
    """One column, the evidence for it, and what the rows cannot show."""

    column: Column
    why: str
    unknown: str = ""

    @property
    def line(self) -> str:
        """Return the column as Python."""
        return to_python(self.column)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A contract as far as rows show it.

    `notes` are the evidence for properties of whole rows; `unknown` lists every question that only a person can
    answer. `contract` is None if there is no key or no event time.
    """

    columns: tuple[SuggestedColumn, ...]
    key: tuple[str, ...]
    event_time: str | None
    label: Label | None
    notes: tuple[str, ...]

    @property
    def contract(self) -> Contract | None:
        """Return the suggested contract, to compare with another; None if it is incomplete."""
        if not self.key or self.event_time is None:
            return None
        columns = (each.column for each in self.columns)
        return Contract(*columns, key=self.key, event_time=self.event_time, label=self.label)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return what the rows cannot show."""
        found = [f"{each.column.name}: {each.unknown}" for each in self.columns if each.unknown]
        if self.label is not None:
            found.append(f"{self.label.name}: how long after the event it is known")
        return tuple(found)

    def python(self) -> str:
        """Return the contract as Python to paste, each line with its evidence."""
        lines = [f"    {each.line},  # {each.why}" for each in self.columns]
        names = ", ".join(f'"{name}"' for name in self.key)
        key = f"({names})" if len(self.key) > 1 else names
        lines.append(f"    key={key}," if key else "    key=...,  # no column, and no two, identify the rows")
        found = (
            f'"{self.event_time}",' if self.event_time else "...,  # no column has a timestamp in every row"
        )
        lines.append(f"    event_time={found}")
        lines += [f"    label={to_python(self.label)},"] if self.label is not None else []
        return "\n".join(["contract = Contract(", *lines, ")"])


def suggest_contract(
    frame: pl.DataFrame,
    *,
    zone: str,
    facts: Mapping[str, ColumnFacts] = NO_FACTS,
    times: Mapping[str, Timestamp] = _NO_TIMES,
    key: Sequence[str] = (),
    event_time: str | None = None,
    label: str | None = None,
) -> Suggestion:
    """Return the contract that the rows of `frame` would pass, with room beyond their values.

    Parameters
    ----------
    zone
        The zone of time columns that have none: rows cannot show it.
    facts
        Column metadata of the source: units and semantics.
    times
        Time columns that are declared: their zone and their policy for times without a zone are kept.
    key, event_time, label
        What is known already; the rest is inferred.

    Raises `InputError` HF104 for a name that no column can have.

    >>> rows = pl.DataFrame({"id": ["a", "b", "c"], "km": [1.0, 3.0, None]})
    >>> print(suggest_contract(rows, zone="UTC", facts={"km": ColumnFacts(unit="km")}).columns[1].line)
    Number("km", unit="km", low=0, high=5, missing=Keep())
    """
    known = tuple(key) or _find_key(frame, label)
    when = event_time or _find_event_time(frame)
    columns = tuple(
        suggest_column(
            frame[name],
            in_key=name in known,
            zone=zone,
            facts=facts.get(name, ColumnFacts()),
            declared=times.get(name),
            is_event_time=name == when,
        )
        for name in frame.columns
        if name != label
    )
    made = (
        None
        if label is None
        else Label(label, delay="1d", missing="keep" if frame[label].null_count() else "reject")
    )
    return Suggestion(columns, known, when, made, tuple(_notes(frame, known, when)))


def suggest_column(
    values: pl.Series,
    *,
    in_key: bool,
    zone: str,
    facts: ColumnFacts = _NO_METADATA,
    upper: bool = True,
    declared: Timestamp | None = None,
    is_event_time: bool = False,
) -> SuggestedColumn:
    """Return the column that `values` would pass, with the evidence.

    Parameters
    ----------
    in_key
        True if the column is part of the key; then it is no category.
    zone
        The zone of times that have none.
    facts
        Column metadata of the source.
    upper
        False leaves a number or a timestamp without an upper bound.
    declared
        The declared column of times, whose zone and bounds are kept.
    is_event_time
        True if the column is the event time; then it gets bounds, if its values are within them.
    """
    name, missing, dtype = values.name, values.null_count(), values.dtype
    seen = f"{missing:,} missing" if missing else "none missing"
    more, unknown = "", ""
    column: Column
    if isinstance(dtype, pl.Datetime):
        naive: Literal["reject", "local"] = declared.naive if declared else "reject"
        column = Timestamp(
            name, tz=declared.tz if declared else zone, naive="local" if dtype.time_zone is None else naive
        )
        if declared:
            column = replace(column, low=declared.low, high=declared.high)
        elif is_event_time:
            first, last = _time_bounds(values, upper=upper)
            column = replace(column, low=first, high=last)
        what, more = "timestamps", ", the zone as declared" if declared else ""
        if not declared:
            unknown = "the zone it is read in" if dtype.time_zone else "the time zone of its clock"
    elif dtype == pl.Boolean:
        column, what = Boolean(name), "true or false"
    elif dtype.is_numeric():
        low, high = _bounds(values, upper=upper and not (in_key and dtype.is_integer()))
        unit, unknown = facts.unit or "1", "" if facts.unit else "the unit"
        if dtype.is_integer():
            column = Integer(name, unit=unit, low=_exact_integer(low), high=_exact_integer(high))
            what, unknown = f"whole numbers from {_span(values)}", "" if in_key else unknown
        else:
            column, what = Number(name, unit=unit, low=low, high=high), f"numbers from {_span(values)}"
    else:
        words = values.drop_nulls().n_unique()
        few = words <= FEW_WORDS and words * 2 < len(values)
        if not in_key and (few or (words <= _MANY_WORDS and words * _ROWS_A_WORD <= len(values))):
            column, what, more = Category(name), f"{words} words", f": {_shares(values)}"
        else:
            longest = max((len(text) for text in values.drop_nulls().cast(pl.String)), default=0)
            column, what = Text(name, max_length=max(64, 2 * longest)), f"{words:,} different texts"
    column = replace(column, missing=Keep() if missing else Reject(), semantic=facts.semantic)
    if facts.window is not None and isinstance(column, (Number, Integer)):
        column = replace(column, window=facts.window)
    return SuggestedColumn(column, f"{what}, {seen}{more}", unknown)


def to_python(column: Column) -> str:
    """Return `column` as Python, without default arguments.

    >>> to_python(Number("km", unit="km", low=0, missing="keep"))
    'Number("km", unit="km", low=0, missing=Keep())'
    """
    arguments = [f'"{column.name}"']
    for field in fields(column):
        value = getattr(column, field.name)
        default = Reject() if field.name == "missing" else field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if field.name != "name" and (default is MISSING or value != default or field.name == "unit"):
            arguments.append(f"{field.name}={_literal(value)}")
        elif field.name == "unseen":
            arguments.append(f'unseen="{value}"')
    return f"{type(column).__name__}({', '.join(arguments)})"


def _literal(value: object) -> str:
    match value:
        case Keep(flag=False):
            return "Keep()"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case str():
            return f'"{value}"'
        case timedelta():
            return f'"{_format_duration(value // timedelta(microseconds=1))}"'
        case _:
            return repr(value)


def _bounds(values: pl.Series, *, upper: bool) -> tuple[float | None, float | None]:
    """Return bounds with room beyond the values. A column that was never negative keeps 0 as lower bound."""
    numbers = values.drop_nulls().cast(pl.Float64)
    numbers = numbers.filter(numbers.is_finite())
    least, most = numbers.min(), numbers.max()
    if not isinstance(least, float) or not isinstance(most, float):
        return None, None
    room = _ROOM * (most - least)
    below = _round_up(room - least) if upper and least < 0 else None
    low = 0.0 if least >= 0 else None if below is None else -below
    return low, _round_up(most + room) if upper and most > 0 else None


def _time_bounds(values: pl.Series, *, upper: bool) -> tuple[str | None, str | None]:
    """Return bounds that seconds and milliseconds break when they are read as microseconds, if the values keep them."""
    years = values.drop_nulls().dt.year()
    least, most = years.min(), years.max()
    low = _FIRST_TIME if isinstance(least, int) and least >= int(_FIRST_TIME[:4]) else None
    high = _LAST_TIME if upper and isinstance(most, int) and most < int(_LAST_TIME[:4]) else None
    return low, high


def _round_up(value: float) -> float | None:
    """Return the next of 1, 2, 5, 10, 20, 50 ... from a non-negative `value` on; None beyond double precision.

    >>> [_round_up(value) for value in (0.0, 0.3, 1.0, 88.5)]
    [1.0, 0.5, 1.0, 100.0]
    """
    if not math.isfinite(value):
        return None
    if value < sys.float_info.min:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    bound = next((step * size for step in (1, 2, 5) if step * size >= value), 10 * size)
    return bound if math.isfinite(bound) else None


def _exact_integer(bound: float | None) -> int | None:
    return None if bound is None or abs(bound) > EXACT else int(bound)


def _span(values: pl.Series) -> str:
    numbers = values.drop_nulls().to_list()
    if not numbers:
        return "nothing to nothing"
    return " to ".join(
        str(end) if isinstance(end, int) else f"{end:g}" for end in (min(numbers), max(numbers))
    )


def _shares(values: pl.Series) -> str:
    counts = values.drop_nulls().value_counts(sort=True)
    rows = max(1, int(counts["count"].sum()))
    first = counts.sort("count", values.name, descending=[True, False]).head(_NAMED_WORDS)
    # It becomes a comment of Python: a word that ended the line would go on as code.
    named = [f"{' '.join(word.split())} {100 * count / rows:.0f} %" for word, count in first.rows()]
    return ", ".join(named) + (" ..." if counts.height > _NAMED_WORDS else "")


# --- whole rows -------------------------------------------------------------------------------------------------------


def _key_candidates(frame: pl.DataFrame, label: str | None) -> list[str]:
    return [
        name
        for name, kind in frame.schema.items()
        if name != label and not kind.is_float() and frame.height and not frame[name].null_count()
    ]


def _find_key(frame: pl.DataFrame, label: str | None) -> tuple[str, ...]:
    """Return the first column, or the first two, that identify the rows; times only if nothing else does."""
    names = sorted(_key_candidates(frame, label), key=lambda name: frame.schema[name].is_temporal())
    for count in (1, 2):
        for found in combinations(names[:_MOST_KEYS], count):
            if frame.select(found).is_unique().all():
                return found
    return ()


def _find_event_time(frame: pl.DataFrame) -> str | None:
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return next((name for name in times if not frame[name].null_count()), None)


def _notes(frame: pl.DataFrame, key: tuple[str, ...], event_time: str | None) -> Iterator[str]:
    others = [
        name
        for name in _key_candidates(frame, None)
        if (name,) != key and frame[name].n_unique() == frame.height
    ]
    if key:
        more = f"; so do {', '.join(others)}" if others else ""
        yield f"{' + '.join(key)} identif{'ies' if len(key) == 1 else 'y'} {counted(frame.height, 'row')}{more}"
    if event_time is not None:
        yield _describe_granularity(frame[event_time].dt.epoch("us"))
    for name, kind in frame.schema.items():
        if kind.is_integer() and frame.height > 1 and (frame[name].diff().drop_nulls() == 1).all():
            yield f'{name} counts up by one: Expectations(sequence="{name}") would detect a gap'


def _describe_granularity(times_us: pl.Series) -> str:
    """Describe the time between events, if most are equally far apart."""
    steps = times_us.drop_nulls().unique().sort().diff().drop_nulls().alias("step")
    if steps.is_empty():
        return "all events have one time"
    span_us, count = steps.value_counts().sort("count", "step", descending=[True, False]).row(0)
    if count * 2 < len(steps):
        return "events come at no regular times"
    step = _format_duration(span_us)
    share = f"{100 * count / len(steps):.0f} % of the steps from one event time to the next are {step}"
    return f'{share}: Expectations(granularity=Granularity("{step}")) would check this'


def _format_duration(span_us: int) -> str:
    """Return a duration as `records.duration` reads it, in the largest unit of which it is a whole number.

    >>> _format_duration(600_000_000), _format_duration(86_400_000_000)
    ('10min', '1d')
    """
    size, unit = next((each for each in _STEPS if span_us % each[0] == 0), (1_000, "ms"))
    return f"{span_us / size:g}{unit}"
