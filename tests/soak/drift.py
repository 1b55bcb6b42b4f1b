"""Plants faults into the real flights and weather of a year and counts which of them the feed's own past gives away.

    python -m tests.soak.drift --days 365

prints, for each fault, on how many of the days that have a past it was found at level error with the name that it
should have, and how many days without a fault had a violation, by level. Nothing is drawn at random.
"""

from __future__ import annotations

import runpy
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from benchmarks.command import Command
from holdfast.contract.batch.compiler import compile_batch
from holdfast.contract.batch.typed_input import from_frame
from holdfast.contract.profile.profile import Profile, profile_batch
from holdfast.feeds import Feed
from holdfast.monitor.chance import FEWEST_BATCHES
from holdfast.monitor.drift import check_profile
from holdfast.records import Level, Violation
from tests.support.processes import ROOT

EXAMPLE = ROOT / "examples" / "flights"

Break = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Fault:
    """A fault: in which feed, what it does to a day's rows, and which check should find it in which column."""

    name: str
    feed: str
    break_rows: Break
    check: str
    subject: str


EVERY_THIRD = pl.int_range(pl.len()) % 3 == 0
SEVEN_OF_TEN = pl.int_range(pl.len()) % 10 < 7


def change(**columns: pl.Expr) -> Break:
    return lambda rows: rows.with_columns(**columns)


def of(feed: str, column: str, name: str, expression: pl.Expr, check: str, subject: str = "") -> Fault:
    return Fault(f"{feed}.{column} {name}", feed, change(**{column: expression}), check, subject or column)


def hours_later(column: str, hours: int) -> pl.Expr:
    return pl.col(column) + pl.duration(hours=hours)


FAULTS = (
    of("flights", "distance", "in kilometres", pl.col("distance") * 1.609344, "shift"),
    of("flights", "distance", "in thousands of miles", pl.col("distance") / 1000, "shift"),
    of("flights", "distance", "0 for a third", pl.when(EVERY_THIRD).then(0.0).otherwise("distance"), "zeros"),
    of("flights", "distance", "constant", pl.lit(1000.0), "constant"),
    of("flights", "distance", "to tens", (pl.col("distance") / 10).round() * 10, "rounded"),
    of("flights", "reported_delay", "in seconds", (pl.col("reported_delay") * 60).clip(-120, 2000), "shift"),
    of("flights", "reported_delay", "gone", pl.lit(None, pl.Float64), "missing"),
    of("flights", "carrier", "in lower case", pl.col("carrier").str.to_lowercase(), "new_slice"),
    of(
        "flights",
        "carrier",
        "renamed for a fifth",
        pl.when(pl.col("carrier") == "UA").then(pl.lit("XX")).otherwise("carrier"),
        "new_slice",
    ),
    of("flights", "late", "inverted", ~pl.col("late"), "label"),
    of("flights", "scheduled_departure", "in UTC", hours_later("scheduled_departure", 5), "zone"),
    of("flights", "scheduled_departure", "three hours early", hours_later("scheduled_departure", -3), "zone"),
    Fault(
        "flights.carrier and destination swapped",
        "flights",
        lambda rows: rows.with_columns(carrier="destination", destination="carrier"),
        "swap",
        "carrier+destination",
    ),
    Fault(
        "flights without LGA",
        "flights",
        lambda rows: rows.filter(pl.col("origin") != "LGA"),
        "missing_slice",
        "origin=LGA",
    ),
    Fault(
        "flights of JFK only",
        "flights",
        lambda rows: rows.filter(pl.col("origin") == "JFK"),
        "missing_slice",
        "origin=EWR",
    ),
    Fault(
        "flights by one robot",
        "flights",
        lambda rows: rows.with_columns(carrier=pl.when(SEVEN_OF_TEN).then(pl.lit("YV")).otherwise("carrier")),
        "mix",
        "carrier",
    ),
    of(
        "departures",
        "departure_delay",
        "in seconds",
        (pl.col("departure_delay") * 60).clip(-120, 2000),
        "shift",
    ),
    of("departures", "left_at", "in UTC", hours_later("left_at", 5), "zone"),
    of("weather", "temperature", "in Celsius", (pl.col("temperature") - 32) / 1.8, "shift"),
    of("weather", "temperature", "negative", -pl.col("temperature"), "shift"),
    of("weather", "temperature", "constant", pl.lit(59.0), "constant"),
    of("weather", "temperature", "whole", pl.col("temperature").round(), "rounded"),
    of(
        "weather",
        "temperature",
        "0 for a third",
        pl.when(EVERY_THIRD).then(0.0).otherwise("temperature"),
        "zeros",
    ),
    of("weather", "humidity", "as a share", pl.col("humidity") / 100, "shift"),
    of("weather", "wind_speed", "in tenths", (pl.col("wind_speed") * 10).clip(0, 200), "shift"),
    of("weather", "observed_at", "in UTC", hours_later("observed_at", 5), "zone"),
    Fault(
        "weather every three hours",
        "weather",
        lambda rows: rows.filter(pl.col("observed_at").dt.hour() % 3 == 0),
        "grain",
        "observed_at",
    ),
    Fault(
        "weather temperature and wind swapped",
        "weather",
        lambda rows: rows.with_columns(temperature="wind_speed", wind_speed="temperature"),
        "swap",
        "temperature+wind_speed",
    ),
)


