"""Timestamp columns, read by the rules of `schema/timestamps.py`."""

from __future__ import annotations

import polars as pl

from holdfast.contract.schema.columns import Timestamp
from holdfast.contract.schema.timestamps import DATE, FRACTION, LOCAL_YEARS, OFFSET, TIME


def read_timestamps(column: Timestamp, texts: pl.Series) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return the timestamps that `texts` name, in the column's zone, and the faulty rows by rule.

    Null stays null and is no fault. The batch check tests the range.
    """
    parts = _split_texts(texts)
    wall, offset_us = parts["wall"], parts["offset_us"]
    without = wall.is_not_null() & offset_us.is_null()
    zoned = (wall.dt.epoch("us") - offset_us).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(column.tz)
    unread = texts.is_not_null() & wall.is_null()
    if column.naive == "reject":
        return zoned, {"type": unread, "zone": without}
    local, faults = read_wall_clocks(column, wall.set(~without, None))
    return local.zip_with(without, zoned), {"type": unread, **faults}


def read_wall_clocks(column: Timestamp, walls: pl.Series) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return the timestamps at which a clock of the column's zone showed `walls`, and the faulty rows by rule."""
    near = walls.dt.year().is_between(*LOCAL_YEARS)
    within = walls.set(~near, None)
    # Where the clock is put back the two readings differ, where it is put forward there is none.
    early = within.dt.replace_time_zone(column.tz, ambiguous="earliest", non_existent="null")
    late = within.dt.replace_time_zone(column.tz, ambiguous="latest", non_existent="null")
    fold = (early != late).fill_null(value=False)
    gap = within.is_not_null() & early.is_null()
    return early.set(fold, None), {"gap": gap, "fold": fold, "range": ~near.fill_null(value=True)}


def _split_texts(texts: pl.Series) -> pl.DataFrame:
    """Return the wall clock time of each text and its offset from UTC, null if a text has none."""
    text, offset = pl.col("text"), pl.col("offset")
    shape = f"^{DATE}[Tt ]{TIME}(?:{FRACTION})?(?:{OFFSET})?$"
    # No `datetime` has a year 0; Polars would read one.
    shaped = text.str.contains(shape) & ~text.str.starts_with("0000")
    seconds = (text.str.slice(0, 10) + " " + text.str.slice(11, 8)).str.to_datetime(
        "%Y-%m-%d %H:%M:%S", time_unit="us", strict=False
    )
    fraction_us = text.str.extract(r"\.([0-9]{1,6})").str.pad_end(6, "0").cast(pl.Int64).fill_null(0)
    minutes = _offset_digits(offset, 1) * 60 + _offset_digits(offset, 4)
    offset_us = pl.when(offset.str.starts_with("-")).then(-minutes).otherwise(minutes) * 60_000_000
    return (
        texts.alias("text")
        .to_frame()
        .select(text=pl.when(shaped).then(text))
        .with_columns(offset=text.str.slice(19).str.extract(f"({OFFSET})$").str.to_uppercase())
        .select(
            wall=seconds + pl.duration(microseconds=fraction_us, time_unit="us"),
            offset_us=pl.when(offset == "Z").then(0).otherwise(offset_us),
        )
    )


def _offset_digits(offset: pl.Expr, start: int) -> pl.Expr:
    return offset.str.slice(start, 2).cast(pl.Int64, strict=False)
