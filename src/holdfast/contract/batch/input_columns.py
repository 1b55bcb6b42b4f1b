"""The columns of a delivery: one error if they are not those of the contract, timestamps from text, numbers in another unit.

Timestamps are read by the rules of `schema/timestamps.py`, and numbers converted like single values by `units.convert_value`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from holdfast.contract import Contract
from holdfast.contract.batch.csv_format import date_pattern
from holdfast.contract.schema.columns import EXACT, Column, Integer, Number, Timestamp
from holdfast.contract.schema.timestamps import DATE, FRACTION, LOCAL_YEARS, OFFSET, TIME
from holdfast.contract.schema.units import Conversion
from holdfast.errors import InputError

MOST_UNKNOWN: Final = 200
"""With more columns than this that the contract has not, a delivery is refused without a look for renamed ones."""

_NAMED: Final = 10
_LONGEST_NAME: Final = 128

_UNIT: Final = re.compile(r"\[[^\[\]]+\]$")


class ColumnsError(InputError):
    """The columns of a delivery are not those of the contract; `missing` are those that it lacks."""

    missing: tuple[str, ...] = ()


def require_columns(
    names: Iterable[str], found: Iterable[str], faults: Mapping[str, list[str]], *, state: str
) -> None:
    """Raise `ColumnsError` HF202 if columns are missing, unknown or otherwise faulty.

    Parameters
    ----------
    names
        The columns of the contract.
    found
        The columns of the delivery.
    faults
        Other faults: a description, such as "not text", and the columns that have it.
    state
        What was done with the rows so far.
    """
    names, found = list(names), list(found)
    known, delivered = set(names), set(found)
    problems = {
        "missing": [name for name in names if name not in delivered],
        "not in the contract": [name for name in found if name not in known],
        **faults,
    }
    parts = [f"{problem}: {list_names(columns)}" for problem, columns in problems.items() if columns]
    if parts:
        error = ColumnsError(
            "HF202",
            "; ".join(parts),
            state=state,
            next_command="correct the source, or the contract if the source is right",
        )
        error.missing = tuple(problems["missing"])
        raise error


def list_names(names: Sequence[str]) -> str:
    """Return the first ten of `names`, each of bounded length, and how many more there are.

    >>> list_names(["a", "b"]), list_names([f"n{number}" for number in range(300_000)])[-17:]
    ('a, b', ' and 299,990 more')
    """
    listed = ", ".join(
        name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in names[:_NAMED]
    )
    return f"{listed} and {len(names) - _NAMED:,} more" if len(names) > _NAMED else listed


def renamed_columns(contract: Contract, names: Iterable[str], headers: Mapping[str, str]) -> dict[str, str]:
    """Return the contract's name of each delivered column that `headers` names; the unit of a number's header stays.

    A number's header may state a unit that `headers` does not have, or another one.

    Raises `InputError` HF202 if two delivered columns have one name in the contract.

    >>> from holdfast.contract import Contract, Number, Timestamp
    >>> trips = Contract(Number("km", unit="km"), Timestamp("at", tz="UTC"), key="at", event_time="at")
    >>> renamed_columns(trips, ["Distance [m]", "at"], {"Distance [m]": "km", "Time": "at"})
    {'Distance [m]': 'km [m]'}
    >>> renamed_columns(trips, ["Distance [mi]", "at"], {"Distance": "km", "Time": "at"})
    {'Distance [mi]': 'km [mi]'}
    """
    if not headers:
        return {}
    names = list(names)
    delivered = set(names)
    found = {name: headers[name] for name in names if name in headers and headers[name] != name}
    found |= _in_another_unit(contract, names, headers, taken=delivered | set(found.values()))
    twice = [f"{name} as {new}" for name, new in found.items() if new in delivered and new not in found]
    if twice:
        raise InputError(
            "HF202",
            f"one column is there twice: {list_names(twice)}",
            state="no row was read",
            next_command="correct the headers of the feed",
        )
    units = {name: _UNIT.search(name) for name in found}
    return {
        name: f"{new} {unit[0]}"
        if (unit := units[name]) and isinstance(contract.column(new), (Number, Integer))
        else new
        for name, new in found.items()
    }


def _in_another_unit(
    contract: Contract, names: list[str], headers: Mapping[str, str], *, taken: set[str]
) -> dict[str, str]:
    """Return the number's name for each of `names` that is one of `headers` but for its unit; none that is `taken`."""
    plain: dict[str, set[str]] = {}
    for header, new in headers.items():
        if isinstance(contract.column(new), (Number, Integer)):
            plain.setdefault(_UNIT.sub("", header).rstrip(), set()).add(new)
    found: dict[str, str] = {}
    for name in names:
        if name not in headers and _UNIT.search(name):
            known = plain.get(_UNIT.sub("", name).rstrip(), set())
            # Two columns may differ in their unit alone; a third unit is of neither.
            if len(known) == 1 and not known & taken:
                found[name] = next(iter(known))
                taken |= known
    return found


