"""How long after its event a label is known, found in rows: what `init` declares of a label, for a person to correct."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl

_MOST: Final = 0.99
"""The share of the labels that are known after the delay."""
_OLDEST: Final = 0.05
"""The share of the rows, the oldest ones, that were followed for as long as the delay is looked for."""
_HARDLY: Final = 0.05
"""With a smaller share of labels, the older rows do not show when labels are complete."""
_DAY: Final = timedelta(days=1)
_WINDOW_DAYS: Final = 7
"""Rows of as many days are looked at together: a weekday of its own is no lack of labels."""


@dataclass(frozen=True, slots=True)
class LabelDelay:
    """After how many days labels are known.

    `is_measured` is False if the rows are too recent for it: then `days` is the age of the oldest row, a lower bound.
    """

    days: int
    is_measured: bool = True


def delay_between(event_times: pl.Series, known_at: pl.Series) -> LabelDelay:
    """Return after how many days, at least 1, 99 % of the labels were known; both are timestamps of one kind, row by row.

    A row without a label is censored at the newest time of the two: its label may still come. So the distribution is that of
    Kaplan and Meier, up to the age that one row of twenty has reached. It is measured if nearly all rows were labelled by
    then, or if that age is twice the delay; otherwise the rows may be too recent for their slowest labels.

    >>> at = pl.Series([datetime(2026, 1, 1) + timedelta(hours=n) for n in range(2400)])
    >>> delay_between(at, at + timedelta(days=20.5))
    LabelDelay(days=21, is_measured=True)
    >>> recent, until = at.head(720), datetime(2026, 1, 31)  # labels of 21 to 70 days, after a month
    >>> known = recent + (pl.int_range(720, eager=True) * 37 % 50 + 21) * timedelta(days=1)
    >>> delay_between(recent, pl.select(pl.when(known <= until).then(known)).to_series())
    LabelDelay(days=30, is_measured=False)
    """
    rows = pl.DataFrame({"at": event_times, "known": known_at}).drop_nulls("at")
    newest = rows.select(pl.max_horizontal(pl.col("at").max(), pl.col("known").max())).item()
    ages = rows.select(
        ((newest - pl.col("at")) / _DAY).alias("age"),
        ((pl.col("known") - pl.col("at")) / _DAY).clip(0).alias("delay"),
    )
    horizon = ages["age"].quantile(1 - _OLDEST, "lower")
    if horizon is None:
        return LabelDelay(1, is_measured=False)
    followed = (
        ages.select(
            pl.min_horizontal("age", "delay", pl.lit(horizon)).alias("days"),
            pl.col("delay")
            .le(pl.min_horizontal("age", pl.lit(horizon)))
            .fill_null(value=False)
            .alias("known"),
        )
        .group_by("days")
        .agg(pl.len().alias("rows"), pl.col("known").sum())
        .sort("days")
        .with_columns(pl.col("rows").cum_sum(reverse=True).alias("at_risk"))
        .with_columns((1 - (1 - pl.col("known") / pl.col("at_risk")).cum_prod()).alias("share"))
    )
    known_share = float(followed["share"][-1])
    longest = float(followed.filter(pl.col("share") >= _MOST * known_share)["days"][0])
    if known_share > 0.0 and (known_share >= _MOST or horizon >= 2 * longest):
        return LabelDelay(max(1, math.ceil(longest)))
    return LabelDelay(max(1, math.ceil(ages.select(pl.col("age").max()).item())), is_measured=False)


def delay_of_missing(event_times: pl.Series, is_labelled: pl.Series) -> LabelDelay:
    """Return the age in days from which rows have labels as the older ones do; 1 if the newest rows have them too.

    It is measured unless the older half of the days has hardly a label, or the newer half fewer at every age.

    >>> at = pl.Series([datetime(2026, 1, 1) + n * timedelta(hours=6) for n in range(400)])
    >>> delay_of_missing(at, at < datetime(2026, 3, 31)).days, delay_of_missing(at, at.is_not_null()).days
    (11, 1)
    >>> delay_of_missing(at, at < datetime(2026, 1, 2))
    LabelDelay(days=100, is_measured=False)
    """
    known = pl.DataFrame({"at": event_times, "labelled": is_labelled}).drop_nulls("at")
    newest, oldest = known["at"].max(), known["at"].min()
    if not isinstance(newest, datetime) or not isinstance(oldest, datetime) or known["labelled"].all():
        return LabelDelay(1)
    days = (
        known.group_by((pl.lit(newest) - pl.col("at")).dt.total_days().alias("age"))
        .agg(pl.len().alias("rows"), pl.col("labelled").sum())
        .sort("age")
    )
    half = (newest - oldest) / _DAY / 2
    usual = _labelled_share(days.filter(pl.col("age") > half))
    for age in range(1, int(half) + 1) if usual >= _HARDLY else ():
        some = days.filter(pl.col("age").is_between(age, age + _WINDOW_DAYS - 1))
        if _labelled_share(some) >= _MOST * usual:
            return LabelDelay(age)
    return LabelDelay(max(1, math.ceil(2 * half)), is_measured=False)


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
