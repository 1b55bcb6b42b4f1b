"""A loader process for the tests: loads files in order and writes one line to stdout after each
acknowledgement.

    python loader.py ROOT POINT FILE...

Batches are named after the files. POINT is a failpoint at which the process kills itself, or "-" for none.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from holdfast.contract import Category, Contract, Integer, Number, Timestamp
from holdfast.control.ingest.ingest import ingest
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import Feed
from holdfast.store import Store
from holdfast.store.durability import failpoints

CONTRACT = Contract(
    Integer("id", low=0),
    Category("origin"),
    Number("delay", unit="min", low=-60, high=600, missing="keep"),
    Timestamp("at", tz="America/New_York"),
    Timestamp("left", tz="UTC", missing="keep"),
    key="id",
    event_time="at",
)
FEED = Feed("flights", CONTRACT)
AGGREGATE = Aggregate(
    "delay_3h",
    over="flights",
    by="origin",
    value="delay",
    known_at="left",
    window="3h",
    every="10min",
    available_after="15min",
)


def main(root: str, point: str, *paths: str) -> None:
    store = Store.open(Path(root))
    if point != "-":
        failpoints.armed = failpoints.kill_at(point)
    for path in map(Path, paths):
        result = ingest(store, FEED, path.stem, path, now_us=time.time_ns() // 1000, aggregates=[AGGREGATE])
        os.write(1, f"ACK {result.batch} {result.state}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
