"""Aggregates over whole frames: the rows that readers see, and the join that training reads them with.

`aggregate.py` states the rule. A value is a function of the rows in its window alone, to the last bit: independent of
the order of loading and of what lies before the window. So a table that grew batch by batch equals one made in a
single pass, and the hash of a training snapshot is reliable. The work grows with the rows and the logarithm of
`window / every`, not with their product.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.errors import InputError
from holdfast.features.aggregate import Aggregate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SCALE: Final = 2.0**-64
"""The scale of sums: a power of two, so that it rounds nothing and no sum of finite values overflows."""

SCHEMA: Final = pl.Schema({"entity": pl.String(), "known_at_us": pl.Int64(), "value": pl.Float64()})
"""The rows of an aggregate; `known_at_us` is the grid time, in microseconds UTC, from which the value is known."""


def aggregate_rows(aggregate: Aggregate, frame: pl.DataFrame, *, from_us: int | None = None) -> pl.DataFrame:
    """Return the aggregate at every grid time at which its window holds a row, per entity.

    Parameters
    ----------
    frame
        Rows of the feed `aggregate.over`, in any order. Rows that lack the entity, the value or the known
        time are ignored.
    from_us
        Only grid times at or after this. With the rows of the last `Aggregate.history` and a new batch, pass
        `first_changed_us` of the batch: the result then equals, to the last bit, that of all rows.

    Returns
    -------
    Columns `entity` (String), `known_at_us` (Int64) and `value` (Float64), sorted by the first two, each pair
    once. Grid times later than the last row are included until its window closes: they hold until something
    newer becomes known, and a later batch overwrites them. Every value is finite: other values of the feed
    are ignored, and a mean of finite values lies between them, however large they are.

    Raises
    ------
    InputError
        HF408 if a column of the aggregate is missing or has the wrong type.
    """
    rows = _known_rows(aggregate, frame)
    if not rows.height:
        return SCHEMA.to_frame()
    cells = _Cells(rows, aggregate.window_us // aggregate.every_us)
    values = cells.over_window(aggregate.agg)
    entity, step = cells.grid_times()
    made = pl.DataFrame(
        {"entity": entity, "known_at_us": step * aggregate.every_us, "value": values}, schema=SCHEMA
    )
    return made if from_us is None else made.filter(pl.col("known_at_us") >= from_us)


def first_changed_us(aggregate: Aggregate, batch: pl.DataFrame) -> int | None:
    """Return the first grid time whose value the rows of `batch` can change; None if they change nothing.

    Raises
    ------
    InputError
        HF408 as for `aggregate_rows`.
    """
    rows = _known_rows(aggregate, batch)
    return int(rows["step"].to_numpy().min()) * aggregate.every_us if rows.height else None


def changed_span_us(aggregate: Aggregate, batch: pl.DataFrame) -> tuple[int, int] | None:
    """Return the grid times whose values the rows of `batch` can change.

    They are a half-open interval; None if there are none.

    Raises
    ------
    InputError
        HF408 as for `aggregate_rows`.
    """
    rows = _known_rows(aggregate, batch)
    if not rows.height:
        return None
    steps = rows["step"].to_numpy()
    return (
        int(steps.min()) * aggregate.every_us,
        int(steps.max()) * aggregate.every_us + aggregate.window_us,
    )


def join_as_of(frame: pl.DataFrame, *, at: str, aggregate: Aggregate, rows: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the column `aggregate.name`: the value that a reader at time `at` got, or null.

    Parameters
    ----------
    frame
        Rows of the model, with the column `aggregate.by`; order and other columns are kept.
    at
        The timestamp column with the time at which each row is read.
    rows
        The result of `aggregate_rows`. Of rows with the same entity and time the later in the frame applies.

    Raises
    ------
    InputError
        HF408 if a column is missing, or exists already.
    """
    _require_columns(aggregate, frame, (at, aggregate.by))
    if aggregate.name in frame.columns:
        raise InputError(
            "HF408", f"the rows already have a column {aggregate.name!r}, which the aggregate fills"
        )
    readers = frame.select(
        row=pl.int_range(pl.len(), dtype=pl.Int64),
        entity=pl.col(aggregate.by).cast(pl.String).replace("", None),
        at_us=timestamps_us(frame, at),
    )
    known = rows.select("entity", "known_at_us", pl.col("value").alias(aggregate.name))
    read = (
        readers.drop_nulls()
        .sort("at_us")
        .join_asof(
            known.sort("known_at_us", maintain_order=True),
            left_on="at_us",
            right_on="known_at_us",
            by="entity",
            strategy="backward",
            tolerance=aggregate.window_us,
            check_sortedness=False,
        )
    )
    joined = readers.select("row").join(
        read.select("row", aggregate.name), on="row", how="left", maintain_order="left"
    )
    return frame.with_columns(joined[aggregate.name])