def read_timestamps(
    column: Timestamp, texts: pl.Series, dates: tuple[str, ...] = ()
) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return the timestamps that `texts` name, in the column's zone, and the faulty rows by rule.

    Null stays null and is no fault. The batch check tests the range. `dates` are orders of a date that are read as well as
    RFC 3339.
    """
    parts = _split_texts(_in_order(texts, dates))
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


def _in_order(texts: pl.Series, dates: tuple[str, ...]) -> pl.Series:
    """Return `texts` with each date of a declared form as RFC 3339 writes it, and with a time; others as they are."""
    for date in dates:
        pattern = f"^{date_pattern(date)}(?:[Tt ](?<hm>[0-9]{{2}}:[0-9]{{2}})(?<s>:[0-9]{{2}})?(?<rest>.*))?$"
        found = texts.str.extract_groups(pattern).struct.unnest()
        day = [found["y"], found["m"].str.zfill(2), found["d"].str.zfill(2)]
        time = [found["hm"].fill_null("00:00") + found["s"].fill_null(":00") + found["rest"].fill_null("")]
        written = pl.DataFrame([each.alias(f"{n}") for n, each in enumerate([*day, *time])]).select(
            pl.format("{}-{}-{} {}", *(pl.col(f"{n}") for n in range(4)))
        )
        texts = written.to_series().zip_with(found["y"].is_not_null(), texts).alias(texts.name)
    return texts


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


def convert_column(
    column: Column, conversion: Conversion, values: pl.Series, faults: dict[str, pl.Series]
) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return `values` in the contract's unit, and the faulty rows by rule, `faults` included.

    A whole number that would not stay whole is a fault and becomes null. A column of another dtype than the
    contract's is returned as it is; the batch check refuses it.

    >>> hours = Integer("hours", unit="h")
    >>> values, faults = convert_column(hours, Conversion(1, 0, 60), pl.Series([120, 90, None]), {})
    >>> values.to_list(), faults["not_exact"].to_list()
    ([2, None, None], [False, True, False])
    """
    match column:
        case Number() if values.dtype == pl.Float64:
            return _apply(conversion, values), faults
        case Integer() if values.dtype == pl.Int64:
            whole = _apply(conversion, values.cast(pl.Float64))
            lost = (whole != whole.floor()) | (whole.abs() > EXACT) | ~values.is_between(-EXACT, EXACT)
            lost = lost.fill_null(value=False)
            already = faults.get("not_exact")
            faults = {**faults, "not_exact": lost if already is None else lost | already}
            return whole.set(lost, None).cast(pl.Int64), faults
        case _:
            return values, faults


def _apply(conversion: Conversion, values: pl.Series) -> pl.Series:
    # By NumPy, because Polars divides by a constant as it multiplies by its reciprocal, which rounds twice.
    with np.errstate(over="ignore", invalid="ignore"):
        found = pl.Series(values.name, conversion.apply(values.to_numpy()), dtype=pl.Float64)
    return found.set(values.is_null(), None)
