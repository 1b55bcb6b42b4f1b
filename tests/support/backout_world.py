"""What the tests of backing out share: two feeds of one group with small deliveries, and a store to load them into.

Run as a program it backs a batch out and kills itself at a failpoint: `backout_world.py ROOT POINT BATCH`; POINT "-" is
none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from holdfast.contract import Category, Contract, Integer, Number, Timestamp
from holdfast.control.backout.backout import BackedOut, execute_backout
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.outcome import LoadResult
from holdfast.features import Aggregate
from holdfast.feeds import Feed
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.durability import failpoints
from holdfast.store.files import data_files

NOW_US = 1_700_000_000_000_000
START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 12

_COLUMNS = (
    Integer("id", low=0),
    Category("origin"),
    Number("delay", unit="min", low=-60, high=600, missing="keep"),
)
_TIMES = (Timestamp("at", tz="UTC"), Timestamp("left", tz="UTC", missing="keep"))
FLIGHTS = Feed("flights", Contract(*_COLUMNS, *_TIMES, key="id", event_time="at"), group="trips", period="1h")
WEATHER = Feed("weather", Contract(*_COLUMNS, *_TIMES, key="id", event_time="at"), group="trips", period="1h")
ALONE = Feed("alone", Contract(*_COLUMNS, *_TIMES, key="id", event_time="at"))
FEEDS = (FLIGHTS, WEATHER, ALONE)


def _aggregates(feed: Feed) -> tuple[Aggregate, ...]:
    shared = {"over": feed.name, "by": "origin", "value": "delay"}
    return (
        Aggregate(
            f"{feed.name}_mean", known_at="at", window="3h", every="30min", available_after="15min", **shared
        ),
        Aggregate(f"{feed.name}_last", known_at="left", window="2h", every="1h", agg="last", **shared),
    )


AGGREGATES = tuple(each for feed in FEEDS for each in _aggregates(feed))


def delivery(directory: Path, feed: Feed, hour: int, variant: int = 0) -> Path:
    """Twelve rows within two hours from `hour` on; neighbours overlap, `variant` is other content, row 7 breaks a rule."""
    times = [START + timedelta(hours=hour, minutes=10 * row) for row in range(ROWS)]
    path = directory / f"{feed.name}-{hour}-{variant}.parquet"
    pl.DataFrame(
        {
            "id": [1000 * hour + 100 * variant + row for row in range(ROWS)],
            "origin": [("EWR", "JFK", f"X{hour}")[(row + variant) % 3] for row in range(ROWS)],
            "delay": [9e9 if row == 7 else (row * 1.7 + hour * 0.3 + variant) % 90 for row in range(ROWS)],
            "at": times,
            "left": [timestamp + timedelta(minutes=5) for timestamp in times],
        }
    ).write_parquet(path)
    return path


def load(store: Store, directory: Path, feed: Feed, hour: int, variant: int = 0) -> LoadResult:
    """Load the delivery as batch `h<hour>`."""
    path = delivery(directory, feed, hour, variant)
    return ingest(store, feed, f"h{hour}", path, now_us=NOW_US, aggregates=AGGREGATES)


def take_out(store: Store, feed: Feed, hour: int, *, now_us: int = NOW_US) -> BackedOut:
    """Back batch `h<hour>` out, with its group."""
    batch = BatchId(feed.name, f"h{hour}")
    return execute_backout(store, FEEDS, batch, reason="the clock was wrong", actor="ann", now_us=now_us)


def readable(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table that a reader sees now, in an order of its own."""
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
    tables = [name for feed in FEEDS for name in (feed.name, f"{feed.name}__quarantine")]
    return {table: sorted(map(repr, data_files.read_rows(store, version, table).rows())) for table in tables}


def served(store: Store) -> dict[tuple[str, str, int], float]:
    """Every value that a server would hold that follows the ledger."""
    with store.ledger.read() as connection:
        _, values = online_features.since(connection, [each.key for each in AGGREGATES], 0)
    return {(v.aggregate, v.entity, v.known_at_us): v.value for v in values if v.value is not None}


def never_saw(root: Path, directory: Path, loads: Mapping[tuple[str, int], int]) -> Store:
    """A store of `loads` (feed and hour: variant) alone, in their order, which never saw anything else."""
    store = Store.open(root)
    by_name: dict[str, Feed] = {feed.name: feed for feed in FEEDS}
    for (feed, hour), variant in loads.items():
        load(store, directory, by_name[feed], hour, variant)
    return store


def kinds(steps: Iterable[object]) -> list[str]:
    """The names of the steps of a plan."""
    return [type(step).__name__ for step in steps]


def main(root: str, point: str, hour: str) -> None:
    store = Store.open(Path(root))
    if point != "-":
        failpoints.armed = failpoints.kill_at(point)
    done = take_out(store, FLIGHTS, int(hour))
    os.write(1, f"ACK {done.state}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
