"""At which size of a batch a wrong unit is found by the feed's own past: unit x column x rows.

    python -m benchmarks.drift_units [--days 365] [--step 5]

The flights and the weather of New York, 2013, in batches of a part of a day, a day and a week. Every `--step`th batch with
at least eight batches before it is converted to the other unit, once as the conversion gives it, and once rounded to as
many decimals as the column has. A unit is found when the feed becomes suspect: the drift checks have an error, or one row
in twenty is out of the contract's range. Nothing is drawn at random. The last line is one JSON object.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from benchmarks.command import Command
from holdfast.contract.batch.compiler import compile_batch
from holdfast.contract.batch.typed_input import from_frame
from holdfast.contract.profile.profile import Profile, profile_batch
from holdfast.feeds import Feed
from holdfast.monitor.chance import FEWEST_BATCHES
from holdfast.monitor.drift import MOST_BATCHES, check_profile
from holdfast.records import Level
from tests.soak.drift import feeds, split_days

OUT_OF_RANGE: Final = 0.05
"""The share of invalid rows that makes the example's feeds suspect."""


@dataclass(frozen=True, slots=True)
class WrongUnit:
    """A column that arrives in another unit, and the number of decimals that the column has."""

    feed: str
    column: str
    unit: str
    other: str
    converted: pl.Expr
    decimals: int


def _wrong(
    feed: str, column: str, unit: str, other: str, factor: float, decimals: int, offset: float = 0.0
) -> WrongUnit:
    return WrongUnit(feed, column, unit, other, pl.col(column) * factor + offset, decimals)


UNITS: Final = (
    _wrong("flights", "distance", "mi", "km", 1.609344, 0),
    _wrong("flights", "distance", "mi", "nmi", 1 / 1.150779448, 0),
    _wrong("flights", "reported_delay", "min", "h", 1 / 60, 0),
    _wrong("departures", "departure_delay", "min", "s", 60.0, 0),
    _wrong("departures", "departure_delay", "min", "h", 1 / 60, 0),
    _wrong("weather", "temperature", "degF", "degC", 1 / 1.8, 2, -32 / 1.8),
    _wrong("weather", "wind_speed", "mph", "m/s", 0.44704, 5),
    _wrong("weather", "wind_speed", "mph", "km/h", 1.609344, 5),
    _wrong("weather", "wind_speed", "mph", "kn", 1 / 1.150779448, 5),
    _wrong("weather", "visibility", "mi", "km", 1.609344, 2),
    _wrong("weather", "precipitation", "in", "mm", 25.4, 2),
    _wrong("weather", "humidity", "%", "1", 0.01, 2),
)

PARTS: Final = {"part of a day": 0.0, "a day": 1.0, "a week": 7.0}
"""Batches: one station or one airport of a day, a day, and seven days."""


def batches_of(feed: Feed, directory: Path, size: str) -> list[pl.DataFrame]:
    """The rows of a year in batches of this size."""
    days = [pl.read_parquet(file) for file in sorted((directory / feed.name).iterdir())]
    if size == "part of a day":
        return [rows.filter(pl.col("origin") == "LGA") for rows in days]
    if size == "a week":
        return [
            pl.concat(days[place : place + 7], how="vertical_relaxed") for place in range(0, len(days) - 6, 7)
        ]
    return days


def found(feed: Feed, rows: pl.DataFrame, past: list[Profile]) -> tuple[bool, Profile]:
    """Whether the feed becomes suspect by these rows, and their profile."""
    valid = compile_batch(feed.contract)(from_frame(feed.contract, rows)).valid
    profile = profile_batch(feed.contract, valid)
    if valid.height <= (1.0 - OUT_OF_RANGE) * rows.height:
        return True, profile
    violations = check_profile(feed.contract, profile, past[-MOST_BATCHES:])
    return any(violation.level is not Level.WARNING for violation in violations), profile


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and the figures as JSON."""
    command = Command("benchmarks.drift_units", __doc__)
    command.size("--days", 365, 11, help="days of the year")
    command.size("--step", 5, 3, help="convert every n-th batch")
    asked = command.parse(arguments)
    days, step = asked.days, asked.step
    began = time.perf_counter()
    rows_of: dict[tuple[str, str], list[int]] = {}
    hits: Counter[tuple[str, str, str, str, bool]] = Counter()
    tried: Counter[tuple[str, str]] = Counter()
    false: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        split_days(Path(directory), date(2013, 1, 1), date(2013, 1, 1) + timedelta(days=days - 1))
        for feed in feeds().values():
            for size in PARTS:
                past: list[Profile] = []
                for number, rows in enumerate(batches_of(feed, Path(directory), size)):
                    suspect, profile = found(feed, rows, past)
                    if len(past) >= FEWEST_BATCHES and (number % step == 0 or size == "a week"):
                        tried[feed.name, size] += 1
                        false[feed.name, size] += suspect
                        rows_of.setdefault((feed.name, size), []).append(rows.height)
                        for unit in (unit for unit in UNITS if unit.feed == feed.name):
                            for rounded in (False, True):
                                other = unit.converted.round(unit.decimals) if rounded else unit.converted
                                broken = rows.with_columns(other.alias(unit.column))
                                key = (feed.name, size, unit.column, unit.other, rounded)
                                hits[key] += found(feed, broken, past)[0]
                    past.append(profile)
    print("| column | unit | read as | " + " | ".join(f"{size}, exact | rounded" for size in PARTS) + " |")
    print("| --- | --- | --- |" + " --- | --- |" * len(PARTS))
    table: dict[str, dict[str, float | None]] = {}
    for unit in UNITS:
        cells = []
        for size in PARTS:
            count = tried[unit.feed, size]
            shares = [
                hits[unit.feed, size, unit.column, unit.other, rounded] / count if count else None
                for rounded in (False, True)
            ]
            of = table.setdefault(f"{unit.column} {unit.unit} as {unit.other}", {})
            of |= {
                f"{size}, {how}": None if share is None else round(share, 3)
                for how, share in zip(("exact", "rounded"), shares, strict=True)
            }
            cells += ["-" if share is None else f"{share:.0%}" for share in shares]
        print(f"| {unit.column} | {unit.unit} | {unit.other} | " + " | ".join(cells) + " |")
    print()
    for (name, size), count in tried.items():
        rows_per_batch = sorted(rows_of[name, size])[count // 2]
        print(
            f"{name}, {size}: {rows_per_batch:,} rows, {count} batches, {false[name, size]} suspect unconverted"
        )
    figures = {
        "days": days,
        "step": step,
        "tried": sum(tried.values()),
        "false_suspects": sum(false.values()),
        "seconds": round(time.perf_counter() - began, 1),
        "share_found": table,
    }
    return command.finish(figures)


if __name__ == "__main__":
    sys.exit(main())
