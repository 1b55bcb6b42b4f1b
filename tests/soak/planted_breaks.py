"""Loads the real flights of a year day by day and plants broken contracts into copies of its days.

    python -m tests.soak.planted_breaks --days 365

prints the violations of the clean days, which should have none of level error or worse, and for each break on how many of
the days it was caught: refused, or reported at level error, by the check that should find it, about the column that it is in.
Nothing is drawn at random. Exit status 1 when a break was missed or a clean day was taken for a broken one.
"""

# ruff: noqa: E501 - the table of breaks reads best with a row to a line

from __future__ import annotations

import runpy
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.command import Command
from holdfast.contract import Contract, Integer
from holdfast.control.ingest.dry_run import check
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.errors import HoldfastError
from holdfast.feeds import Expectations, Feed, Granularity, Limits, Reference
from holdfast.records import Level, Violation
from holdfast.store import Store
from tests.support.processes import ROOT

EXAMPLE = ROOT / "examples" / "flights"
NEW_YEAR = date(2013, 1, 1)
WARM_UP = 30
"""Breaks are planted on days that have this many days before them."""

Damage = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Break:
    """A broken contract: in which feed, what it does to the rows of a day, and what should be reported of it.

    `check` and `subject` are of the violation that names it, or `check` is the code of the error that refuses the delivery.
    `reason` stands in its explanation. `same_day` loads it when its own day is over. `ahead` takes the rows of so many days
    later. `declared` is what the sender declares, as a multiple of what it sent. `another_id` delivers it under an id of its
    own. `written` makes another file of the frame than Parquet. `expects` gives the feed other expectations. `months` are
    those in which it can be reported: a cold day in Celsius reads like a colder one in Fahrenheit, and like the wind.
    """

    name: str
    feed: str
    damage: Damage
    check: str
    subject: str = ""
    reason: str = ""
    same_day: bool = False
    ahead: int = 0
    declared: float | None = None
    another_id: bool = False
    written: Callable[[pl.DataFrame, Path], Path] | None = None
    expects: Callable[[Feed], Feed] = lambda feed: feed
    months: range = range(1, 13)


def change(**columns: pl.Expr) -> Damage:
    return lambda rows: rows.with_columns(**columns)


def as_it_is(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def clocks_as(column: str, shown: str, taken_for: str) -> Damage:
    """What the clocks of zone `shown` show, taken for the clocks of zone `taken_for`."""
    wall = pl.col(column).dt.convert_time_zone(shown).dt.replace_time_zone(None)
    taken = wall.dt.replace_time_zone(taken_for, ambiguous="earliest", non_existent="null")
    return lambda rows: rows.with_columns(taken.dt.convert_time_zone(NEW_YORK).alias(column)).drop_nulls(
        column
    )


def later(column: str, hours: int) -> Damage:
    return change(**{column: pl.col(column) + pl.duration(hours=hours)})


def dated_anew(rows: pl.DataFrame) -> pl.DataFrame:
    """Yesterday's rows with today's date, in their time and in their ids."""
    moved = pl.col("scheduled_departure").dt.offset_by("1d")
    return rows.with_columns(moved).with_columns(
        flight_id=moved.dt.strftime("%Y%m%d") + pl.col("flight_id").str.slice(8)
    )


def every_five_minutes(rows: pl.DataFrame) -> pl.DataFrame:
    steps = pl.DataFrame({"step": range(12)})
    moved = pl.col("observed_at") + pl.duration(minutes=5 * pl.col("step"))
    return rows.join(steps, how="cross").with_columns(moved).drop("step")


def twice_with_new_ids(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows, rows.with_columns(flight_id=pl.col("flight_id") + "-2")])


def latin_csv(rows: pl.DataFrame, path: Path) -> Path:
    path = path.with_suffix(".csv")
    texts = rows.with_columns(
        pl.col(pl.Datetime).dt.to_string("iso:strict"), destination=pl.lit("S\u00e3o Paulo")
    )
    path.write_bytes(texts.write_csv().encode("latin-1"))
    return path


