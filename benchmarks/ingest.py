"""What durability, checking and a ledger cost: rows per second through the load, against a plain Parquet
file.

The ceiling is measured in the same run and the same rounds: PyArrow writes the same rows as Parquet with
Zstandard and calls fsync on each file; it checks nothing, hashes nothing and remembers nothing. Three ways
are held against it, each with 1 and with 34 commits:

    write    valid rows in memory -> staged, synced files -> one transaction for each commit
    checked  the same with the contract's batch check in front
    ingest   `control.ingest`: reading and hashing the sender's Parquet file, check, write, publish

`vs_parquet_fsync` is the geometric mean over both commit counts of ceiling / write; the other figures name
what they include. Rounds alternate between the ways and every figure is made of medians. Run: python
benchmarks/ingest.py
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from holdfast.contract import Boolean, Category, Contract, Integer, Number, Timestamp, compile_batch
from holdfast.control.ingest import ROWS_PER_FILE, ingest
from holdfast.feeds import Feed, Manifest, content_digest
from holdfast.records import BatchId
from holdfast.store import Store, batches, files
from holdfast.store.batches import Publication

ROWS = 3_367_760
COMMITS = (1, 34)
SMALL_COMMITS, SMALL_ROWS = 1_000, 100
CONTRACT = Contract(
    Integer("flight_id", low=0),
    Category("carrier"),
    Category("origin", values=("EWR", "JFK", "LGA"), unseen="reject"),
    Category("dest"),
    Integer("flight", low=1, high=9999),
    Timestamp("scheduled", tz="America/New_York"),
    Timestamp("departed", tz="America/New_York", missing="keep"),
    Number("distance", unit="mi", low=0, high=6000),
    Number("departure_delay", unit="min", low=-120, high=2000, missing="keep"),
    Number("arrival_delay", unit="min", low=-200, high=2000, missing="keep"),
    Number("air_time", unit="min", low=0, high=900, missing="keep"),
    Boolean("late"),
    key="flight_id",
    event_time="scheduled",
)
FEED = Feed("flights", CONTRACT)


def flights(rows: int) -> pl.DataFrame:
    """Rows with the columns, the cardinalities and the gaps of a year of flights, in event order."""
    draw = np.random.default_rng(2013)
    first = datetime(2013, 1, 1, 5, tzinfo=UTC)
    minutes = np.sort(draw.integers(0, 365 * 24 * 60, rows))
    delay = np.round(draw.exponential(25.0, rows) - 12)
    cancelled = draw.random(rows) < 0.025
    frame = pl.DataFrame(
        {
            "flight_id": np.arange(rows, dtype=np.int64),
            "carrier": draw.choice(["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX", "FL"], rows),
            "origin": draw.choice(["EWR", "JFK", "LGA"], rows),
            "dest": draw.choice([f"D{number:02d}" for number in range(105)], rows),
            "flight": draw.integers(1, 8500, rows),
            "minutes": minutes,
            "distance": draw.integers(80, 4983, rows).astype(float),
            "departure_delay": delay,
            "arrival_delay": np.round(delay + draw.normal(-5, 15, rows)).clip(-200, 2000),
            "air_time": np.round(draw.normal(150, 60, rows)).clip(20, 700),
            "late": delay > 15,
            "cancelled": cancelled,
        }
    )
    scheduled = (pl.lit(first) + pl.duration(minutes="minutes")).dt.convert_time_zone("America/New_York")
    measured = ("departure_delay", "arrival_delay", "air_time")
    return frame.with_columns(scheduled=scheduled).select(
        [
            pl.when(~pl.col("cancelled")).then(pl.col(column.name)).alias(column.name)
            if column.name in measured
            else (
                pl.when(~pl.col("cancelled")).then(
                    pl.col("scheduled") + pl.duration(minutes="departure_delay")
                )
                if column.name == "departed"
                else pl.col(column.name)
            ).alias(column.name)
            for column in CONTRACT.columns
        ]
    )


def plain(parts: list[pl.DataFrame], directory: Path) -> None:
    """The ceiling: each part a Parquet file with Zstandard, synced. Nothing else."""
    for number, part in enumerate(parts):
        path = directory / f"{number}.parquet"
        pq.write_table(part.to_arrow(), path, compression="zstd")
        with path.open("rb") as file:
            os.fsync(file.fileno())


def write(parts: list[pl.DataFrame], directory: Path, *, check: bool) -> None:
    """The write path of the load: staged files, sealed, and published in one transaction for each part."""
    store = Store.open(directory)
    checking = compile_batch(CONTRACT)
    for number, part in enumerate(parts):
        valid = checking(part).valid if check else part
        manifest = Manifest.of(
            BatchId("flights", f"b{number}"), 0, content_digest([b"%d" % number]), CONTRACT.hash
        )
        with files.staged(store.root) as stage:
            pieces = [valid.slice(start, ROWS_PER_FILE) for start in range(0, valid.height, ROWS_PER_FILE)]
            facts = stage.write_parts("flights", pieces, manifest.as_dict())
            stage.seal()
            low, high = (int(valid["scheduled"].to_physical()[end]) for end in (0, -1))
            publication = Publication(manifest, tuple(facts), valid.height, 0, low, high, "memory", "loaded")
            outcome = batches.publish(store, publication, now_us=time.time_ns() // 1000)
            assert isinstance(outcome, batches.Published)
    store.ledger.close()


def whole(sources: list[Path], directory: Path) -> None:
    """The load as users call it, from the sender's files."""
    store = Store.open(directory)
    for source in sources:
        result = ingest(store, FEED, source.stem, source, now_us=time.time_ns() // 1000)
        assert (result.state, result.rows_quarantined) == ("loaded", 0)
    store.ledger.close()


def seconds(work: Callable[[Path], None], scratch: Path) -> float:
    """How long `work` takes in an empty directory."""
    directory = Path(tempfile.mkdtemp(dir=scratch))
    Store.open(directory).ledger.close()
    os.sync()
    gc.collect()
    begun = time.perf_counter()
    work(directory)
    taken = time.perf_counter() - begun
    shutil.rmtree(directory)
    return taken


def compare(frame: pl.DataFrame, commits: int, rounds: int, scratch: Path) -> dict[str, float]:
    """Median seconds of each way over alternating rounds."""
    size = -(-frame.height // commits)
    parts = [frame.slice(start, size) for start in range(0, frame.height, size)]
    deliveries = scratch / f"deliveries-{commits}"
    deliveries.mkdir()
    sources = [deliveries / f"b{number}.parquet" for number in range(len(parts))]
    for part, source in zip(parts, sources, strict=True):
        part.write_parquet(source)
    ways: dict[str, Callable[[Path], None]] = {
        "plain": lambda directory: plain(parts, directory),
        "write": lambda directory: write(parts, directory, check=False),
        "checked": lambda directory: write(parts, directory, check=True),
        "ingest": lambda directory: whole(sources, directory),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        order = list(ways.items())
        for name, way in order[turn % 4 :] + order[: turn % 4]:
            taken[name].append(seconds(way, scratch))
    return {name: statistics.median(times) for name, times in taken.items()}


def small_commits(scratch: Path) -> tuple[float, float, float]:
    """Seconds for 1,000 publications of 100 rows, for 200 whole loads of 100 rows, and MB that memory grew
    by.
    """
    frame = flights(SMALL_COMMITS * SMALL_ROWS)
    parts = [frame.slice(start, SMALL_ROWS) for start in range(0, frame.height, SMALL_ROWS)]
    write(parts[:50], Path(tempfile.mkdtemp(dir=scratch)), check=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    published = seconds(lambda directory: write(parts, directory, check=False), scratch)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    deliveries = scratch / "small"
    deliveries.mkdir()
    sources = [deliveries / f"b{number}.parquet" for number in range(200)]
    for part, source in zip(parts, sources, strict=False):
        part.write_parquet(source)
    return published, seconds(lambda directory: whole(sources, directory), scratch), grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="rows in all (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default %(default)s)")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where to write (default: the temporary directory)"
    )
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        scratch = Path(name)
        frame = flights(options.rows)
        for commits in COMMITS:
            medians = compare(frame, commits, options.rounds, scratch)
            for way, taken in medians.items():
                ratio = medians["plain"] / taken
                rate = frame.height / taken
                print(
                    f"{commits:>3} commits  {way:<8} {taken:7.3f} s  {rate:>12,.0f} rows/s  {ratio:5.2f} of plain"
                )
                if way != "plain":
                    figures[f"{way}_vs_parquet_fsync_{commits}"] = round(ratio, 3)
            figures[f"ingest_rows_per_second_{commits}"] = round(frame.height / medians["ingest"])
        published, loaded, grown = small_commits(scratch)
    print(
        f"{SMALL_COMMITS} publications of {SMALL_ROWS} rows: {published:.2f} s, memory grew by {grown:.1f} MB"
    )
    print(f"200 whole loads of {SMALL_ROWS} rows: {loaded:.2f} s")
    for way, figure in (
        ("write", "vs_parquet_fsync"),
        ("checked", "checked_vs_parquet_fsync"),
        ("ingest", "ingest_vs_parquet_fsync"),
    ):
        figures[figure] = round(
            statistics.geometric_mean(figures[f"{way}_vs_parquet_fsync_{n}"] for n in COMMITS), 3
        )
    figures["small_commits_1000_seconds"] = round(published, 2)
    figures["small_commits_memory_growth_mb"] = round(grown, 1)
    print(json.dumps({"benchmark": "ingest", "figures": figures}))


if __name__ == "__main__":
    main()
