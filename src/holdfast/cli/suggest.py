"""Suggests a declaration from the columns of a file. A suggestion is written down for a person to correct, never applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from holdfast.errors import InputError
from holdfast.records import NAME

FEW_WORDS: Final = 200
"""A text column with at most this many distinct values, and fewer than half its rows, is suggested as a category."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One column of the declaration: the line of Python, why, and the feature that it could become."""

    column: str
    line: str
    why: str
    feature: str | None


def suggest(frame: pl.DataFrame, *, label: str, key: str, event_time: str, zone: str) -> list[Suggestion]:
    """A line of contract for each column of `frame` but the label, in the order of the file.

    Raises `InputError` HF101 for a name that a column cannot have, and HF202 when `label` is not true or false in every row,
    or `event_time` is not a timestamp.
    """
    for name in frame.columns:
        if not NAME.match(name):
            raise InputError(
                "HF101",
                f"column {name!r} needs a name of a-z, 0-9, '_' and '-', at most 63 long",
                state="nothing was written",
                next_command="rename it in the file's first line, and run holdfast init again",
            )
    if not _is_truth(frame[label]):
        raise InputError(
            "HF202",
            f"the label {label!r} must be true or false in every row; it is {frame.schema[label]}",
            state="nothing was written",
            next_command="write it as true and false, or in Parquet as Boolean",
        )
    if not isinstance(frame.schema[event_time], pl.Datetime):
        raise InputError(
            "HF202",
            f"the event time {event_time!r} holds no timestamps such as 2026-01-31T12:00:00Z",
            state="nothing was written",
        )
    return [_column(frame[name], name == key, zone) for name in frame.columns if name != label]


def _is_truth(values: pl.Series) -> bool:
    if values.null_count():
        return False
    if values.dtype == pl.Boolean:
        return True
    if values.dtype == pl.String:
        return set(values.str.to_lowercase().unique()) <= {"true", "false"}
    return False


def _column(values: pl.Series, is_key: bool, zone: str) -> Suggestion:
    name, missing = values.name, values.null_count()
    kept = ", missing=Keep()" if missing else ""
    seen = f"{missing:,} missing" if missing else "none missing"
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime):
        naive = ', naive="local"' if dtype.time_zone is None else ""
        return Suggestion(name, f'Timestamp("{name}", tz="{zone}"{naive}{kept})', f"timestamps, {seen}", None)
    if dtype == pl.Boolean:
        return Suggestion(name, f'Boolean("{name}"{kept})', f"true or false, {seen}", f'Value("{name}")')
    if dtype.is_integer():
        line = f'Integer("{name}", unit="1"{_range(values)}{kept})'
        return Suggestion(name, line, f"whole numbers from {_span(values)}, {seen}", _feature(name, is_key))
    if dtype.is_numeric():
        line = f'Number("{name}", unit="1"{_range(values)}{kept})'
        return Suggestion(name, line, f"numbers from {_span(values)}, {seen}", _feature(name, is_key))
    words = values.drop_nulls().n_unique()
    if not is_key and words <= FEW_WORDS and words * 2 < len(values):
        return Suggestion(
            name, f'Category("{name}", unseen="other"{kept})', f"{words} words, {seen}", f'Code("{name}")'
        )
    longest = max(64, 2 * max((len(text) for text in values.drop_nulls().cast(pl.String)), default=0))
    return Suggestion(
        name, f'Text("{name}", max_length={longest}{kept})', f"{words:,} different texts, {seen}", None
    )


def _feature(name: str, is_key: bool) -> str | None:
    return None if is_key else f'Value("{name}")'


def _span(values: pl.Series) -> str:
    numbers = values.drop_nulls().to_list()
    return f"{min(numbers):g} to {max(numbers):g}" if numbers else "nothing to nothing"


def _range(values: pl.Series) -> str:
    """What can be said of the range without guessing much: a column that was never negative stays so."""
    low = values.min()
    return ", low=0" if isinstance(low, int | float) and low >= 0 else ""
