"""A child that loads files under a limit and prints, for each, how it ended and the most that was ever resident.

    python -m tests.support.peak_memory LIMIT_BYTES WARM_UPS FILE...

The first WARM_UPS files warm up: what they leave resident (libraries, pools) is the base that the others are measured from.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from pathlib import Path

from holdfast.contract import Category, Contract, Integer, Number, Text, Timestamp
from holdfast.control.ingest.ingest import ingest
from holdfast.errors import HoldfastError
from holdfast.feeds import Feed
from holdfast.store import Store
from holdfast.store.sources import Bounded

FEED = Feed(
    "rows",
    Contract(
        Text("id"),
        Timestamp("at", tz="UTC"),
        Category("town", missing="keep"),
        Text("note", missing="keep"),
        *[Number(f"n{number}", unit="1", missing="keep") for number in range(6)],
        Integer("k", missing="keep"),
        key="id",
        event_time="at",
    ),
)


def resident(field: str) -> int:
    """Return VmRSS, VmHWM or VmSize of this process, bytes."""
    found = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)
    )
    return int(found.split()[1]) * 1024


def main(limit_bytes: int, warm_ups: int, files: list[str]) -> None:
    """Load each of `files` into a store of its own."""
    base = 0
    for number, file in enumerate(files):
        if number == warm_ups:
            gc.collect()
            base = resident("VmRSS:")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        with tempfile.TemporaryDirectory() as root:
            store = Store.open(Path(root))
            try:
                result = ingest(store, FEED, "b", Bounded(file, 300.0, limit_bytes), now_us=1)
                outcome = f"loaded {result.rows_loaded}"
            except HoldfastError as error:
                outcome = str(error)
            store.ledger.close()
        print(json.dumps([outcome, resident("VmHWM:") - base]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
