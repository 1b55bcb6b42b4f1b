"""How long after its event a label is known, found in rows: what `init` declares of a label, for a person to correct."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import polars as pl

_MOST: Final = 0.99
"""The share of the labels that are known after the delay."""
_DAY: Final = timedelta(days=1)
_WINDOW_DAYS: Final = 7
"""Rows of as many days are looked at together: a weekday of its own is no lack of labels."""


def delay_between(event_times: pl.Series, known_at: pl.Series) -> int:
    """Return after how many days, at least 1, 99 % of the labels were known; both are timestamps of one kind, row by row.

    >>> at = pl.Series([datetime(2026, 1, 1)] * 4)
    >>> delay_between(at, at + pl.Series([timedelta(days=2), timedelta(days=20.5), None, timedelta(0)]))
    21
    """
    known = (known_at - event_times).drop_nulls().dt.total_seconds()
    longest = known.quantile(_MOST, "higher")
    return 1 if longest is None else max(1, -(-int(longest) // 86_400))


def delay_of_missing(event_times: pl.Series, is_labelled: pl.Series) -> int:
    """Return the age in days from which rows have labels as the older ones do; 1 if the newest rows have them too.

    >>> at = pl.Series([datetime(2026, 1, 1) + n * timedelta(hours=6) for n in range(400)])
    >>> delay_of_missing(at, at < datetime(2026, 3, 31)), delay_of_missing(at, at.is_not_null())
    (11, 1)
    """
    known = pl.DataFrame({"at": event_times, "labelled": is_labelled}).drop_nulls("at")
    newest, oldest = known["at"].max(), known["at"].min()
    if not isinstance(newest, datetime) or not isinstance(oldest, datetime) or known["labelled"].all():
        return 1
    days = (
        known.group_by((pl.lit(newest) - pl.col("at")).dt.total_days().alias("age"))
        .agg(pl.len().alias("rows"), pl.col("labelled").sum())
        .sort("age")
    )
    half = (newest - oldest) / _DAY / 2
    usual = _labelled_share(days.filter(pl.col("age") > half))
    for age in range(1, int(half) + 1):
        some = days.filter(pl.col("age").is_between(age, age + _WINDOW_DAYS - 1))
        if _labelled_share(some) >= _MOST * usual:
            return age
    return 1


def due_labels(event_times: pl.Series, labels: pl.Series, delay_days: int) -> pl.Series:
    """Return `labels`, but none of a row that is not older than `delay_days`, by the newest row.

    >>> at = pl.Series([datetime(2026, 1, day) for day in (1, 2, 9)])
    >>> due_labels(at, pl.Series([True, False, True]), 7).to_list()
    [True, False, None]
    """
    is_due = pl.col("at") <= pl.col("at").max() - pl.duration(days=delay_days)
    frame = pl.DataFrame({"at": event_times, "label": labels})
    return frame.select(pl.when(is_due).then("label").alias(labels.name))[labels.name]


def _labelled_share(days: pl.DataFrame) -> float:
    rows, labelled = (int(days[name].sum()) for name in ("rows", "labelled"))
    return labelled / max(1, rows)
