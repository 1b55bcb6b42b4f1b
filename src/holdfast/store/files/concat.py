"""Concatenation of frames whose contracts differ: a missing column is null, and time zones are converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from holdfast.errors import InputError


def concat(frames: Sequence[pl.DataFrame], kinds: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return `frames`, at least one, one after the other.

    `kinds` names the dtypes of columns that are wanted in another.

    `InputError` HF212 names a column that has no common type.
    """
    wanted = _merged(frames) | dict(kinds)
    return pl.concat([_aligned(frame, wanted) for frame in frames])


def _merged(frames: Sequence[pl.DataFrame]) -> dict[str, pl.DataType]:
    """Return the columns of all `frames` in order of appearance, each in a dtype that fits all its values."""
    merged: dict[str, pl.DataType] = {}
    for frame in frames:
        for name, kind in frame.schema.items():
            before = merged.get(name, pl.Null())
            if kind == before or kind == pl.Null:
                merged.setdefault(name, kind)
            elif before == pl.Null or (_is_timestamp(before) and _is_timestamp(kind)):
                merged[name] = kind
            elif before.is_numeric() and kind.is_numeric():
                merged[name] = pl.Float64()
            else:
                raise _no_common_type(name, before, kind)
    return merged


def _aligned(frame: pl.DataFrame, wanted: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return frame.select(
        _as(frame[name], kind) if name in frame.columns else pl.lit(None, kind).alias(name)
        for name, kind in wanted.items()
    )


def _as(values: pl.Series, kind: pl.DataType) -> pl.Series:
    found = values.dtype
    if found == kind:
        return values
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None and _is_timestamp(found):
        return values.dt.cast_time_unit(kind.time_unit or "us").dt.convert_time_zone(kind.time_zone)
    if found == pl.Null or (found.is_numeric() and kind == pl.Float64):
        return values.cast(kind)
    raise _no_common_type(values.name, found, kind)


def _is_timestamp(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.Datetime) and kind.time_zone is not None


def _no_common_type(name: str, one: pl.DataType, other: pl.DataType) -> InputError:
    return InputError(
        "HF212",
        f"column {name!r} is {one} in some files and {other} is wanted or is in others",
        state="no row was read",
        next_command="give the new column of the contract a name of its own",
    )
