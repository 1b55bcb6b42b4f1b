"""Does one durable operation after the other and writes a line to stdout after each acknowledgement.

python acknowledger.py ROOT
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.backup import backup
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.repair import repair
from holdfast.store import Store
from holdfast.store.backout import tombstones
from holdfast.store.catalog import delta, snapshots
from holdfast.store.files import blobs
from tests.support import loader
from tests.support.queries import write


def deliver(directory: Path, day: int) -> Path:
    """A small delivery, outside the store."""
    times = [datetime(2013, 1, 1 + day, tzinfo=UTC) + timedelta(minutes=row) for row in range(30)]
    path = directory / f"day-{day}.parquet"
    columns = {"id": [100 * day + row for row in range(30)], "origin": ["JFK"] * 30, "delay": [1.0] * 30}
    pl.DataFrame(columns | {"at": times, "left": times}).write_parquet(path)
    return path


def main(root: str) -> None:
    home = Path(root)
    incoming = home.parent / f"incoming-{home.name}"
    incoming.mkdir()
    store = Store.open(home / "store")

    def acknowledge(what: str) -> None:
        os.write(1, f"ACK {what}\n".encode())

    for day in range(3):
        ingest(
            store,
            loader.FEED,
            f"day-{day}",
            deliver(incoming, day),
            now_us=day,
            aggregates=[loader.AGGREGATE],
        )
        acknowledge("ingest")
    blobs.put(store.root, b"model")
    acknowledge("blob")
    compact(store, ["flights"], now_us=5)
    acknowledge("compact")
    snapshot = write(store, snapshots.create, store.root, ["flights"], contract_hash="c", now_us=6)
    acknowledge("snapshot")
    delta.export(store, snapshot.snapshot, now_us=6)
    acknowledge("export")
    with store.ledger.write() as connection:
        tombstones.record(store.root, connection, [("flights", "day-1", 0)], backout=1, at_us=7)
    acknowledge("tombstone")
    tombstones.path_of(store.root, ("flights", "day-1", 0)).unlink()
    backup(store, home / "kept", now_us=8)
    acknowledge("backup")
    victim = next((store.root / "rows").iterdir())
    victim.unlink()
    repaired = repair(store, now_us=9, sources=[home / "kept"])
    acknowledge(f"repair {len(repaired.repairs)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
