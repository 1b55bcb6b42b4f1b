"""How long `holdfast verify` takes on a store of many small files, and how much memory: whole, and quick as before a start.

Each file is a load of its own; they are made without a load's checks and syncs, which are not what is measured.
Run: python -m benchmarks.verify --files 10000
"""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from sqlalchemy import insert

from benchmarks.command import Command
from holdfast.contract import Contract, Integer, Number, Timestamp
from holdfast.control.maintenance.verify import verify
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.feeds import contracts
from holdfast.store.files import parquet

CONTRACT = Contract(
    Integer("id", low=0), Number("value", unit="1"), Timestamp("at", tz="UTC"), key="id", event_time="at"
)
START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 20


def build(root: Path, count: int) -> Store:
    """A store of `count` loads of one file each."""
    store = Store.open(root)
    (root / "rows").mkdir()
    contracts.keep_copy(root, CONTRACT.hash, CONTRACT.to_json())
    rows: dict[str, list[dict[str, object]]] = {
        "table_versions": [],
        "batches": [],
        "files": [],
        "file_row_groups": [],
    }
    for number in range(count):
        times = [START + timedelta(minutes=ROWS * number + row) for row in range(ROWS)]
        ids = list(range(ROWS * number, ROWS * (number + 1)))
        frame = pl.DataFrame({"id": ids, "value": [0.5] * ROWS, "at": times})
        low_us, high_us = (int(each.timestamp() * 1_000_000) for each in (times[0], times[-1]))
        load = {"feed": "readings", "batch": f"b{number}", "epoch": 0}
        counted = {"rows_loaded": ROWS, "rows_quarantined": 0, "source": "made"}
        bounds = {"event_time_min_us": low_us, "event_time_max_us": high_us}
        judged = {"digest": f"{number:064x}", "contract_hash": CONTRACT.hash}
        footer = {
            **load,
            **judged,
            **counted,
            **bounds,
            "key": "id",
            "files": 1,
            "table": "readings",
            "file": 0,
        }
        data = bytes(parquet.encode(frame, footer))
        path = f"rows/{number:032x}-00000.parquet"
        (root / path).write_bytes(data)
        version = {"table_version": number + 1}
        rows["table_versions"].append(
            version | {"committed_at_us": number, "reason": f"load readings/b{number}"}
        )
        state = {"state": "published", "rows_received": ROWS}
        rows["batches"].append(load | judged | counted | bounds | state | version)
        sha256 = hashlib.sha256(data).hexdigest()
        about = {"path": path, "table_name": "readings", "feed": "readings", "rows": ROWS, "bytes": len(data)}
        rows["files"].append(about | bounds | {"sha256": sha256, "added_version": number + 1})
        rows["file_row_groups"].append(load | {"path": path, "row_group": 0, "rows": ROWS})
    with store.ledger.write() as connection:
        contracts.put(connection, CONTRACT, now_us=1)
        for table, values in rows.items():
            connection.execute(insert(schema.METADATA.tables[table]), values)
    return store


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("benchmarks.verify", __doc__)
    command.size("--files", 10_000, 50, help="loads of one file each")
    asked = command.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="holdfast-verify-") as directory:
        store = build(Path(directory) / "store", asked.files)
        figures: dict[str, object] = {"files": asked.files}
        for name, quick in (("quick", True), ("whole", False)):
            told: list[int] = []
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            begun, cpu = time.perf_counter(), time.process_time()
            outcome = verify(store, quick=quick, progress=lambda done, _of, told=told: told.append(done))
            figures[f"{name}_seconds"] = round(time.perf_counter() - begun, 2)
            figures[f"{name}_cpu_seconds"] = round(time.process_time() - cpu, 2)
            figures[f"{name}_more_mib"] = (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            ) // 1024
            if not outcome.clean or told[-1] != asked.files:
                raise SystemExit(f"{name}: {outcome.findings[:2]}, progress ended at {told[-1]}")
        store.ledger.close()
    return command.finish(figures)


if __name__ == "__main__":
    sys.exit(main())
