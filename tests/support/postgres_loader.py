"""A loader process for the tests of PostgreSQL: as loader.py, into a ledger that is named.

    python loader_into.py ROOT LEDGER-URL FILE...

Writes "ACK <batch> <state>" after each acknowledgement and "LOST <code>" after a load whose answer did not come, which it
tries again until it is acknowledged.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from holdfast.control.ingest.ingest import ingest
from holdfast.errors import UnavailableError
from holdfast.store import Store
from tests.support import loader


def main(root: str, url: str, *paths: str) -> None:
    store = None
    for path in map(Path, paths):
        while True:
            try:
                store = store or Store.open(Path(root), url)
                result = ingest(
                    store,
                    loader.FEED,
                    path.stem,
                    path,
                    now_us=time.time_ns() // 1000,
                    aggregates=[loader.AGGREGATE],
                )
            except UnavailableError as error:
                os.write(1, f"LOST {error.code}\n".encode())
                time.sleep(0.05)
                continue
            os.write(1, f"ACK {result.batch} {result.state}\n".encode())
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
