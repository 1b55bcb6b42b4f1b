"""Turn a suggested contract into lines of a model file, with a feature for each column."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from holdfast.contract import Boolean, Category, Column, Integer, Number
from holdfast.contract.profile.infer_contract import suggest_column
from holdfast.errors import InputError
from holdfast.records import NAME


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One column of the declaration: its line of Python, the reason, and its feature."""

    column: str
    line: str
    why: str
    feature: str | None


def suggest(frame: pl.DataFrame, *, label: str, key: str, event_time: str, zone: str) -> list[Suggestion]:
    """Return a line of the contract for each column of `frame` except the label, in the order of the file.

    Parameters
    ----------
    frame
        The rows of the file.
    label, key, event_time
        The columns with a role.
    zone
        The IANA time zone of timestamps without one.

    Raises `InputError` HF110 for a name that a column cannot have, if `label` is not true or false in every row, or
    if `event_time` is not a timestamp.
    """
    for name in frame.columns:
        if not NAME.match(name):
            raise InputError(
                "HF110",
                f"column {name!r} needs a name of a-z, 0-9, '_' and '-', at most 63 long",
                state="nothing was written",
                next_command="rename it in the file's first line, and run holdfast init again",
            )
    if not _is_boolean(frame[label]):
        raise InputError(
            "HF110",
            f"the label {label!r} must be true or false in every row; it is {frame.schema[label]}",
            state="nothing was written",
            next_command="write it as true and false, or in Parquet as Boolean",
        )
    if not isinstance(frame.schema[event_time], pl.Datetime):
        raise InputError(
            "HF110",
            f"the event time {event_time!r} has no timestamps such as 2026-01-31T12:00:00Z",
            state="nothing was written",
        )
    return [_column(frame[name], name == key, zone) for name in frame.columns if name != label]


def _is_boolean(values: pl.Series) -> bool:
    if values.null_count():
        return False
    if values.dtype == pl.Boolean:
        return True
    if values.dtype == pl.String:
        return set(values.str.to_lowercase().unique()) <= {"true", "false"}
    return False


def _column(values: pl.Series, is_key: bool, zone: str) -> Suggestion:
    found = suggest_column(values, in_key=is_key, zone=zone, upper=False)
    return Suggestion(values.name, found.line, found.why, _feature(found.column, is_key))


def _feature(column: Column, is_key: bool) -> str | None:
    """Return the feature of a column as it is; None if it has none."""
    match column:
        case Category():
            return f'Ordinal("{column.name}")'
        case Boolean():
            return f'Passthrough("{column.name}")'
        case Integer() | Number():
            return None if is_key else f'Passthrough("{column.name}")'
        case _:
            return None
