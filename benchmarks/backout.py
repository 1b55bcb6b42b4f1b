"""What a back-out costs as history grows: one batch of a feed with 10, 100, 1,000 and 10,000 batches.

The ten newest batches of each store are real: 300 rows each, loaded by `control.ingest` with an aggregate that servers
read, their files on the disk. The older ones are rows of the ledger alone (batches, files, parts, profiles, versions,
events and ten values for servers each), put there in bulk: a back-out that opens one of their files fails here, because
it may not look at them. The aggregate goes by the event time; one that goes by another column makes a back-out read all
rows of the feed, because the ledger does not know the bounds of that column. One snapshot holds everything. Three of the
real batches are backed out, each timed from the plan to the answer; the figure is their median, and the last line holds
the ratio of the two ends.

Run: python -m benchmarks.backout
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from sqlalchemy import insert, select

from benchmarks.command import Command
from holdfast.contract import Category, Contract, Integer, Number, Timestamp
from holdfast.control.backout.backout import execute_backout
from holdfast.control.ingest.ingest import ingest
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import Feed
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features, snapshots
from holdfast.store.db import events, schema
from holdfast.store.files import data_files
from tests.support.queries import write

HISTORIES = (10, 100, 1_000, 10_000)
REAL, ROWS = 10, 300
DAY_US = 86_400_000_000
FIRST_US = 20_000 * DAY_US
FEED = Feed(
    "flights",
    Contract(
        Integer("id", low=0),
        Category("origin"),
        Number("delay", unit="min", low=-60, high=600),
        Timestamp("at", tz="UTC"),
        key="id",
        event_time="at",
    ),
)
AGGREGATE = Aggregate(
    "delay_3h",
    over="flights",
    by="origin",
    value="delay",
    known_at="at",
    window="3h",
    every="10min",
    available_after="15min",
)


def load_real(store: Store, scratch: Path) -> None:
    """The ten newest batches, one a day."""
    for day in range(REAL):
        at = [FIRST_US + day * DAY_US + row * 200_000_000 for row in range(ROWS)]
        frame = pl.DataFrame(
            {
                "id": range(day * ROWS, (day + 1) * ROWS),
                "origin": [("EWR", "JFK", "LGA")[row % 3] for row in range(ROWS)],
                "delay": [float(row % 50) for row in range(ROWS)],
                "at": at,
            }
        ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
        path = scratch / f"d{day}.parquet"
        frame.write_parquet(path)
        result = ingest(
            store, FEED, f"d{day}", path, now_us=FIRST_US + (day + 1) * DAY_US, aggregates=[AGGREGATE]
        )
        assert result.state == "loaded"


def add_history(store: Store, count: int) -> None:
    """`count` older batches, as rows of the ledger alone: each like the first real one, a day earlier each."""
    with store.ledger.write() as connection:
        version = batches.current_version(connection)
        like = (
            connection.execute(select(schema.batches).where(schema.batches.c.batch == "d0")).mappings().one()
        )
        admitted = (
            connection.execute(select(schema.admissions).where(schema.admissions.c.batch == "d0"))
            .mappings()
            .one()
        )
        file = connection.execute(select(schema.files).limit(1)).mappings().one()
        kept = online_features.definitions(connection, "flights")
        rows: dict[str, list[dict[str, object]]] = {}
        for number in range(count):
            low_us = FIRST_US - (number + 1) * DAY_US
            name, made = f"old-{number}", version + number + 1
            named = {"feed": "flights", "batch": name, "epoch": 0}
            bounds = {"event_time_min_us": low_us, "event_time_max_us": low_us + DAY_US - 1}
            digest = f"{number:064x}"
            path = f"rows/{number:032x}-00000.parquet"
            rows.setdefault("versions", []).append(
                {"table_version": made, "committed_at_us": FIRST_US, "reason": name}
            )
            rows.setdefault("batches", []).append(
                {**like, **named, **bounds, "digest": digest, "table_version": made}
            )
            rows.setdefault("files", []).append(
                {**file, **bounds, "path": path, "sha256": digest, "added_version": made}
            )
            rows.setdefault("parts", []).append({**named, "path": path, "row_group": 0, "rows": ROWS})
            rows.setdefault("admissions", []).append(
                {**admitted, **named, "rows_digest": digest, "values_digest": digest}
            )
            rows.setdefault("values", []).extend(
                {
                    "aggregate": kept[0][0].aggregate,
                    "entity": ("EWR", "JFK", "LGA")[part % 3],
                    "known_at_us": low_us + part * 600_000_000,
                    "value": 1.0,
                    "table_version": made,
                }
                for part in range(10)
            )
            events.append(
                connection,
                at_us=FIRST_US,
                kind="batch.published",
                subject=f"flights/{name}",
                explanation=f"{ROWS} rows loaded",
            )
        tables = {
            "versions": schema.table_versions,
            "batches": schema.batches,
            "files": schema.files,
            "parts": schema.file_row_groups,
            "admissions": schema.admissions,
            "values": schema.online_features,
        }
        for kind, content in rows.items():
            connection.execute(insert(tables[kind]), content)
        online_features.register(connection, [definition for definition, _ in kept], version + count)


def measure(history: int, scratch: Path) -> tuple[float, list[float]]:
    """Median seconds of a back-out in a store with `history` batches, and all of them."""
    store = Store.open(scratch / "store")
    load_real(store, scratch)
    add_history(store, history - REAL)
    cut = write(
        store,
        snapshots.create,
        store.root,
        ["flights"],
        contract_hash=FEED.contract.hash,
        now_us=FIRST_US + 20 * DAY_US,
    )
    assert cut.rows == history * ROWS
    taken = []
    for day in (3, 5, 7):
        begun = time.perf_counter()
        done = execute_backout(
            store,
            [FEED],
            BatchId("flights", f"d{day}"),
            reason="a benchmark",
            actor="benchmark",
            now_us=FIRST_US + 30 * DAY_US,
        )
        taken.append(time.perf_counter() - begun)
        assert done.state == "backed_out"
    with store.ledger.read() as connection:
        left = data_files.entries(connection, "flights", batches.current_version(connection))
    assert sum(fact.rows for fact in left) == (history - 3) * ROWS
    store.ledger.close()
    return statistics.median(taken), taken


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("benchmarks.backout", __doc__)
    command.size("--histories", HISTORIES, (10, 20), type=int, nargs="+", help="batches of history")
    command.size("--rounds", 3, 1, help="stores of each size")
    options = command.parse(arguments)
    taken: dict[int, list[float]] = {history: [] for history in options.histories}
    for _ in range(options.rounds):
        for history in options.histories:
            scratch = Path(tempfile.mkdtemp())
            try:
                taken[history] += measure(history, scratch)[1]
            finally:
                shutil.rmtree(scratch)
    medians = {history: statistics.median(times) for history, times in taken.items()}
    for history, median in medians.items():
        low, high = min(taken[history]), max(taken[history])
        print(
            f"{history:>6} batches ({min(history, REAL)} with files): {median * 1e3:7.1f} ms a back-out "
            f"({low * 1e3:.1f} to {high * 1e3:.1f} ms, {len(taken[history])} runs)"
        )
    first, last = min(medians), max(medians)
    figures = {f"backout_{history}_ms": round(median * 1e3, 1) for history, median in medians.items()}
    growth = round(medians[last] / medians[first], 2)
    return command.finish({f"growth_{first}_to_{last}": growth, **figures})


if __name__ == "__main__":
    sys.exit(main())