def timestamps_us(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return a timestamp column as Int64 microseconds UTC. Raises `InputError` HF408 if it has no time zone."""
    dtype = frame.schema[column]
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise InputError("HF408", f"column {column!r} is {dtype}, not a timestamp with a time zone")
    return frame[column].dt.cast_time_unit("us").to_physical()


def _require_columns(aggregate: Aggregate, frame: pl.DataFrame, columns: tuple[str, ...]) -> None:
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise InputError(
            "HF408",
            f"aggregate {aggregate.name!r} needs the columns {', '.join(absent)}, which the rows lack",
        )


def _known_rows(aggregate: Aggregate, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that count, by entity, first grid step that sees them (rounded up), time and value."""
    _require_columns(aggregate, frame, (aggregate.by, aggregate.value, aggregate.known_at))
    value = frame.schema[aggregate.value]
    if not (value.is_numeric() or value == pl.Boolean):
        raise InputError(
            "HF408",
            f"column {aggregate.value!r} of aggregate {aggregate.name!r} is {value}, not a number",
        )
    seen_us = timestamps_us(frame, aggregate.known_at) + aggregate.available_after_us
    return (
        frame.select(
            entity=pl.col(aggregate.by).cast(pl.String),
            step=-(-seen_us // aggregate.every_us),
            seen_us=seen_us,
            value=pl.col(aggregate.value).cast(pl.Float64),
        )
        .drop_nulls()
        .filter((pl.col("entity") != "") & pl.col("value").is_finite())
        .sort("entity", "step", "seen_us", "value")
    )


class _Cells:
    """Rows grouped by entity and grid step, on one line without the long gaps.

    After its last row an entity's window stays open for `window` steps; the line holds exactly these grid times of
    all entities, one entity after the other. The next entity, or the next row after a longer gap, begins where the
    last window has closed. So looking `window - 1` positions back never reaches a row outside the window.
    """

    def __init__(self, rows: pl.DataFrame, window: int) -> None:
        entity = rows["entity"].rle_id().to_numpy().astype(np.int64)
        steps = rows["step"].to_numpy()
        new = np.ones(len(steps), np.bool_)
        new[1:] = (entity[1:] != entity[:-1]) | (steps[1:] != steps[:-1])
        self.window = window
        self.values: Floats = rows["value"].to_numpy()
        self.starts: Ints = np.flatnonzero(new)
        self.entity: Ints = entity[self.starts]
        self.step: Ints = steps[self.starts]
        self.entities = rows["entity"].unique(maintain_order=True)
        self.spans: Ints = np.full(len(self.step), window, np.int64)
        same = self.entity[1:] == self.entity[:-1]
        self.spans[:-1][same] = np.minimum(window, np.diff(self.step)[same])
        self.places: Ints = np.cumsum(self.spans) - self.spans

    def over_window(self, how: str) -> Floats:
        """Return the aggregate at each position of the line."""
        counts = np.diff(self.starts, append=len(self.values))
        if how == "last":
            return np.repeat(self.values[self.starts + counts - 1], self.spans)
        count = self._window_sums(counts)
        if how == "count":
            return count
        # Sorted rows make the sum of a cell, and with it the mean, the same for any order of loading.
        means = self._window_sums(np.add.reduceat(self.values * _SCALE, self.starts)) / count
        # Rounding may take the mean of the largest numbers a hair beyond them.
        largest = np.finfo(np.float64).max * _SCALE
        return np.clip(means, -largest, largest) / _SCALE

    def grid_times(self) -> tuple[pl.Series, Ints]:
        """Return entity and grid step of each position of the line."""
        offset = np.arange(int(self.spans.sum())) - np.repeat(self.places, self.spans)
        entity = self.entities.gather(pl.Series(np.repeat(self.entity, self.spans)))
        return entity, np.repeat(self.step, self.spans) + offset

    def _window_sums(self, cells: npt.NDArray[Any]) -> Floats:
        line = np.zeros(int(self.spans.sum()))
        line[self.places] = cells
        return _window_sums(line, self.window)


def _window_sums(line: Floats, window: int) -> Floats:
    """Return sums over the last `window` positions, each by the same tree of additions.

    A running sum, which adds the new and subtracts the old, would accumulate the rounding of all history. Doubling
    adds blocks of 1, 2, 4 ... positions instead. `window` is at most the length of the line.

    >>> _window_sums(np.array([1.0, 2.0, 4.0, 8.0]), 3).tolist()
    [1.0, 3.0, 7.0, 14.0]
    """
    total, block, done, size = np.zeros_like(line), line.copy(), 0, 1
    while True:
        if window & size:
            total[done:] += block[: len(block) - done]
            done += size
        if done == window:
            return total
        block[size:] = block[size:] + block[:-size]
        size *= 2