def counted(feed: Feed) -> Feed:
    contract = Contract(
        *feed.contract.columns,
        Integer("number", low=0),
        key=feed.contract.key,
        event_time=feed.contract.event_time,
    )
    return replace(
        feed, contract=contract, expects=Expectations(sequence="number"), name="departures-counted"
    )


def referring(feed: Feed) -> Feed:
    expects = Expectations(
        references=(Reference("flight_id", "flights", "flight_id", lookback="3d"),),
        invalid_rows=Limits(error=0.05),
    )
    return replace(feed, expects=expects, name="departures-referring")


def of_ten_seconds(feed: Feed) -> Feed:
    return replace(
        feed, expects=Expectations(granularity=Granularity("10s", by="origin")), name="weather-fine"
    )


NEW_YORK = "America/New_York"
WARM = range(6, 11)
ROW = pl.int_range(pl.len())
HOUR = pl.col("scheduled_departure").dt.hour()

BREAKS: tuple[Break, ...] = (
    Break("kilometres for miles", "flights", change(distance=pl.col("distance") * 1.609344), "shift", "distance"),
    Break("a renamed column", "flights", lambda rows: rows.rename({"distance": "dist"}), "schema", "distance", "probably 'dist'"),
    Break("a column less", "flights", lambda rows: rows.drop("carrier"), "schema", "carrier"),
    Break("a column more", "flights", change(gate=pl.lit("A1")), "schema", "gate"),
    Break("a number as text", "flights", change(distance=pl.col("distance").cast(pl.String)), "schema", "distance"),
    Break("two columns swapped", "flights", change(carrier=pl.col("destination"), destination=pl.col("carrier")), "swap", "carrier+destination"),
    Break("UTC taken for local time", "flights", clocks_as("scheduled_departure", "UTC", NEW_YORK), "other_days", "scheduled_departure"),
    Break("local time taken for UTC", "flights", clocks_as("scheduled_departure", NEW_YORK, "UTC"), "zone", "scheduled_departure"),
    Break("Chicago's clocks for New York's", "flights", clocks_as("scheduled_departure", "America/Chicago", NEW_YORK), "zone", "scheduled_departure"),
    Break("the first half of a file", "flights", lambda rows: rows.head(rows.height // 2), "gap"),
    Break("every second row, and the sender counts all", "flights", lambda rows: rows.filter(ROW % 2 == 0), "row_count", declared=2.0),
    Break("the same file under another id", "flights", as_it_is, "HF203", ahead=-1, another_id=True),
    Break("the same rows in another order", "flights", lambda rows: rows.reverse(), "duplicates", ahead=-1, another_id=True),
    Break("yesterday's file dated anew", "flights", dated_anew, "duplicates", ahead=-1),
    Break("an airport missing", "flights", lambda rows: rows.filter(pl.col("origin") != "JFK"), "missing_slice", "origin=JFK"),
    Break("an airport that is new", "flights", change(origin=pl.when(ROW % 5 == 0).then(pl.lit("HPN")).otherwise("origin")), "invalid_rows", "", "origin|unseen"),
    Break("codes in lower case", "flights", change(carrier=pl.col("carrier").str.to_lowercase()), "new_slice"),
    Break("damaged characters", "flights", change(carrier=pl.col("carrier").str.replace("A", "\ufffd")), "new_slice"),
    Break("a file that is not UTF-8", "flights", as_it_is, "HF201", written=latin_csv),
    Break("the label inverted", "flights", change(late=~pl.col("late")), "label", "late"),
    Break("the label before it can be known", "flights", as_it_is, "early_labels", "late", same_day=True),
    Break("a constant column", "flights", change(distance=pl.lit(1000.0)), "constant", "distance"),
    Break("every second value missing", "weather", change(humidity=pl.when(ROW % 2 == 0).then(None).otherwise("humidity")), "missing", "humidity"),
    Break("the sign flipped", "flights", change(distance=-pl.col("distance")), "invalid_rows", "", "distance|range"),
    Break("rounded values", "flights", change(distance=(pl.col("distance") / 500).round() * 500), "rounded", "distance"),
    Break("every row twice", "flights", lambda rows: pl.concat([rows, rows]), "invalid_rows", "", "flight_id|duplicate"),
    Break("every row twice with new ids", "flights", twice_with_new_ids, "rows"),
    Break("a program that books", "flights", change(carrier=pl.when(ROW % 10 < 7).then(pl.lit("YV")).otherwise("carrier")), "mix", "carrier"),
    Break("hours missing", "flights", lambda rows: rows.filter(~HOUR.is_between(11, 16)), "gap"),
    Break("an hour late at the change of clocks", "departures", later("left_at", 1), "other_days", "left_at"),
    Break("hours for minutes", "departures", change(departure_delay=pl.col("departure_delay") / 60), "shift", "departure_delay"),
    Break("the sign of the delay flipped", "departures", change(departure_delay=-pl.col("departure_delay")), "shift", "departure_delay"),
    Break("seconds for minutes", "departures", change(departure_delay=(pl.col("departure_delay") * 60).clip(-120, 2000)), "shift", "departure_delay"),
    Break("days missing", "departures", as_it_is, "missing_batches", ahead=2),
    Break("holes in the numbers", "departures", lambda rows: rows.with_columns(number=ROW.cast(pl.Int64)).filter(ROW % 50 != 7), "sequence_gaps", "number", expects=counted),
    Break("flights that are unknown", "departures", change(flight_id=pl.when(ROW % 4 == 0).then(pl.lit("x-") + pl.col("flight_id")).otherwise("flight_id")), "invalid_rows", "", "flight_id|reference", expects=referring),
    Break("degrees Celsius for Fahrenheit", "weather", change(temperature=(pl.col("temperature") - 32) / 1.8), "shift", "temperature", months=WARM),
    Break("UTC for local time in the weather", "weather", clocks_as("observed_at", "UTC", NEW_YORK), "other_days", "observed_at"),
    Break("clocks not set forward", "weather", later("observed_at", 1), "other_days", "observed_at"),
    Break("five minutes for an hour", "weather", every_five_minutes, "granularity", "observed_at"),
    Break("three hours for an hour", "weather", lambda rows: rows.filter(pl.col("observed_at").dt.hour() % 3 == 0), "granularity", "observed_at"),
    Break("an hour for ten seconds", "weather", as_it_is, "granularity", "observed_at", "10 s", expects=of_ten_seconds),
    Break("temperature and wind swapped", "weather", change(temperature=pl.col("wind_speed"), wind_speed=pl.col("temperature")), "swap", "temperature+wind_speed", months=WARM),
    Break("hours missing at one airport", "weather", lambda rows: rows.filter((pl.col("origin") != "LGA") | ~pl.col("observed_at").dt.hour().is_between(8, 14)), "gap", "origin=LGA"),
    Break("zeros for missing values", "weather", change(temperature=pl.when(ROW % 3 == 0).then(0.0).otherwise("temperature")), "zeros", "temperature"),
    Break("values lost", "weather", change(temperature=pl.lit(None, pl.Float64)), "missing", "temperature"),
    Break("rounded humidity", "weather", change(humidity=(pl.col("humidity") / 10).round() * 10), "rounded", "humidity"),
    Break("no row", "weather", lambda rows: rows.head(0), "rows"),
)  # fmt: skip


class Year:
    """The year in a store, day by day, and copies of its days with breaks in them."""

    def __init__(self, directory: Path, first: date, days: int) -> None:
        sys.path.insert(0, str(EXAMPLE))
        try:
            model = runpy.run_path(str(EXAMPLE / "model.py"))["model"]
            snapshot = runpy.run_path(str(EXAMPLE / "daily_files.py"))["split"]
        finally:
            sys.path.remove(str(EXAMPLE))
        self.feeds: dict[str, Feed] = {feed.name: feed for feed in model.feeds}
        self.first, self.days = first, days
        self.store = Store.open(directory / "store")
        self._incoming, self._broken = directory / "incoming", directory / "broken"
        self._broken.mkdir()
        snapshot(self._incoming, first, first + timedelta(days=days + 1))

    def file(self, feed: str, day: int) -> Path:
        return self._incoming / feed / f"{self.first + timedelta(days=day)}.parquet"

    def load(self, day: int) -> Iterator[tuple[str, Violation]]:
        """Load the clean day of every feed, two days later; what was found wrong with it, with the feed's name."""
        for name, feed in self.feeds.items():
            path = self.file(name, day)
            if path.exists():
                found = ingest(self.store, feed, path.stem, path, now_us=self._us(day + 2))
                yield from ((f"{path.stem} {name}", violation) for violation in found.violations)

    def plant(self, broken: Break, day: int) -> str:
        """What a load of the broken day would report: "" when it is caught as it should be, else what it reports instead."""
        feed = broken.expects(self.feeds[broken.feed])
        source = self.file(broken.feed, day + broken.ahead)
        rows = broken.damage(pl.read_parquet(source))
        path = self._broken / f"{self.first + timedelta(days=day)}.parquet"
        if broken.written is not None:
            path = broken.written(rows, path)
        elif broken.check == "HF203":
            path.write_bytes(source.read_bytes())
        else:
            rows.write_parquet(path)
        batch = "sent-again" if broken.another_id else path.stem
        declared = None if broken.declared is None else int(rows.height * broken.declared)
        now_us = self._us(day + (1 if broken.same_day else 2 + max(0, broken.ahead)))
        try:
            found = check(self.store, feed, DeliverySpec(batch, path, declared), now_us=now_us)
        except HoldfastError as error:
            return "" if error.code == broken.check else str(error)
        reported = [each for each in found.violations if each.level is not Level.WARNING]
        if found.refusal is not None and found.refusal.code == "HF204":
            reported.append(Violation("rows", "", Level.CRITICAL, found.refusal.what))
        if any(self._names(broken, each) for each in reported):
            return ""
        return (
            "; ".join(f"{each.level} {each.check} {each.subject}" for each in found.violations) or "nothing"
        )

    @staticmethod
    def _names(broken: Break, found: Violation) -> bool:
        return (
            found.check == broken.check
            and (not broken.subject or found.subject == broken.subject)
            and broken.reason in found.explanation
        )

    def _us(self, day: int) -> int:
        """Six in the morning of that day, UTC: New York's day before is over, and what happened in it can be known."""
        morning = datetime.combine(self.first, datetime.min.time(), UTC) + timedelta(days=day, hours=6)
        return round(morning.timestamp() * 1e6)


def run(directory: Path, first: date, days: int, planted: Sequence[int]) -> dict[str, Any]:
    """Load `days` days from `first` and plant every break on each day of `planted`."""
    year = Year(directory, first, days)
    clean: Counter[str] = Counter()
    alarms: list[str] = []
    tried, caught = 0, 0
    missed: list[str] = []
    for day in range(days):
        if day in planted:
            when = first + timedelta(days=day)
            for broken in (each for each in BREAKS if when.month in each.months):
                instead = year.plant(broken, day)
                tried, caught = tried + 1, caught + (not instead)
                if instead:
                    missed.append(f"{broken.name} on {when}: {instead}")
        for where, violation in year.load(day):
            clean[str(violation.level)] += 1
            if violation.level is not Level.WARNING:
                alarms.append(f"{where}: {violation.check} {violation.subject}: {violation.explanation}")
    return {
        "breaks": len(BREAKS),
        "planted": tried,
        "caught": caught,
        "clean_batches": days * len(year.feeds),
        "clean_violations": dict(clean),
        "alarms": alarms,
        "missed": missed,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.planted_breaks", __doc__)
    command.size("--first", NEW_YEAR, date(2013, 6, 1), type=date.fromisoformat, help="first day")
    command.size("--days", 364, 32, help="days from the first one on")
    command.size("--after", WARM_UP + 10, WARM_UP, help="days before breaks are planted")
    command.option("--every", type=int, default=60, help="plant on every so many days (default %(default)s)")
    options = command.parse(arguments)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        planted = range(options.after, options.days - 1, options.every)
        outcome = run(Path(name), options.first, options.days, planted)
    for line in (*outcome["alarms"], *outcome["missed"]):
        print(line)
    outcome["seconds"] = round(time.perf_counter() - began, 1)
    return command.finish(outcome, passed=not outcome["alarms"] and not outcome["missed"])


if __name__ == "__main__":
    sys.exit(main())