@dataclass(frozen=True)
class Day:
    """A day of a feed: its rows as delivered, its profile, and the profiles of the days before it."""

    when: date
    rows: pl.DataFrame
    profile: Profile
    past: list[Profile]


def split_days(directory: Path, first: date, last: date) -> None:
    sys.path.insert(0, str(EXAMPLE))
    try:
        runpy.run_path(str(EXAMPLE / "daily_files.py"))["split"](directory, first, last)
    finally:
        sys.path.remove(str(EXAMPLE))


def feeds() -> dict[str, Feed]:
    declared = runpy.run_path(str(EXAMPLE / "model.py"))
    return {name: declared[name] for name in ("flights", "departures", "weather")}


def profile_of(feed: Feed, rows: pl.DataFrame) -> Profile:
    # What the contract strikes is no news; what it lets through is what this is about.
    valid = compile_batch(feed.contract)(from_frame(feed.contract, rows)).valid
    return profile_batch(feed.contract, valid)


def days_of(feed: Feed, directory: Path) -> Iterator[Day]:
    past: list[Profile] = []
    for file in sorted((directory / feed.name).iterdir()):
        rows = pl.read_parquet(file)
        profile = profile_of(feed, rows)
        yield Day(date.fromisoformat(file.stem), rows, profile, list(past))
        past.append(profile)


def found(fault: Fault, feed: Feed, day: Day) -> tuple[Violation, ...]:
    return check_profile(feed.contract, profile_of(feed, fault.break_rows(day.rows)), day.past)


def named(fault: Fault, violations: tuple[Violation, ...]) -> bool:
    return any(
        (violation.check, violation.subject, violation.level) == (fault.check, fault.subject, Level.ERROR)
        for violation in violations
    )


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.drift", __doc__)
    command.size("--days", 365, 11, help="days of the year")
    command.size("--step", 1, 3, help="plant on every n-th day only")
    options = command.parse(arguments)
    last = date(2013, 1, 1) + timedelta(days=options.days - 1)
    clean: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    any_error: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        split_days(Path(directory), date(2013, 1, 1), last)
        for feed in feeds().values():
            for number, day in enumerate(days_of(feed, Path(directory))):
                clean["days"] += 1
                for violation in check_profile(feed.contract, day.profile, day.past):
                    clean[f"{violation.level}"] += 1
                    if violation.level is Level.ERROR:
                        print(f"without a fault: {day.when} {violation.explanation}")
                if len(day.past) < FEWEST_BATCHES or number % options.step:
                    continue
                for fault in (fault for fault in FAULTS if fault.feed == feed.name):
                    broken = profile_of(feed, fault.break_rows(day.rows))
                    if (
                        broken.rows < 0.5 * day.profile.rows
                        and fault.check != "missing_slice"
                        and fault.check != "grain"
                    ):
                        rejected[fault.name] += 1  # the contract itself reports it
                        continue
                    violations = check_profile(feed.contract, broken, day.past)
                    planted[fault.name] += 1
                    hits[fault.name] += named(fault, violations)
                    any_error[fault.name] += any(v.level is Level.ERROR for v in violations)
    print(f"without a fault: {dict(clean)}")
    for fault in FAULTS:
        n = planted[fault.name]
        reported = f"{hits[fault.name]:4} named, {any_error[fault.name]:4} reported at all, of {n}"
        print(f"{fault.name:45} {fault.check:14} {reported}; {rejected[fault.name]} rejected by the contract")
    print(f"named in all: {hits.total()} of {planted.total()}; found in all: {any_error.total()}")
    figures = {
        "planted": planted.total(),
        "named": hits.total(),
        "found": any_error.total(),
        "rejected_by_the_contract": rejected.total(),
        "without_a_fault": dict(clean),
        "faults": {
            fault.name: {
                "check": fault.check,
                "planted": planted[fault.name],
                "named": hits[fault.name],
                "found": any_error[fault.name],
                "rejected": rejected[fault.name],
            }
            for fault in FAULTS
        },
    }
    return command.finish(figures)


if __name__ == "__main__":
    sys.exit(main())
