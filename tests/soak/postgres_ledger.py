"""Races and kills of a ledger on PostgreSQL, as many as you like.

    python -m tests.soak.postgres_ledger --processes 4 --batches 40 --kills 20 --seed 7

Each process loads every batch, in an order of its own; meanwhile the postmaster is killed with SIGKILL and started again,
`--kills` times. Prints the counts and the seed, and exits with 1 when a row is lost or there twice.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.files import data_files
from tests.control.ingest import test_postgres_ledger as scenes
from tests.support.postgres import Server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("processes", 4), ("batches", 40), ("kills", 20), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    server = Server.start_new()
    directory = Path(tempfile.mkdtemp(prefix="holdfast-soak-"))
    try:
        server.execute("CREATE DATABASE ledger")
        url, root = server.url("ledger", "postgresql+psycopg"), directory / "store"
        Store.open(root, url).ledger.close()
        paths = scenes._deliveries(directory / "in", options.batches)
        seeded = random.Random(options.seed)
        running = []
        for _ in range(options.processes):
            seeded.shuffle(paths)
            running.append(scenes._start(root, url, paths))
        kills = 0
        while kills < options.kills and any(loader.poll() is None for loader in running):
            time.sleep(seeded.uniform(0.2, 1.0))
            server.kill()
            server.restart()
            kills += 1
        reported = Counter(
            " ".join(line.split()[::2]) for loader in running for line in loader.communicate()[0].splitlines()
        )
        store = Store.open(root, url)
        with store.ledger.read() as connection:
            version = batches.current_version(connection)
            loads = [
                len(batches.loads(connection, BatchId("flights", f"b{n:03}"))) for n in range(options.batches)
            ]
        found = Counter(data_files.read_rows(store, version, "flights")["id"].to_list())
        expected = {1000 * n + row for n in range(options.batches) for row in range(scenes.ROWS)}
        lost, twice = len(expected - found.keys()), sum(count - 1 for count in found.values())
        print(
            f"seed {options.seed}: {options.processes} processes x {options.batches} batches, {kills} kills; {dict(reported)}; "
            f"{len(found)} rows, {lost} lost, {twice} twice, {sum(count != 1 for count in loads)} batches not loaded once"
        )
        store.ledger.close()
        return int(bool(lost or twice or any(count != 1 for count in loads)))
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
