"""What durability, checking and a ledger cost: rows per second through the load, against a plain Parquet
file, Delta and DuckDB.

The ceiling is measured in the same run and the same rounds: PyArrow writes the same rows as Parquet with
Zstandard and calls fsync on each file; it checks nothing, hashes nothing and remembers nothing. Held against
it, each with 1, 34 and 340 commits of 3.37 million rows in all:

    write    valid rows in memory -> staged, synced files -> one transaction for each commit
    checked  the same with the contract's batch check in front
    ingest   `control.ingest`: reading and hashing the sender's Parquet file, check, profile, judgement, write, publish
    delta    deltalake, one append for each commit (whether it syncs was not looked at)
    duckdb   DuckDB, one INSERT and one checkpoint for each commit

`vs_parquet_fsync` is the smallest of ceiling / write over the three commit counts; the other figures name
what they include. `commits_1000_seconds` is the write way for 1,000 commits of 100 rows into one table by two loaders, a
process for each core of the machine that this is tuned on; each of them makes one commit durable before it begins its
next. `commits_1000_one_loader_seconds` is the same by one loader alone; `ingest_1000_seconds` is one loader through the
whole load, from the sender's files. Rounds alternate between the ways and every figure is made of medians.
Run: python -m benchmarks.ingest, or with --only-small for the small commits alone.
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
from deltalake import write_deltalake

from benchmarks.command import Command
from holdfast.contract import Boolean, Category, Contract, Integer, Number, Timestamp
from holdfast.contract.batch.compiler import compile_batch
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.stage import ROWS_PER_FILE
from holdfast.feeds import Feed, Manifest, Publish, content_digest
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db import events
from holdfast.store.files import staging
from holdfast.store.files.data_files import FileFacts

ROWS = 3_367_760
COMMITS = (1, 34, 340)
SMALL_COMMITS, SMALL_ROWS = 1_000, 100
LOADERS = 2
MANY_COMMITS = 5_000
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
    with opened(directory) as store:
        commit(store, parts, check=check)


def commit(store: Store, parts: list[pl.DataFrame], *, check: bool, first: int = 0) -> None:
    """Each part a load of its own, durable before the next begins; their ids count from `first`."""
    checking = compile_batch(CONTRACT)
    for number, part in enumerate(parts, first):
        valid = checking(part).valid if check else part
        manifest = Manifest.of(
            BatchId("flights", f"b{number}"), 0, content_digest([b"%d" % number]), CONTRACT.hash
        )
        with staging.staged(store.root) as stage:
            pieces = [valid.slice(start, ROWS_PER_FILE) for start in range(0, valid.height, ROWS_PER_FILE)]
            facts = stage.write_parts("flights", pieces, manifest.as_dict(), event_time="scheduled")
            stage.sync()
            low, high = facts[0].event_time_min_us, facts[-1].event_time_max_us
            counted = dataclasses.replace(
                manifest,
                rows_loaded=valid.height,
                rows_quarantined=0,
                event_time_min_us=low,
                event_time_max_us=high,
                source="memory",
                files=len(facts),
            )
            insert(store, counted, facts)


def insert(store: Store, manifest: Manifest, facts: Sequence[FileFacts]) -> None:
    """The transaction of a load, without what depends on a feed's expectations."""
    batch, now_us = BatchId(manifest.feed, manifest.batch), time.time_ns() // 1000
    with store.ledger.write() as connection:
        assert isinstance(batches.decide_load(connection, batch, manifest.digest), Publish)
        assert staging.all_exist(store.root, facts)
        batches.insert(connection, manifest, facts, batches.new_version(connection, f"load {batch}", now_us))
        events.append(
            connection, at_us=now_us, kind="batch.published", subject=str(batch), explanation="loaded"
        )


@contextmanager
def opened(directory: Path) -> Iterator[Store]:
    """A new store, closed at the end."""
    store = Store.open(directory)
    try:
        yield store
    finally:
        store.ledger.close()


