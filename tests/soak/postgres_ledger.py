"""Races and kills of a ledger on PostgreSQL, as many as you like.

    python -m tests.soak.postgres_ledger --processes 4 --batches 40 --kills 20 --seed 7

Each process loads every batch, in an order of its own; meanwhile the postmaster is killed with SIGKILL and started again,
`--kills` times. Prints the counts and the seed, and exits with 1 when a row is lost or there twice.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import Command
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.files import data_files
from tests.control.ingest import test_postgres_ledger as scenes
from tests.support.postgres import Server


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.postgres_ledger", __doc__)
    command.size("--processes", 4, 2, help="loaders")
    command.size("--batches", 40, 4, help="batches, which each loader loads")
    command.size("--kills", 20, 1, help="kills of the postmaster")
    command.option("--seed", type=int, default=7)
    options = command.parse(arguments)
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
        store.ledger.close()
        not_once = sum(count != 1 for count in loads)
        figures = {
            "seed": options.seed, "processes": options.processes, "batches": options.batches, "kills": kills,
            "rows": len(found), "lost": lost, "twice": twice, "batches_not_loaded_once": not_once,
            "responses": dict(reported),
        }  # fmt: skip
        return command.finish(figures, passed=not (lost or twice or not_once))
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