def whole(sources: list[Path], directory: Path) -> None:
    """The load as users call it, from the sender's files."""
    store = Store.open(directory)
    for source in sources:
        result = ingest(store, FEED, source.stem, source, now_us=time.time_ns() // 1000)
        assert (result.state, result.rows_quarantined) == ("loaded", 0)
    store.ledger.close()


def delta(parts: list[pl.DataFrame], directory: Path) -> None:
    """Appends to a Delta table."""
    for part in parts:
        write_deltalake(str(directory / "delta"), part.to_arrow(), mode="append")


def by_duckdb(parts: list[pl.DataFrame], directory: Path) -> None:
    """Inserts into a table of a DuckDB file, each made durable by a checkpoint."""
    with duckdb.connect(str(directory / "rows.duckdb")) as connection:
        for number, part in enumerate(parts):
            connection.register("part", part.to_arrow())
            connection.execute(
                "INSERT INTO rows SELECT * FROM part" if number else "CREATE TABLE rows AS SELECT * FROM part"
            )
            connection.execute("CHECKPOINT")
            connection.unregister("part")


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
        "delta": lambda directory: delta(parts, directory),
        "duckdb": lambda directory: by_duckdb(parts, directory),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        order = list(ways.items())
        for name, way in order[turn % len(order) :] + order[: turn % len(order)]:
            taken[name].append(seconds(way, scratch))
    return {name: statistics.median(times) for name, times in taken.items()}


def resident_mb() -> float:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def by_two(sources: list[Path], directory: Path) -> float:
    """Seconds that two loaders take for the parts in `sources`, half of them each, from when both are ready."""
    spawning = multiprocessing.get_context("spawn")
    ready = spawning.Barrier(LOADERS + 1)
    size = len(sources) // LOADERS
    loaders = [
        spawning.Process(target=_share, args=(sources[first : first + size], first, directory, ready))
        for first in range(0, len(sources), size)
    ]
    for loader in loaders:
        loader.start()
    ready.wait(120)
    begun = time.perf_counter()
    for loader in loaders:
        loader.join()
    taken = time.perf_counter() - begun
    assert all(loader.exitcode == 0 for loader in loaders)
    return taken


def _share(sources: list[Path], first: int, directory: Path, ready: Barrier) -> None:
    parts = [pl.read_parquet(source) for source in sources]
    with opened(directory) as store:
        warm = Path(tempfile.mkdtemp(dir=directory.parent))
        write(parts[:10], warm, check=False)
        ready.wait(120)
        commit(store, parts, check=False, first=first)


def small_commits(scratch: Path, rounds: int, count: int, many: int) -> dict[str, float]:
    """Seconds for `count` durable commits of 100 rows, by the write path and by the whole load, and how memory grows
    with them and with `many` more.
    """
    frame = flights(many * SMALL_ROWS)
    parts = [frame.slice(start, SMALL_ROWS) for start in range(0, frame.height, SMALL_ROWS)]
    deliveries = scratch / "small"
    deliveries.mkdir()
    sources = [deliveries / f"b{number}.parquet" for number in range(count)]
    for part, source in zip(parts, sources, strict=False):
        part.write_parquet(source)
    few = parts[:count]
    write(parts[:50], Path(tempfile.mkdtemp(dir=scratch)), check=False)
    written, together, least, loaded = [], [], [], []
    for _ in range(rounds):
        together.append(by_two(sources, Path(tempfile.mkdtemp(dir=scratch))))
        with opened(Path(tempfile.mkdtemp(dir=scratch))) as store:  # making a ledger is no commit
            written.append(seconds(lambda _, store=store: commit(store, few, check=False), scratch))
        least.append(seconds(lambda directory: plain(few, directory), scratch))
    for _ in range(min(rounds, 3)):
        loaded.append(seconds(lambda directory: whole(sources, directory), scratch))
    before = resident_mb()
    seconds(lambda directory: write(few, directory, check=False), scratch)
    after_few = resident_mb()
    seconds(lambda directory: write(parts, directory, check=False), scratch)
    print(
        f"memory: {before:.0f} MB before, {after_few:.0f} MB after {count:,} commits more, "
        f"{resident_mb():.0f} MB after another {many:,}"
    )
    return {
        f"commits_{count}_seconds": round(statistics.median(together), 2),
        f"commits_{count}_one_loader_seconds": round(statistics.median(written), 2),
        f"plain_{count}_seconds": round(statistics.median(least), 2),
        f"ingest_{count}_seconds": round(statistics.median(loaded), 2),
        f"memory_growth_{count}_mb": round(after_few - before, 1),
        f"memory_growth_{count + many}_mb": round(resident_mb() - before, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("benchmarks.ingest", __doc__)
    command.size("--rows", ROWS, 3_000, help="rows in all")
    command.size("--rounds", 5, 1, help="alternating rounds")
    command.size(
        "--commits", COMMITS, (1, 3), type=int, nargs="+", help="commits that the rows are shared between"
    )
    command.size("--small-commits", SMALL_COMMITS, 10, help="commits of 100 rows")
    command.size(
        "--many-commits", MANY_COMMITS, 20, help="further ones, after which memory is looked at again"
    )
    command.option("--directory", type=Path, help="where to write (default: the temporary directory)")
    command.option("--only-small", action="store_true", help="measure the small commits alone")
    options = command.parse(arguments)
    figures: dict[str, object] = {}
    ratios: dict[str, dict[str, float]] = {}
    rates: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        scratch = Path(name)
        frame = flights(0 if options.only_small else options.rows)
        for commits in () if options.only_small else options.commits:
            medians = compare(frame, commits, options.rounds, scratch)
            for way, taken in medians.items():
                ratio = medians["plain"] / taken
                rate = frame.height / taken
                print(
                    f"{commits:>3} commits  {way:<8} {taken:7.3f} s  {rate:>12,.0f} rows/s  {ratio:5.2f} of plain"
                )
                commits_of = f"{commits} commits"
                rates.setdefault(way, {})[commits_of] = round(rate)
                if way != "plain":
                    ratios.setdefault(way, {})[commits_of] = round(ratio, 3)
        small = small_commits(scratch, options.rounds, options.small_commits, options.many_commits)
    print(f"commits of {SMALL_ROWS} rows: {small}")
    for way, figure in (
        ("write", "vs_parquet_fsync"),
        ("checked", "checked_vs_parquet_fsync"),
        ("ingest", "ingest_vs_parquet_fsync"),
        ("delta", "delta_vs_parquet_fsync"),
        ("duckdb", "duckdb_vs_parquet_fsync"),
    ):
        if ratios:
            figures[figure] = min(ratios[way].values())
    figures |= small
    if ratios:
        figures |= {"of_plain": ratios, "rows_a_second": rates}
    return command.finish(figures)


if __name__ == "__main__":
    sys.exit(main())
